"""Scores of known defects, some without a text; with a fake pipeline and fake experts."""

from __future__ import annotations

from typing import Any

import numpy as np

from uniad_ray.experts.base import Evidence
from uniad_ray.perception.base import Perception, State
from uniad_ray.perception.missing import Missing
from uniad_ray.scoring.fitting.judged import Judged
from uniad_ray.scoring.fitting.selection.known_defects import KnownDefect
from uniad_ray.scoring.fitting.selection.synthetic_scores import score_known_defects

SCORES = {"a": 1.0, "b": 2.0, "c": float("nan")}
SILENT = "b"


class FakePipeline:
    """Captions all images but one."""

    def extract(self, row_keys: list[str], images: np.ndarray, wanted: frozenset[str]) -> Perception:
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
