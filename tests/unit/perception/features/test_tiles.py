from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.encoders import lite_config, pyramid_config
from support.image_bytes import encode

from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Perception
from uniad_ray.perception.features.encoders import FeaturePyramid, FeaturePyramidConfig
from uniad_ray.perception.features.tiles import Tile, reach, tiles

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), dtype=np.uint8)


def levels(config: FeaturePyramidConfig, images: np.ndarray, **more: Any) -> dict[str, torch.Tensor]:
    keys = [str(number) for number in range(len(images))]
    return FeaturePyramid("p", config, "cpu").extract(Perception(keys, images, **more))


def test_tiles_by_hand() -> None:
    one, two = tiles((16, 24), side=24, margin=4, stride=8)
    assert one == Tile((slice(0, 16), slice(0, 20)), (slice(0, 16), slice(0, 16)))
    assert two == Tile((slice(0, 16), slice(12, 24)), (slice(0, 16), slice(16, 24)))


@pytest.mark.parametrize(("size", "side"), [((64, 64), 256), ((640, 96), 256), ((1056, 1504), 512)])
def test_tiles_cover_every_pixel_once_and_are_no_larger_than_asked(size: tuple[int, int], side: int) -> None:
    covered = np.zeros(size, dtype=int)
    for tile in tiles(size, side, margin=40, stride=8):
        covered[tile.kept] += 1
        for seen, kept, length in zip(tile.seen, tile.kept, size, strict=True):
            assert seen.stop - seen.start <= side
            assert seen.start % 8 == kept.start % 8 == 0
            assert kept.start - seen.start >= min(40, kept.start)
            assert seen.stop - kept.stop >= min(40, length - kept.stop)
    assert (covered == 1).all()


def test_reach_by_hand() -> None:
    # Stem 1; blocks of level 0: 2, of level 1: 2 + 4, of level 2: 2 x 4 + 2 x 8; together 33, up to the stride of 8.
    assert reach("tf_efficientnet_lite0", (1, 2)) == (40, 8)
    # Stem 3 (a 7 x 7 kernel), pooling 2; layer 1: four convolutions at stride 4.
    assert reach("resnet18", (1,)) == (24, 4)


def test_networks_that_see_the_whole_image_are_refused() -> None:
    with pytest.raises(ConfigError, match="efficientnet_b0 pools over the whole image"):
        reach("efficientnet_b0", (1, 2))


@pytest.mark.parametrize("tile", [128, 256])
@pytest.mark.parametrize("size", [(256, 416), (160, 160)])
def test_joined_levels_equal_those_of_the_whole_image(tile: int, size: tuple[int, int]) -> None:
    for config in (lite_config(levels=(1, 2), input_size=None), pyramid_config(levels=(0, 1), input_size=None)):
        whole = levels(config, noise(*size))
        joined = levels(config.model_copy(update={"tile": tile}), noise(*size))
        assert joined.keys() == whole.keys()
        for name, values in whole.items():
            assert joined[name].shape == values.shape
            assert joined[name].is_contiguous()
            torch.testing.assert_close(joined[name], values, rtol=1e-5, atol=1e-5)


def test_one_grid_averages_the_finer_levels() -> None:
    config = lite_config(levels=(1, 2), input_size=None, tile=160)
    plain, found = (levels(one, noise(192, 320)) for one in (config, config.model_copy(update={"one_grid": True})))
    assert found["p/level1"].shape == (1, 24, 24, 40)
    cells = plain["p/level1"].unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-1, -2))
    torch.testing.assert_close(found["p/level1"], cells, rtol=1e-5, atol=1e-5)
    assert torch.equal(found["p/level2"], plain["p/level2"])


def test_reduced_images_are_tiled_too() -> None:
    config = lite_config(levels=(1, 2), input_size=256)
    whole = levels(config, noise(300, 500))
    joined = levels(config.model_copy(update={"tile": 160}), noise(300, 500))
    torch.testing.assert_close(joined["p/level2"], whole["p/level2"], rtol=1e-5, atol=1e-5)


def test_a_tile_is_the_same_wherever_it_starts() -> None:
    """A patch of pixels gives the same cells at any place of the image, on both sides of every seam."""
    patch = noise(136, 136, 1)
    config = lite_config(levels=(2,), input_size=None, tile=160)
    found = []
    for top, left in ((0, 0), (64, 128), (72, 168), (248, 376)):
        image = noise(384, 512)
        image[:, top : top + 136, left : left + 136] = patch
        row, column = (top + 40) // 8, (left + 40) // 8
        found.append(levels(config, image)["p/level2"][..., row : row + 7, column : column + 7])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-5)


def test_the_network_sees_no_more_than_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    pyramid = FeaturePyramid("p", lite_config(levels=(1, 2), input_size=None, tile=160), "cpu")
    seen: list[torch.Size] = []
    compute = pyramid._network.forward_intermediates

    def recorded(pixels: torch.Tensor, **options: Any) -> Any:
        seen.append(pixels.shape[-2:])
        return compute(pixels, **options)

    monkeypatch.setattr(pyramid._network, "forward_intermediates", recorded)
    pyramid.extract(Perception(["a"], noise(480, 320)))
    assert max(max(shape) for shape in seen) == 160
    assert len(seen) == 6 * 4


def test_too_small_tiles_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"tile is 80, .* see 40 pixels on each side; use at least 88"):
        FeaturePyramid.fields_of("p", lite_config(levels=(1, 2), tile=80))


class TestOriginals:
    def test_the_file_is_seen_not_the_decoded_image(self) -> None:
        large, small = noise(256, 384), noise(64, 96, 2)
        plain = lite_config(levels=(1, 2), input_size=None)
        config = lite_config(levels=(1, 2), input_size=320, originals=True)
        expected = levels(plain, large)
        for original in (encode(large[0], "PNG"), large[0]):
            found = levels(config, small, originals={"0": original})
            for name, values in expected.items():
                torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-5)

    def test_images_without_a_file_are_enlarged_and_do_not_change_others(self) -> None:
        small = np.concatenate([noise(64, 96, 2), noise(64, 96, 3)])
        config = lite_config(levels=(1,), input_size=320, originals=True)
        both = levels(config, small, originals={"1": noise(200, 300)[0]})["p/level1"]
        assert both.shape == (2, 24, 64, 96)
        alone = levels(config, small[:1])["p/level1"]
        assert torch.equal(both[:1], alone)
        assert not torch.equal(both[1:], levels(config, small[1:])["p/level1"])

    def test_a_bound_is_required(self) -> None:
        with pytest.raises(ValidationError, match="originals needs an input_size"):
            lite_config(originals=True, input_size=None)
