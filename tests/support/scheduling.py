"""How tests are shared out to the processes of pytest-xdist."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

APART = ("tests/docs/test_commands.py::test_a_page_runs_from_top_to_bottom[",)
"""Tests that take long and share nothing worth waiting for with others of their file."""


class ByFile(LoadScopeScheduling):
    """The tests of a file go to one process, in order; some go wherever there is room."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(APART) else nodeid.partition("::")[0]
