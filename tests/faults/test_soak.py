"""A short soak: processes of runs are killed while their store fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_row_is_lost_or_doubled_under_kills_and_store_faults() -> None:
    script = Path(__file__).parents[2] / "benchmarks/soak.py"
    # The time is for a busy machine; the kills end it.
    options = ["--kills=3", "--minutes=10", "--images=40", "--away-seconds=3"]
    done = subprocess.run([sys.executable, str(script), *options], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout)
    assert sum(figures["kills"].values()) == figures["kills_in_all"] > 0
    assert figures["rows"] == 41 * figures["runs"] > 0
    assert [figures[name] for name in ("lost", "doubled", "different", "unfinished")] == [0, 0, 0, 0]
    assert {"500", "503"} <= figures["faults"].keys()
