"""Jobs whose images are deleted while they run: the error says what happened and what to do; without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.kills import KilledError
from support.nights import CATEGORY, score_here, without_ray, write_factory

from uniad_ray.archive.deletion import DeletionChoice, delete_images, deletions_explained
from uniad_ray.archive.deletion import job as deletion_job
from uniad_ray.archive.manifest import chunks, read_manifest
from uniad_ray.archive.shards import ShardLimits
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError, LeaseError, RunError, StoreError
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.pipelines.score import job as score_job
from uniad_ray.runs.reader import RunReader


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("meanwhile")
    write_factory(root, images=12)
    return root


@pytest.fixture
def archive(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    """Twelve images in shards of four, with row groups of two."""
    without_ray(monkeypatch)
    limits = ShardLimits(rows=4, row_group_rows=2)
    ingest(str(prepared / "normal"), str(tmp_path / "archive"), category=CATEGORY, limits=limits)
    return Location.parse(tmp_path / "archive")


def delete(archive: Location, *names: str) -> None:
    delete_images(archive.uri, DeletionChoice(names=names), deleted_by="ann", reason="GDPR")


def score_beside(
    monkeypatch: pytest.MonkeyPatch, prepared: Path, archive: Location, out: Path, *names: str, after: int
) -> str:
    """Scores; once `after` chunks are committed, the images are deleted. Returns the message of the error."""

    def score(plan: Any, run: Any, pending: Any, *given: Any, lease: Any) -> Any:
        done = score_here(plan, run, pending[:after], *given, lease=lease)
        delete(archive, *names)
        rest = score_here(plan, run, pending[after:], *given, lease=lease)
        return [*done[0], *rest[0]], rest[1]

    with monkeypatch.context() as patch:
        patch.setattr(score_job, "_score_pending", score)
        try:
            score_job.score(archive.uri, str(prepared / "bundles"), str(out))
        except ArchiveError as error:
            return str(error)
    return ""


@pytest.mark.parametrize("names", [["005.png"], ["004.png", "005.png", "006.png", "007.png"]])
def test_score_beside_a_deletion_says_so(
    prepared: Path, archive: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    out = tmp_path / "run"
    assert score_beside(monkeypatch, prepared, archive, out, *names, after=1) == (
        f"{archive}: images that were to be read have been deleted meanwhile ({len(names)}); the rows that are scored "
        f"stay in {out}; to score the images that are left, use a new --out"
    )
    with pytest.raises(RunError, match="use a new --out"):
        score_job.score(archive.uri, str(prepared / "bundles"), str(out))
    score_job.score(archive.uri, str(prepared / "bundles"), str(tmp_path / "new"))
    assert RunReader(str(tmp_path / "new")).scores().num_rows == 12 - len(names)


def test_deletion_of_scored_images_changes_nothing(
    prepared: Path, archive: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score_beside(monkeypatch, prepared, archive, tmp_path / "run", "000.png", after=2) == ""
    assert RunReader(str(tmp_path / "run")).scores().num_rows == 12


def test_interrupted_deletion_is_to_be_finished_first(archive: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = list(chunks(read_manifest(archive)))

    def die(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(deletion_job, "_apply", die)
        with pytest.raises(KilledError):
            delete(archive, "005.png")
    message = rf"finish it with `uniad-ray archive delete {archive}`; then go on$"
    with pytest.raises(ArchiveError, match=message), deletions_explained(archive, planned, "then go on"):
        raise StoreError("gone")
    # Chunks of other shards have another reason to fail.
    with pytest.raises(StoreError, match="gone"), deletions_explained(archive, planned[:2], "then go on"):
        raise StoreError("gone")


@pytest.mark.parametrize("error", [StoreError("away"), LeaseError("taken over"), RuntimeError("a bug")])
def test_other_errors_stay(archive: Location, error: Exception) -> None:
    planned = list(chunks(read_manifest(archive)))
    with pytest.raises(type(error)) as caught, deletions_explained(archive, planned, "go on"):
        raise error
    assert caught.value is error
