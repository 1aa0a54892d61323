"""`make demo`: the patch memory alone finds only structural anomalies; the default expert set finds all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_demo_finds_logical_anomalies_that_patches_miss(tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    # The tests run in the environment that `make demo` needs.
    variables = [f"DEMO={demo}", f"BIN={Path(sys.executable).parent}", "READY=ready", "--old-file=ready"]
    outside = ("AWS_", "RAY_", "MAKE", "MFLAGS")
    ended = subprocess.run(
        ["timeout", "2340", "make", "demo", *variables],  # ends the verbs too, unlike subprocess
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith(outside)},
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "Anomaly report" in (demo / "run/report/report.html").read_text("utf-8")

    rows = pq.read_table(demo / "run/evaluation/metrics.parquet").to_pylist()
    aurocs = {(row["name"], row["expert"]): row["value"] for row in rows if row["metric"] == "image_auroc"}
    # A single expert ranks images by its own score, with any fusion; a fit selects at least one patch memory.
    memory = next(name for name in ("patch_fine", "patch") if ("logical", name) in aurocs)
    assert aurocs["logical", memory] < 0.75
    assert aurocs["structural", memory] > 0.95
    assert aurocs["logical", None] > 0.9
    assert aurocs["structural", None] > 0.95
