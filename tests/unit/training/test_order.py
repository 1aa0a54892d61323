from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.errors import FitError
from uniad_ray.training.order import ImageOrder, held_out_split, step_seed


def image_order(chunk_sizes: list[int], **options: Any) -> ImageOrder:
    chunks = [f"chunk-{number}" for number, size in enumerate(chunk_sizes) for _ in range(size)]
    keys = [f"key-{index:04d}" for index in range(len(chunks))]
    return ImageOrder(chunks, keys, **{"seed": 0, "rank": 0, "world": 1, "batch_size": 4, **options})


def epoch_of(order: ImageOrder, epoch: int) -> list[int]:
    """Images of one worker in one epoch, for any batch size."""
    length = order.images_an_epoch
    first, last = epoch * length // order.batch_size, ((epoch + 1) * length - 1) // order.batch_size
    seen = [index for step in range(first, last + 1) for index in order.batch(step)]
    start = epoch * length - first * order.batch_size
    return seen[start : start + length]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(0, 2**32),
)
def test_every_epoch_covers_every_image(sizes: list[int], world: int, batch_size: int, epoch: int, seed: int) -> None:
    workers = [image_order(sizes, seed=seed, rank=rank, world=world, batch_size=batch_size) for rank in range(world)]
    seen = Counter(index for worker in workers for index in epoch_of(worker, epoch))
    assert set(seen) == set(range(sum(sizes)))
    assert sum(seen.values()) == world * workers[0].images_an_epoch
    assert sum(seen.values()) - sum(sizes) < world


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 50), st.randoms())
def test_order_of_given_images_has_no_effect(sizes: list[int], step: int, random: Any) -> None:
    order = image_order(sizes)
    mixed = list(range(sum(sizes)))
    random.shuffle(mixed)
    other = ImageOrder([order.chunks[index] for index in mixed], [order.row_keys[index] for index in mixed], 0, 0, 1, 4)
    assert [order.row_keys[i] for i in order.batch(step)] == [other.row_keys[i] for i in other.batch(step)]


def test_steps_are_independent() -> None:
    walked = image_order([5, 3, 7])
    batches = [walked.batch(step) for step in range(40)]
    assert [image_order([5, 3, 7]).batch(step) for step in reversed(range(40))] == batches[::-1]


def test_epochs_and_seeds_have_different_orders() -> None:
    order = image_order([40])
    assert epoch_of(order, 0) != epoch_of(order, 1)
    assert epoch_of(order, 0) != epoch_of(image_order([40], seed=1), 0)


def test_worker_reads_its_share_chunk_by_chunk() -> None:
    order = image_order([4] * 8, world=4, rank=2)
    chunks = [order.chunks[index] for index in epoch_of(order, 0)]
    assert len(set(chunks)) == 2
    assert chunks == [chunks[0]] * 4 + [chunks[4]] * 4


def test_fewer_chunks_than_workers_are_split_by_rows() -> None:
    parts = [epoch_of(image_order([6], world=3, rank=rank), 0) for rank in range(3)]
    assert sorted(index for part in parts for index in part) == list(range(6))


def test_batch_of_all_joins_worker_batches() -> None:
    workers = [image_order([5, 4], world=2, rank=rank, batch_size=2) for rank in range(2)]
    assert workers[0].batch_of_all(3) == workers[0].batch(3) + workers[1].batch(3)
    assert workers[1].batch_of_all(3) == workers[0].batch_of_all(3)


def test_epoch_of_a_step_is_its_first_image_epoch() -> None:
    order = image_order([6], batch_size=4)
    assert [order.epoch(step) for step in range(5)] == [0, 0, 1, 2, 2]


def test_copies_are_held_out_together() -> None:
    ids = [f"{index:064d}" for index in range(50)] * 2
    trained, held_out = held_out_split(ids, 0.2)
    assert sorted(trained + held_out) == list(range(100))
    assert len(held_out) == 20
    assert {ids[index] for index in held_out}.isdisjoint(ids[index] for index in trained)


def test_hold_out_depends_only_on_content() -> None:
    ids = [f"{index:064d}" for index in range(30)]
    held_out = {ids[index] for index in held_out_split(ids, 0.2)[1]}
    assert {ids[::-1][index] for index in held_out_split(ids[::-1], 0.2)[1]} == held_out


def test_at_least_one_image_is_held_out() -> None:
    ids = [f"{index:064d}" for index in range(4)]
    assert len(held_out_split(ids, 0.01)[1]) == 1
    assert held_out_split(ids, 0.0) == ([0, 1, 2, 3], [])


@pytest.mark.parametrize(("distinct", "share"), [(1, 0.0), (1, 0.1), (2, 0.1), (0, 0.0)])
def test_too_few_distinct_images_are_refused(distinct: int, share: float) -> None:
    ids = [f"{index:064d}" for index in range(distinct)] * 9
    with pytest.raises(FitError, match=f"{distinct} distinct normal images.*at least 2 for training"):
        held_out_split(ids, share)


def test_steps_and_workers_have_different_seeds() -> None:
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(30) for rank in range(3)}
    assert len(seeds) == 270
    assert all(0 <= seed < 2**63 for seed in seeds)
