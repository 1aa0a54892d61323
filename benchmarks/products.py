"""Image AUROC of every expert on synthetic products (`uniad-ray scenes --product SEED`), logical and structural.

For each seed the script draws a product once into a cache, then ingests, fits, scores and evaluates it with the verbs
of the package, on one Ray instance. Each expert of the set is scored, also those that the expert selection omits; the
fused score, the threshold and the times are those of a usual run. The result of a product goes into the results file as
soon as it is there, so the same command resumes where it was cut. Several processes with the same results file share
the products among them. The script prints a table; `--json` prints the results file instead.

    python benchmarks/products.py 100-119 --results products.json --cache cache
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from product_tables import FUSED, GROUPS, summary, table

from uniad_ray.errors import UniadRayError

Auroc = dict[str, float | None]


def main() -> None:
    """Run the benchmark."""
    parser = product_arguments(__doc__, results="products.json", train=60, good=24)
    parser.add_argument("--config", default="embedded", metavar="NAME|FILE", help="A profile, or a YAML file.")
    parser.add_argument("--json", action="store_true", help="Print the results as JSON instead of a table.")
    options = parser.parse_args()
    results = run(options)
    print(json.dumps(results, indent=1) if options.json else table(results))


def product_arguments(about: str | None, *, results: str, train: int, good: int) -> argparse.ArgumentParser:
    """The options of a benchmark over products, with its own results file and numbers of normal images."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="+", metavar="SEED|FIRST-LAST", help="Seeds of products.")
    parser.add_argument("--results", type=Path, default=Path(results), help="Results file, read and written.")
    parser.add_argument("--cache", type=Path, default=Path("products-cache"), help="Folder of drawn images.")
    parser.add_argument("--train", type=int, default=train, help="Number of normal images to fit on.")
    parser.add_argument("--good", type=int, default=good, help="Number of normal test images.")
    parser.add_argument("--logical", type=int, default=24, help="Number of logical anomalies.")
    parser.add_argument("--structural", type=int, default=24, help="Number of structural anomalies.")
    parser.add_argument("--expert-set", default="fused", help="Expert set to fit and score with.")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="Override a profile key.")
    return parser


def asked_of(options: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """What a results file is valid for: the options that affect its results, and further ones."""
    counts = {"train": options.train, "test_good": options.good}
    return {
        "images": counts | {"logical": options.logical, "structural": options.structural},
        "expert_set": options.expert_set,
        "overrides": options.overrides,
        **more,
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every seed that the results file lacks; failed products are tried again."""
    return measure_missing(options, asked_of(options, config=options.config), measure, summary)


def measure_missing(
    options: argparse.Namespace,
    asked: dict[str, Any],
    measure: Callable[[int, dict[str, Any], Path], dict[str, Any]],
    summary: Callable[[Mapping[str, Any]], Any],
) -> dict[str, Any]:
    """Measure every seed that the results file lacks, beside other processes; failed products are tried again.

    Args:
        options: Options from `product_arguments`.
        asked: What the results are valid for.
        measure: Measures one product from its seed, `asked` and the cache.
        summary: Summary of all products.
    """
    from uniad_ray.pipelines.cluster.session import ray_session

    if left := _left(parse_seeds(options.seeds), read_results(options.results, asked)):
        with ray_session():
            for number, seed in enumerate(left, start=1):
                with lock(options.cache / "unfinished" / f"{seed}.lock", wait=False) as is_mine:
                    if not is_mine or seed not in _left([seed], read_results(options.results, asked)):
                        continue
                    print(f"product {seed}, {number} of {len(left)}", file=sys.stderr)
                    found = measure(seed, asked, options.cache)
                    with lock(options.results.with_name(options.results.name + ".lock")):
                        results = read_results(options.results, asked)
                        results["products"][str(seed)] = found
                        results["summary"] = summary(results["products"])
                        write_results(options.results, results)
    return read_results(options.results, asked)


def _left(seeds: Sequence[int], results: Mapping[str, Any]) -> list[int]:
    """The seeds without results, or with failed ones."""
    return [seed for seed in seeds if "failed" in results["products"].get(str(seed), {"failed": ""})]


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lock a file against other processes; False if one of them holds it and `wait` is off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            # The lock ends with the process at the latest.
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def parse_seeds(words: Sequence[str]) -> list[int]:
    """Seeds from words such as `3` and `100-119`, in order and without repetition."""
    found: dict[int, None] = {}
    for word in words:
        first, _, last = word.partition("-")
        found |= dict.fromkeys(range(int(first), int(last or first) + 1))
    return list(found)


def read_results(path: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The results file, or an empty one with the given options; other options would not be comparable."""
    if not path.exists():
        return {"options": asked, "products": {}, "summary": {}}
    results: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if results["options"] != asked:
        sys.exit(f"{path}: holds results of other options, {json.dumps(results['options'])}; choose another --results")
    return results


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Replace the results file as a whole, so that an interruption cannot damage it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(results, indent=1), "utf-8")
    partial.replace(path)


def measure(seed: int, asked: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Draw, ingest, fit, score and evaluate a product; its AUROC in per cent, times and memory."""
    source = draw(seed, asked["images"], cache)
    work = cache / "unfinished" / str(seed)
    # The rest of a product that was cut is not worth keeping.
    shutil.rmtree(work, ignore_errors=True)
    try:
        with PeakMemory() as memory:
            found = fit_and_score(source, f"product-{seed}", work, asked)
        return found if "failed" in found else found | {"peak_mib": memory.mib}
    except UniadRayError as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def draw(seed: int, counts: Mapping[str, int], cache: Path) -> Path:
    """Draw a product into the cache, or find it there; a later version of the drawing draws again."""
    from uniad_ray.archive import scenes
    from uniad_ray.archive.scenes.products.dataset import ProductConfig
    from uniad_ray.archive.scenes.writing import write_scenes

    code = hashlib.sha256()
    for file in sorted(Path(scenes.__file__).parent.rglob("*.py")):
        code.update(file.read_bytes())
    name = "-".join([*(str(count) for count in counts.values()), code.hexdigest()[:12]])
    folder = cache / "drawn" / name / str(seed)
    # `product.json` is written last.
    if not (folder / f"product-{seed}" / "product.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        write_scenes(str(folder), ProductConfig(product=seed, category=f"product-{seed}", **counts))
    return folder


def fit_and_score(source: Path, category: str, work: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Run the verbs on a drawn product and collect the results."""
    import uniad_ray as ur
    from uniad_ray.evaluation.labelled_images import labelled_images
    from uniad_ray.runs.reader import RunReader
    from uniad_ray.scoring.bundles.store import BundleStore

    archive, bundles, usual, others = (str(work / name) for name in ("archive", "bundles", "run", "others"))
    # Small chunks keep all workers busy with few images.
    ur.ingest(str(source), archive, chunk_images=8)
    overrides = [f"expert_set={asked['expert_set']}", *asked["overrides"]]
    started = time.perf_counter()
    fitted = ur.fit(archive, bundles=bundles, profile=asked["config"], overrides=overrides, accept_unusual=True)
    fit_seconds = time.perf_counter() - started
    if fitted.failed:
        return {"failed": fitted.failed[category]}
    started = time.perf_counter()
    scored = ur.score(archive, bundles=bundles, out=usual, splits=["test"])
    score_seconds = time.perf_counter() - started
    ur.evaluate(usual, resamples=0)
    manifest = BundleStore(bundles).load(category).manifest
    omitted = [name for name in manifest.fitted_experts if name not in manifest.taking_part]
    if omitted:
        ur.score(archive, bundles=bundles, out=others, splits=["test"], maps="none", experts=omitted)
    scores: dict[str, np.ndarray] = {}
    for run_root in (usual, *([others] if omitted else [])):
        (images,) = labelled_images(RunReader(run_root))
        scores |= images.experts
        if run_root == usual:
            first, scores[FUSED] = images, images.scores
            called = images.called
    uris = source_uris(usual, first.row_keys.to_pylist())
    members = groups_of(first.anomaly_types, [large_flaw(source / category, uri) for uri in uris])
    product = json.loads((source / category / "product.json").read_text("utf-8"))
    broken = rules_of([defect_of(product, source / category, uri) for uri in uris], product["logical_anomalies"])
    return {
        "layout": product["layout"],
        "selected": list(manifest.taking_part),
        "auroc": {name: aurocs(values, first.normal, members) for name, values in scores.items()},
        "rules": {name: aurocs(values, first.normal, broken) for name, values in scores.items()},
        "recall": recalls(scores[FUSED], first.normal, members),
        "false_alarms": float(called[first.normal].mean()),
        "found": {group: float(called[chosen].mean()) if chosen.any() else None for group, chosen in members.items()},
        "unusual_images": len(fitted.fitted[0].unusual),
        "fit_seconds_per_image": fit_seconds / asked["images"]["train"],
        "score_seconds_per_image": score_seconds / scored.images,
    }


def source_uris(run_root: str, row_keys: Sequence[str]) -> list[str]:
    """The files that rows of a run were ingested from."""
    from uniad_ray.runs.reader import RunReader

    rows = RunReader(run_root).scores(["row_key", "source_uri"]).to_pylist()
    by_key = {row["row_key"]: row["source_uri"] for row in rows}
    return [by_key[key] for key in row_keys]


def large_flaw(folder: Path, uri: str) -> bool | None:
    """Whether the flaw of an image takes at least 0.4 % of it, by its mask; None for other images."""
    from uniad_ray.archive.scenes.products.product import SMALL_FLAW

    image = Path(uri)
    if image.parent.name != "structural_anomalies":
        return None
    mask = np.asarray(Image.open(folder / "ground_truth" / image.parent.name / image.stem / "000.png"))
    return bool((mask > 0).mean() >= SMALL_FLAW)


def defect_of(product: Mapping[str, Any], folder: Path, uri: str) -> str | None:
    """The defect of an image by `product.json`; None for a normal image."""
    defect: str | None = product["images"][str(Path(uri).relative_to(folder))].get("defect")
    return defect


def rules_of(defects: Sequence[str | None], logical: Sequence[str]) -> dict[str, np.ndarray]:
    """Which images break each rule; structural defects are left out."""
    names = np.array(defects, dtype=object)
    return {rule: names == rule for rule in logical}


def groups_of(types: Sequence[str | None], large: Sequence[bool | None]) -> dict[str, np.ndarray]:
    """Which images belong to each of `GROUPS`, from their anomaly types and the size of their flaws."""
    kinds, sizes = np.array(types, dtype=object), np.array(large, dtype=object)
    chosen = (kinds == "logical", kinds == "structural", sizes == True, sizes == False)  # noqa: E712 - None is neither
    return dict(zip(GROUPS, chosen, strict=True))


def aurocs(scores: np.ndarray, normal: np.ndarray, members: Mapping[str, np.ndarray]) -> Auroc:
    """AUROC of each group against all normal images, per cent; None if one of both is empty."""
    from uniad_ray.metrics.image import image_auroc

    found: Auroc = {}
    for group, chosen in members.items():
        taken = normal | chosen
        value = image_auroc(chosen[taken].astype(int), scores[taken]) if taken.any() else None
        found[group] = None if value is None else 100 * value
    return found


def recalls(scores: np.ndarray, normal: np.ndarray, members: Mapping[str, np.ndarray]) -> Auroc:
    """Share of each group above all but one in a hundred normal images, per cent; None for an empty group."""
    ordered = np.sort(scores[normal])[::-1]
    limit = ordered[len(ordered) // 100]
    return {
        group: 100 * float((scores[chosen] > limit).mean()) if chosen.any() else None
        for group, chosen in members.items()
    }


class PeakMemory:
    """Largest memory of this process and all its descendants together, MiB; pages of files do not count."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.mib = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        """Start to watch, twice a second."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            self.mib = max(self.mib, memory_of_descendants(os.getpid()))


def memory_of_descendants(root: int) -> float:
    """Anonymous memory of a process and its descendants, MiB."""
    parents, sizes = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            lines = (entry / "status").read_text().splitlines()
        except OSError:
            continue
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        parents[int(entry.name)] = int(status["PPid"])
        sizes[int(entry.name)] = int(status.get("RssAnon", "0 kB").split()[0]) / 1024

    def is_below(pid: int) -> bool:
        while pid != root and pid in parents:
            pid = parents[pid]
        return pid == root

    return sum(size for pid, size in sizes.items() if is_below(pid))


if __name__ == "__main__":
    main()
