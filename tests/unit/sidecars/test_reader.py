"""Plans and files of hand-written sidecars."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from uniad_ray.archive.shards import encode_row_groups
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import SidecarError
from uniad_ray.perception.base import Perception
from uniad_ray.scoring.bundles.published import PlannedBundle
from uniad_ray.sidecars.encoding import empty_row, encode_rows
from uniad_ray.sidecars.plan import (
    FORMAT_VERSION,
    CategoryPlan,
    SidecarFile,
    SidecarManifest,
    SidecarPlan,
    adopt_sidecar_plan,
    encode_files,
    file_path,
    stage_schema,
)
from uniad_ray.sidecars.reader import Sidecar, note_recomputed, open_sidecar

ARCHIVE = "a" * 64
FIELDS = {"features": {"net/one": "digest one", "net/two": "digest two"}, "descriptions": {"words/text": "digest text"}}
NEEDED = {name: digest for members in FIELDS.values() for name, digest in members.items()}
KEYS = {"nut/0-00000": ["k0", "k1", "k2"], "nut/0-00001": ["k3", "k4"]}
CHUNKS = {key: chunk for chunk, keys in KEYS.items() for key in keys}
CORRUPT = "k4"


def plan(**changes: Any) -> SidecarPlan:
    category = CategoryPlan(bundle=None, image_size=(64, 64), extractors={}, fields=FIELDS)  # type: ignore[arg-type]
    fields: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "code_version": "1.0",
        "archive": "/a",
        "archive_digest": ARCHIVE,
        "bundle_root": None,
        "config": None,
        "categories": {"nut": category},
        "chunks": 2,
        "images": 5,
    }
    return SidecarPlan(**{**fields, **changes})


def value(key: str, name: str) -> torch.Tensor:
    return torch.full((2, 1, 1), float(key[1:]) + (0.5 if name == "net/two" else 0.0))


def write_file(root: Location, stage: Any, chunk: str) -> SidecarFile:
    """Two rows per row group; the row of the corrupt image has no fields."""

    def table(keys: list[str]) -> Any:
        rows = []
        for key in keys:
            batch = Perception([key], np.zeros((1, 2, 2, 3), dtype=np.uint8))
            if stage == "features":
                batch = batch.extended({name: value(key, name)[None] for name in FIELDS["features"]})
            else:
                batch = batch.extended({"words/text": [f"text of {key}"]})
            (columns,) = [empty_row(stage)] if key == CORRUPT else encode_rows(stage, batch)
            kind, status = ("truncated", "error") if key == CORRUPT else (None, "ok")
            rows.append({"row_key": key, "status": status, "error_kind": kind, "error": kind, **columns})
        schema = stage_schema(stage)
        return schema.table({name: [row[name] for row in rows] for name in schema.arrow.names})

    keys = KEYS[chunk]
    data = encode_row_groups(stage_schema(stage), map(table, (keys[:2], keys[2:])) if keys[2:] else [table(keys)])
    (root / file_path(stage, chunk)).write_bytes(data)
    return SidecarFile(stage, chunk, "nut", len(keys), keys.count(CORRUPT), len(data), hashlib.sha256(data).hexdigest())


@pytest.fixture
def root(tmp_path: Path) -> Location:
    """A finished sidecar of five images in two chunks."""
    found = Location.parse(tmp_path / "sidecar")
    adopt_sidecar_plan(found, plan())
    files = [write_file(found, stage, chunk) for stage in FIELDS for chunk in KEYS]
    data, digest = encode_files(files)
    (found / "files.parquet").write_bytes(data)
    finished = SidecarManifest(plan=plan(), images=5, errors=1, bytes=1, files_sha256=digest)
    (found / "manifest.json").write_json(finished.model_dump(mode="json"))
    return found


def opened(root: Location) -> Sidecar:
    return open_sidecar(root.uri, ARCHIVE)


def test_fields_are_read_in_requested_order(root: Location) -> None:
    fields = opened(root).fields("nut", NEEDED, CHUNKS)
    assert fields.names == {"net/one", "net/two", "words/text"}
    assert fields.stale == frozenset()
    keys = ["k3", "k0", "k2", "k1", "k3"]
    found = fields.read(keys, frozenset({"net/two", "words/text"}))
    assert set(found) == {"net/two", "words/text"}
    assert torch.equal(found["net/two"], torch.stack([value(key, "net/two") for key in keys]))  # type: ignore[arg-type]
    assert found["words/text"] == [f"text of {key}" for key in keys]


def test_field_with_other_digest_is_stale(root: Location) -> None:
    needed = {"net/one": "digest one", "net/two": "digest of other weights", "more/out": "never stored"}
    fields = opened(root).fields("nut", needed, CHUNKS)
    assert fields.names == {"net/one"}
    assert fields.stale == {"net/two"}


def test_missing_category_is_logged(root: Location, caplog: pytest.LogCaptureFixture) -> None:
    sidecar = opened(root)
    assert sidecar.fields("bolt", NEEDED, CHUNKS).names == frozenset()
    with caplog.at_level(logging.INFO, "uniad_ray"):
        sidecar.note_missing(["nut"])
        sidecar.note_missing(["bolt", "nut"])
        note_recomputed("nut", [])
        note_recomputed("nut", ["net/two", "net/one"])
    assert [record.getMessage() for record in caplog.records] == [
        f"{root}: no stored fields for bolt; computing them",
        "nut: the sidecar has net/one, net/two from other weights, options or code; computing them again",
    ]


def test_only_needed_stages_are_read(root: Location) -> None:
    (root / file_path("features", "nut/0-00000")).delete()
    fields = opened(root).fields("nut", NEEDED, CHUNKS)
    assert fields.read(["k0"], frozenset({"words/text"})) == {"words/text": ["text of k0"]}


FEATURES = file_path("features", "nut/0-00000")


def replace_bytes(root: Location) -> None:
    data = (root / FEATURES).read_bytes()
    (root / FEATURES).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda root: (root / FEATURES).delete(), "missing"),
        (replace_bytes, "checksum mismatch: the file is corrupt"),
    ],
)
def test_missing_or_changed_file_is_refused(root: Location, harm: Any, message: str) -> None:
    harm(root)
    fields = opened(root).fields("nut", NEEDED, CHUNKS)
    with pytest.raises(
        SidecarError, match=f"{message}; delete the file and repeat the `uniad-ray precompute`"
    ) as caught:
        fields.read(["k0"], frozenset({"net/one"}))
    assert str(caught.value).startswith(f"{root}/{FEATURES}: ")


def test_unknown_rows_are_refused(root: Location) -> None:
    fields = opened(root).fields("nut", NEEDED, {**CHUNKS, "new": "nut/0-00000", "gone": "nut/0-00009"})
    with pytest.raises(SidecarError, match="has no row new; delete the file"):
        fields.read(["new"], frozenset({"net/one"}))
    with pytest.raises(SidecarError, match=r"0-00009\.parquet: not in the list of files"):
        fields.read(["gone"], frozenset({"net/one"}))
    with pytest.raises(SidecarError, match=r"the image of row k4 could not be decoded \(truncated\)"):
        fields.read([CORRUPT], frozenset({"net/one"}))


def test_other_archive_is_refused(root: Location) -> None:
    message = "made from an archive with digest aaaaaaaaaaaa, not bbbbbbbbbbbb; precompute this archive, or omit"
    with pytest.raises(SidecarError, match=message):
        open_sidecar(root.uri, "b" * 64)


def test_missing_unfinished_or_corrupt_sidecar_is_refused(root: Location, tmp_path: Path) -> None:
    with pytest.raises(SidecarError, match="no sidecar there; make one with `uniad-ray precompute ARCHIVE --out"):
        open_sidecar(str(tmp_path / "nothing"), ARCHIVE)
    files = (root / "files.parquet").read_bytes()
    (root / "files.parquet").write_bytes(files[:-4])
    with pytest.raises(SidecarError, match=r"files\.parquet: missing or corrupt; precompute again with another --out"):
        opened(root)
    (root / "files.parquet").write_bytes(encode_files([])[0])
    with pytest.raises(SidecarError, match=r"files\.parquet: checksum mismatch: the file is corrupt"):
        opened(root)
    (root / "manifest.json").write_json({"images": 5})
    with pytest.raises(SidecarError, match="corrupt manifest of a sidecar"):
        opened(root)
    (root / "manifest.json").delete()
    with pytest.raises(SidecarError, match="not finished; repeat the `uniad-ray precompute` command"):
        opened(root)
    (root / "plan.json").write_json({"images": 5})
    with pytest.raises(SidecarError, match="corrupt plan of a sidecar"):
        opened(root)


@pytest.mark.parametrize("name", ["plan.json", "manifest.json"])
def test_older_sidecar_is_refused(tmp_path: Path, name: str) -> None:
    root = Location.parse(tmp_path)
    old = {"format_version": 1, "perceivers": {}}
    (root / name).write_json(old if name == "plan.json" else {"plan": old})
    with pytest.raises(SidecarError) as caught:
        open_sidecar(root.uri, ARCHIVE)
    assert str(caught.value) == (
        f"{root / name}: sidecar format 1; this version of uniad_ray reads 2; precompute again with another --out"
    )


def test_older_sidecar_is_not_resumed(tmp_path: Path) -> None:
    root = Location.parse(tmp_path)
    adopt_sidecar_plan(root, plan(format_version=1))
    with pytest.raises(SidecarError, match="sidecar format 1; this version of uniad_ray reads 2; precompute again"):
        adopt_sidecar_plan(root, plan())


def test_manifest_checks_row_count() -> None:
    with pytest.raises(ValueError, match="4 rows for 5 image rows"):
        SidecarManifest(plan=plan(), images=4, errors=0, bytes=1, files_sha256="")


def other_category(**changes: Any) -> dict[str, CategoryPlan]:
    return {"nut": plan().categories["nut"].model_copy(update=changes)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"archive_digest": "b" * 64}, "an archive of digest aaaaaaaaaaaa, not bbbbbbbbbbbb"),
        ({"code_version": "2.0"}, "uniad_ray 1.0, not 2.0"),
        ({"categories": {**plan().categories, "bolt": plan().categories["nut"]}}, "the categories nut, not bolt, nut"),
        (
            {"categories": other_category(bundle=PlannedBundle(version="v", digest="d"))},
            "another bundle, stage or option for nut",
        ),
        ({"categories": other_category(fields={})}, "another bundle, stage or option for nut"),
        ({"categories": other_category(image_size=(64, 32))}, "another bundle, stage or option for nut"),
    ],
)
def test_other_plan_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    root = Location.parse(tmp_path)
    adopt_sidecar_plan(root, plan())
    adopt_sidecar_plan(root, plan(archive="s3://moved/archive"))
    with pytest.raises(SidecarError, match=f"started with {said}; use a new --out, or restore the original inputs"):
        adopt_sidecar_plan(root, plan(**changes))
