"""`import uniad_ray` is fast and light, and provides the names in docs/api.md."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.doc_pages import ROOT, blocks

import uniad_ray as ur

PAGE = ROOT / "docs/api.md"
MAX_SECONDS = 0.3
HEAVY = ("torch", "ray", "pyarrow", "pydantic", "numpy", "PIL", "scipy", "sklearn", "boto3", "click")


def in_a_new_process(code: str) -> Any:
    """Runs code that prints one JSON document, and returns it."""
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    return json.loads(ended.stdout)


def test_import_is_fast_and_light() -> None:
    code = (
        "import json, sys, time\n"
        "start = time.process_time()\n"
        "import uniad_ray\n"
        "seconds = time.process_time() - start\n"
        f"print(json.dumps([seconds, [name for name in {HEAVY} if name in sys.modules]]))\n"
    )
    seconds, heavy = in_a_new_process(code)
    assert heavy == []
    assert seconds < MAX_SECONDS


def test_plug_in_names_need_no_torch() -> None:
    code = (
        "import json, sys\n"
        "from uniad_ray import Evidence, Expert, Extractor, Perception, State, StrictModel\n"
        "print(json.dumps([name for name in ('torch', 'ray', 'pyarrow') if name in sys.modules]))\n"
    )
    assert in_a_new_process(code) == []


@pytest.mark.parametrize("name", [name for name in ur.__all__ if name != "__version__"])
def test_public_names_resolve_to_their_definitions(name: str) -> None:
    module, attribute = ur._LAZY[name]
    assert getattr(ur, name) is getattr(import_module(module), attribute)
    assert name in dir(ur)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(ur.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    typed = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == ur._LAZY
    assert {*typed, "__version__"} == set(ur.__all__)


def test_no_public_name_is_also_a_module() -> None:
    """Once a sub-package is imported, Python binds it over a lazy name."""
    assert [name for name in ur.__all__ if find_spec(f"uniad_ray.{name}")] == []


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'uniad_ray' has no attribute 'scoer'"):
        _ = ur.scoer  # type: ignore[attr-defined]


def listed_signatures() -> dict[str, str]:
    """The signatures in docs/api.md, by name; continuation lines are indented."""
    lines = [line for block in blocks(PAGE.read_text("utf-8")) if block.language == "text" for line in block.lines]
    calls = re.split(r"\n(?=\S)", "\n".join(lines))
    return {name: parameters(f"({rest}") for name, _, rest in (call.partition("(") for call in calls)}


def parameters(signature: str) -> str:
    """Normalises a signature in parentheses."""
    (function,) = ast.parse(f"def f{signature}: ...").body
    assert isinstance(function, ast.FunctionDef)
    return ast.unparse(function.args)


def signature(function: Callable[..., Any]) -> str:
    """Parameters and defaults, without annotations and `self`."""
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    ]
    return parameters(str(inspect.Signature(bare)))


def test_page_lists_the_signatures() -> None:
    functions = {name: getattr(ur, name) for name in ur.__all__ if name[0].islower()}
    functions |= {f"Model.{name}": getattr(ur.Model, name) for name in ("score", "score_many")}
    functions |= {f"Verdict.{name}": getattr(ur.Verdict, name) for name in ("overlay", "to_dict")}
    assert listed_signatures() == {name: signature(function) for name, function in functions.items()}


def test_page_names_every_public_name() -> None:
    text = PAGE.read_text("utf-8")
    assert [name for name in ur.__all__ if f"`{name}`" not in text and f"{name}(" not in text] == []
