"""Runs verbs of the command line in this process."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from typing import Any

import pytest

from uniad_ray.cli import main


def verb(*arguments: str) -> Any:
    """Runs a verb, on the Ray of this process if it has one, and returns its `--json` document."""
    output = io.StringIO()
    with pytest.raises(SystemExit) as ended, redirect_stdout(output):
        main([*arguments, "--json"])
    assert ended.value.code == 0, arguments
    return json.loads(output.getvalue())
