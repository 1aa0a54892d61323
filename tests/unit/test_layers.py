"""Imports only go down the layers, and Ray and torch stay in their packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import uniad_ray

PACKAGE = Path(uniad_ray.__file__).parent
# fmt: off
ROOMS = [
    "cli.verbs.data", "cli.verbs.models", "cli.verbs.results", "cli.verbs.endpoint", "cli.verbs.cluster",
    "cli.verbs", "cli",
    "verbs",
    "model",
    "serving.command", "serving.app", "serving.gateway", "serving.asgi", "serving.web", "serving.runs",
    "serving.backend", "serving.http", "serving.auth", "serving.replica", "serving",
    "ablations", "nights",
    "pipelines.doctor", "pipelines.evaluate",
    "pipelines.caption", "pipelines.precompute", "pipelines.score", "pipelines.fit", "pipelines.tune_clip",
    "pipelines.train", "pipelines.ingest", "pipelines.cluster", "pipelines",
    "reporting.build", "reporting.comparison", "reporting.nights", "reporting", "reporting.drawing", "reporting.model",
    "nights.model", "alarms",
    "evaluation",
    "runs",
    "sidecars",
    "scoring.online_scorer", "scoring.online_verdict",
    "scoring.fitting.clip", "scoring.fitting", "scoring.fitting.selection", "scoring.fitting.synthetic",
    "scoring.bundles", "scoring",
    "training.clip", "training.captioner", "training",
    "experts.relations", "experts.text", "experts.objects", "experts.components", "experts.composition",
    "experts.structural", "experts.patch", "experts.shared", "experts.shared.search", "experts",
    "perception.objects", "perception.segmentation", "perception.text", "perception.captions",
    "perception.features", "perception.weights", "perception.sampling", "perception",
    "metrics", "drift",
    "archive.scenes", "archive.compaction", "archive.deletion", "archive.ingest", "archive.layouts",
    "archive", "archive.stores",
    "config",
    "progress",
    "errors",
]
# fmt: on
"""All packages from the top down, and modules above or below the rest of their package."""
NO_RAY = set(ROOMS[ROOMS.index("reporting.build") :])
NO_TORCH = ("alarms", "archive", "cli", "config", "drift", "errors", "metrics", "progress", "reporting", "verbs")
MOST_FILES = 13


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """The module of a file, relative to `uniad_ray`; empty for `uniad_ray` itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The entry of `ROOMS` that holds a module."""
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((name for name in names if name in ROOMS), module)


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yields imported modules, and whether each import is only for type checking."""
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


def test_every_module_is_listed() -> None:
    assert {room_of(module_of(path)) for path in files()} == {*ROOMS, ""}


def test_every_package_has_a_docstring() -> None:
    silent = [
        path for path in PACKAGE.rglob("__init__.py") if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []
    folders = {path.parent for path in files()}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_packages_have_few_files() -> None:
    counts = {room: len(list((PACKAGE / room.replace(".", "/")).glob("*.py"))) for room in ROOMS}
    assert {room: count for room, count in counts.items() if count > MOST_FILES} == {}


def test_imports_only_go_down() -> None:
    wrong = []
    for path in files():
        own = module_of(path)
        for name, is_for_types in imports(path):
            root, _, module = name.partition(".")
            if root != "uniad_ray" or not module or not own:
                continue
            # A contract may use the types of its own sub-packages.
            if is_for_types and module.split(".")[0] == own.split(".")[0]:
                continue
            if ROOMS.index(room_of(module)) < ROOMS.index(room_of(own)):
                wrong.append(f"{own} imports {name}")
    assert wrong == []


def test_ray_and_torch_stay_in_their_packages() -> None:
    wrong = []
    for path in files():
        own = module_of(path)
        for name, _ in imports(path):
            root = name.split(".")[0]
            if (root == "ray" and room_of(own) in NO_RAY) or (
                root in ("torch", "timm") and own.split(".")[0] in NO_TORCH
            ):
                wrong.append(f"{own} imports {name}")
    assert wrong == []


def own_modules() -> dict[str, Path]:
    """Files by module name, including packages."""
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files()
    }


def imported_by(path: Path, known: dict[str, Path]) -> set[str]:
    """Own modules that a file imports, at any level, and their parent packages."""
    # A package with lazy names imports them for type checkers only.
    is_face = path.name == "__init__.py"
    names = {name for name, is_for_types in imports(path) if not (is_face and is_for_types)}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in names:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parents = {name.rsplit(".", count)[0] for name in names for count in range(1, name.count(".") + 1)}
    return (names | parents) & known.keys()


def reachable(start: set[str]) -> set[str]:
    """Own modules that the given modules import, directly or indirectly."""
    known = own_modules()
    found: set[str] = set()
    waiting = set(start)
    while waiting:
        found |= waiting
        waiting = {name for module in waiting for name in imported_by(known[module], known)} - found
    return found


HTTP_ROOMS = ("serving.asgi", "serving.auth", "serving.http", "serving.runs", "serving.web")


def test_replicas_import_no_http_code() -> None:
    def rooms(start: str) -> set[str]:
        prefix = f"uniad_ray.{start}"
        modules = {name for name in own_modules() if name == prefix or name.startswith(f"{prefix}.")}
        assert modules
        return {room_of(name.removeprefix("uniad_ray.")) for name in reachable(modules)}

    # Control: the search finds these packages if they are imported.
    assert rooms("serving.gateway") >= set(HTTP_ROOMS)
    assert rooms("serving.replica") & set(HTTP_ROOMS) == set()


WITHOUT_NETWORKS = [
    "pipelines.cluster.decoding",
    "pipelines.ingest.job",
    "pipelines.score.job",
    "evaluation.run",
    "reporting.build",
    "reporting.comparison.build",
    "runs.reader",
    "scoring.bundles.versions",
]


def test_code_without_networks_does_not_import_torch() -> None:
    """Without torch and sklearn, decoding workers and verbs that only read files start five times faster."""
    lines = [f"import uniad_ray.{name}" for name in WITHOUT_NETWORKS]
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


def test_files_are_short() -> None:
    long = {str(path.relative_to(PACKAGE)): len(path.read_text("utf-8").splitlines()) for path in files()}
    assert {name: lines for name, lines in long.items() if lines > 420} == {}
