"""Text descriptions of images, computed from their components without a language model."""

from __future__ import annotations

import bisect
import colorsys
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from pydantic import Field
from scipy import ndimage

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import Perception

_MOST_SAMPLES_A_SIDE: Final = 64

_LOG_SIZE_BORDERS: Final = tuple(math.log2(share) for share in (0.01, 0.05, 0.2, 0.5))
_SIZES: Final = ("tiny", "small", "medium", "large", "dominant")
_PERCENT: Final = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 90)
_PERCENT_WORDS: Final = tuple(f"{percent:g}" for percent in _PERCENT)
_LOG_PERCENT_BORDERS: Final = tuple(math.log2(a * b / 1e4) / 2 for a, b in itertools.pairwise(_PERCENT))
_THIRDS: Final = (1 / 3, 2 / 3)
_ROWS: Final = ("top", "middle", "bottom")
_COLUMNS: Final = ("left", "centre", "right")
_OFFSET_BORDERS: Final = (-0.1, 0.1)
_SIDEWAYS: Final = ("left of", "in line with", "right of")
_UPRIGHT: Final = ("above", "level with", "below")

# Even at maximum softness, the margins of two neighbouring borders must not overlap.
_PLACE_MARGIN: Final = 0.03
_SIZE_MARGIN: Final = math.log2(1.08)
_BRIGHTNESS_MARGIN: Final = 0.03
_HUE_MARGIN: Final = 5 / 360

_CHROMA_BORDER: Final = (0.12,)
_GREY_BORDERS: Final = (0.15, 0.4, 0.65, 0.9)
_GREYS: Final = ("black", "dark grey", "grey", "light grey", "white")
_HUE_BORDERS: Final = tuple(degrees / 360 for degrees in (15, 45, 70, 165, 200, 260, 290, 345))
_HUES: Final = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "red")
_SHADE_BORDER: Final = (0.5,)
_SHADES: Final = ("dark", "bright")


class ComponentDescriberConfig(StrictModel):
    """Options of the description.

    Attributes:
        components: Name of the extractor with the label maps.
        softness: Width of the zone around a border between two words in which both are given. At 1: 3 % of the image's
            side, 8 % of a size, 3 % of the brightness range and 5 degrees of hue. 0 always gives one word.
        smallest_piece: Minimum area of a counted piece, as a fraction of the image. Pieces below twice this area make
            the count uncertain.
        most_pieces: Positions are omitted for components with more pieces than this.
        relations: Describe the relative position of every pair of components.
    """

    components: str = "teacher_components"
    softness: float = Field(default=1.0, ge=0.0, le=1.5)
    smallest_piece: float = Field(default=0.001, gt=0.0, le=0.5)
    most_pieces: int = Field(default=4, ge=1, le=100)
    relations: bool = True


@dataclass(frozen=True)
class _Place:
    """A point, in fractions of the image's height and width."""

    row: float
    column: float


class ComponentDescriber:
    """Describes the components of an image in sentences of fixed form and order (UniAD, section 3.3, without a model).

    Each sentence states one fact: a component's size, colour, pieces or position, or the relative position of two
    components. A value near the border between two words gives both (`small or medium`). A small change of the image
    therefore changes at most one word at a time.

    Provides `{name}/text`: N texts.
    """

    config_model: ClassVar[type[ComponentDescriberConfig]] = ComponentDescriberConfig

    def __init__(self, name: str, config: ComponentDescriberConfig, device: str) -> None:  # noqa: ARG002
        """Stores the options; nothing is learned or loaded."""
        self.name = name
        self.config = config
        self._labels = f"{config.components}/labels"
        self._similarity = f"{config.components}/similarity"
        self.needs = frozenset({self._labels, self._similarity})
        self.provides = self.fields_of(name, config)

    @classmethod
    def fields_of(cls, name: str, config: ComponentDescriberConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields."""
        return frozenset({f"{name}/text"})

    def extract(self, perception: Perception) -> dict[str, Sequence[str]]:
        """Describes each image independently."""
        clusters = perception.fields[self._similarity].shape[1]
        label_maps = perception.fields[self._labels][:, 0].cpu().numpy()
        texts = [
            describe_components(labels, image, clusters, self.config)
            for labels, image in zip(label_maps, perception.images, strict=True)
        ]
        return {f"{self.name}/text": texts}

    def lineage(self) -> dict[str, Any]:
        """All options that affect the texts."""
        return self.config.model_dump(mode="json")


def describe_components(labels: np.ndarray, image: np.ndarray, clusters: int, config: ComponentDescriberConfig) -> str:
    """Describes one image.

    Sizes count every pixel; colours, pieces and positions use at most 64 x 64 evenly spaced pixels.

    Args:
        labels: uint8, shape (H, W), values below `clusters`.
        image: uint8, shape (H, W, 3), RGB.
        clusters: The number of components K.
        config: Options of the description.

    Returns:
        The sentences of component 0, component 1 and so on, then those of the pairs.
    """
    shares = np.bincount(labels.ravel(), minlength=clusters) / labels.size
    stride = math.ceil(max(labels.shape) / _MOST_SAMPLES_A_SIDE)
    samples = labels[stride // 2 :: stride, stride // 2 :: stride]
    colours = image[stride // 2 :: stride, stride // 2 :: stride]
    text: list[str] = []
    places: dict[int, _Place] = {}
    for component in range(clusters):
        subject = f"Component {component}"
        mask = samples == component
        if not mask.any():
            text.append(f"{subject} is absent.")
            continue
        red, green, blue = colours[mask].mean(axis=0) / 255
        text += [
            f"{subject} is {_size(shares[component], config.softness)}.",
            f"{subject} is {colour_words(red, green, blue, config.softness)}.",
            *(f"{subject} {fact}." for fact in _pieces(mask, config)),
        ]
        rows, columns = np.nonzero(mask)
        places[component] = _place(rows, columns, mask.shape)
    if config.relations:
        margin = _PLACE_MARGIN * config.softness
        for (first, here), (second, there) in itertools.combinations(places.items(), 2):
            sideways = soft_words(here.column - there.column, _OFFSET_BORDERS, _SIDEWAYS, margin)
            upright = soft_words(here.row - there.row, _OFFSET_BORDERS, _UPRIGHT, margin)
            text += [f"Component {first} is {relation} component {second}." for relation in (sideways, upright)]
    return " ".join(text)


def soft_words(value: float, borders: Sequence[float], words: Sequence[str], margin: float) -> str:
    """The word for a value; near a border, both neighbouring words.

    Args:
        value: The value.
        borders: B values, ascending, more than two margins apart.
        words: B + 1 words: below the first border, between the first and the second, and so on.
        margin: Maximum distance to a border at which both words are given.
    """
    low = words[bisect.bisect_right(borders, value - margin)]
    high = words[bisect.bisect_right(borders, value + margin)]
    return low if low == high else f"{low} or {high}"


def colour_words(red: float, green: float, blue: float, softness: float) -> str:
    """The common name of a colour.

    Args:
        red: sRGB red, in 0..1.
        green: sRGB green, in 0..1.
        blue: sRGB blue, in 0..1.
        softness: See `ComponentDescriberConfig`.
    """
    margin = _BRIGHTNESS_MARGIN * softness
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    grey = soft_words(value, _GREY_BORDERS, _GREYS, margin)
    shade = soft_words(value, _SHADE_BORDER, _SHADES, margin)
    colourful = f"{shade} {soft_words(hue, _HUE_BORDERS, _HUES, _HUE_MARGIN * softness)}"
    return soft_words(saturation * value, _CHROMA_BORDER, (grey, colourful), margin)


def _size(share: float, softness: float) -> str:
    """The size as a word and as a percentage."""
    margin = _SIZE_MARGIN * softness
    word = soft_words(math.log2(share), _LOG_SIZE_BORDERS, _SIZES, margin)
    percent = soft_words(math.log2(share), _LOG_PERCENT_BORDERS, _PERCENT_WORDS, margin)
    return f"{word}, about {percent} percent of the image"


def _pieces(mask: np.ndarray, config: ComponentDescriberConfig) -> list[str]:
    """The number and the positions of a component's pieces, as facts."""
    pieces, count = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:] / mask.size
    counted = np.flatnonzero(sizes >= config.smallest_piece) + 1
    certain = int((sizes >= 2 * config.smallest_piece).sum())
    number = str(certain) if certain == len(counted) else f"{certain} or {len(counted)}"
    facts = [f"has {_counted(number)}"]
    if len(counted) <= config.most_pieces:
        rows, columns = np.nonzero(mask)
        owners = pieces[rows, columns]
        where = Counter(
            _place_words(_place(rows[owners == piece], columns[owners == piece], mask.shape), config.softness)
            for piece in counted
        )
        facts += [f"has {_counted(str(times))} at the {place}" for place, times in sorted(where.items())]
    return facts


def _counted(number: str) -> str:
    return f"{number} {'piece' if number == '1' else 'pieces'}"


def _place(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...]) -> _Place:
    """The centroid of some pixels."""
    return _Place((float(rows.mean()) + 0.5) / shape[0], (float(columns.mean()) + 0.5) / shape[1])


def _place_words(place: _Place, softness: float) -> str:
    margin = _PLACE_MARGIN * softness
    row = soft_words(place.row, _THIRDS, _ROWS, margin)
    return f"{row} {soft_words(place.column, _THIRDS, _COLUMNS, margin)}"
