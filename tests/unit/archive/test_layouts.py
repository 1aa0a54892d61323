from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.trees import loco_tree, mask_png, mvtec_tree, png, write

from uniad_ray.archive.defects import MAX_DEFECTS_BYTES, defect_kinds_by_value
from uniad_ray.archive.layouts import (
    Attachment,
    Rejected,
    SourceImage,
    data_set_layouts,
    layout_names,
    open_source,
    row_key,
)
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError


def images(root: Path, **options: object) -> list[SourceImage]:
    source = open_source(Location.parse(root), **options)  # type: ignore[arg-type]
    return [entry for entry in source.entries() if isinstance(entry, SourceImage)]


def rejects(root: Path, **options: object) -> dict[str, str]:
    source = open_source(Location.parse(root), **options)  # type: ignore[arg-type]
    return {Path(entry.source_uri).name: entry.reason for entry in source.entries() if isinstance(entry, Rejected)}


def attachments(root: Path) -> set[str]:
    found = open_source(Location.parse(root)).entries()
    return {entry.source_uri for entry in found if isinstance(entry, Attachment)}


def test_single_category_is_named_after_folder(tmp_path: Path) -> None:
    found = images(mvtec_tree(tmp_path / "bottle", train=1, good=1, bad=1))
    by_place = {(entry.split, entry.defect_kind): entry for entry in found}
    assert set(by_place) == {("train", None), ("test", None), ("test", "spot")}
    bad = by_place["test", "spot"]
    assert (bad.category, bad.label, bad.anomaly_type) == ("bottle", "anomalous", None)
    assert [Path(uri).name for uri in bad.mask_uris] == ["000_mask.png"]
    assert by_place["train", None].label == "normal"
    assert by_place["test", None].mask_uris == ()


def test_several_categories_are_split_or_selected(tmp_path: Path) -> None:
    mvtec_tree(tmp_path / "a", train=1, good=1, bad=1)
    mvtec_tree(tmp_path / "b", train=2, good=1, bad=1)
    assert {entry.category for entry in images(tmp_path)} == {"a", "b"}
    assert {entry.category for entry in images(tmp_path, category="b")} == {"b"}
    with pytest.raises(ArchiveError, match="no category 'c'; the source has a, b"):
        images(tmp_path, category="c")


def test_categories_do_not_share_masks_or_keys(tmp_path: Path) -> None:
    mvtec_tree(tmp_path / "a", train=1, good=1, bad=1)
    mvtec_tree(tmp_path / "b", train=1, good=1, bad=1)
    found = images(tmp_path)
    assert len({entry.row_key for entry in found}) == len(found)
    for entry in found:
        assert all(f"/{entry.category}/" in uri for uri in entry.mask_uris)


def test_loco_tree_has_masks_types_and_defect_names(tmp_path: Path) -> None:
    root = loco_tree(tmp_path / "box")
    found = {entry.anomaly_type: entry for entry in images(root) if entry.label == "anomalous"}
    assert [Path(uri).name for uri in found["logical"].mask_uris] == ["000.png", "001.png"]
    assert [Path(uri).name for uri in found["structural"].mask_uris] == ["000.png"]
    assert {entry.split for entry in images(root)} == {"train", "validation", "test"}
    source = open_source(Location.parse(root))
    assert defect_kinds_by_value(source.defects["box"]) == {254: "missing", 253: "extra", 250: "scratch"}


def test_row_keys_do_not_depend_on_location(tmp_path: Path) -> None:
    first = images(mvtec_tree(tmp_path / "one" / "bottle"))
    second = images(mvtec_tree(tmp_path / "two" / "bottle"))
    assert [entry.row_key for entry in first] == [entry.row_key for entry in second]
    assert first[0].row_key == row_key("bottle", "test/good/000.png")


def test_row_keys_match_existing_archives(tmp_path: Path) -> None:
    assert row_key("lid", "s3://plant/2026-11-21/lid/0001.jpg") == "ca71d3ba504ba7d3061e804b7a2ef7af"
    write(tmp_path / "lid/0001.jpg", png(0))
    assert [entry.row_key for entry in images(tmp_path / "lid")] == [row_key("lid", f"{tmp_path}/lid/0001.jpg")]
    write(tmp_path / "bottle/test/good/000.png", png(0))
    assert [entry.row_key for entry in images(tmp_path / "bottle")] == ["31e5951ebdd0bcb0dd5c6bf3a9249de1"]


def test_plain_folder_takes_any_depth(tmp_path: Path) -> None:
    write(tmp_path / "x/a.png", png(0))
    write(tmp_path / "x/deep/er/b.jpg", png(1))
    found = images(tmp_path / "x", split="train", label="normal")
    assert [(entry.category, entry.split, entry.label) for entry in found] == [("x", "train", "normal")] * 2
    unknown = images(tmp_path / "x", category="y")
    assert [(entry.category, entry.split, entry.label) for entry in unknown] == [("y", "archive", None)] * 2


def test_tree_as_folder_takes_every_image(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path / "bottle", train=1, good=1, bad=1)
    assert len(images(root, layout="folder")) == 4


def test_non_image_names_are_refused_with_reason(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path / "bottle", train=1, good=0, bad=0)
    write(root / "train/good/notes.txt", b"hello")
    write(root / "readme.md", b"hello")
    write(root / "other/place.png", png(1))
    found = rejects(root)
    assert found["notes.txt"] == "not an image: notes.txt has suffix .txt"
    assert "not under train/" in found["readme.md"]
    assert "not under train/" in found["place.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"split": "train"}, "omit --split"), ({"label": "normal"}, "omit --split")],
)
def test_tree_refuses_plain_folder_options(tmp_path: Path, options: dict[str, str], message: str) -> None:
    root = mvtec_tree(tmp_path / "bottle", train=1, good=0, bad=0)
    with pytest.raises(ArchiveError, match=message):
        images(root, **options)


def test_empty_and_unfitting_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no files found"):
        images(tmp_path)
    write(tmp_path / "a.png", png(0))
    with pytest.raises(ArchiveError, match="use --layout folder"):
        images(tmp_path, layout="mvtec")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{not json", "not valid JSON (Expecting"),
        (b'{"a": 1}', "expected a list of entries, not dict"),
        (b"[" + b" " * MAX_DEFECTS_BYTES + b"]", "1048578 bytes exceed the limit of 1048576"),
    ],
)
def test_corrupt_defect_list_affects_nothing_else(tmp_path: Path, content: bytes, reason: str) -> None:
    root = loco_tree(tmp_path / "box")
    rows = images(root)
    write(root / "defects_config.json", content)
    assert [entry.row_key for entry in images(root)] == [entry.row_key for entry in rows]
    assert reason in rejects(root)["defects_config.json"]
    assert open_source(Location.parse(root)).defects == {"box": []}


def test_odd_entry_of_a_defect_list_affects_nothing_else(tmp_path: Path) -> None:
    root = loco_tree(tmp_path / "box")
    entries = json.loads((root / "defects_config.json").read_text())
    entries[1]["pixel_value"] = None
    write(root / "defects_config.json", json.dumps(entries).encode())
    source = open_source(Location.parse(root))
    assert defect_kinds_by_value(source.defects["box"]) == {254: "missing", 250: "scratch"}
    assert rejects(root)["defects_config.json"].startswith("entry 2: pixel_value: ")
    assert root / "defects_config.json" not in {Path(uri) for uri in attachments(root)}


def test_many_odd_entries_are_one_rejected_file(tmp_path: Path) -> None:
    root = loco_tree(tmp_path / "box")
    assert str(root / "defects_config.json") in attachments(root)
    write(root / "defects_config.json", b"[1, 2, 3, 4, 5]")
    expected = "; ".join(f"entry {number}: expected an object, not {number}; fix it" for number in (1, 2, 3))
    assert rejects(root) == {"defects_config.json": f"{expected}; and 2 more"}


def test_mask_folder_gives_no_images(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path / "bottle", train=1, good=0, bad=1)
    write(root / "ground_truth/spot/orphan_mask.png", mask_png())
    assert len(images(root)) == 2
    assert rejects(root) == {"orphan_mask.png": "mask without an image"}


def test_files_without_category_are_always_listed(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path / "bottle", train=1, good=0, bad=0)
    write(root / "other/place.png", png(1))
    write(root / "readme.md", b"hello")
    assert set(rejects(root, category="flask")) == {"place.png", "readme.md"}
    assert set(rejects(tmp_path, category="bottle")) == {"place.png", "readme.md"}
    mvtec_tree(tmp_path / "cable", train=1, good=0, bad=0)
    assert rejects(tmp_path, category="cable") == {}


def test_layout_names_match_recognised_layouts(tmp_path: Path) -> None:
    assert ("auto", *(layout.name for layout in data_set_layouts()), "folder") == layout_names()
    assert layout_names() == ("auto", "mvtec", "bmad", "mvtec_3d_ad", "mvtec_ad_2", "visa", "folder")
    write(tmp_path / "a.png", png(0))
    assert open_source(Location.parse(tmp_path)).layout.name == "folder"


def test_plain_folders_may_share_file_names(tmp_path: Path) -> None:
    write(tmp_path / "monday/0.png", png(0))
    write(tmp_path / "tuesday/0.png", png(1))
    keys = {entry.row_key for day in ("monday", "tuesday") for entry in images(tmp_path / day, category="part")}
    assert len(keys) == 2
