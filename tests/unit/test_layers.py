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
    "runs",
    "scoring",
    "training",
    "experts",
    "perception",
    "metrics",
    "archive",
    "config",
    "errors",
]
OF_RUNS = {"pipelines.maps", "pipelines.marks", "pipelines.scored_images"}
"""Modules of a run at rest: a report is made from them."""
NO_RAY = set(LAYERS[LAYERS.index("report") :])
NO_TORCH = {"archive", "config", "errors", "metrics", "report", "verbs", "cli"}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def layer(path: Path) -> str:
    return layer_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))


def layer_of(module: str) -> str:
    """The layer of a module, named from the package on."""
    return "runs" if module in OF_RUNS else module.split(".")[0]


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
            root, _, module = name.partition(".")
            if root != "uniad_ray" or not module:
                continue
            if LAYERS.index(layer_of(module)) < LAYERS.index(own):
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


SERVING = {
    "top": [
        "uniad_ray.serving.app",
        "uniad_ray.serving.asgi",
        "uniad_ray.serving.backend",
        "uniad_ray.serving.command",
        "uniad_ray.serving.gateway",
        "uniad_ray.serving.settings_file",
    ],
    "web": ["uniad_ray.serving.web.pages"],
    "runs": [
        "uniad_ray.serving.runs.cache",
        "uniad_ray.serving.runs.category_scores",
        "uniad_ray.serving.runs.review",
        "uniad_ray.serving.runs.schemas",
        "uniad_ray.serving.runs.browser",
        "uniad_ray.serving.runs.pictures",
        "uniad_ray.serving.runs.views",
        "uniad_ray.serving.runs.api",
    ],
    "http": [
        "uniad_ray.serving.http.schemas",
        "uniad_ray.serving.http.api",
        "uniad_ray.serving.http.catalogue",
        "uniad_ray.serving.http.openapi",
        "uniad_ray.serving.http.problems",
        "uniad_ray.serving.http.references",
        "uniad_ray.serving.http.images",
        "uniad_ray.serving.http.access_log",
    ],
    "auth": [
        "uniad_ray.serving.auth.keys",
        "uniad_ray.serving.auth.key_file",
        "uniad_ray.serving.auth.rate_limits",
    ],
    "replica": [
        "uniad_ray.serving.replica.captions",
        "uniad_ray.serving.replica.batcher",
        "uniad_ray.serving.replica.captioners",
        "uniad_ray.serving.replica.live_bundle",
        "uniad_ray.serving.replica.deployment",
        "uniad_ray.serving.replica.scorer",
        "uniad_ray.serving.replica.vllm",
    ],
    "settings": ["uniad_ray.serving.settings"],
}
"""The parts of `serving`, from the top: each may import those below it."""
ROOM = {module: room for room, modules in SERVING.items() for module in modules}


def own_modules() -> dict[str, Path]:
    """Files by module name, packages among them."""
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files()
    }


def imported_by(path: Path, known: dict[str, Path]) -> set[str]:
    """Own modules that a file imports, anywhere in it, and the packages that they lie in."""
    # A package names for type checkers what it imports lazily.
    is_face = path.name == "__init__.py"
    names = {name for name, is_for_types in imports(path) if not (is_face and is_for_types)}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in names:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parents = {name.rsplit(".", count)[0] for name in names for count in range(1, name.count(".") + 1)}
    return (names | parents) & known.keys()


def reachable(start: set[str]) -> set[str]:
    """Own modules that are imported by some, directly or by others."""
    known = own_modules()
    found: set[str] = set()
    waiting = set(start)
    while waiting:
        found |= waiting
        waiting = {name for module in waiting for name in imported_by(known[module], known)} - found
    return found


def test_every_module_of_serving_is_in_one_of_its_parts() -> None:
    modules = {name: path for name, path in own_modules().items() if name.startswith("uniad_ray.serving.")}
    assert {name for name, path in modules.items() if path.name != "__init__.py"} == set(ROOM)
    assert len(ROOM) == sum(map(len, SERVING.values()))


def test_parts_of_serving_import_downwards_only() -> None:
    order, known = list(SERVING), own_modules()
    wrong = [
        f"{module} imports {name}"
        for module, room in ROOM.items()
        for name in imported_by(known[module], known) & ROOM.keys()
        if order.index(ROOM[name]) < order.index(room)
    ]
    assert wrong == []


def test_a_replica_reaches_nothing_that_speaks_http() -> None:
    http = {name for name, room in ROOM.items() if room in ("http", "auth", "runs", "web")}
    # What the search is able to find.
    assert reachable({"uniad_ray.serving.gateway"}) >= http - {"uniad_ray.serving.auth.key_file"}
    assert reachable(set(SERVING["replica"])) & http == set()


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
