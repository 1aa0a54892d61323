"""The scripts for `ray job submit` are the verbs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.mark.parametrize("verb", ["ingest", "fit", "score", "evaluate"])
def test_a_script_runs_its_verb(verb: str, tmp_path: Path) -> None:
    script = [sys.executable, str(JOBS / f"{verb}.py")]
    shown = subprocess.run([*script, "--help"], check=True, capture_output=True, text=True, timeout=60)
    assert f"Usage: uniad-ray {verb} " in shown.stdout
    required = {"ingest": [str(tmp_path / "a")], "evaluate": []}
    options = required.get(verb, ["--bundles", str(tmp_path)]) + (["--out", str(tmp_path)] if verb == "score" else [])
    failed = subprocess.run(
        [*script, str(tmp_path / "none"), *options], check=False, capture_output=True, text=True, timeout=60
    )
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ")


def test_there_is_a_script_for_each_stage() -> None:
    assert {path.stem for path in JOBS.glob("*.py")} == {"ingest", "fit", "score", "evaluate"}
