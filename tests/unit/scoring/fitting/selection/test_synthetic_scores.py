"""Scores of known defects, some without a text; with a fake pipeline and fake experts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from uniad_ray.config.region import RegionMask
from uniad_ray.experts.base import Evidence
from uniad_ray.perception.base import Originals, Perception, State
from uniad_ray.perception.missing import Missing
from uniad_ray.perception.region import Region
from uniad_ray.scoring.fitting.judged import Judged
from uniad_ray.scoring.fitting.selection.known_defects import KnownDefect
from uniad_ray.scoring.fitting.selection.synthetic_scores import _make_inside, score_known_defects
from uniad_ray.scoring.fitting.synthetic.kinds import SYNTHETIC_ANOMALIES, uses_parts
from uniad_ray.scoring.fitting.synthetic.parts import Parts

SCORES = {"a": 1.0, "b": 2.0, "c": float("nan")}
SILENT = "b"


class FakePipeline:
    """Captions all images but one."""

    detailed = ()

    def extract(
        self, row_keys: list[str], images: np.ndarray, wanted: frozenset[str], *, originals: Originals | None
    ) -> Perception:
        assert originals is None
        texts = [Missing("silent") if key == SILENT else "a part" for key in row_keys]
        return Perception(row_keys, images).extended({"caption/text": texts} if wanted else {})


class FakeExpert:
    """Gives every image its score of the table."""

    def __init__(self, *needs: str) -> None:
        self.needs = frozenset(needs)

    def score(self, perception: Perception) -> Evidence:
        found = np.array([SCORES[key] for key in perception.row_keys], dtype=np.float32)
        return Evidence(found, None, [[] for _ in found])

    def fit(self, stream: Any) -> None: ...

    def state(self) -> State:
        return State()


def test_experts_judged_later_have_scores_of_the_same_defects() -> None:
    known = [KnownDefect(key, np.zeros((8, 8, 3), dtype=np.uint8), None) for key in SCORES]

    def judged(name: str, expert: FakeExpert) -> Judged:
        found = score_known_defects(known, FakePipeline(), {name: expert}, 2)  # type: ignore[arg-type, dict-item]
        return Judged(("n",), {name: np.zeros(1)}, None, {}, found)

    both = judged("text", FakeExpert("caption/text")).joined(judged("student", FakeExpert())).known["known"]
    # A missing text is NaN; a score that is not finite is infinite, because it counts as detected.
    np.testing.assert_array_equal(both["text"], [1.0, np.nan, np.inf])
    np.testing.assert_array_equal(both["student"], [1.0, 2.0, np.inf])


@pytest.mark.parametrize("kind", [kind for kind in SYNTHETIC_ANOMALIES if not uses_parts(kind)])
def test_anomalies_are_made_where_they_count(kind: str) -> None:
    """In a region of 9 % of the image, where few anomalies of a random place would be."""
    mask = np.zeros((256, 256), dtype=bool)
    mask[90:166, 20:100] = True
    region = Region(RegionMask.of(mask), (256, 256))
    rng = np.random.default_rng(0)
    images = [region.painted(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)) for _ in range(6)]
    outside = np.ones((256, 256), dtype=bool)
    outside[region.window] = False
    assert outside.sum() == 256 * 256 - region.inside.sum()
    for index, image in enumerate(images):
        others = [(Parts(other, None),) for other in images if other is not image]
        synthetic = _make_inside(kind, f"k{index}", index, (Parts(image, None),), others, 0, region)
        assert synthetic is not None
        assert (synthetic != image)[region.inside].any()
        assert np.array_equal(synthetic[outside], image[outside])
        again = _make_inside(kind, f"k{index}", index, (Parts(image, None),), others, 0, None)
        assert again is None or not np.array_equal(again, synthetic)
