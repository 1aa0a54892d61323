"""Regions: pixels outside change nothing, at any size; wrong files are one line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.normal_images import DrawnNormalImages
from support.profiles import small_config

from uniad_ray.archive.images import decode_image
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.region import RegionMask
from uniad_ray.errors import ConfigError
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.perception.region import PAINT, Region
from uniad_ray.perception.region_files import read_region
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import fit_category
from uniad_ray.scoring.scorer import Verdict
from uniad_ray.sidecars.fingerprints import feature_fingerprints


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def blob(shape: tuple[int, int], seed: int) -> np.ndarray:
    """A mask with a random rectangle and without a random one."""
    rng = np.random.default_rng(seed)
    height, width = shape
    mask = np.zeros(shape, dtype=bool)
    top, left = rng.integers(0, height // 4), rng.integers(0, width // 4)
    mask[top : top + height // 2, left : left + width // 2] = True
    mask[top + height // 8 : top + height // 6, left : left + width // 5] = False
    return mask


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", [(48, 64), (150, 200), (37, 91)])
def test_pixels_outside_change_no_painted_pixel(seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(100 + seed)
    shape = (150, 200)
    mask = blob(shape, seed)
    region = Region(RegionMask.of(mask), size)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    other = np.where(mask[..., None], image, rng.integers(0, 256, image.shape, dtype=np.uint8))
    painted = [region.painted(decode_image(png(pixels), size)) for pixels in (image, other)]
    assert np.array_equal(painted[0], painted[1])
    assert (painted[0][~region.inside] == PAINT).all()
    assert np.array_equal(painted[0][region.inside], decode_image(png(image), size)[region.inside])
    # The region is not eaten up: what is lost is a rim.
    assert region.inside.mean() > 0.6 * mask.mean()


def test_filled_images_show_the_nearest_pixel_inside() -> None:
    mask = np.zeros((6, 8), dtype=bool)
    mask[:, :5] = True
    region = Region(RegionMask.of(mask), (6, 8))
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    # The columns 0 to 3 are inside: a pixel is if both of its neighbours are.
    assert np.array_equal(region.filled(image), image[:, [0, 1, 2, 3, 3, 3, 3, 3]])


def test_originals_are_painted_when_they_are_read() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:15, 5:25] = True
    region = Region(RegionMask.of(mask), (10, 15))
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    painted = region.originals({"a": png(image), "b": image})
    expected = np.where(mask[..., None], image, PAINT)
    assert np.array_equal(np.asarray(painted["a"]), expected)
    assert np.array_equal(np.asarray(painted["b"]), expected)
    assert list(painted) == ["a", "b"]
    with pytest.raises(KeyError):
        painted["c"]


def test_cells_and_sizes_by_hand() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[:, :6] = True
    region = Region(RegionMask.of(mask), (8, 8))
    # A pixel is inside if both of its neighbours are.
    assert region.inside[0].tolist() == [True] * 5 + [False] * 3
    assert region.cells((2, 2)).tolist() == [[True, True]] * 2
    assert region.cells((4, 4))[0].tolist() == [True, True, True, False]
    assert region.at((4, 4))[0].tolist() == [True, True, True, False]
    assert Region(RegionMask.of(mask), (8, 8)).digest == region.digest
    assert Region(RegionMask.of(~mask), (8, 8)).digest != region.digest


def test_polygons_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "region.yaml"
    path.write_text("width: 40\nheight: 20\ninclude: [[[0, 0], [29, 0], [29, 19], [0, 19]]]\n"
                    "exclude: [[[0, 0], [9, 0], [9, 4], [0, 4]]]\n", "utf-8")  # fmt: skip
    expected = np.zeros((20, 40), dtype=bool)
    expected[:, :30] = True
    expected[:5, :10] = False
    assert np.array_equal(read_region(str(path)).pixels, expected)
    path.write_text("width: 40\nheight: 20\nexclude: [[[0, 0], [9, 0], [9, 4], [0, 4]]]\n", "utf-8")
    assert read_region(str(path)).pixels.sum() == 40 * 20 - 50
    picture = tmp_path / "region.png"
    picture.write_bytes(png(expected.astype(np.uint8) * 7))
    assert np.array_equal(read_region(str(picture)).pixels, expected)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.png", b"no image", "a.png: the region cannot be read: "),
        ("a.png", png(np.zeros((4, 4), dtype=np.uint8)), "a.png: no pixel of the region counts"),
        ("a.yaml", b"width: 4\nheight: 4\ninclud: []\n", "a.yaml: includ: unknown key; allowed: exclude, height"),
        ("a.yaml", b"width: 4\nheight: 4\nexclude: [[[0, 0], [9, 0], [9, 9], [0, 9]]]\n", "no pixel of the region"),
        ("a.yaml", b"width: 4\nheight: 4\ninclude: [[[0, 0], [1, 1]]]\n", "include.0: "),
        ("a.yaml", b"width: 4\nheight: 4\ninclude: [[[.nan, 0], [1, 1], [0, 3]]]\n", "include.0.0.0: "),
        ("a.yaml", b"width: 60000\nheight: 60000\n", "the images have 60000 x 60000 pixels; at most 178956970"),
        ("a.yaml", b"- 1\n", "expected width, height, include and exclude"),
        ("a.yaml", b"width: [", "not valid YAML"),
        ("a.yml", b"\xff\xfe\xff", "the region cannot be read"),
    ],
)
def test_wrong_files_are_one_line(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError) as raised:
        read_region(str(tmp_path / name))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_region(str(tmp_path / "none.png"))


def test_region_that_vanishes_is_refused() -> None:
    thin = np.zeros((100, 100), dtype=bool)
    thin[50] = True
    with pytest.raises(ConfigError, match="nothing is left of the region at 20 x 20 pixels"):
        Region(RegionMask.of(thin), (20, 20))


def test_outside_nothing_is_remembered_or_scored(tmp_path: Path) -> None:
    """Noise outside, another in each image: scores and bundles are those of images without it."""
    mask = np.zeros((64, 64), dtype=bool)
    mask[8:56, 8:44] = True
    config = small_config("expert_sets.own=[patch]", "expert_set=own", "calibration.folds=2").model_copy(
        update={"regions": {"part": RegionMask.of(mask)}}
    )

    class Noisy(DrawnNormalImages):
        def image(self, index: int) -> np.ndarray:
            rng = np.random.default_rng(500 + index)
            noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            return np.where(mask[..., None], super().image(index), noise)

    quiet, noisy = (fit_category(images, config) for images in (DrawnNormalImages(6), Noisy(6)))
    assert quiet.calibration == noisy.calibration
    assert quiet.files == noisy.files
    store = BundleStore(Location.parse(tmp_path))
    manifest = store.write("part", quiet.config, quiet.calibration, {"extractors": quiet.extractors}, quiet.files)
    store.publish("part", manifest.version)
    bundle = store.load("part")
    assert bundle.manifest.config.region == RegionMask.of(mask)
    scorer = bundle.scorer()
    bundle.check_reference(scorer)
    images = np.stack([DrawnNormalImages(9).image(8), Noisy(9).image(8)])
    inner = images[0].copy()
    inner[20:30, 20:30] = 255
    first, second, damaged = scorer.score(["a", "a2", "b"], np.stack([*images, inner]))
    assert isinstance(first, Verdict)
    assert isinstance(second, Verdict)
    assert isinstance(damaged, Verdict)
    assert first.score == second.score
    assert damaged.score > first.score
    assert first.anomaly_map is not None
    bare = PerceptionPipeline(scorer.pipeline.extractors)
    digests = [feature_fingerprints(pipeline, (64, 64), bundle.state_digests) for pipeline in (scorer.pipeline, bare)]
    assert digests[0].keys() == digests[1].keys() != set()
    assert not set(digests[0].values()) & set(digests[1].values())
    outside = ~Region(RegionMask.of(mask), (64, 64)).cells((first.anomaly_map.shape[0], first.anomaly_map.shape[1]))
    assert outside.any()
    # In a map of a normal image most values are negative, so 0 would be the hottest place.
    assert first.anomaly_map.min() < 0
    assert (first.anomaly_map[outside] == first.anomaly_map.min()).all()
    assert (first.anomaly_map[~outside] > first.anomaly_map.min()).any()
