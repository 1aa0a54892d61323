"""Distribution of tests over the processes of pytest-xdist."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

TOGETHER = {
    "pages": ("tests/docs/test_commands.py",),
    "pipelines": ("tests/pipelines/", "tests/faults/test_kill.py"),
    "demo": ("tests/docs/test_demo.py",),
    "clusters": ("tests/cluster/", "tests/faults/test_kill_training.py"),
    "Serve": (
        "tests/faults/test_serving.py",
        "tests/parity/",
        "tests/serving/test_autoscaling.py",
        "tests/serving/test_endpoint.py",
        "tests/serving/test_text_engine.py",
    ),
    "vLLM": ("tests/benchmarks/test_caption_accuracy.py",),
}
"""Tests that share slow set-up: a Ray, a Serve, a cluster. The slowest groups come first to balance the processes."""


def group_of(nodeid: str) -> str:
    """Returns the group of a test, which runs in one process: the name in `TOGETHER`, or its file."""
    return next((name for name, places in TOGETHER.items() if nodeid.startswith(places)), nodeid.partition("::")[0])


def longest_first(nodeids: list[str]) -> list[int]:
    """Returns the order of the tests as indices: the groups as listed, then the rest in the original order."""
    ranks = {name: rank for rank, name in enumerate(TOGETHER)}
    return sorted(range(len(nodeids)), key=lambda index: ranks.get(group_of(nodeids[index]), len(ranks)))


class ByGroup(LoadScopeScheduling):
    """Runs the tests of a group in one process, in order."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
