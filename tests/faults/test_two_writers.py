"""Two processes that write one archive, one run or one sidecar; without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from support import ingests
from support.chat_server import chat_server
from support.nights import CATEGORY, caption_here, score_here, write_factory
from support.profiles import small_config
from support.trees import png, write

from uniad_ray.archive.manifest import Chunk, chunks, read_manifest
from uniad_ray.archive.stores.lease import Lease, hold
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import LeaseError
from uniad_ray.pipelines.caption import job as caption_job
from uniad_ray.pipelines.caption.engines import Question
from uniad_ray.pipelines.caption.task import CaptionTask
from uniad_ray.pipelines.cluster.decoding import chunk_item, decode_chunk
from uniad_ray.pipelines.cluster.sizing import Cluster
from uniad_ray.pipelines.ingest import job as ingest_job
from uniad_ray.pipelines.precompute import job as precompute_job
from uniad_ray.pipelines.precompute.worker import StageWorker
from uniad_ray.pipelines.score import job as score_job
from uniad_ray.runs.plan import LEASE_FOLDER, RunPlan
from uniad_ray.runs.reader import RunReader
from uniad_ray.sidecars.captions import read_caption_sidecar
from uniad_ray.sidecars.plan import LEASE_FOLDER as SIDECAR_LEASE
from uniad_ray.sidecars.plan import SidecarFile, SidecarPlan, file_path, read_sidecar


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


def test_second_caption_job_is_told_who_captions(
    factory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    late: list[CaptionTask] = []
    with chat_server(lambda _: "a part") as server:
        question = Question(engine="server", url=server.url, model="fake")

        def caption(task: CaptionTask, pending: Sequence[Chunk], *_: object) -> None:
            with pytest.raises(LeaseError) as caught:
                caption_job.caption(str(factory / "fitted"), str(tmp_path / "captions"), question)
            refused.append(str(caught.value))
            late.append(task)
            caption_here(task, pending)

        monkeypatch.setattr(caption_job, "ray_session", lambda _: nullcontext(Cluster(4, 2, 0, 2)))
        monkeypatch.setattr(caption_job, "_caption_pending", caption)
        caption_job.caption(str(factory / "fitted"), str(tmp_path / "captions"), question)
    assert len(refused) == 1
    assert refused[0].startswith(f"the sidecar {tmp_path}/captions is being written by ")
    sidecar = Location.parse(tmp_path / "captions")
    assert read_caption_sidecar(sidecar).images == 12
    chunk = next(iter(chunks(read_manifest(Location.parse(factory / "fitted")))))
    with hold(sidecar / SIDECAR_LEASE, "the sidecar"), pytest.raises(LeaseError):
        late[0].commit(chunk, [])


def precompute_here(
    plan: SidecarPlan, sidecar: Location, pending: Sequence[tuple[Any, Chunk]], _: object, __: object, lease: Lease
) -> dict[str, SidecarFile]:
    """Precomputes one stage in this process."""
    written = {}
    sizes = {name: planned.image_size for name, planned in plan.categories.items()}
    for stage, chunk in pending:
        document = plan.model_dump(mode="json", by_alias=True)
        worker = StageWorker(stage, document, sidecar.uri, is_last=True, device="cpu", threads=1, lease=lease)
        row = decode_chunk(
            chunk_item(chunk), archive=plan.archive, image_sizes=sizes, value_ranges=dict.fromkeys(sizes)
        )
        found = worker({name: [value] for name, value in row.items()})  # type: ignore[dict-item]
        files = [SidecarFile(**entry) for entry in json.loads(found["files"][0])]
        written |= {file_path(file.stage, file.chunk): file for file in files}
    return written


def test_second_precomputation_is_told_who_precomputes(
    factory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = (str(factory / "fitted"), str(tmp_path / "sidecar"), small_config())
    refused: list[str] = []
    late: list[Callable[[], object]] = []

    def plan(archive: Location, wanted: Sequence[str], *given: Any) -> Mapping[str, Any]:
        _, store, config, stages, _ = given
        plans = {name: precompute_job._plan_category(archive, name, None, store, config, stages) for name in wanted}
        return {name: precompute_job.CategoryPlan.model_validate(own) for name, own in plans.items()}

    def precompute(plan: SidecarPlan, sidecar: Location, pending: Sequence[Any], *given: Any) -> Any:
        with pytest.raises(LeaseError) as caught:
            precompute_job.precompute(*inputs)
        refused.append(str(caught.value))
        late.append(lambda: precompute_here(plan, Location.parse(tmp_path / "late"), pending, *given))
        return precompute_here(plan, sidecar, pending, *given)

    monkeypatch.setattr(precompute_job, "ray_session", lambda _: nullcontext(Cluster(4, 2, 0, 2)))
    monkeypatch.setattr(precompute_job, "_plan_categories", plan)
    monkeypatch.setattr(precompute_job, "_precompute_pending", precompute)
    report = precompute_job.precompute(*inputs)
    assert len(refused) == 1
    assert refused[0].startswith(f"the sidecar {tmp_path}/sidecar is being written by ")
    assert (report.images, report.skipped_files) == (12, 0)
    assert read_sidecar(Location.parse(tmp_path / "sidecar")).images == 12
    # A finished one is only read, by any number of processes.
    with hold(Location.parse(tmp_path / "sidecar") / SIDECAR_LEASE, "the sidecar"):
        assert precompute_job.precompute(*inputs).skipped_files > 0
        with pytest.raises(LeaseError):
            late[0]()
    assert not list((tmp_path / "late").rglob("*.parquet"))
