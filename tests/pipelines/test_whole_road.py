"""Every verb from the command line: on S3, and on a running cluster with one or two CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.ray_head import running_head
from support.trees import mvtec_tree
from support.verbs import verb

SMALL = [
    "--set=longest_side=64",
    "--set=map_size=16",
    "--set=expert_set=patch",
    "--set=experts.patch.config.memory_size=200",
]


def program(*arguments: str, **variables: str) -> Any:
    """Runs a verb with --json as a program and returns its document."""
    command = [sys.executable, "-m", "uniad_ray.cli", *arguments, "--json"]
    environment = {**os.environ, **variables}
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=400, env=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout)


@pytest.mark.usefixtures("ray_cluster")
def test_every_verb_works_on_s3(s3_prefix: str) -> None:
    counts = ["--train=10", "--test-good=3", "--logical=3", "--structural=3", "--image-size=64"]
    assert verb("scenes", f"{s3_prefix}/source", *counts)["category"] == "trays"
    assert verb("ingest", f"{s3_prefix}/source", f"{s3_prefix}/archive")["images"] == 19
    assert verb("inspect", f"{s3_prefix}/archive")["categories"]["trays"]["images"] == 19
    fitted = verb("fit", f"{s3_prefix}/archive", "--bundles", f"{s3_prefix}/bundles", *SMALL)["fitted"]
    run = verb("score", f"{s3_prefix}/archive", "--bundles", f"{s3_prefix}/bundles", "--out", f"{s3_prefix}/run")
    assert (run["images"], run["errors"]) == (19, 0)
    metrics = verb("evaluate", f"{s3_prefix}/run")["metrics"]
    assert {entry["name"] for entry in metrics} >= {"all", "logical", "structural"}
    listed = verb("bundles", f"{s3_prefix}/bundles", "--publish", "trays", fitted[0]["version"])["bundles"]
    assert [(entry["version"], entry["published"]) for entry in listed] == [(fitted[0]["version"], True)]


@pytest.mark.slow
@pytest.mark.parametrize("cpus", [1, 2])
def test_small_cluster_is_joined_and_left_running(cpus: int, tmp_path: Path) -> None:
    archive, bundles, run = (str(tmp_path / name) for name in ("archive", "bundles", "run"))
    tree = mvtec_tree(tmp_path / "bottle", train=6, good=2, bad=2)
    with running_head(cpus, os.environ) as found:
        joined = ["--address", found.pop("RAY_ADDRESS")]
        assert program("ingest", str(tree), archive, "--chunk-images=3", *joined, **found)["images"] == 10
        assert len(program("fit", archive, "--bundles", bundles, *SMALL, *joined, **found)["fitted"]) == 1
        assert program("score", archive, "--bundles", bundles, "--out", run, *joined, **found)["images"] == 10
        # The cluster might grow; what there is does the work meanwhile.
        many = ["--out", f"{run}-9", "--workers=9"]
        assert program("score", archive, "--bundles", bundles, *many, *joined, **found)["images"] == 10
