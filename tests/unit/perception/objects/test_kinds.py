from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.perception.objects.kinds import NO_KIND, find_kinds

BOLT, NUT, SCRAP = (0.0, 0.0), (10.0, 0.0), (0.0, 10.0)


def drawn(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Descriptors, owners and truth: one bolt and two nuts per image, in two colours each, and random scraps."""
    rng = np.random.default_rng(seed)
    rows = []
    for image in range(images):
        shade = rng.choice([-1.5, 1.5])
        for truth, place in enumerate([BOLT, NUT, NUT]):
            rows.append((*(np.array(place) + (shade, 0.0) + rng.normal(size=2) * 0.2), image, min(truth, 1)))
        if rng.random() < 0.25:
            rows.append((*(np.array(SCRAP) + rng.normal(size=2) * 2.0), image, NO_KIND))
    found = np.array(rows)
    return found[:, :2], found[:, 2].astype(np.int64), found[:, 3].astype(np.int64)


def test_regular_parts_are_kinds_and_scraps_are_not() -> None:
    descriptors, owners, truth = drawn(40)

    kinds, regularity = find_kinds(descriptors, owners, 40)

    assert len({(int(kind), int(true)) for kind, true in zip(kinds, truth, strict=True)}) == 3
    assert set(kinds[truth == NO_KIND]) == {NO_KIND}
    assert regularity == pytest.approx(0.5 * np.log(13) + 0.5 * np.log(25))


def test_groups_regular_only_together_are_one_kind() -> None:
    # The four screws of an image share one of two shades, so the count per shade is 0 or 4.
    descriptors = np.repeat([[0.0], [8.0]] * 10, 4, axis=0) + np.random.default_rng(1).normal(size=(80, 1)) * 0.1

    kinds, _ = find_kinds(descriptors, np.repeat(np.arange(20), 4), 20)

    assert set(kinds) == {0}


def test_pieces_by_chance_are_of_no_kind() -> None:
    rng = np.random.default_rng(2)
    owners = np.sort(rng.integers(0, 50, size=150))

    kinds, regularity = find_kinds(rng.normal(size=(150, 3)), owners, 50)

    assert set(kinds) == {NO_KIND}
    assert regularity == 0.0


@pytest.mark.parametrize("number", [0, 1])
def test_single_instance_has_no_kind(number: int) -> None:
    kinds, regularity = find_kinds(np.zeros((number, 4)), np.zeros(number, dtype=np.int64), 5)

    assert kinds.tolist() == [NO_KIND] * number
    assert regularity == 0.0
