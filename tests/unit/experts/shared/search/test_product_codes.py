from __future__ import annotations

from collections.abc import Iterator

import faiss
import numpy as np
import pytest

from uniad_ray.errors import BundleError
from uniad_ray.experts.shared.search.product_codes import ProductCodes


def vectors(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def decoded(codes: ProductCodes, dimension: int) -> np.ndarray:
    """Decodes vectors from codes and codebooks, one by one."""
    arrays = codes.arrays()
    out = []
    for row in arrays["codes"]:
        numbers = [half for byte in row for half in (byte & 15, byte >> 4)]
        parts = [book[number] for book, number in zip(arrays["codebooks"], numbers, strict=False)]
        out.append(np.concatenate(parts)[:dimension])
    return np.array(out)


@pytest.fixture
def threads() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    yield
    faiss.omp_set_num_threads(before)


@pytest.mark.parametrize(("dimension", "length"), [(12, 2), (12, 4), (5, 2), (7, 3)])
def test_subvectors_get_their_nearest_centroid(dimension: int, length: int) -> None:
    bank = vectors(300, dimension)

    codes = ProductCodes.of(bank, length)

    books = codes.arrays()["codebooks"]
    padded = np.pad(bank, ((0, 0), (0, len(books) * length - dimension))).reshape(300, len(books), length)
    expected = [
        np.concatenate(
            [book[np.linalg.norm(book - part, axis=1).argmin()] for book, part in zip(books, row, strict=True)]
        )
        for row in padded
    ]
    np.testing.assert_array_equal(decoded(codes, dimension), np.array(expected)[:, :dimension])


@pytest.mark.parametrize(("dimension", "length"), [(24, 2), (9, 2), (24, 4)])
def test_candidates_have_the_nearest_codes(dimension: int, length: int) -> None:
    codes, queries = ProductCodes.of(vectors(400, dimension), length), vectors(30, dimension, seed=1)

    found = codes.nearest(queries, 20)

    distances = np.linalg.norm(queries[:, None] - decoded(codes, dimension)[None], axis=2)
    # FAISS rounds code distances to a byte, so candidates of similar distance may swap places.
    allowed = 1.05 * np.sort(distances, axis=1)[:, 19]
    assert found.shape == (30, 20)
    assert all(len(set(row)) == 20 for row in found.tolist())
    assert (np.take_along_axis(distances, found, axis=1).max(axis=1) <= allowed).all()


def test_codes_do_not_depend_on_threads(threads: None) -> None:  # noqa: ARG001
    bank, queries = vectors(3000, 40), vectors(50, 40, seed=1)
    found = []
    for count in (1, 2, 4, 1):
        faiss.omp_set_num_threads(count)
        codes = ProductCodes.of(bank, 2)
        found.append((*(array.tobytes() for array in codes.arrays().values()), codes.nearest(queries, 32).tobytes()))

    assert len(set(found)) == 1


def test_restored_codes_find_the_same_vectors() -> None:
    codes, queries = ProductCodes.of(vectors(500, 9), 2), vectors(40, 9, seed=1)

    restored = ProductCodes.from_arrays("e", codes.arrays(), (500, 9), 2)

    assert np.array_equal(restored.nearest(queries, 32), codes.nearest(queries, 32))
    assert restored.memory_bytes == codes.memory_bytes


def test_result_does_not_depend_on_other_queries() -> None:
    codes, queries = ProductCodes.of(vectors(2000, 24), 2), vectors(300, 24, seed=1)

    together = codes.nearest(queries, 32)

    for row in range(0, 300, 37):
        assert set(codes.nearest(queries[row : row + 1], 32)[0]) == set(together[row])


def test_constant_channels_are_handled() -> None:
    bank = vectors(200, 8)
    bank[:, 2:4] = 3.0

    assert np.array_equal(ProductCodes.of(bank, 2).nearest(bank[:20], 1)[:, 0], np.arange(20))


@pytest.mark.parametrize(
    "damage",
    [
        {"codes": np.zeros((500, 2), np.uint8)},
        {"codes": np.zeros((499, 3), np.uint8)},
        {"codes": np.zeros((500, 3), np.float32)},
        {"codebooks": np.zeros((5, 16, 3), np.float32)},
        {"codebooks": np.zeros((5, 16, 2), np.float16)},
    ],
)
def test_codes_of_another_bank_are_refused(damage: dict[str, np.ndarray]) -> None:
    arrays = ProductCodes.of(vectors(500, 9), 2).arrays()

    with pytest.raises(BundleError, match=r"memory: the bundle has no \w+ for its memory bank; fit"):
        ProductCodes.from_arrays("memory", arrays | damage, (500, 9), 2)
    with pytest.raises(BundleError, match="has no codebooks"):
        ProductCodes.from_arrays("memory", {}, (500, 9), 2)
