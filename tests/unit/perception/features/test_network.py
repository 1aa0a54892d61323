from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.perception.features.network import network_size

SIDES = st.integers(32, 4096)
SIZES = st.tuples(SIDES, SIDES)
INPUTS = st.none() | st.integers(32, 2048)


@pytest.mark.parametrize(
    ("image_size", "input_size", "expected"),
    [
        ((256, 256), 256, (256, 256)),
        ((256, 256), None, (256, 256)),
        ((256, 256), 512, (256, 256)),
        ((640, 640), 256, (256, 256)),
        # The root of 480 x 640 is 554.3: the factor 0.4619 gives 221.7 x 295.6.
        ((480, 640), 256, (224, 288)),
        ((640, 480), 256, (288, 224)),
        ((480, 640), None, (480, 640)),
        ((100, 150), None, (96, 160)),
        ((33, 33), 256, (32, 32)),
        ((40, 4000), 128, (32, 1280)),
        ((40, 4000), 64, (32, 640)),
    ],
)
def test_cnn_gets_multiples_of_32_pixels(
    image_size: tuple[int, int], input_size: int | None, expected: tuple[int, int]
) -> None:
    assert network_size(image_size, input_size) == expected


@pytest.mark.parametrize(
    ("image_size", "input_size", "patch", "expected"),
    [
        ((448, 448), 448, (14, 14), (448, 448)),
        ((64, 64), 224, (8, 8), (224, 224)),
        # The root of 480 x 640 is 554.3: the factor 0.8083 gives 388.0 x 517.3.
        ((480, 640), 448, (14, 14), (392, 518)),
        ((60, 60), 60, (14, 20), (56, 60)),
    ],
)
def test_transformer_gets_whole_patches(
    image_size: tuple[int, int], input_size: int, patch: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert network_size(image_size, input_size, patch, enlarge=True) == expected


@given(SIZES, INPUTS, st.integers(1, 32), st.booleans())
def test_sides_are_positive_multiples(
    image_size: tuple[int, int], input_size: int | None, multiple: int, enlarge: bool
) -> None:
    for side in network_size(image_size, input_size, (multiple, multiple), enlarge=enlarge):
        assert side >= multiple
        assert side % multiple == 0


@given(SIZES, INPUTS)
def test_only_rounding_enlarges(image_size: tuple[int, int], input_size: int | None) -> None:
    for side, own in zip(network_size(image_size, input_size), image_size, strict=True):
        assert side <= max(32, own + 16)


@given(SIZES, st.integers(32, 2048), st.integers(1, 32), st.booleans())
def test_area_and_aspect_ratio_are_kept_up_to_rounding(
    image_size: tuple[int, int], input_size: int, multiple: int, enlarge: bool
) -> None:
    height, width = network_size(image_size, input_size, (multiple, multiple), enlarge=enlarge)
    area = float(input_size**2) if enlarge else min(input_size**2, math.prod(image_size))
    wanted = [side * math.sqrt(area / math.prod(image_size)) for side in image_size]
    for side, exact in zip((height, width), wanted, strict=True):
        assert side == multiple or abs(side - exact) <= multiple / 2 + 1e-6


@given(SIZES, INPUTS, st.booleans())
def test_transposed_image_gives_the_transposed_size(
    image_size: tuple[int, int], input_size: int | None, enlarge: bool
) -> None:
    turned = network_size(image_size[::-1], input_size, enlarge=enlarge)
    assert turned == network_size(image_size, input_size, enlarge=enlarge)[::-1]
