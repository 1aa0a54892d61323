"""Gallery of normal images in a bundle, to show the most similar ones next to a scored image."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table
from uniad_ray.perception.base import Perception
from uniad_ray.perception.sampling.image_sample import ImageSample

if TYPE_CHECKING:
    import torch

MOST_IMAGES: Final = 256
"""Maximum number of images. A viewer shows only the nearest few, and more would enlarge the bundle."""
THUMBNAIL_SIDE: Final = 128
TABLE_NAME: Final = "gallery.parquet"
DESCRIPTORS_NAME: Final = "gallery.safetensors"
PIXELS: Final = "pixels"
_CELLS: Final = 4
_PIXEL_CELLS: Final = 16
_SEED: Final = 20


@dataclass(frozen=True)
class NearestNormal:
    """A normal image that is similar to a scored one.

    Attributes:
        source_uri: URI that it was ingested from.
        distance: Euclidean distance of the descriptors; comparable only within one category.
        thumbnail: JPEG of the decoded image, at most 128 pixels wide and high.
    """

    source_uri: str
    distance: float
    thumbnail: bytes


class _Member(NamedTuple):
    """One image of the sample."""

    thumbnail: bytes
    descriptors: Mapping[str, np.ndarray]


class GallerySample:
    """Sample normal images during extraction; the sample is independent of order and batches."""

    def __init__(self, source_uris: Mapping[str, str], fields: Collection[str], capacity: int = MOST_IMAGES) -> None:
        """Start with an empty sample.

        Args:
            source_uris: URIs by row key; images without one, such as altered copies, are skipped.
            fields: Candidate fields for the comparison; only floating-point tensors are used.
            capacity: Maximum number of images.
        """
        self._source_uris = source_uris
        self._fields = frozenset(fields)
        self._sample: ImageSample[_Member] = ImageSample(capacity, _SEED)

    def add(self, perception: Perception) -> None:
        """Offer a batch; a repeated image counts once."""
        lacking = perception.lacking(self._fields)
        for row, key in enumerate(perception.row_keys):
            if key in lacking or key not in self._source_uris or not self._sample.wants(key):
                continue
            descriptors = {
                name: describe(perception, name, row)
                for name, values in perception.fields.items()
                if name in self._fields and values.is_floating_point()
            }
            descriptors[PIXELS] = describe(perception, PIXELS, row)
            self._sample.add(key, _Member(_thumbnail(perception.images[row]), descriptors))

    def files(self, fields: Collection[str]) -> dict[str, bytes]:
        """Encode the gallery as files of a bundle; empty without images.

        Args:
            fields: Fields that are extracted at scoring. The one with the largest descriptor is compared, or the pixels
                if none was collected.
        """
        members = self._sample.items()
        if not members:
            return {}
        compared = next(iter(members.values())).descriptors
        chosen = max((name for name in compared if name in fields), key=lambda n: (len(compared[n]), n), default=PIXELS)
        schema = dataset_schema("gallery_image")
        table = schema.table(
            {
                "row_key": list(members),
                "source_uri": [self._source_uris[key] for key in members],
                "thumbnail": [member.thumbnail for member in members.values()],
            }
        )
        descriptors = np.stack([member.descriptors[chosen] for member in members.values()]).astype(np.float16)
        return {TABLE_NAME: encode_table(schema, table), DESCRIPTORS_NAME: save_safetensors({chosen: descriptors})}


class Gallery:
    """Nearest-neighbour search in the normal images of a bundle.

    Attributes:
        field: Compared field, or `PIXELS`.
    """

    def __init__(
        self, field: str, descriptors: np.ndarray, source_uris: Sequence[str], images: Sequence[bytes]
    ) -> None:
        """Take N images.

        Args:
            field: Field of the descriptors.
            descriptors: float, shape (N, D).
            source_uris: URIs of the N images.
            images: Thumbnails of the N images.
        """
        self.field = field
        self._descriptors = descriptors.astype(np.float32)
        self._source_uris = source_uris
        self._images = images

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Gallery | None:
        """Read the gallery of a bundle; None if the bundle has none.

        Raises:
            ArchiveError: The table does not match its schema.
        """
        if TABLE_NAME not in files:
            return None
        table = pq.read_table(io.BytesIO(files[TABLE_NAME]))
        dataset_schema("gallery_image").check(table, source=TABLE_NAME)
        ((field, descriptors),) = load_safetensors(files[DESCRIPTORS_NAME]).items()
        columns = table.to_pydict()
        return cls(field, descriptors, columns["source_uri"], columns["thumbnail"])

    def __len__(self) -> int:
        """Number of images."""
        return len(self._source_uris)

    def nearest(self, descriptor: np.ndarray, most: int) -> list[NearestNormal]:
        """Return the images with the nearest descriptors, nearest first.

        Args:
            descriptor: Descriptor of the scored image, shape (D,); see `describe`.
            most: Maximum number of images.
        """
        distances = np.linalg.norm(self._descriptors - descriptor, axis=1)
        order = np.argsort(distances, kind="stable")[:most]
        return [NearestNormal(self._source_uris[n], float(distances[n]), self._images[n]) for n in order]


def describe(perception: Perception, field: str, row: int) -> np.ndarray:
    """Compute the descriptor of one image: a field or the pixels, averaged over a coarse grid to keep position.

    Args:
        perception: The batch.
        field: A field of shape (N, C, h, w), or `PIXELS`.
        row: Position of the image in the batch.

    Returns:
        float32, shape (D,), with norm 1, or 0 if all values are 0.
    """
    import torch

    if field == PIXELS:
        pixels = torch.from_numpy(perception.images[row]).permute(2, 0, 1).float() / 255
        values = _cell_means(pixels - pixels.mean(), _PIXEL_CELLS)
    else:
        values = _cell_means(perception.fields[field][row].float(), _CELLS)
    flat = values.flatten().cpu().numpy()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-12), dtype=np.float32)


def _cell_means(values: torch.Tensor, cells: int) -> torch.Tensor:
    from torch.nn.functional import adaptive_avg_pool2d

    height, width = values.shape[-2:]
    return adaptive_avg_pool2d(values[None], (min(cells, height), min(cells, width)))[0]


def _thumbnail(image: np.ndarray) -> bytes:
    """Encode an image, uint8 of shape (H, W, 3), as a small JPEG."""
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=85)
    return sink.getvalue()
