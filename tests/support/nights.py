"""Nights without Ray: real bundles and images at a small size, its tasks in this process, and receivers of messages."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.http_server import serving
from support.ingests import build_here
from support.profiles import small_config
from support.scene_images import GivenNormalImages
from support.trees import png, write

from uniad_ray.archive.images import decode_image
from uniad_ray.archive.manifest import Chunk, read_manifest
from uniad_ray.archive.stores.lease import Lease
from uniad_ray.archive.stores.location import Location
from uniad_ray.nights import job
from uniad_ray.nights.config import NightlyConfig
from uniad_ray.nights.model import NightReport
from uniad_ray.pipelines.caption import job as caption_job
from uniad_ray.pipelines.caption.task import CaptionTask
from uniad_ray.pipelines.caption.worker import CaptionWorker
from uniad_ray.pipelines.cluster.decoding import chunk_item, decode_chunk
from uniad_ray.pipelines.cluster.sizing import Cluster
from uniad_ray.pipelines.ingest import job as ingest_job
from uniad_ray.pipelines.score import job as score_job
from uniad_ray.pipelines.score.worker import ChunkScorer
from uniad_ray.runs.plan import RunChunk, RunPlan
from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.timings import StageSeconds, Timing
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import fit_category

CATEGORY = "part"
SECRET = "a key of at least sixteen bytes"  # noqa: S105 - of tests


def without_ray(patch: pytest.MonkeyPatch) -> None:
    """Replaces the tasks and actors of Ray by calls in this process; the code that they run is the real one."""
    patch.setattr(ingest_job, "_build_on_ray", build_here)
    patch.setattr(score_job, "_score_pending", score_here)
    patch.setattr(caption_job, "ray_session", lambda _: nullcontext(Cluster(4, 2, 0, 2)))
    patch.setattr(caption_job, "_caption_pending", caption_here)


def caption_here(task: CaptionTask, pending: Sequence[Chunk], *_: object) -> None:
    """Captions chunks in this process."""
    plan, engine = (part.model_dump(mode="json") for part in (task.plan, task.engine))
    worker = CaptionWorker(
        plan,
        engine,
        task.archive.uri,
        task.sidecar.uri,
        batch=32,
        threads=1,
        value_ranges=task.value_ranges,
        lease=task.lease,
    )
    for chunk in pending:
        worker({"chunk": np.array([chunk_item(chunk)["chunk"]])})


def score_here(
    plan: RunPlan, run: Location, pending: list[Chunk], *_: object, lease: Lease
) -> tuple[list[RunChunk], Timing]:
    """Scores chunks in this process."""
    store = BundleStore(plan.bundle_root)
    configs = {name: store.manifest(name, entry.version).config for name, entry in plan.bundles.items()}
    sizes = {name: config.decoded_size for name, config in configs.items()}
    ranges = {name: config.value_range for name, config in configs.items()}
    scorer = ChunkScorer(plan.model_dump(mode="json"), run.uri, sidecar=None, device="cpu", threads=1, lease=lease)
    found, retries = [], 0
    for chunk in pending:
        row = decode_chunk(chunk_item(chunk), archive=plan.archive, image_sizes=sizes, value_ranges=ranges)
        scored = scorer({name: [value] for name, value in row.items()})  # type: ignore[dict-item]
        retries += scored["store_retries"][0]
        found.append(RunChunk(**{name: scored[name][0] for name in RunChunk.__dataclass_fields__}))
    timing = Timing(
        started_at="2026-11-30T00:00:00+00:00",
        images=sum(entry.rows for entry in found),
        chunks=len(found),
        workers=1,
        threads=1,
        device="cpu",
        seconds=StageSeconds(),
        store_retries=retries,
    )
    return found, timing


def write_factory(root: Path, *overrides: str, images: int = 24) -> None:
    """Writes `fitted`, an archive of normal images, and `bundles` with a bundle of it.

    Args:
        root: Folder to write into.
        overrides: Changes of the configuration of the fit.
        images: Number of normal images.
    """
    pictures = [png(index) for index in range(images)]
    for index, data in enumerate(pictures):
        write(root / f"normal/{index:03d}.png", data)
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        ingest_job.ingest(str(root / "normal"), str(root / "fitted"), category=CATEGORY, split="train", label="normal")
    config = small_config("calibration.folds=2", "experts.patch.config.memory_size=50", *overrides)
    normal = GivenNormalImages(np.stack([decode_image(data, (64, 64)) for data in pictures]))
    fitted = fit_category(normal, config)
    archive = Location.parse(root / "fitted")
    lineage = {
        "extractors": fitted.extractors,
        "archive": {"uri": archive.uri, "digest": read_manifest(archive).digest},
    }
    store = BundleStore(str(root / "bundles"))
    manifest = store.write(CATEGORY, fitted.config, fitted.calibration, lineage, fitted.files)
    store.publish(CATEGORY, manifest.version)


@dataclass
class Factory:
    """A line with a camera, and the nights of its images.

    Attributes:
        root: Folder of the bundles, of the images that arrive, and of the nights.
        options: Further keys of the configuration.
    """

    root: Path
    options: dict[str, Any] = field(default_factory=dict)
    arrived: int = 0

    @classmethod
    def copy(cls, prepared: Path, root: Path, **options: Any) -> Factory:
        """A factory of its own with the bundle of `write_factory`."""
        shutil.copytree(prepared / "bundles", root / "bundles")
        (root / "camera").mkdir()
        return cls(root, options)

    @property
    def work(self) -> Path:
        """Folder of the nights."""
        return self.root / "nights"

    def document(self) -> dict[str, Any]:
        """The configuration as in the file."""
        return {
            "work": str(self.work),
            "archive": str(self.root / "archive"),
            "bundles": str(self.root / "bundles"),
            "sources": [{"path": str(self.root / "camera"), "category": CATEGORY}],
            "score": {"maps": "none"},
            **self.options,
        }

    def arrive(self, count: int, *, size: int = 48, gain: float = 1.0, spots: int = 0) -> None:
        """Images arrive; the first `spots` of them have a spot."""
        for index in range(count):
            seed = 1000 + self.arrived + index
            data = png(seed, size, spot=index < spots)
            if gain != 1.0:
                data = brighter(data, gain)
            write(self.root / f"camera/{seed:05d}.png", data)
        self.arrived += count

    def night(self, name: str, **options: Any) -> NightReport:
        """Runs a night."""
        return job.nightly(NightlyConfig.model_validate(self.document()), night=name, **options)

    def record(self, night: str, step: str) -> Any:
        """A record of a night."""
        return json.loads((self.work / f"nights/{night}/{step}.json").read_text("utf-8"))

    def rows(self, night: str) -> list[dict[str, Any]]:
        """The score rows of a night."""
        rows: list[dict[str, Any]] = RunReader(str(self.work / "runs" / night)).scores().to_pylist()
        return rows


def brighter(data: bytes, gain: float) -> bytes:
    """The image with all values multiplied, as PNG."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.float64) * gain
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Receiver:
    """A web server that records what it receives.

    Attributes:
        url: Its address.
        received: Headers with lower-case names, and body, of each request.
        statuses: Statuses of the next responses; then 200.
    """

    url: str = ""
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Ids of the requests."""
        return [headers["webhook-id"] for headers, _ in self.received]


@contextmanager
def receiver(statuses: Sequence[int] = ()) -> Iterator[Receiver]:
    """Runs a receiver on a free port."""
    state = Receiver(statuses=list(statuses))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            state.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(state.statuses.pop(0) if state.statuses else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        state.url = f"{url}/hook"
        yield state
