"""Speed and memory of a run on Ray Data, compared with the same scorer in a plain loop.

The script draws images, ingests and fits them, then measures in several rounds:

- `plain`: one process reads, decodes and scores one chunk after another, with one thread per core;
- `pool`: a pool of processes does the same, one per core with one thread each;
- `run`: `uniad-ray score` on the same archive;
- `large`: the same on an archive of eight times the images, to compare the driver's peak memory and the time;
- `s3` (with `--s3`): the same as `large` with archive and run on an S3 server of this machine (extra `test`). Its
  processor time is measured as well, since the server takes cores from the run that a real store would not.

All are timed over the second half of their chunks. While the actors of a run start, its images are already decoded, so
the first half would look too fast. The end of a run is faster as well, because everything is decoded by then. A small
archive consists mostly of start and end, so its rate does not show how time grows. Growth is measured within the large
run: the time of all its images against eight times that of its first eighth, starting at its first chunk. The script
prints one JSON document with the ratios of each round and their medians.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GROWTH = 8
DRAWN = 512


def main() -> None:
    """Run the benchmark, or one of its child processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, default=1024, help=f"Number of images in the smaller archive, a multiple of {DRAWN}."
    )
    parser.add_argument("--image-size", type=int, default=256, help="Side of the drawn images, in pixels.")
    parser.add_argument("--expert-set", default="patch", help="Expert set to fit and score with.")
    parser.add_argument("--chunk-images", type=int, default=32, help="Number of images in a chunk.")
    parser.add_argument(
        "--repeats",
        type=int,
        default=3,
        help="Number of rounds of plain loop, pool, run, and run on the large archive.",
    )
    parser.add_argument("--s3", action="store_true", help="Also measure a run on an S3 server of this machine.")
    parser.add_argument("--child", nargs=4, metavar=("KIND", "ARCHIVE", "BUNDLES", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, archive, bundles, out = options.child
        print(json.dumps(KINDS[kind](archive, bundles, out)))
        return
    store = s3_server() if options.s3 else contextlib.nullcontext()
    with tempfile.TemporaryDirectory(prefix="uniad-ray-benchmark-") as folder, store as server:
        print(json.dumps(measure(Path(folder), options, server), indent=1))


def s3_server() -> Any:
    """The S3 server of the tests."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from support.s3_server import run_s3_server

    return run_s3_server()


def measure(root: Path, options: argparse.Namespace, server: Any = None) -> dict[str, Any]:
    """Prepare the archives and a bundle, then measure and compare."""
    bundles = str(root / "bundles")
    draw(root / "drawn", DRAWN, options.image_size)
    grow(root / "drawn/trays", "a", options.images // DRAWN)
    ingest(root / "drawn/trays", root / "small", options.chunk_images)
    grow(root / "drawn/trays", "b", GROWTH)
    ingest(root / "drawn/trays", root / "large", options.chunk_images)
    cli("fit", str(root / "small"), "--bundles", bundles, "--set", f"expert_set={options.expert_set}")
    if server is not None:
        os.environ.update(server.environment)
        ingest(root / "drawn/trays", f"s3://{server.bucket}/large", options.chunk_images)
    rounds = []
    for index in range(options.repeats):
        measured = {
            "plain": child("plain", root / "small", bundles, root / f"plain-{index}"),
            "pool": child("pool", root / "small", bundles, root / f"pool-{index}"),
            "run": child("run", root / "small", bundles, root / f"run-{index}"),
            "large": child("run", root / "large", bundles, root / f"large-{index}"),
        }
        if server is not None:
            spent = processor_seconds(server.pid)
            bucket = f"s3://{server.bucket}"
            measured["s3"] = child("s3", f"{bucket}/large", bundles, f"{bucket}/run-{index}")
            measured["s3"] |= without_store(measured["s3"], processor_seconds(server.pid) - spent)
        rounds.append(measured)
        speeds = {kind: round(entry["images_per_second"], 1) for kind, entry in measured.items()}
        note(f"round {index + 1}: images per second {speeds}")
    on_s3 = {}
    if server is not None:
        on_s3 = {
            "speed_of_s3_to_plain": ratios(rounds, "images_per_second", "s3", "plain"),
            "speed_of_s3_without_the_store_to_plain": summary(
                [entry["s3"]["without_store"] / entry["plain"]["images_per_second"] for entry in rounds]
            )
            | {"target_at_least": 0.92},
            "speed_of_s3_to_large": ratios(rounds, "images_per_second", "s3", "large"),
            "processor_seconds_of_the_store_per_image": summary([entry["s3"]["store_seconds"] for entry in rounds]),
        }
    return {
        "cores": len(os.sched_getaffinity(0)),
        "images": {"small": rounds[0]["run"]["images"], "large": rounds[0]["large"]["images"]},
        "images_per_second": {kind: [entry[kind]["images_per_second"] for entry in rounds] for kind in rounds[0]},
        "driver_peak_mib": {kind: [entry[kind]["driver_peak_mib"] for entry in rounds] for kind in ("run", "large")},
        "speed_of_run_to_plain": ratios(rounds, "images_per_second", "run", "plain") | {"target_at_least": 0.85},
        "speed_of_run_to_pool": ratios(rounds, "images_per_second", "run", "pool"),
        **on_s3,
        "driver_peak_of_large_to_run": ratios(rounds, "driver_peak_mib", "large", "run") | {"target_below": 1.10},
        "speed_of_large_to_run": ratios(rounds, "images_per_second", "large", "run"),
        "time_of_large_to_growth_times_its_first_part": summary([entry["large"]["growth_of_time"] for entry in rounds])
        | {"target_within": [0.90, 1.10]},
    }


def ratios(rounds: list[dict[str, Any]], metric: str, above: str, below: str) -> dict[str, Any]:
    """Ratio in each round, and its median."""
    return summary([entry[above][metric] / entry[below][metric] for entry in rounds])


def summary(every: list[float]) -> dict[str, Any]:
    """Value in each round, and its median."""
    return {"median": statistics.median(every), "all": every}


def plain(archive: str, bundles: str, _out: str) -> dict[str, Any]:
    """Read, decode and score every chunk in this process."""
    loaded = Loaded.of(archive, bundles, len(os.sched_getaffinity(0)))
    return rate([loaded.score(index) for index in range(len(loaded.chunks))])


def pool(archive: str, bundles: str, _out: str) -> dict[str, Any]:
    """The same in a pool with one process and one thread for each core: no store of results, nothing resumes."""
    chunks = len(Loaded.of(archive, bundles, 1).chunks)
    processes = ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=multiprocessing.get_context("spawn"))
    with processes:
        waiting = [processes.submit(score_chunk, archive, bundles, index) for index in range(chunks)]
        return rate(sorted(future.result() for future in waiting))


def score_chunk(archive: str, bundles: str, index: int) -> tuple[float, int]:
    """Score one chunk in a process of the pool."""
    return Loaded.of(archive, bundles, 1).score(index)


@dataclass(frozen=True)
class Loaded:
    """What a process needs to score chunks."""

    root: Any
    chunks: list[Any]
    scorer: Any

    @classmethod
    @functools.cache
    def of(cls, archive: str, bundles: str, threads: int) -> Loaded:
        """Load once in each process."""
        from uniad_ray.archive.manifest import chunks, read_manifest
        from uniad_ray.archive.stores.location import Location
        from uniad_ray.pipelines.cluster.devices import limit_threads
        from uniad_ray.scoring.bundles.store import BundleStore

        limit_threads(threads)
        root = Location.parse(archive)
        return cls(root, list(chunks(read_manifest(root))), BundleStore(bundles).load("trays").scorer())

    def score(self, index: int) -> tuple[float, int]:
        """Read, decode and score a chunk; returns when it was finished, and its number of images."""
        from uniad_ray.archive.images import ImageLimits, decode_batch
        from uniad_ray.archive.shards import read_chunk

        table = read_chunk(self.root, self.chunks[index], columns=["row_key", "image"])
        images, _ = decode_batch(table.column("image").to_pylist(), self.scorer.config.decoded_size, ImageLimits())
        self.scorer.score(table.column("row_key").to_pylist(), images)
        return time.time(), self.chunks[index].rows


def ray_run(archive: str, bundles: str, out: str) -> dict[str, Any]:
    """Run the pipeline; the files of its chunks show when each was finished."""
    import pyarrow.parquet as pq

    from uniad_ray.pipelines.score.job import score

    score(archive, bundles, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    files = sorted(Path(out, "scores").rglob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    result = rate([(path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in files])
    return {**result, "driver_peak_mib": peak}


def s3_run(archive: str, bundles: str, out: str) -> dict[str, Any]:
    """Run the pipeline on S3; the store notes in seconds when a chunk was finished."""
    import boto3
    import pyarrow.parquet as pq

    from uniad_ray.archive.stores.location import Location
    from uniad_ray.pipelines.score.job import score

    score(archive, bundles, out)
    bucket, _, prefix = out.removeprefix("s3://").partition("/")
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/scores/")
    finished = []
    for entry in (entry for page in pages for entry in page["Contents"] if entry["Key"].endswith(".parquet")):
        data = Location.parse(f"s3://{bucket}/{entry['Key']}").read_bytes()
        finished.append((entry["LastModified"].timestamp(), pq.read_metadata(io.BytesIO(data)).num_rows))
    return rate(sorted(finished))


def without_store(measured: dict[str, Any], store_seconds: float) -> dict[str, float]:
    """The speed that the run would have if the store had cores of its own."""
    per_image = store_seconds / measured["images"]
    cores = len(os.sched_getaffinity(0))
    return {
        "store_seconds": per_image,
        "without_store": cores / (cores / measured["images_per_second"] - per_image),
    }


def processor_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


KINDS = {"plain": plain, "pool": pool, "run": ray_run, "s3": s3_run}


def rate(finished: list[tuple[float, int]]) -> dict[str, Any]:
    """Images per second over the second half of the chunks, sorted by the time they were finished."""
    half = len(finished) // 2
    seconds = finished[-1][0] - finished[half - 1][0]
    timed = sum(rows for _, rows in finished[half:])
    return {
        "images": sum(rows for _, rows in finished),
        "timed_images": timed,
        "seconds": seconds,
        "images_per_second": timed / seconds,
        "growth_of_time": growth_of_time(finished),
    }


def growth_of_time(finished: list[tuple[float, int]]) -> float:
    """Time per image of all chunks after the first, relative to the first of `GROWTH` equal parts; 1 is linear."""
    part = max(1, (len(finished) - 1) // GROWTH)

    def per_image(last: int) -> float:
        return (finished[last][0] - finished[0][0]) / sum(rows for _, rows in finished[1 : last + 1])

    return per_image(len(finished) - 1) / per_image(part)


def draw(folder: Path, images: int, size: int) -> None:
    """Draw a category of trays with a hundred normal images to fit on."""
    rest = max(images - 100, 3)
    counts = {"train": 100, "test-good": rest - 2 * (rest // 3), "logical": rest // 3, "structural": rest // 3}
    cli("scenes", str(folder), f"--image-size={size}", *(f"--{name}={count}" for name, count in counts.items()))


def grow(tree: Path, tag: str, factor: int) -> None:
    """Link every image of a tree under further names: the archive grows, and each image costs the same."""
    for path in [*tree.glob("train/*/*.png"), *tree.glob("test/*/*.png")]:
        for copy in range(1, factor):
            path.with_name(f"{path.stem}-{tag}{copy}.png").hardlink_to(path)


def ingest(source: Path, archive: Path | str, chunk_images: int) -> None:
    """Ingest with a fixed chunk size."""
    cli("ingest", str(source), str(archive), f"--chunk-images={chunk_images}")


def cli(*arguments: str) -> None:
    """Run a verb."""
    note(f"uniad-ray {' '.join(arguments[:1])} ...")
    subprocess.run([sys.executable, "-m", "uniad_ray.cli", *arguments], check=True, capture_output=True)  # noqa: S603


def child(kind: str, archive: Path | str, bundles: str, out: Path | str) -> dict[str, Any]:
    """Measure in a child process, which separates the peaks of memory."""
    command = [sys.executable, __file__, "--child", kind, str(archive), bundles, str(out)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def note(text: str) -> None:
    """Log progress to stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
