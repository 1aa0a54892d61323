from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Extractor, Perception
from uniad_ray.perception.pipeline import PerceptionPipeline

IMAGES = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
KEYS = ("a", "b")


class Summing:
    """Provides in each field the sum of its needs plus one; records its calls and inputs."""

    def __init__(self, name: str, provides: set[str], needs: Iterable[str] = ()) -> None:
        self.name, self.provides, self.needs = name, frozenset(provides), frozenset(needs)
        self.passes = 0
        self.shown: list[Perception] = []

    def extract(self, perception: Perception) -> dict[str, torch.Tensor]:
        self.passes += 1
        self.shown.append(perception)
        total = sum((perception.fields[name] for name in self.needs), torch.ones(len(perception), 1, 1, 1))
        return dict.fromkeys(self.provides, total)

    def lineage(self) -> dict[str, Any]:
        return {"uri": f"random:{len(self.name)}"}


def chain() -> list[Summing]:
    """Four extractors: deep needs middle and both fields of wide; middle needs wide; alone needs nothing."""
    return [
        Summing("deep", {"deep/x"}, {"wide/1", "wide/2", "middle/x"}),
        Summing("middle", {"middle/x"}, {"wide/1"}),
        Summing("alone", {"alone/x"}),
        Summing("wide", {"wide/1", "wide/2"}),
    ]


def test_test_double_is_an_extractor() -> None:
    assert isinstance(Summing("a", {"a/x"}), Extractor)


def test_only_needed_extractors_run_once() -> None:
    deep, middle, alone, wide = chain()
    perception = PerceptionPipeline([deep, middle, alone, wide]).extract(KEYS, IMAGES, frozenset({"deep/x", "wide/2"}))
    assert (deep.passes, middle.passes, alone.passes, wide.passes) == (1, 1, 0, 1)
    assert perception.fields.keys() == {"deep/x", "wide/2"}
    # wide 1; middle 1 + 1; deep 1 + 1 + 1 + 2.
    assert perception.fields["deep/x"].flatten().tolist() == [5.0, 5.0]
    assert perception.images is IMAGES
    assert tuple(perception.row_keys) == KEYS


def test_extractor_sees_only_needed_fields() -> None:
    deep, middle, alone, wide = chain()
    PerceptionPipeline([deep, middle, alone, wide]).extract(KEYS, IMAGES, frozenset({"deep/x", "alone/x"}))
    assert middle.shown[0].fields.keys() == {"wide/1"}
    assert deep.shown[0].fields.keys() == {"wide/1", "wide/2", "middle/x"}
    assert all(tuple(shown.row_keys) == KEYS for shown in deep.shown)


def test_nothing_wanted_runs_nothing() -> None:
    extractors = chain()
    perception = PerceptionPipeline(extractors).extract(KEYS, IMAGES, frozenset())
    assert perception.fields == {}
    assert sum(extractor.passes for extractor in extractors) == 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_every_order_of_declaration_works(order: tuple[int, ...]) -> None:
    declared = [chain()[i] for i in order]
    ordered = [extractor.name for extractor in PerceptionPipeline(declared).extractors]
    assert ordered.index("wide") < ordered.index("middle") < ordered.index("deep")


def test_given_order_is_kept_if_possible() -> None:
    free = [Summing(name, {f"{name}/x"}) for name in ("c", "a", "b")]
    assert [extractor.name for extractor in PerceptionPipeline(free).extractors] == ["c", "a", "b"]


def test_cycle() -> None:
    with pytest.raises(ConfigError, match="a, b depend on each other"):
        PerceptionPipeline([Summing("a", {"a/x"}, {"b/x"}), Summing("b", {"b/x"}, {"a/x"}), Summing("c", {"c/x"})])


def test_need_of_itself() -> None:
    with pytest.raises(ConfigError, match="cycle"):
        PerceptionPipeline([Summing("a", {"a/x"}, {"a/x"})])


def test_duplicate_name() -> None:
    with pytest.raises(ConfigError, match="two extractors are called 'a'"):
        PerceptionPipeline([Summing("a", {"a/x"}), Summing("a", {"a/y"})])


def test_duplicate_field() -> None:
    with pytest.raises(ConfigError, match="'x' is provided by both 'a' and 'b'"):
        PerceptionPipeline([Summing("a", {"x"}), Summing("b", {"x"})])


def test_missing_need() -> None:
    with pytest.raises(ConfigError, match=r"needs of the extractor 'a' include b/x, .* available: a/x"):
        PerceptionPipeline([Summing("a", {"a/x"}, {"b/x"})])


def test_unknown_wanted_field() -> None:
    pipeline = PerceptionPipeline([Summing("a", {"a/x"})])
    with pytest.raises(ConfigError, match="wanted fields include a/y"):
        pipeline.extract(KEYS, IMAGES, frozenset({"a/x", "a/y"}))


def test_undeclared_fields_are_an_error() -> None:
    class Forgetful(Summing):
        def extract(self, perception: Perception) -> dict[str, torch.Tensor]:
            fields = super().extract(perception)
            fields.pop("a/y")
            return fields

    pipeline = PerceptionPipeline([Forgetful("a", {"a/x", "a/y"})])
    with pytest.raises(ValueError, match=r"returned the fields .*, expected"):
        pipeline.extract(KEYS, IMAGES, frozenset({"a/x"}))


@pytest.mark.parametrize("images", [IMAGES[0], IMAGES.astype(np.float32), IMAGES[..., :1], IMAGES[:0]])
def test_images_of_another_kind(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        PerceptionPipeline([]).extract(KEYS, images, frozenset())


def test_number_of_keys() -> None:
    with pytest.raises(ValueError, match="got 1 row keys for 2 images"):
        PerceptionPipeline([]).extract(("a",), IMAGES, frozenset())


def test_lineage_of_the_wanted_fields() -> None:
    pipeline = PerceptionPipeline(chain())
    assert pipeline.lineage(frozenset({"middle/x"})) == {"wide": {"uri": "random:4"}, "middle": {"uri": "random:6"}}


class Kept:
    """Stored fields with the value 10; records its requests."""

    def __init__(self, *names: str) -> None:
        self.names = frozenset(names)
        self.asked: list[tuple[tuple[str, ...], frozenset[str]]] = []

    def read(self, row_keys: Sequence[str], names: frozenset[str]) -> dict[str, torch.Tensor]:
        self.asked.append((tuple(row_keys), names))
        return dict.fromkeys(names, torch.full((len(row_keys), 1, 1, 1), 10.0))


def test_stored_fields_are_read_and_only_the_rest_runs() -> None:
    deep, middle, alone, wide = chain()
    stored = Kept("middle/x", "wide/1", "wide/2", "alone/x")
    perception = PerceptionPipeline([deep, middle, alone, wide]).extract(KEYS, IMAGES, frozenset({"deep/x"}), stored)
    assert (deep.passes, middle.passes, wide.passes) == (1, 0, 0)
    assert perception.fields["deep/x"].flatten().tolist() == [31.0, 31.0]
    assert perception.names == {"deep/x"}
    assert stored.asked == [(KEYS, frozenset({"middle/x", "wide/1", "wide/2"}))]


def test_unneeded_stored_fields_are_not_read() -> None:
    deep, middle, alone, wide = chain()
    stored = Kept("wide/1", "wide/2", "middle/x", "deep/x")
    pipeline = PerceptionPipeline([deep, middle, alone, wide])
    assert pipeline.extract(KEYS, IMAGES, frozenset({"deep/x"}), stored).fields["deep/x"].flatten()[0] == 10.0
    assert pipeline.extract(KEYS, IMAGES, frozenset({"alone/x"}), stored).names == {"alone/x"}
    assert stored.asked == [(KEYS, frozenset({"deep/x"}))]
    assert (deep.passes, middle.passes, alone.passes, wide.passes) == (0, 0, 1, 0)
