from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from uniad_ray.perception.base import Perception
from uniad_ray.scoring.bundles.gallery import DESCRIPTORS_NAME, PIXELS, TABLE_NAME, Gallery, GallerySample, describe


def batch(first: int, count: int) -> Perception:
    """Distinct noise images, seeded by the number in the key."""
    keys = [f"{number:032x}" for number in range(first, first + count)]
    rngs = [np.random.default_rng(int(key, 16)) for key in keys]
    images = np.stack([rng.integers(0, 256, (160, 160, 3), dtype=np.uint8) for rng in rngs])
    fields = {
        "net/shallow": torch.from_numpy(np.stack([rng.random((2, 8, 8), dtype=np.float32) for rng in rngs])),
        "net/deep": torch.from_numpy(np.stack([rng.random((5, 4, 4), dtype=np.float32) for rng in rngs])),
        "labels": torch.zeros((count, 1, 4, 4), dtype=torch.uint8),
    }
    return Perception(keys, images, fields)


def uris(count: int) -> dict[str, str]:
    return {f"{number:032x}": f"good/{number}.png" for number in range(count)}


def files_of(sizes: list[int], capacity: int = 256, *, reverse: bool = False) -> dict[str, bytes]:
    sample = GallerySample(uris(sum(sizes)), {"net/shallow", "net/deep", "labels"}, capacity)
    starts = list(itertools.accumulate(sizes, initial=0))
    batches = [batch(start, size) for start, size in zip(starts, sizes, strict=False)]
    for perception in reversed(batches) if reverse else batches:
        sample.add(perception)
    return sample.files({"net/deep", "labels"})


def test_neighbours_are_ordered_by_descriptor_distance() -> None:
    gallery = Gallery.from_files(files_of([3, 4]))
    assert gallery is not None
    assert gallery.field == "net/deep"
    assert len(gallery) == 7
    query = batch(5, 1)
    nearest = gallery.nearest(describe(query, gallery.field, 0), 7)
    assert nearest[0].source_uri == "good/5.png"
    assert nearest[0].distance < 1e-3
    # The field is already 4 x 4, so the descriptor is the normalised field.
    wanted = {}
    own = query.fields["net/deep"].flatten() / query.fields["net/deep"].norm()
    for number in range(7):
        other = batch(number, 1).fields["net/deep"].flatten()
        wanted[f"good/{number}.png"] = float((own - other / other.norm()).norm())
    assert [entry.source_uri for entry in nearest] == sorted(wanted, key=wanted.__getitem__)
    assert [entry.distance for entry in nearest] == pytest.approx(sorted(wanted.values()), abs=2e-3)
    picture = Image.open(io.BytesIO(nearest[0].thumbnail))
    assert (picture.format, picture.size) == ("JPEG", (128, 128))


def test_descriptor_depends_on_position() -> None:
    left, right = torch.zeros((1, 3, 8, 8)), torch.zeros((1, 3, 8, 8))
    left[..., :4] = 1.0
    right[..., 4:] = 1.0
    images = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    one, other = (describe(Perception(["a"], images, {"f": values}), "f", 0) for values in (left, right))
    assert float(one @ other) == 0.0
    assert float(one @ one) == pytest.approx(1.0)


def test_sample_is_bounded_and_order_independent() -> None:
    wanted = files_of([12], 5)
    assert files_of([1] * 12, 5, reverse=True) == wanted
    assert files_of([7, 5], 5) == wanted
    gallery = Gallery.from_files(wanted)
    assert gallery is not None
    assert len(gallery) == 5


def test_copies_and_repeats_are_skipped() -> None:
    sample = GallerySample(uris(2), set())
    for _ in range(2):
        sample.add(batch(0, 4))
    gallery = Gallery.from_files(sample.files(set()))
    assert gallery is not None
    assert sorted(entry.source_uri for entry in gallery.nearest(np.zeros(768), 9)) == ["good/0.png", "good/1.png"]


def test_pixels_are_compared_without_extracted_fields() -> None:
    sample = GallerySample(uris(6), {"net/deep"})
    sample.add(batch(0, 6))
    gallery = Gallery.from_files(sample.files(set()))
    assert gallery is not None
    assert gallery.field == PIXELS
    query = batch(3, 1)
    brighter = Perception(query.row_keys, np.clip(query.images.astype(int) + 20, 0, 255).astype(np.uint8))
    assert gallery.nearest(describe(brighter, PIXELS, 0), 1)[0].source_uri == "good/3.png"


def test_missing_gallery_gives_none() -> None:
    assert Gallery.from_files({}) is None
    assert GallerySample({}, set()).files(set()) == {}
    assert set(files_of([2])) == {TABLE_NAME, DESCRIPTORS_NAME}
