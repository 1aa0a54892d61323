"""Joining a cluster that requires a token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.ray_head import running_head

JOIN = """
import sys
from uniad_ray.errors import RunError
from uniad_ray.pipelines.cluster.session import ray_session
try:
    with ray_session(sys.argv[1]) as cluster:
        cpus = int(cluster.logical_cpus)
    print("joined", cpus)
except RunError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    with running_head(2, _without_ray(os.environ)) as variables:
        yield variables


def join(head: Mapping[str, str], home: Path, **variables: str) -> str:
    """Output of a program that joins the cluster, without a token in its home folder."""
    ended = subprocess.run(
        [sys.executable, "-c", JOIN, head["RAY_ADDRESS"]],
        env={**_without_ray(os.environ), "HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout.strip()


def _without_ray(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("RAY_")}


@pytest.mark.slow
def test_missing_or_wrong_token_names_the_variables(head: dict[str, str], tmp_path: Path) -> None:
    token = {name: head[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    wrong = {**token, "RAY_AUTH_TOKEN": "0" * 64}
    advice = (
        f"the Ray cluster at {head['RAY_ADDRESS']} requires a token: set RAY_AUTH_MODE=token, and put the cluster's "
        "token in RAY_AUTH_TOKEN or in ~/.ray/auth_token"
    )
    given = [{}, {"RAY_AUTH_MODE": "token"}, wrong, token]
    with ThreadPoolExecutor() as pool:  # each join takes seconds
        found = list(pool.map(lambda variables: join(head, tmp_path, **variables), given))
    assert found == [advice, advice, advice, "joined 2"]
