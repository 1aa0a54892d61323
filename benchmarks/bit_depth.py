"""Faint defects in unshifted 12-bit images: image AUROC of the patch memory with and without a value range.

For each seed, the script draws a product in grey, as a camera with 12 bits sees it at a short exposure that uses a
fifth of its range, with noise. Half of the test images have a faint darker or brighter spot. Two bundles are fitted
on the same 16-bit PNG files: `before` without a value range, as older versions decode them, and `after` with the
range that a fit finds. `contrast` is the depth of the spot in values of 4096. The script prints one JSON document,
and each product on the error output as it goes. It needs no Ray.

    python benchmarks/bit_depth.py --seeds 100 101 102 103
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from uniad_ray.archive.images import decode_image
from uniad_ray.archive.scenes.products.product import draw_image, draw_product
from uniad_ray.archive.value_range import Seen, choose_range
from uniad_ray.config.loading import load_config
from uniad_ray.config.value_range import ValueRange
from uniad_ray.metrics.image import image_auroc
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import fit_category
from uniad_ray.scoring.fitting.perceptions import NormalImage
from uniad_ray.scoring.scorer import Verdict

_SIDE = 256
_NOISE = 4.0
_RADIUS = 11
_CAMERA = (300, 1100)
"""Values of black and white, of 4096."""


class GivenImages:
    """Encoded normal images in memory, decoded in a value range."""

    def __init__(self, encoded: Sequence[bytes], value_range: ValueRange | None) -> None:
        """Take the files."""
        self._encoded = encoded
        self._value_range = value_range
        self.originals: dict[str, bytes] = {}
        self.rows = [NormalImage(f"{i:032d}", f"{i:064d}", "train") for i in range(len(encoded))]

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield decoded images by index."""
        for index in indices:
            yield index, decode_image(self._encoded[index], (_SIDE, _SIDE), value_range=self._value_range)


def main() -> None:
    """Measure all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102, 103], help="Seeds of the products.")
    parser.add_argument("--train", type=int, default=24, help="Number of normal images in each fit.")
    parser.add_argument("--test", type=int, default=32, help="Number of test images; half of them get a spot.")
    parser.add_argument("--contrast", type=float, default=150.0, help="Depth of the spots, of 4096 values.")
    options = parser.parse_args()
    products = [measure(seed, options.train, options.test, options.contrast) for seed in options.seeds]
    means = {name: round(float(np.mean([one[name] for one in products])), 1) for name in ("before", "after")}
    print(json.dumps({**vars(options), "products": products, "mean": means}, indent=1))


def measure(seed: int, train: int, test: int, contrast: float) -> dict[str, object]:
    """Fit and score one product in both ways; returns image AUROC in percent, and the range."""
    product = draw_product(seed)
    normal = [seen(draw_image(product, "train", "good", index).image, index) for index in range(train)]
    good = [seen(draw_image(product, "test", "good", index).image, 10_000 + index) for index in range(test)]
    spotted = [with_spot(image, contrast, index) for index, image in enumerate(good)]
    # The spots are on other images than the normal ones, so that no pair differs in the spot alone.
    images, labels = [*good[: test // 2], *spotted[test // 2 :]], [False] * (test // 2) + [True] * (test - test // 2)
    found = choose_range(Seen(np.bincount(np.ravel(normal), minlength=65536), has_others=False))
    files, normal_files = [png(one) for one in images], [png(one) for one in normal]
    areas = {
        "before": area(normal_files, files, labels, None),
        "after": area(normal_files, files, labels, found),
    }
    entry = {"seed": seed, "value_range": found, **areas}
    print(json.dumps(entry), file=sys.stderr, flush=True)
    return entry


def area(normal: list[bytes], images: list[bytes], labels: list[bool], value_range: ValueRange | None) -> float:
    """Fit a bundle, score files with it, and return the image AUROC in percent."""
    config = load_config("embedded", ["expert_set=patch", f"image_size=[{_SIDE}, {_SIDE}]"])
    config = config.model_copy(update={"value_range": value_range})
    fitted = fit_category(GivenImages(normal, value_range), config)
    with tempfile.TemporaryDirectory() as folder:
        store = BundleStore(folder)
        lineage = {"archive": {"uri": "drawn", "digest": "0" * 64}, "extractors": fitted.extractors}
        written = store.write("product", fitted.config, fitted.calibration, lineage, fitted.files)
        verdicts = (
            store.load("product", written.version).scorer().score_encoded([str(i) for i in range(len(images))], images)
        )
    scores = [verdict.score for verdict in verdicts if isinstance(verdict, Verdict)]
    return round(100 * float(image_auroc(np.array(labels), np.array(scores)) or 0.0), 1)


def seen(image: np.ndarray, seed: int) -> np.ndarray:
    """A drawn image as the camera sees it: uint16, shape (256, 256), values below 4096."""
    grey = Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    black, white = _CAMERA
    values = black + np.asarray(grey, dtype=np.float64) / 255 * (white - black)
    noisy = values + np.random.default_rng(seed).normal(0, _NOISE, values.shape)
    return np.clip(noisy.round(), 0, 4095).astype(np.uint16)


def with_spot(image: np.ndarray, contrast: float, seed: int) -> np.ndarray:
    """The image with a soft spot, alternately darker and brighter, at a random place."""
    rng = np.random.default_rng(seed)
    spot = np.zeros(image.shape)
    row, column = rng.integers(3 * _RADIUS, _SIDE - 3 * _RADIUS, 2)
    y, x = np.mgrid[:_SIDE, :_SIDE]
    spot[np.hypot(y - row, x - column) < _RADIUS] = contrast * (1 if seed % 2 else -1)
    return np.clip(image + gaussian_filter(spot, 1).round(), 0, 4095).astype(np.uint16)


def png(values: np.ndarray) -> bytes:
    """A grey PNG with 16 bits."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
