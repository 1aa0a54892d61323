"""Two processes that write one archive or one run; without Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ingests
from support.nights import CATEGORY, score_here, write_factory
from support.trees import png, write

from uniad_ray.archive.manifest import Chunk, chunks, read_manifest
from uniad_ray.archive.stores.lease import Lease, hold
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import LeaseError
from uniad_ray.pipelines.ingest import job as ingest_job
from uniad_ray.pipelines.score import job as score_job
from uniad_ray.runs.plan import LEASE_FOLDER, RunPlan
from uniad_ray.runs.reader import RunReader


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles, and an archive of its normal images."""
    root = tmp_path_factory.mktemp("writers")
    write_factory(root, images=12)
    return root


def test_second_ingest_is_told_who_ingests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(5):
        write(tmp_path / f"s/{index}.png", png(index))
    refused: list[str] = []

    def build(pending: list[int], work: Callable[[dict[str, Any]], Any], *_: object) -> None:
        with pytest.raises(LeaseError) as caught:
            ingest_job.ingest(str(tmp_path / "s"), str(tmp_path / "ar"))
        refused.append(str(caught.value))
        ingests.build_here(pending, work)

    monkeypatch.setattr(ingest_job, "_build_on_ray", build)
    ingest_job.ingest(str(tmp_path / "s"), str(tmp_path / "ar"))
    assert len(refused) == 1
    assert refused[0].startswith(f"the archive {tmp_path}/ar is being written by ")
    keys = [row["row_key"] for row in ingests.rows(tmp_path / "ar")]
    assert len(keys) == len(set(keys)) == 5


def test_second_run_is_told_who_runs(factory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = (str(factory / "fitted"), str(factory / "bundles"), str(tmp_path / "run"))
    refused: list[str] = []

    def score(*arguments: Any, lease: Lease) -> Any:
        with pytest.raises(LeaseError) as caught:
            score_job.score(*inputs)
        refused.append(str(caught.value))
        return score_here(*arguments, lease=lease)

    monkeypatch.setattr(score_job, "_score_pending", score)
    score_job.score(*inputs)
    assert len(refused) == 1
    assert refused[0].startswith(f"the run {tmp_path}/run is being written by ")
    assert RunReader(str(tmp_path / "run")).scores().num_rows == 12


def test_worker_of_a_former_holder_commits_nothing(
    factory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[Callable[[], Any]] = []

    def crash(plan: RunPlan, run: Location, pending: list[Chunk], *_: object, lease: Lease) -> Any:
        late.append(lambda: score_here(plan, run, pending, lease=lease))
        raise RuntimeError("the driver crashes, and its worker does not notice")

    monkeypatch.setattr(score_job, "_score_pending", crash)
    with pytest.raises(RuntimeError):
        score_job.score(str(factory / "fitted"), str(factory / "bundles"), str(tmp_path / "run"))
    work = list(chunks(read_manifest(Location.parse(factory / "fitted"))))
    with hold(Location.parse(tmp_path / "run") / LEASE_FOLDER, "the run"), pytest.raises(LeaseError):
        late[0]()
    assert work
    assert not list((tmp_path / "run").rglob("*.parquet"))
    assert work[0].category == CATEGORY
