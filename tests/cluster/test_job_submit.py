"""The job scripts under `ray job submit`, as in the README, on a local cluster of two nodes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset
import pytest
from support.job_cluster import JobServer

SMALL = [
    "--set=expert_set=patch",
    "--set=longest_side=64",
    "--set=map_size=16",
    "--set=experts.patch.config.memory_size=100",
]


@pytest.mark.slow
def test_jobs_make_a_run_with_metrics_and_report(job_server: JobServer, tmp_path: Path) -> None:
    source, archive, bundles, run = (str(tmp_path / name) for name in ("source", "archive", "bundles", "run"))
    counts = ["--train=10", "--test-good=3", "--logical=3", "--structural=3", "--image-size=64"]
    subprocess.run([sys.executable, "-m", "uniad_ray.cli", "scenes", source, *counts], check=True, timeout=120)
    jobs = {
        "ingest": [source, archive],
        "fit": [archive, "--bundles", bundles, *SMALL],
        "score": [archive, "--bundles", bundles, "--out", run, "--workers=2"],
        "evaluate": [run],
        "report": [run],
        "compare": [run, f"{run}-again"],
    }
    # A variable in the job's runtime environment, such as the endpoint of a store; the verbs forward it as well.
    options = ["--working-dir=.", "--runtime-env-json", json.dumps({"env_vars": {"AWS_REGION": "us-east-1"}})]
    for verb, arguments in jobs.items():
        if verb == "compare":
            shutil.copytree(run, f"{run}-again")
        ended = job_server.ray_job("submit", *options, "--", "python", f"jobs/{verb}.py", *arguments)
        assert ended.returncode == 0, ended.stdout[-3000:]
        assert "succeeded" in ended.stdout
        assert "Traceback" not in ended.stdout
    rows = pyarrow.dataset.dataset(f"{run}/scores").to_table()
    assert rows.num_rows == 19
    assert set(rows.column("status").to_pylist()) == {"ok"}
    metrics = pyarrow.dataset.dataset(f"{run}/evaluation/metrics.parquet").to_table()
    assert {"logical", "structural"} <= set(metrics.column("name").to_pylist())
    assert "Anomaly report" in Path(run, "report/report.html").read_text("utf-8")


@pytest.mark.slow
def test_failed_job_prints_one_line(job_server: JobServer, tmp_path: Path) -> None:
    """The working directory holds only the scripts; the installed package runs."""
    missing = str(tmp_path / "none")
    arguments = [missing, "--bundles", str(tmp_path), "--out", str(tmp_path / "run")]
    ended = job_server.ray_job(
        "submit", "--submission-id=fails", "--working-dir=jobs", "--", "python", "score.py", *arguments
    )
    assert ended.returncode == 1
    assert "FAILED" in job_server.ray_job("status", "fails").stdout.upper()
    log = job_server.ray_job("logs", "fails").stdout
    assert [line for line in log.splitlines() if line.startswith("error: ") and missing in line]
    assert "Traceback" not in log
