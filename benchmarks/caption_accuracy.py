"""Share of right captions of the demonstration model, through a real engine, on trays that it has not seen.

The script draws trays, or with `--product` a product, into an archive and captions it with `uniad-ray caption`, with
the structured prompt. An answer is right if classes, numbers and cells of all parts are those that were drawn. For each
class, an image counts if it holds the class or its answer names it. With `--engines`, every engine captions the same
images: vLLM in an actor, through Ray Data, or as a server that the script starts. The script prints one JSON document.

    .venv-vlm/bin/python benchmarks/caption_accuracy.py --images 300
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uniad_ray.archive.manifest import chunks, read_manifest
from uniad_ray.archive.scenes import SceneConfig, draw_scene
from uniad_ray.archive.scenes.products.dataset import ProductConfig
from uniad_ray.archive.scenes.products.product import draw_image, draw_product
from uniad_ray.archive.scenes.writing import write_scenes
from uniad_ray.archive.shards import read_chunk
from uniad_ray.archive.stores.location import Location
from uniad_ray.perception.captions.engine import ENVIRONMENT
from uniad_ray.perception.text.descriptions import CELLS
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.pipelines.cluster.session import ray_session
from uniad_ray.training.captioner.trays import CLASSES, true_answer

Objects = Mapping[str, tuple[int, tuple[str, ...]]]
"""Number and sorted cells of the objects of each class."""
GROUPS = ("good", "logical_anomalies", "structural_anomalies")
SEED = 20_000
SERVED = "tray-captioner"
START_SECONDS = 300


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:tray-captioner")
    parser.add_argument("--engines", nargs="+", default=["vllm"], choices=("vllm", "ray", "server"))
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seed", type=int, default=SEED, help="Seed of the trays.")
    parser.add_argument("--product", type=int, help="Caption the product of this seed instead.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uniad-ray-captions-") as folder:
        print(json.dumps(measure(Path(folder), options), indent=1))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Draw, ingest and caption the images with each engine, and compare the answers with the truth."""
    from uniad_ray import ingest

    of_group = options.images // len(GROUPS)
    counts = {"train": 0, "test_good": options.images - 2 * of_group, "logical": of_group, "structural": of_group}
    scenes: SceneConfig | ProductConfig
    if options.product is None:
        scenes, classes = SceneConfig(seed=options.seed, **counts), CLASSES
    else:
        scenes = ProductConfig(product=options.product, category="product", **counts)
        classes = tuple(sorted({kind.name for kind in draw_product(options.product).layout.kinds}))
    write_scenes(str(folder / "source"), scenes)
    found = {}
    with ray_session():
        ingest(str(folder / "source"), str(folder / "archive"))
        for engine in options.engines:
            with contextlib.ExitStack() as running:
                url = running.enter_context(server(options.model)) if engine == "server" else None
                found[engine] = measure_engine(folder, options.model, engine, url, scenes, classes)
    return {"model": options.model, "seed": options.seed if options.product is None else options.product, **found}


def measure_engine(
    folder: Path,
    model: str,
    engine: Any,
    url: str | None,
    scenes: SceneConfig | ProductConfig,
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """Caption the archive with one engine, and compare the answers with the truth."""
    from uniad_ray import caption

    started = time.perf_counter()
    report = caption(
        str(folder / "archive"),
        out=str(folder / engine),
        engine=engine,
        model=SERVED if url else model,
        url=url,
        prompt="structured",
        classes=classes,
        options=["max_tokens=256"] if url else ["max_tokens=256", "enforce_eager=true"],
        workers=1,
    )
    return {
        "seconds_with_start": round(time.perf_counter() - started, 1),
        "tokens_per_image": round(report.tokens / report.images, 1),
        "prompt_tokens_per_image": round(report.prompt_tokens / report.images, 1),
        "errors": report.errors,
        **compare(list(answers(folder, engine, scenes)), classes),
    }


@contextlib.contextmanager
def server(model: str) -> Iterator[str]:
    """Run vLLM's OpenAI-compatible server on this machine, and yield its URL."""
    uri = model if ":" in model else f"file:{Path(model).absolute()}"
    folder = resolve_folder(ModelFolderSource(uri=uri)).path
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    structure = {"backend": "xgrammar", "disable_any_whitespace": True}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", SERVED, "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += ["--max-num-seqs", "8", "--structured-outputs-config", json.dumps(structure)]
    command += ["--limit-mm-per-prompt", json.dumps({"image": 1, "video": 0})]
    variables = {name: value for name, value in ENVIRONMENT.items() if name != "VLLM_ENABLE_V1_MULTIPROCESSING"}
    process = subprocess.Popen(command, env={**variables, **os.environ}, stdout=sys.stderr)  # noqa: S603
    try:
        for _ in range(START_SECONDS):
            if process.poll() is not None:
                raise SystemExit(f"vLLM's server ended with {process.returncode}")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(1)
        else:
            raise SystemExit(f"vLLM's server did not start in {START_SECONDS} s")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def answers(
    folder: Path, engine: str, scenes: SceneConfig | ProductConfig
) -> Iterator[tuple[str, Objects, Objects | None, float]]:
    """Yield group, truth, answer (None if it is not valid) and seconds of each image."""
    archive = Location.parse(str(folder / "archive"))
    for chunk in chunks(read_manifest(archive)):
        images = read_chunk(archive, chunk, columns=["row_key", "source_uri"]).to_pylist()
        captions = read_captions(folder / engine, chunk.name)
        for image in images:
            split, group, name = Path(image["source_uri"]).parts[-3:]
            row = captions[image["row_key"]]
            given = row["objects"] if row["status"] == "ok" else None
            answer = None if given is None else as_objects(given)
            yield group, truth(scenes, split, group, int(Path(name).stem)), answer, row["seconds"]


def read_captions(folder: Path, chunk: str) -> dict[str, dict[str, Any]]:
    """Read the captions of a chunk by row key."""
    import pyarrow.parquet as pq

    return {row["row_key"]: row for row in pq.read_table(folder / f"captions/{chunk}.parquet").to_pylist()}


def truth(scenes: SceneConfig | ProductConfig, split: Any, group: Any, index: int) -> Objects:
    """Return what was drawn."""
    if isinstance(scenes, SceneConfig):
        return as_objects(true_answer(draw_scene(scenes, split, group, index).parts)["objects"])
    drawn = draw_image(draw_product(scenes.product), split, group, index)
    cells: dict[str, list[str]] = defaultdict(list)
    for kind, mask in zip(drawn.part_kinds, drawn.part_masks, strict=True):
        row, column = (int(3 * place.mean() / side) for place, side in zip(np.nonzero(mask), mask.shape, strict=True))
        cells[kind].append(CELLS[3 * row + column])
    return {kind: (len(places), tuple(sorted(places))) for kind, places in cells.items()}


def as_objects(entries: Sequence[Mapping[str, Any]]) -> Objects:
    """Return the entries of an answer by class."""
    return {one["class"]: (one["count"], tuple(sorted(one["positions"]))) for one in entries}


def compare(found: Sequence[tuple[str, Objects, Objects | None, float]], classes: Sequence[str]) -> dict[str, Any]:
    """Compare answers with the truth: overall, by group and by class."""
    right = {group: [answer == true for own, true, answer, _ in found if own == group] for group in GROUPS}
    by_class = {}
    for name in classes:
        pairs = [(true.get(name), (answer or {}).get(name)) for _, true, answer, _ in found]
        pairs = [(true, answer) for true, answer in pairs if true or answer]
        by_class[name] = {
            "images": len(pairs),
            "right": share([true == answer for true, answer in pairs]),
            "right_number": share([(true or (0,))[0] == (answer or (0,))[0] for true, answer in pairs]),
        }
    return {
        "images": len(found),
        "right": share([answer == true for _, true, answer, _ in found]),
        "valid": share([answer is not None for _, _, answer, _ in found]),
        "seconds_per_image": round(float(np.median([seconds for *_, seconds in found])), 4),
        "right_by_group": {group: share(own) for group, own in right.items()},
        "by_class": by_class,
    }


def share(values: Sequence[bool]) -> float | None:
    """Return the share of true values; None without any."""
    return round(float(np.mean(values)), 4) if values else None


if __name__ == "__main__":
    main()
