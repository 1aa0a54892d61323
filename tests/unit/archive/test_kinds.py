"""An archive, a run, bundles or a sidecar that is given for another of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uniad_ray.archive.kinds import other_kind
from uniad_ray.archive.manifest import RowGroup, Shard, build_manifest, read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.cli import main
from uniad_ray.errors import ArchiveError, BundleError, RunError, SidecarError, UserError
from uniad_ray.runs.plan import RunManifest, RunPlan, ScoreOptions, adopt_plan, read_run
from uniad_ray.scoring.bundles.bundle import BundleManifest
from uniad_ray.scoring.bundles.store import BundleStore, Pointer
from uniad_ray.sidecars.plan import SidecarManifest, SidecarPlan, adopt_sidecar_plan, read_sidecar

PLAN: dict[str, Any] = {
    "format_version": 2,
    "code_version": "1.0",
    "archive": "/a",
    "archive_digest": "a" * 64,
    "bundle_root": "/b",
    "chunks": 1,
    "images": 5,
}
RUN = RunPlan(**PLAN, bundles={}, options=ScoreOptions())
SIDECAR = SidecarPlan(**PLAN, config=None, categories={})


def write_archive(place: Location) -> None:
    shard = Shard(
        path="images/nut/0.parquet",
        category="nut",
        row_groups=(RowGroup(rows=5, split="test"),),
        bytes=1,
        sha256="b" * 64,
        labels={},
        defect_kinds={},
    )
    manifest = build_manifest(schema_version=1, shards=[shard], rejected=[], defects={}, ingests=["1"])
    (place / "manifest.json").write_json(manifest.model_dump(mode="json"))


def write_unfinished_run(place: Location) -> None:
    adopt_plan(place, RUN)


def write_run(place: Location) -> None:
    write_unfinished_run(place)
    manifest = RunManifest(
        run_id="r",
        plan=RUN,
        images=5,
        errors=0,
        anomalous=0,
        categories={},
        chunks_sha256="c",
        weights={},
        random_weights=False,
    )
    (place / "manifest.json").write_json(manifest.model_dump(mode="json"))


def write_unfinished_sidecar(place: Location) -> None:
    adopt_sidecar_plan(place, SIDECAR)


def write_sidecar(place: Location) -> None:
    write_unfinished_sidecar(place)
    manifest = SidecarManifest(plan=SIDECAR, images=5, errors=0, bytes=1, files_sha256="f")
    (place / "manifest.json").write_json(manifest.model_dump(mode="json"))


def write_bundle(place: Location) -> None:
    (place / "manifest.json").write_json(dict.fromkeys(BundleManifest.model_fields, "of a bundle"))


def write_bundles(place: Location) -> None:
    write_bundle(place / "nut/1")
    (place / "nut/current.json").write_json(Pointer(category="nut", version="1", digest="d").model_dump())


WRITERS: dict[str, tuple[Callable[[Location], None], str]] = {
    "archive": (write_archive, "an archive"),
    "run": (write_run, "a run"),
    "unfinished run": (write_unfinished_run, "a run"),
    "sidecar": (write_sidecar, "a sidecar"),
    "unfinished sidecar": (write_unfinished_sidecar, "a sidecar"),
    "bundle": (write_bundle, "a bundle"),
    "bundles": (write_bundles, "a root of bundles"),
}
READERS: dict[str, tuple[Callable[[Location], object], type[UserError], str]] = {
    "an archive": (read_manifest, ArchiveError, "pass the ARCHIVE of `uniad-ray ingest`"),
    "a run": (read_run, RunError, "pass the --out of `uniad-ray score`"),
    "a sidecar": (read_sidecar, SidecarError, "pass the --out of `uniad-ray precompute`"),
}
BUNDLES: dict[str, Callable[[Location], object]] = {
    "pointer": lambda place: BundleStore(place).pointer("bolt"),
    "versions": lambda place: BundleStore(place).versions(),
    "categories": lambda place: BundleStore(place).categories(),
}


@pytest.fixture(params=WRITERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Location, str]:
    """Something, and what it is."""
    write, kind = WRITERS[request.param]
    location = Location.parse(tmp_path / "place")
    write(location)
    return location, kind


@pytest.mark.parametrize("expected", READERS)
def test_reader_names_what_was_given_and_what_to_give(place: tuple[Location, str], expected: str) -> None:
    location, kind = place
    read, error, advice = READERS[expected]
    if kind == expected:
        assert other_kind(location, kind) is None  # type: ignore[arg-type]
        return
    with pytest.raises(error) as caught:
        read(location)
    assert str(caught.value) == f"{location} is {kind}, not {expected}; {advice}"


@pytest.mark.parametrize("read", BUNDLES.values(), ids=BUNDLES)
def test_other_places_are_no_roots_of_bundles(place: tuple[Location, str], read: Callable[[Location], object]) -> None:
    location, kind = place
    if kind == "a root of bundles":
        assert other_kind(location, "a root of bundles") is None
        return
    with pytest.raises(BundleError) as caught:
        read(location)
    assert str(caught.value) == f"{location} is {kind}, not a root of bundles; pass the --bundles of `uniad-ray fit`"


def test_nothing_and_unknown_documents_are_of_no_kind(tmp_path: Path) -> None:
    place = Location.parse(tmp_path)
    for document in (b"", b"[]", b"{}", b'{"plan": 1}', b"not JSON"):
        assert other_kind(place, "a run") is None
        (place / "manifest.json").write_bytes(document)
    assert other_kind(place, "a run") is None
    assert BundleStore(place).categories() == []


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        (["evaluate", "ARCHIVE"], "ARCHIVE is an archive, not a run; pass the --out of `uniad-ray score`"),
        (["report", "ARCHIVE"], "ARCHIVE is an archive, not a run; pass the --out of `uniad-ray score`"),
        (["compare", "ARCHIVE", "ARCHIVE"], "ARCHIVE is an archive, not a run; pass the --out of `uniad-ray score`"),
        (["inspect", "RUN"], "RUN is a run, not an archive; pass the ARCHIVE of `uniad-ray ingest`"),
        (["fit", "BUNDLES", "--bundles", "b"], "BUNDLES is a root of bundles, not an archive; pass the ARCHIVE"),
        (["score", "RUN", "--bundles", "BUNDLES", "--out", "o"], "RUN is a run, not an archive; pass the ARCHIVE"),
        (
            ["score", "ARCHIVE", "--bundles", "ARCHIVE", "--out", "o"],
            "ARCHIVE is an archive, not a root of bundles; pass the --bundles of `uniad-ray fit`",
        ),
        (["bundles", "ARCHIVE"], "ARCHIVE is an archive, not a root of bundles; pass the --bundles"),
        (["serve", "--bundles", "RUN"], "RUN is a run, not a root of bundles; pass the --bundles"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_verbs_name_what_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str], message: str
) -> None:
    places = {"ARCHIVE": write_archive, "RUN": write_run, "BUNDLES": write_bundles}
    for name, write in places.items():
        write(Location.parse(tmp_path / name))
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / word) if word in places or len(word) == 1 else word for word in verb])
    assert caught.value.code == 2
    assert f"error: {tmp_path}/{message}" in capsys.readouterr().err
