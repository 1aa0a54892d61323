"""The scripts for `ray job submit` run the verbs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[2] / "jobs"
ARGUMENTS = {
    "ingest": ["none", "archive"],
    "caption": ["none", "--out", "captions", "--engine", "server", "--url", "http://127.0.0.1:1/v1", "--model", "m"],
    "precompute": ["none", "--out", "sidecar"],
    "tune-clip": ["none", "--out", "clip"],
    "fit": ["none", "--bundles", "bundles"],
    "score": ["none", "--bundles", "bundles", "--out", "run"],
    "evaluate": ["none"],
    "report": ["none"],
    "compare": ["none", "other"],
    "nightly": ["--config", "none.yaml"],
    "ablate": ["none", "--table", "8", "--work", "work"],
}


@pytest.mark.parametrize("verb", ARGUMENTS)
def test_script_runs_its_verb(verb: str, tmp_path: Path) -> None:
    script = [sys.executable, str(JOBS / f"{verb}.py")]
    shown = subprocess.run([*script, "--help"], check=True, capture_output=True, text=True, timeout=60)
    assert f"Usage: uniad-ray {verb} " in shown.stdout
    failed = subprocess.run(
        [*script, *ARGUMENTS[verb]], check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ")


def test_every_stage_has_a_script() -> None:
    assert {path.stem for path in JOBS.glob("*.py")} == {*ARGUMENTS, "train_captioner"}


def test_captioner_script_shows_its_options() -> None:
    script = [sys.executable, str(JOBS / "train_captioner.py"), "--help"]
    shown = subprocess.run(script, check=True, capture_output=True, text=True, timeout=60)
    assert "folder of the model" in shown.stdout
