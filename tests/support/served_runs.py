"""A small run behind the endpoint's application: two categories, every kind of row, without network or Ray."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from support.runs import ScoredImage, write_archive, write_run
from support.scoring_backend import FakeBackend
from support.trees import mask_png, png

from uniad_ray.archive.stores.location import Location
from uniad_ray.runs.parts import write_parts
from uniad_ray.runs.timings import StageSeconds, Timing, write_timing
from uniad_ray.serving.auth.keys import hash_key
from uniad_ray.serving.http.api import Endpoint
from uniad_ray.serving.settings import ServeSettings

THRESHOLD = 2.0
STARTED = "2026-11-27T10:00:00+00:00"


@dataclass(frozen=True)
class Key:
    """An access key in a test: its token, rights and categories."""

    token: str
    rights: tuple[str, ...]
    categories: tuple[str, ...] | None = None


def run_images(normal: int = 8) -> list[ScoredImage]:
    """Images of `lids` with scores 0.5, 1.5, 2.5, ..., every second anomalous, one unlabelled; an error, a tray."""
    rows, columns = np.mgrid[0:16, 0:16]
    peak = 6 * np.exp(-((rows - 8) ** 2 + (columns - 8) ** 2) / 20)
    lids = [
        ScoredImage(
            f"{index:03d}.png",
            png(index, spot=bool(index % 2)),
            0.5 + index,
            None if index == 2 else "anomalous" if index % 2 else "normal",
            "spot" if index % 2 else None,
            category="lids",
            anomaly_map=(peak * index / normal).astype(np.float16),
            masks=(mask_png(),) if index % 2 else (),
            experts={"patch": 0.5 + index, "text_memory": 1.0},
            reasons=(f"patch: reason {index}",),
            metadata={"serial": f"S{index // 2}", "camera": "top"},
        )
        for index in range(normal)
    ]
    broken = ScoredImage("broken.png", b"nonsense", None, None, category="lids")
    tray = ScoredImage(
        "tray.png", png(99), 1.0, category="trays", anomaly_map=peak.astype(np.float16), metadata={"serial": "S0"}
    )
    return [*lids, broken, tray]


def write_served_run(root: str | Path, images: list[ScoredImage], **options: Any) -> Location:
    """A finished run on its own archive, with timings."""
    archive = write_archive(f"{root}/archive", images)
    run = write_run(f"{root}/night", archive, images, threshold=THRESHOLD, **options)
    write_parts(run, [info.relative for info in run.list() if info.relative.startswith("scores/")])
    seconds = StageSeconds(decode=1.0, score=1.0, write=1.0, wall=2.0)
    write_timing(
        run,
        Timing(started_at=STARTED, images=len(images), chunks=1, workers=1, threads=1, device="cpu", seconds=seconds),
    )
    return run


def endpoint_with_runs(
    root: Path, runs: dict[str, str], *, keys: dict[str, Key] | None = None, backend: FakeBackend | None = None
) -> Endpoint:
    """An endpoint that shows runs; `lids` and `trays` are published with empty bundles."""
    for category in ("lids", "trays"):
        pointer = {"category": category, "version": "1", "digest": "0" * 64}
        (Location.parse(root / "bundles") / category / "current.json").write_json(pointer)
    path = None
    if keys is not None:
        path = root / "keys.yaml"
        entries = [
            {
                "name": name,
                "sha256": hash_key(key.token),
                "rights": list(key.rights),
                "categories": None if key.categories is None else list(key.categories),
            }
            for name, key in keys.items()
        ]
        path.write_text(yaml.safe_dump({"keys": entries}))
    settings = ServeSettings(bundles=str(root / "bundles"), runs=runs, keys=None if path is None else str(path))
    return Endpoint(settings, backend or FakeBackend())
