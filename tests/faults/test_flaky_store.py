"""Ingests and runs on a store that fails, and on a full disk, end in the rows of an undisturbed one; without Ray."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError
from support.flaky_store import FlakyStore, flaky_store
from support.kills import contents
from support.nights import CATEGORY, without_ray, write_factory
from support.s3_server import S3Server
from support.trees import png, write

from uniad_ray.archive.ingest.deletions import DeletedRow, deletions, write_deletion
from uniad_ray.archive.shards import ShardLimits
from uniad_ray.archive.stores import local, patience
from uniad_ray.archive.stores import s3 as s3_store
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import StoreError
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.pipelines.score.job import ScoreReport, score
from uniad_ray.runs.plan import read_run
from uniad_ray.runs.reviews import FOLDER, Mark, write_marks

IMAGES = 12


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> str:  # noqa: ARG001
    """Bundles on S3, images on the disk."""
    root = tmp_path_factory.mktemp("flaky")
    write_factory(root, images=12)
    for index in range(IMAGES):
        write(root / f"source/{index}.png", png(100 + index, spot=index % 2 == 0))
    return str(root)


@pytest.fixture
def flaky(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyStore]:
    """The S3 server behind a proxy."""
    without_ray(monkeypatch)
    with flaky_store(s3_server.endpoint) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
        yield store


def night(factory: str, root: str) -> ScoreReport:
    """Ingests and scores."""
    limits = ShardLimits(rows=4, row_group_rows=2)
    assert ingest(f"{factory}/source", f"{root}/archive", category=CATEGORY, limits=limits).images == IMAGES
    return score(f"{root}/archive", f"{factory}/bundles", f"{root}/run")


@pytest.mark.slow
def test_errors_and_cut_bodies_cost_no_row(
    factory: str, flaky: FlakyStore, s3_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.02)
    night(factory, f"{s3_prefix}/whole")
    assert not flaky.faults
    flaky.error_share, flaky.cut_share = 0.1, 0.1
    report = night(factory, f"{s3_prefix}/flaky")
    flaky.error_share = flaky.cut_share = 0.0
    assert min(flaky.faults[kind] for kind in ("500", "503", "cut")) > 0
    assert contents(f"{s3_prefix}/flaky/archive") == contents(f"{s3_prefix}/whole/archive")
    assert scores(f"{s3_prefix}/flaky/run") == scores(f"{s3_prefix}/whole/run")
    assert report.images == IMAGES
    assert report.store_retries > 0
    assert read_run(Location.parse(report.run)).store_retries == report.store_retries


@pytest.mark.slow
def test_store_that_is_away_for_twenty_seconds_costs_no_row(factory: str, flaky: FlakyStore, s3_prefix: str) -> None:
    night(factory, f"{s3_prefix}/whole")

    def go_away() -> None:
        while not (Location.parse(s3_prefix) / "away/run/scores").has_children():
            time.sleep(0.02)
        flaky.go_away(20)

    threading.Thread(target=go_away, daemon=True).start()
    report = night(factory, f"{s3_prefix}/away")
    assert flaky.faults["away"] == 1
    assert report.store_retries > 0
    assert scores(f"{s3_prefix}/away/run") == scores(f"{s3_prefix}/whole/run")


def scores(run: str) -> dict[str, bytes]:
    """The score files of a run. Its plan names the archive, which differs."""
    return {name: data for name, data in contents(run).items() if name.startswith("scores/")}


def test_full_disk_ends_with_advice_and_resumes_to_the_same_bytes(
    factory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    night(factory, str(tmp_path / "whole"))
    archive = str(tmp_path / "whole/archive")
    write_new_file = local._write_new_file
    for room in (0, 2, 5, 9):
        left = [room]

        def write_or_fail(path: Path, data: bytes, left: list[int] = left) -> None:
            if left[0] == 0:
                path.write_bytes(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            left[0] -= 1
            write_new_file(path, data)

        run = tmp_path / f"full-{room}"
        with monkeypatch.context() as patch:
            patch.setattr(local, "_write_new_file", write_or_fail)
            with pytest.raises(StoreError, match="No space left on device; check the disk"):
                score(archive, f"{factory}/bundles", str(run))
        assert not (run / "manifest.json").exists()
        assert not list(run.rglob("*.tmp"))
        score(archive, f"{factory}/bundles", str(run))
        assert contents(run) == contents(tmp_path / "whole/run")


def test_record_whose_response_is_lost_is_written_once(s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = s3_store.s3_client()

    class LossyClient:
        """Carries out every first attempt at a key, and says that it has failed."""

        tried: ClassVar[set[str]] = set()

        def put_object(self, **arguments: Any) -> Any:
            response = client.put_object(**arguments)
            if arguments["Key"] not in self.tried:
                self.tried.add(arguments["Key"])
                lost: Any = {"Error": {"Code": "InternalError"}, "ResponseMetadata": {"HTTPStatusCode": 500}}
                raise ClientError(lost, "PutObject")
            return response

    root = Location.parse(s3_prefix)
    with monkeypatch.context() as patch:
        patch.setattr(s3_store, "s3_client", LossyClient)
        patch.setattr(patience, "_PAUSE_SECONDS", 0.0)
        write_deletion(root, [DeletedRow("k", "i", (), "part", "u", "s")], deleted_by="ann", reason="wish")
        write_marks(root, [Mark("k", "part", "confirmed", 1.0, 1.0, "r", "2026-01-01T00:00:00")])
    assert len(LossyClient.tried) == 2
    assert len(deletions(root)[0]) == 1
    assert len(list((root / FOLDER).list())) == 1
