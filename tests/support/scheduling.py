"""How tests are shared out to the processes of pytest-xdist."""

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
}
"""Tests that share what takes long to start: a Ray, a Serve, a cluster. Those that take longest come first, so that no
process is left with them while the other has nothing to do."""


def group_of(nodeid: str) -> str:
    """The tests that go to the process that this one goes to: those of its file, or more."""
    return next((name for name, places in TOGETHER.items() if nodeid.startswith(places)), nodeid.partition("::")[0])


def longest_first(nodeids: list[str]) -> list[int]:
    """The order in which tests are given out, as indices: groups as they are listed, and the rest as it was."""
    ranks = {name: rank for rank, name in enumerate(TOGETHER)}
    return sorted(range(len(nodeids)), key=lambda index: ranks.get(group_of(nodeids[index]), len(ranks)))


class ByGroup(LoadScopeScheduling):
    """The tests of a group go to one process, in order."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
