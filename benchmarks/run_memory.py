"""Memory of an ingest and of a run on Ray against the number of images: driver, workers, object store, what spills.

The script draws tiny images of trays, fits a patch memory, and links the images under further names until an archive
has the number that is asked for. Each step is a process with a Ray of its own. Every two seconds it reads the private
memory of the driver and of each worker from the kernel, and the object store from Ray. Memory is bounded if the peaks
do not grow with the archive. The script prints one JSON document, with ratios of the largest archive to the smallest.

    python benchmarks/run_memory.py --images 2000 20000 200000
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from score_pipeline import cli, draw, note

DRAWN: Final = 500
PER_FOLDER: Final = 5_000
PAUSE_SECONDS: Final = 2.0
_MIB: Final = 2**20
_STORE = re.compile(r"(Plasma memory usage|Spilled) (\d+) MiB")


def main() -> None:
    """Run the benchmark, or one of its steps in a child process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 20_000, 200_000], help="Sizes of archives.")
    parser.add_argument("--image-size", type=int, default=64, help="Side of the drawn images, in pixels.")
    parser.add_argument("--child", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        step, folder = options.child
        print(json.dumps(measured(STEPS[step], Path(folder))))
        return
    with tempfile.TemporaryDirectory(prefix="uniad-ray-run-memory-") as folder:
        print(json.dumps(measure(Path(folder), sorted(options.images), options.image_size), indent=1))


def measure(root: Path, sizes: list[int], side: int) -> dict[str, Any]:
    """Prepare a bundle, then measure the steps of every archive."""
    draw(root / "drawn", DRAWN, side)
    cli("ingest", str(root / "drawn"), str(root / "fitted"))
    cli("fit", str(root / "fitted"), "--bundles", str(root / "bundles"), "--set", "expert_set=patch")
    archives = {}
    for images in sizes:
        link_images(root / "drawn/trays/train/good", root / "source", images)
        archives[images] = {step: child(step, root) for step in STEPS}
        note(f"{images} images: {json.dumps(archives[images])}")
        for made in ("source", "archive", "run"):
            shutil.rmtree(root / made)
    first, last = archives[sizes[0]], archives[sizes[-1]]
    growth = {step: {name: ratio(last[step][name], first[step][name]) for name in PEAKS} for step in STEPS}
    return {"cores": len(os.sched_getaffinity(0)), "images": archives, "largest_to_smallest": growth}


def link_images(drawn: Path, source: Path, images: int) -> None:
    """Link drawn images under as many names as are asked for."""
    files = sorted(drawn.glob("*.png"))
    for index in range(images):
        path = source / f"{index // PER_FOLDER:04d}/{index:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(files[index % len(files)])


def ratio(last: float, first: float) -> float | None:
    """How many times as large, two digits; None if the first is 0."""
    return round(last / first, 2) if first else None


def ingest_step(root: Path) -> int:
    """Ingest the linked images."""
    from uniad_ray.pipelines.ingest.job import ingest

    return ingest(str(root / "source"), str(root / "archive"), category="trays").images


def score_step(root: Path) -> int:
    """Score the archive."""
    from uniad_ray.pipelines.score.job import score

    return score(str(root / "archive"), str(root / "bundles"), str(root / "run")).images


STEPS: Final[dict[str, Callable[[Path], int]]] = {"ingest": ingest_step, "score": score_step}
PEAKS: Final = ("driver_mib", "largest_worker_mib", "workers_mib", "object_store_mib")


def measured(step: Callable[[Path], int], root: Path) -> dict[str, Any]:
    """Run a step on a Ray of its own, and watch its memory."""
    import ray

    from uniad_ray.pipelines.cluster.ray_start import start_local_ray
    from uniad_ray.pipelines.cluster.session import local_cpus

    start_local_ray(local_cpus())
    peaks: dict[str, float] = defaultdict(float)
    try:
        started = time.perf_counter()
        with watched(peaks, ray.get_runtime_context().gcs_address):
            images = step(root)
        seconds = time.perf_counter() - started
    finally:
        ray.shutdown()
    return {"images": images, "seconds": round(seconds, 1), **{name: round(peak) for name, peak in peaks.items()}}


@contextmanager
def watched(peaks: dict[str, float], address: str) -> Iterator[None]:
    """Note the peaks of memory until the block ends."""
    done = threading.Event()

    def watch() -> None:
        while True:
            for name, value in present(address).items():
                peaks[name] = max(peaks[name], value)
            if done.wait(PAUSE_SECONDS):
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def present(address: str) -> dict[str, float]:
    """Private memory of the driver and its workers, and what the object store holds and has spilled so far, in MiB."""
    from ray._private.internal_api import memory_summary  # of the command `ray memory --stats-only`

    workers = [private_mib(pid) for pid in worker_processes()]
    store = {name: float(mib) for name, mib in _STORE.findall(memory_summary(address, stats_only=True))}
    return {
        "driver_mib": private_mib(os.getpid()),
        "largest_worker_mib": max(workers, default=0.0),
        "workers_mib": sum(workers),
        "object_store_mib": store.get("Plasma memory usage", 0.0),
        "spilled_mib": store.get("Spilled", 0.0),
    }


def worker_processes() -> list[int]:
    """Ray's workers below this process."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat, commands[int(entry.name)] = (entry / "stat").read_text(), (entry / "cmdline").read_bytes()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])

    def is_below(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return [pid for pid, command in commands.items() if command.startswith(b"ray::") and is_below(pid)]


def private_mib(pid: int) -> float:
    """Memory of a process that it shares with none, in MiB; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return 0.0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / _MIB if found else 0.0


def child(step: str, root: Path) -> dict[str, Any]:
    """Run a step in a process of its own."""
    command = [sys.executable, __file__, "--child", step, str(root)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
