"""Speed of training students on several workers of Ray Train, compared with one worker.

The script draws two categories of trays, ingests them, and trains the students of the `embedded` profile in four ways,
in several rounds, each in a separate process:

- `alone`: one student on one worker with two threads;
- `together`: the same student on two workers with one thread each, which exchange gradients;
- `in_turn`: two students on one worker with one thread, one after the other;
- `side_by_side`: the two students on two workers with one thread each.

The start of Ray, workers and networks is not counted: the log files of a training show when its steps were done, and
the first of them starts the clock. The script prints one JSON document with the ratios of each round and their medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CATEGORIES = ("a", "b")
LAYOUTS = {"alone": (1, 1, 2), "together": (1, 2, 1), "in_turn": (2, 1, 1), "side_by_side": (2, 2, 1)}
"""Number of students, workers, and threads per worker."""
STEPS_A_FILE = 10


def main() -> None:
    """Run the benchmark, or one of its child processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="Number of normal images per category.")
    parser.add_argument("--iterations", type=int, default=100, help="Number of steps of each training.")
    parser.add_argument("--repeats", type=int, default=2, help="Number of rounds of all four layouts.")
    parser.add_argument("--child", nargs=4, metavar=("LAYOUT", "ARCHIVE", "ROOT", "ITERATIONS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        layout, archive, root, iterations = options.child
        print(json.dumps(train(layout, archive, root, int(iterations))))
        return
    with tempfile.TemporaryDirectory(prefix="uniad-ray-benchmark-") as folder:
        print(json.dumps(measure(Path(folder), options), indent=1))


def measure(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Prepare an archive, then measure and compare."""
    for seed, name in enumerate(CATEGORIES):
        counts = [f"--train={options.images}", "--test-good=1", "--logical=1", "--structural=1"]
        cli("scenes", str(root / "source"), f"--category={name}", f"--seed={seed}", *counts)
    cli("ingest", str(root / "source"), str(root / "archive"))
    rounds = []
    for index in range(options.repeats):
        measured = {
            layout: child(layout, root / "archive", root / f"{layout}-{index}", options.iterations)
            for layout in LAYOUTS
        }
        rounds.append(measured)
        note(
            f"round {index + 1}: seconds { ({layout: round(sum(seconds), 1) for layout, seconds in measured.items()}) }"
        )
    return {
        "iterations": options.iterations,
        "images": options.images,
        "seconds": {layout: [entry[layout] for entry in rounds] for layout in LAYOUTS},
        "time_of_together_to_alone": summary([entry["together"][0] / entry["alone"][0] for entry in rounds])
        | {"target_below": 1 / 0.85},
        "time_of_side_by_side_to_in_turn": summary(
            [max(entry["side_by_side"]) / sum(entry["in_turn"]) for entry in rounds]
        )
        | {"target_at_most": 0.65},
    }


def train(layout: str, archive: str, root: str, iterations: int) -> list[float]:
    """Train the students of a layout; return the seconds of each, from its first log file to its last."""
    from uniad_ray.archive.image_size import with_image_size
    from uniad_ray.archive.manifest import read_manifest
    from uniad_ray.archive.stores.location import Location
    from uniad_ray.config.loading import load_config
    from uniad_ray.pipelines.cluster.session import ray_session
    from uniad_ray.pipelines.cluster.sizing import Workers
    from uniad_ray.pipelines.train.job import TrainingJob, train_students
    from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages

    students, workers, threads = LAYOUTS[layout]
    training = "extractors.student.config.training"
    options = {"iterations": iterations, "checkpoint_every": STEPS_A_FILE, "held_out": 0, "keep": "last"}
    config = load_config("embedded", [f"{training}.{name}={value}" for name, value in options.items()])
    source = Location.parse(archive)
    manifest = read_manifest(source)
    jobs = []
    for name in CATEGORIES[:students]:
        size = with_image_size(config, source, manifest, name).decoded_size
        rows = ArchiveNormalImages(source, manifest, name, size).rows
        jobs.append(TrainingJob(name, name, "student", tuple(row.row_key for row in rows)))
    with ray_session() as cluster:
        trained = train_students(
            archive,
            config,
            jobs,
            Location.parse(root),
            cluster=cluster,
            workers=Workers(workers, threads, "cpu"),
        )
    seconds = []
    for job in jobs:
        written = sorted(path.stat().st_mtime for path in trained.states[job.key].local_path.parent.glob("log/*"))
        seconds.append(written[-1] - written[0])
    return seconds


def summary(every: list[float]) -> dict[str, Any]:
    """Value in each round, and its median."""
    return {"median": statistics.median(every), "all": every}


def cli(*arguments: str) -> None:
    """Run a verb."""
    note(f"uniad-ray {' '.join(arguments[:1])} ...")
    subprocess.run([sys.executable, "-m", "uniad_ray.cli", *arguments], check=True, capture_output=True)  # noqa: S603


def child(layout: str, archive: Path, root: Path, iterations: int) -> list[float]:
    """Measure in a child process."""
    command = [sys.executable, __file__, "--child", layout, str(archive), str(root), str(iterations)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    result: list[float] = json.loads(ended.stdout.splitlines()[-1])
    return result


def note(text: str) -> None:
    """Log progress to stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
