"""The rooms of the package export their faces, and any module can be imported first."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import uniad_ray

PACKAGE = Path(uniad_ray.__file__).parent
FIRST = [
    "config.model",
    "archive.stores.local",
    "archive.layouts.data_sets.visa",
    "metrics.saturation",
    "perception.segments",
    "scoring.calibration",
    "scoring.bundles.versions",
    "sidecars.fingerprints",
    "runs.maps",
    "evaluation.paired_metrics",
    "serving.auth.keys",
]
"""Light modules whose rooms import more than they do."""


def faces() -> dict[str, list[str]]:
    """The names that each package exports."""
    found = {}
    for path in sorted(PACKAGE.rglob("__init__.py")):
        name = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found[name] = ast.literal_eval(node.value)
    return found


def test_many_rooms_have_a_face() -> None:
    assert len(faces()) >= 25
    assert all(faces().values())


@pytest.mark.parametrize("room", faces())
def test_exported_names_resolve(room: str) -> None:
    names = faces()[room]
    package = import_module(room)
    assert [name for name in names if not hasattr(package, name)] == []
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("room", faces())
def test_exported_names_hide_no_module(room: str) -> None:
    folder = PACKAGE.parent / room.replace(".", "/")
    modules = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert modules & set(faces()[room]) - {"__version__"} == set()


@pytest.mark.parametrize("module", FIRST)
def test_module_can_be_imported_first(module: str) -> None:
    code = (
        f"import sys, uniad_ray.{module}; print([name for name in ('torch', 'ray', 'sklearn') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert ended.stdout.strip() == "[]"
