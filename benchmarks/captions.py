"""Captioning through Ray Data, compared with a loop around the same engine with the same batches.

The script draws and ingests trays, in row groups of one batch. In each round, a process of its own captions them in a
loop around the bare engine; then `uniad-ray caption` does the same in one actor. Both decode the images. The time of a
batch through Ray Data is that between the commits of two chunks, so neither side counts the start of the engine. The
ratio is that of the median times, at most 1 if Ray Data costs time. The costs follow from the measured tokens and times
and from `--hourly-price`. The script prints one JSON document.

    .venv-vlm/bin/python benchmarks/captions.py --hourly-price 4.0
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from uniad_ray.archive.manifest import chunks, read_manifest
from uniad_ray.archive.scenes import SceneConfig
from uniad_ray.archive.scenes.writing import write_scenes
from uniad_ray.archive.shards import read_chunk
from uniad_ray.archive.stores.location import Location
from uniad_ray.perception.captions.engine import CaptionEngine, CaptionEngineConfig
from uniad_ray.perception.captions.structure import answer_schema, structured_prompt
from uniad_ray.pipelines.caption.rows import decoded
from uniad_ray.pipelines.cluster.devices import limit_threads
from uniad_ray.pipelines.cluster.session import ray_session
from uniad_ray.training.captioner.trays import CLASSES

MAX_TOKENS = 256


def main() -> None:
    """Run the benchmark, or the loop around the bare engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:tray-captioner")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32, help="Images per batch, as in a caption job.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compiled", action="store_true", help="Compile the model; for a GPU.")
    parser.add_argument("--hourly-price", type=float, help="Price of the machine per hour.")
    parser.add_argument("--bare", metavar="ARCHIVE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(bare(options.bare, options)))
        return
    with tempfile.TemporaryDirectory(prefix="uniad-ray-captions-") as folder:
        print(json.dumps(measure(Path(folder), options), indent=1))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Caption the same images in both ways, in several rounds."""
    from uniad_ray import ingest

    images = options.batch * options.batches
    write_scenes(str(folder / "source"), SceneConfig(train=images, test_good=0, logical=0, structural=0))
    archive = str(folder / "archive")
    alone, through = [], []
    with ray_session():
        ingest(str(folder / "source"), archive, chunk_images=options.batch)
        for number in range(options.rounds):
            command = [sys.executable, __file__, *sys.argv[1:], "--bare", archive]
            # Ray gives its actors these threads.
            threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
            ended = subprocess.run(  # noqa: S603
                command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **threads}
            )
            alone.append(json.loads(ended.stdout.splitlines()[-1]))
            through.append(with_ray_data(archive, folder / f"captions-{number}", options))
    return compare(alone, through, options)


def bare(archive: str, options: argparse.Namespace) -> dict[str, Any]:
    """Caption all chunks in a loop, and return the seconds of each but the first, and the tokens per image."""
    source = Location.parse(archive)
    document = {"kind": "vllm", "weights": {"uri": options.model}, "max_tokens": MAX_TOKENS}
    config = CaptionEngineConfig.model_validate({**document, "enforce_eager": not options.compiled})
    limit_threads(1)
    engine = CaptionEngine("caption", config)
    seconds, written, read = [], 0, 0
    for chunk in chunks(read_manifest(source)):
        started = time.perf_counter()
        encoded = read_chunk(source, chunk, columns=["image"]).column("image").to_pylist()
        pixels, _ = decoded(encoded, config.longest_side, None)
        answers = engine.answers(list(pixels.values()), structured_prompt(CLASSES), answer_schema(CLASSES))
        seconds.append(time.perf_counter() - started)
        written += sum(answer.tokens or 0 for answer in answers)
        read += sum(answer.prompt_tokens or 0 for answer in answers)
    images = options.batch * options.batches
    return {"seconds": seconds[1:], "tokens": written / images, "prompt_tokens": read / images}


def with_ray_data(archive: str, out: Path, options: argparse.Namespace) -> list[float]:
    """Run a caption job with one actor, and return the seconds between the commits of its chunks."""
    from uniad_ray import caption

    caption(
        archive,
        out=str(out),
        engine="vllm",
        model=options.model,
        prompt="structured",
        classes=CLASSES,
        options=[f"max_tokens={MAX_TOKENS}", f"enforce_eager={str(not options.compiled).lower()}"],
        workers=1,
    )
    commits = sorted(path.stat().st_mtime_ns / 1e9 for path in (out / "captions").rglob("*.parquet"))
    return [after - before for before, after in itertools.pairwise(commits)]


def compare(alone: list[dict[str, Any]], through: list[list[float]], options: argparse.Namespace) -> dict[str, Any]:
    """Compare the median times of a batch, and derive the cost of a million images."""
    loop = statistics.median([value for own in alone for value in own["seconds"]])
    ray_data = statistics.median([value for own in through for value in own])
    hours = 1e6 * ray_data / options.batch / 3600
    return {
        "model": options.model,
        "batch": options.batch,
        "batches": options.batches,
        "rounds": options.rounds,
        "prefix_caching": False,
        "loop_seconds_per_batch": round(loop, 4),
        "ray_data_seconds_per_batch": round(ray_data, 4),
        "ratio": round(loop / ray_data, 3),
        "ratio_by_round": [
            round(statistics.median(one["seconds"]) / statistics.median(other), 3)
            for one, other in zip(alone, through, strict=True)
        ],
        "per_million_images": {
            "hours": round(hours, 2),
            "prompt_tokens": round(1e6 * alone[0]["prompt_tokens"]),
            "tokens": round(1e6 * alone[0]["tokens"]),
            "price": None if options.hourly_price is None else round(hours * options.hourly_price, 2),
        },
    }


if __name__ == "__main__":
    main()
