from __future__ import annotations

import pytest

from uniad_ray.pipelines.fit.job import _in_words


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        (["nut"], "calibration"),
        (["bolt"], ""),
        (["nut", "cap"], "cap: memory banks; nut: calibration"),
        (["nut", "cap", "bolt", "tray"], "cap: memory banks; nut: calibration; 2 more"),
        (["bolt", "tray"], ""),
        ([], ""),
    ],
)
def test_progress_names_what_running_categories_do(running: list[str], expected: str) -> None:
    phases = {"nut": "calibration", "cap": "memory banks", "ended": "memory banks"}
    assert _in_words(phases, running) == expected
