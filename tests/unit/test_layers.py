"""Imports go downwards only, and heavy or distributed packages stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import uniad_ray

PACKAGE = Path(uniad_ray.__file__).parent
LAYERS = [
    "cli",
    "verbs",
    "model",
    "serving",
    "pipelines",
    "report",
    "scoring",
    "training",
    "experts",
    "perception",
    "metrics",
    "archive",
    "config",
    "errors",
]
NO_RAY = set(LAYERS[LAYERS.index("report") :])
NO_TORCH = {"archive", "config", "errors", "metrics", "report", "verbs", "cli"}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Module names, and whether the import is for type checking only."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or "", id(node) in typing_only


def test_every_file_belongs_to_a_known_layer() -> None:
    assert {layer(path) for path in files()} <= {*LAYERS, "__init__"}


def test_imports_go_downwards_only() -> None:
    wrong = []
    for path in files():
        own = layer(path)
        if own == "__init__":
            continue
        for name, _ in imports(path):
            parts = name.split(".")
            if parts[0] != "uniad_ray" or len(parts) < 2:
                continue
            if LAYERS.index(parts[1]) < LAYERS.index(own):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert wrong == []


def test_ray_and_torch_stay_in_their_layers() -> None:
    wrong = []
    for path in files():
        for name, _ in imports(path):
            root = name.split(".")[0]
            if (root == "ray" and layer(path) in NO_RAY) or (root in ("torch", "timm") and layer(path) in NO_TORCH):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert wrong == []


WITHOUT_NETWORKS = ["bundles", "compare", "decoding", "evaluate", "ingest", "report", "run_reader", "score"]


def test_what_runs_no_network_does_not_wait_for_torch() -> None:
    """Verbs that read files, and the workers that decode, start in a fifth of the time without torch and sklearn."""
    lines = [f"import uniad_ray.pipelines.{name}" for name in WITHOUT_NETWORKS]
    lines += ["import sys", "print([name for name in ('torch', 'timm', 'sklearn', 'ray') if name in sys.modules])"]
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True, text=True)
    assert ended.stdout.strip() == "[]"


def test_no_pickle_and_no_unsafe_load() -> None:
    wrong = []
    for path in files():
        if any(name.split(".")[0] in ("pickle", "joblib", "dill", "cloudpickle") for name, _ in imports(path)):
            wrong.append(f"{path.relative_to(PACKAGE)} imports a pickler")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if given.get("weights_only") != "True" and given.get("allow_pickle") != "False":
                    wrong.append(f"{path.relative_to(PACKAGE)}: {ast.unparse(node)}")
    assert wrong == []


def test_files_hold_one_idea_and_stay_short() -> None:
    long = {str(path.relative_to(PACKAGE)): len(path.read_text("utf-8").splitlines()) for path in files()}
    assert {name: lines for name, lines in long.items() if lines > 420} == {}
