"""Large images: a defect that the decoded image does not show is found in the file, wherever it is scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.image_bytes import encode
from support.profiles import small_config
from support.scene_images import GivenNormalImages

from uniad_ray.archive.image_size import reduced
from uniad_ray.config.model import FitConfig
from uniad_ray.model import load_model
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import fit_category
from uniad_ray.scoring.online_scorer import build_online_scorer

SIDE, DECODED = 384, 64


def file_image(number: int) -> np.ndarray:
    """A weave with a little noise: fine enough to vanish in the decoded image."""
    rng = np.random.default_rng(number)
    rows, columns = np.indices((SIDE, SIDE))
    weave = 120 + 30 * ((rows // 4 + columns // 4) % 2)
    return np.clip(weave[..., None] + rng.normal(0, 3, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def with_defect(image: np.ndarray) -> np.ndarray:
    """The weave of 20 x 20 pixels is shifted: 0.3 % of the image, and the mean colour stays."""
    damaged = image.copy()
    damaged[200:220, 304:324] = image[204:224, 304:324]
    return damaged


class FiledNormalImages(GivenNormalImages):
    """Decoded images, and their larger files."""

    def __init__(self, count: int) -> None:
        files = [file_image(number) for number in range(count)]
        super().__init__([reduced(image, DECODED) for image in files])
        self.originals = {row.row_key: encode(image, "PNG") for row, image in zip(self.rows, files, strict=True)}


def large_config(*overrides: str) -> FitConfig:
    config = small_config(
        "expert_set=patch-large",
        "large_images.pixels=100000",
        "large_images.map_size=96",
        "extractors.large.config.input_size=384",
        "extractors.large.config.tile=256",
        "experts.patch_large.config.memory_size=500",
        "experts.patch_large.config.candidates=4000",
        "experts.patch_large.config.index={kind: flat}",
        "calibration.folds=2",
        *overrides,
    )
    return config.for_images(SIDE, SIDE)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published bundle."""
    root = tmp_path_factory.mktemp("large")
    fitted = fit_category(FiledNormalImages(6), large_config())
    store = BundleStore(str(root))
    lineage = {"archive": {"uri": "given images", "digest": "0" * 64}, "extractors": fitted.extractors}
    store.publish("weave", store.write("weave", fitted.config, fitted.calibration, lineage, fitted.files).version)
    return root


def test_a_defect_that_the_decoded_image_hides_is_found_everywhere(bundles: Path, tmp_path: Path) -> None:
    normal, damaged = file_image(100), with_defect(file_image(100))
    assert np.abs(reduced(normal, DECODED).astype(int) - reduced(damaged, DECODED)).max() <= 8
    model = load_model(bundles, "weave", device="cpu")
    Image.fromarray(damaged).save(tmp_path / "damaged.png")
    good, bad = model.score(normal), model.score(tmp_path / "damaged.png")
    assert bad.raw["patch_large"] > 2 * good.raw["patch_large"]
    assert bad.anomaly_map is not None
    assert bad.anomaly_map.shape == (96, 96)
    row, column = np.unravel_index(np.argmax(bad.anomaly_map), bad.anomaly_map.shape)
    assert (row / 96 * SIDE, column / 96 * SIDE) == pytest.approx((210, 314), abs=16)

    bundle = BundleStore(str(bundles)).load("weave")
    data = encode(damaged, "PNG")
    (night,) = bundle.scorer().score_encoded(["a"], [data])
    decoded = reduced(damaged, DECODED)[None]
    (day,) = build_online_scorer(bundle).begin(["a"], decoded, {"a": data})
    assert night.score == bad.score  # type: ignore[union-attr]
    assert day.verdict.score == bad.score  # type: ignore[union-attr]


def test_images_with_the_same_decoded_pixels_keep_their_own_files(bundles: Path) -> None:
    model = load_model(bundles, "weave", device="cpu")
    # Both decode to the same pixels.
    plain = np.full((SIDE, SIDE, 3), 128, dtype=np.uint8)
    striped = plain.copy()
    striped[::2], striped[1::2] = 118, 138
    together = [verdict.score for verdict in model.score_many([plain, striped, plain])]
    assert together == [model.score(image).score for image in (plain, striped, plain)]
    assert together[0] != together[1]


def test_a_loaded_bundle_gives_the_scores_of_its_fit(bundles: Path) -> None:
    bundle = BundleStore(str(bundles)).load("weave")
    bundle.check_reference(bundle.scorer())


def test_synthetic_anomalies_keep_the_detail_of_the_file() -> None:
    """Enlarged from the decoded image, they would all differ from the bank everywhere."""
    selection = "fusions.patch-large.selection={surface: {base: [patch, patch_large]}, images: 2}"
    fitted = fit_category(FiledNormalImages(6), large_config(selection))
    decided = fitted.calibration.selection
    assert decided is not None
    found = decided.experts["patch_large"].auroc
    assert found["surface"] > 0.6
    scores = fitted.calibration.experts["patch_large"]
    assert scores.deviation > 0
