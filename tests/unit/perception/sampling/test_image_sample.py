from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.perception.sampling.image_sample import ImageSample
from uniad_ray.perception.sampling.priorities import sampling_priorities

KEYS = [f"image-{number}" for number in range(30)]


def sampled(keys: list[str], capacity: int, seed: int = 0) -> dict[str, str]:
    sample: ImageSample[str] = ImageSample(capacity, seed)
    for key in keys:
        sample.add(key, f"item of {key}")
    return sample.items()


@given(st.permutations(KEYS), st.integers(1, 40))
def test_sample_has_the_lowest_priorities(keys: list[str], capacity: int) -> None:
    lowest = sorted(KEYS, key=lambda key: int(sampling_priorities(key, 1)[0]))[:capacity]

    assert sampled(keys, capacity) == {key: f"item of {key}" for key in sorted(lowest)}


def test_another_seed_draws_another_sample() -> None:
    assert sampled(KEYS, 10).keys() != sampled(KEYS, 10, seed=1).keys()


def test_items_are_sorted_by_key() -> None:
    assert list(sampled(KEYS[::-1], 7)) == sorted(sampled(KEYS, 7))


def test_memory_stays_within_the_capacity() -> None:
    sample: ImageSample[int] = ImageSample(4)
    for number, key in enumerate(KEYS):
        sample.add(key, number)
        assert len(sample.items()) == len(sample.by_priority()) <= 4


def test_unwanted_image_changes_nothing() -> None:
    sample: ImageSample[str] = ImageSample(5)
    for key in KEYS:
        wanted, before = sample.wants(key), sample.items()
        sample.add(key, f"item of {key}")
        assert wanted == (sample.items() != before)


def test_every_prefix_by_priority_is_a_sample() -> None:
    def ordered(capacity: int) -> list[str]:
        sample: ImageSample[str] = ImageSample(capacity)
        for key in KEYS:
            sample.add(key, key)
        return sample.by_priority()

    assert ordered(7) == ordered(30)[:7]
    assert sorted(ordered(99)) == sorted(KEYS)


def test_an_image_that_comes_twice_counts_once() -> None:
    sample: ImageSample[int] = ImageSample(2)
    for number in range(3):
        sample.add(KEYS[0], number)
    assert sample.items() == {KEYS[0]: 2}
    assert sample.by_priority() == [2]
