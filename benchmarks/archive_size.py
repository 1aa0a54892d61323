"""Time and memory of the driver against the size of the archive: plan, find what is left, finish, and rerun.

Nothing is scored and no image is drawn: the script writes an archive and score rows of made-up content, with as many
rows, chunks and files as real ones have, and runs the code that a driver runs. So the figures say what grows with the
archive besides the work itself. The scores are fakes; the plan, the listing, the reading, the manifest and the report
are the real ones. Every measurement is a process of its own, and prints its time and peak memory beyond that of an
empty archive. The script prints one JSON document.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from uniad_ray.archive.ingest.known import KnownFiles
from uniad_ray.archive.ingest.plan import plan_ingest
from uniad_ray.archive.layouts import open_source
from uniad_ray.archive.manifest import MANIFEST_NAME, RowGroup, Shard, build_manifest, chunks, read_manifest
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import ShardLimits, encode_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.pipelines.score import job
from uniad_ray.runs.chunks import finished_chunks
from uniad_ray.runs.plan import FORMAT_VERSION, PLAN_NAME, PlannedBundle, RunPlan, ScoreOptions, scores_path

CATEGORY = "part"
CHUNK_ROWS, SHARD_ROWS = 64, 1024


def main() -> None:
    """Runs the measurements, or one of them in a child process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 20_000, 100_000], help="Sizes of archives.")
    parser.add_argument("--child", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        step, folder = options.child
        print(json.dumps(measured(STEPS[step], Path(folder))))
        return
    results = []
    for images in options.images:
        with tempfile.TemporaryDirectory(prefix="uniad-ray-archive-size-") as folder:
            write_archive(Path(folder), images)
            write_scores(Path(folder))
            write_source(Path(folder), images)
            steps = {step: child(step, folder) for step in STEPS}
        results.append({"images": images, "chunks": -(-images // CHUNK_ROWS), **steps})
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    print(json.dumps(results, indent=1))


def write_archive(root: Path, images: int) -> None:
    """Writes the manifest of an archive whose shards nobody reads, and the plan of a run."""
    shards = []
    for number, start in enumerate(range(0, images, SHARD_ROWS)):
        count = min(SHARD_ROWS, images - start)
        groups = [RowGroup(rows=min(CHUNK_ROWS, count - row), split="archive") for row in range(0, count, CHUNK_ROWS)]
        shards.append(
            Shard(
                path=f"images/{CATEGORY}/0-{number:05d}.parquet",
                category=CATEGORY,
                row_groups=tuple(groups),
                bytes=count * 100_000,
                sha256=hashlib.sha256(str(number).encode()).hexdigest(),
                labels={"archive/unknown": count},
                defect_kinds={},
            )
        )
    manifest = build_manifest(schema_version=1, shards=shards, rejected=[], defects={}, ingests=["0"])
    (Location.parse(root) / "archive" / MANIFEST_NAME).write_json(manifest.model_dump(mode="json"))


def plan_of(root: Path) -> RunPlan:
    """The plan of the run of an archive."""
    manifest = read_manifest(Location.parse(root) / "archive")
    work = list(chunks(manifest))
    return RunPlan(
        format_version=FORMAT_VERSION,
        code_version="benchmark",
        archive=str(root / "archive"),
        archive_digest=manifest.digest,
        bundle_root=str(root / "bundles"),
        bundles={CATEGORY: PlannedBundle(version="v1", digest="d" * 64)},
        options=ScoreOptions(maps="none"),
        chunks=len(work),
        images=manifest.images,
    )


def write_scores(root: Path) -> None:
    """Writes made-up score rows for every chunk."""
    plan, schema = plan_of(root), dataset_schema("score")
    run = Location.parse(root) / "run"
    (run / PLAN_NAME).write_json(plan.model_dump(mode="json"))
    random = np.random.default_rng(0)
    names = ("patch", "patch_fine", "learned_composition", "relations", "structural_teacher")
    for chunk in chunks(read_manifest(Location.parse(root) / "archive")):
        rows = []
        for index in range(chunk.rows):
            digest = random.bytes(32).hex()
            row: dict[str, Any] = dict.fromkeys(schema.arrow.names)
            row |= {"row_key": digest[:32], "image_id": digest, "category": CATEGORY, "split": "archive"}
            row |= {"source_uri": f"s3://plant/{chunk.name}/{index:05d}.png", "shard": chunk.shard}
            row |= {"row_group": chunk.row_group, "row": index, "status": "ok", "threshold": 2.0, "metadata": []}
            row |= {"score": float(random.normal()), "decision": "normal", "reasons": ["patch: strongest here"]}
            row |= {"experts": [{"expert": name, "raw": 1.0, "calibrated": float(random.normal())} for name in names]}
            row |= {"left_out": [], "run_id": plan.run_id, "bundle_version": "v1", "bundle_digest": "d" * 64}
            rows.append(row)
        table = schema.table({name: [row[name] for row in rows] for name in schema.arrow.names})
        (run / scores_path(chunk.name)).write_bytes(encode_table(schema, table))


def write_source(root: Path, images: int) -> None:
    """Creates empty files with names of images; the plan of an ingest reads none."""
    for index in range(images):
        path = root / f"source/{index // 1000:04d}/{index:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def plan_step(root: Path) -> None:
    """Lists a source and plans its ingest."""
    source = open_source(Location.parse(root / "source"), layout="folder", category=CATEGORY)
    expect(plan_ingest(source.entries(), limits=ShardLimits(), known=KnownFiles()).images > 0)


def find_step(root: Path) -> None:
    """Finds what is left of a run whose chunks are all committed."""
    plan = plan_of(root)
    work = list(chunks(read_manifest(Location.parse(root) / "archive")))
    expect(len(finished_chunks(Location.parse(root) / "run", work, plan.run_id)) == plan.chunks)


def finish_step(root: Path) -> None:
    """Counts the rows, joins parts, and writes the manifest."""
    run, plan = Location.parse(root) / "run", plan_of(root)
    work = list(chunks(read_manifest(Location.parse(root) / "archive")))
    job._finish(run, plan.model_copy(update={"bundles": {}}), work, finished_chunks(run, work, plan.run_id))


def rerun_step(root: Path) -> None:
    """What `uniad-ray score` does for a run that is finished; it starts no Ray."""
    plan = plan_of(root)
    run = Location.parse(root) / "run"
    job.adopt_plan(run, plan)
    work = list(chunks(read_manifest(Location.parse(root) / "archive")))
    expect(job._report_finished(run, work).images == plan.images)


def expect(is_right: bool) -> None:
    """Ends the script if a step did not do its work."""
    if not is_right:
        raise SystemExit("a step has another result than expected")


STEPS: dict[str, Callable[[Path], None]] = {
    "plan of an ingest": plan_step,
    "find what is left": find_step,
    "finish": finish_step,
    "rerun of a finished run": rerun_step,
}


def measured(step: Callable[[Path], None], root: Path) -> dict[str, float]:
    """Seconds of a step by the clock and of the processor, and peak memory beyond what the process had before, MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, worked = time.perf_counter(), time.process_time()
    step(root)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "mib": round((peak - before) / 1024, 1)}


def child(step: str, folder: str) -> dict[str, float]:
    """Measures a step in a process of its own."""
    command = [sys.executable, __file__, "--child", step, folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
