"""Rows of each public data set, from a small tree with its folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.data_set_trees import (
    bmad_tree,
    btad_tree,
    draw,
    mpdd_tree,
    mvtec_3d_ad_tree,
    mvtec_ad_2_tree,
    read,
    visa_tree,
    write_lines,
)

from uniad_ray.archive.layouts import SourceImage, data_set_layouts, open_source, row_key
from uniad_ray.archive.stores.location import Location

TREES = {
    "mpdd": mpdd_tree,
    "btad": btad_tree,
    "mvtec_3d_ad": mvtec_3d_ad_tree,
    "mvtec_ad_2": mvtec_ad_2_tree,
    "visa": visa_tree,
    "bmad": bmad_tree,
}
LAYOUT_OF: dict[str, str] = {
    "mpdd": "mvtec",
    "btad": "mvtec",
    "mvtec_3d_ad": "mvtec_3d_ad",
    "mvtec_ad_2": "mvtec_ad_2",
    "visa": "visa",
    "bmad": "bmad",
}


def row(
    root: Path, path: str, split: str, label: str | None, kind: str | None = None, *, masks: tuple[str, ...] = ()
) -> SourceImage:
    """The row of an image; its first folder is its category."""
    category, within = path.split("/", 1)
    return SourceImage(
        row_key=row_key(category, within),
        uri=str(root / path),
        size=(root / path).stat().st_size,
        category=category,
        split=split,
        label=label,
        defect_kind=kind,
        anomaly_type=None,
        mask_uris=tuple(str(root / mask) for mask in masks),
    )


def by_path(rows: list[SourceImage]) -> list[SourceImage]:
    return sorted(rows, key=lambda entry: entry.uri)


def test_mpdd(tmp_path: Path) -> None:
    root = mpdd_tree(tmp_path)
    kind = "bend_and_parts_mismatch"
    mask = f"bracket_brown/ground_truth/{kind}/000_mask.png"
    rows, rejected = read(root)
    assert rows == by_path(
        [
            row(root, "bracket_brown/train/good/000.png", "train", "normal"),
            row(root, "bracket_brown/test/good/000.png", "test", "normal"),
            row(root, f"bracket_brown/test/{kind}/000.png", "test", "anomalous", kind, masks=(mask,)),
        ]
    )
    assert rejected == {}


def test_btad(tmp_path: Path) -> None:
    root = btad_tree(tmp_path)
    rows, rejected = read(root)
    assert rows == by_path(
        [
            row(root, "01/train/ok/0000.bmp", "train", "normal"),
            row(root, "01/test/ok/0000.bmp", "test", "normal"),
            row(root, "01/test/ko/0000.bmp", "test", "anomalous", "ko", masks=("01/ground_truth/ko/0000.png",)),
            row(root, "03/train/OK/0000.bmp", "train", "normal"),
            row(root, "03/test/KO/0001.bmp", "test", "anomalous", "KO", masks=("03/ground_truth/KO/0001.bmp",)),
            row(root, "03/test/KO/0002.bmp", "test", "anomalous", "KO"),
        ]
    )
    assert rejected == {}


def test_mvtec_ad_2(tmp_path: Path) -> None:
    root = mvtec_ad_2_tree(tmp_path)
    mask = "can/test_public/ground_truth/bad/000_shift_1_mask.png"
    rows, rejected = read(root)
    assert rows == by_path(
        [
            row(root, "can/train/good/000_regular.png", "train", "normal"),
            row(root, "can/validation/good/000_regular.png", "validation", "normal"),
            row(root, "can/test_public/good/000_regular.png", "test", "normal"),
            row(root, "can/test_public/bad/000_shift_1.png", "test", "anomalous", "bad", masks=(mask,)),
            row(root, "can/test_private/000_regular.png", "archive", None),
            row(root, "can/test_private_mixed/000_mixed.png", "archive", None),
        ]
    )
    assert rejected == {}


def test_mvtec_3d_ad(tmp_path: Path) -> None:
    root = mvtec_3d_ad_tree(tmp_path)
    kinds = ("train/good", "validation/good", "test/good", "test/crack")
    draw(root, *(f"cookie/{kind}/xyz/000.tiff" for kind in kinds), "cookie/test/crack/depth/000.png")
    mask = "cookie/test/crack/gt/000.png"
    rows, rejected = read(root)
    assert rows == by_path(
        [
            row(root, "cookie/train/good/rgb/000.png", "train", "normal"),
            row(root, "cookie/validation/good/rgb/000.png", "validation", "normal"),
            row(root, "cookie/test/good/rgb/000.png", "test", "normal"),
            row(root, "cookie/test/crack/rgb/000.png", "test", "anomalous", "crack", masks=(mask,)),
        ]
    )
    assert rejected == {
        **{f"cookie/{kind}/xyz/000.tiff": "in xyz/; only rgb/ and gt/ are read" for kind in kinds},
        "cookie/test/crack/depth/000.png": "in depth/; only rgb/ and gt/ are read",
    }


def test_bmad(tmp_path: Path) -> None:
    root = bmad_tree(tmp_path)
    kind = ("anomalous", "ungood")
    rows, rejected = read(root)
    assert rows == by_path(
        [
            row(root, "brain/train/good/00003_60.png", "train", "normal"),
            row(root, "brain/valid/good/img/00025_99.png", "validation", "normal"),
            row(
                root,
                "brain/valid/Ungood/img/00124_60.png",
                "validation",
                *kind,
                masks=("brain/valid/Ungood/label/00124_60.png",),
            ),
            row(root, "brain/test/good/img/00000_96.png", "test", "normal"),
            row(
                root,
                "brain/test/Ungood/img/00124_60.png",
                "test",
                *kind,
                masks=("brain/test/Ungood/label/00124_60.png",),
            ),
            row(root, "RESC/train/good/img/0.png", "train", "normal"),
            row(root, "RESC/val/ungood/img/1.png", "validation", *kind, masks=("RESC/val/ungood/label/1.png",)),
            row(root, "liver/test/img/good/2.png", "test", "normal"),
            row(root, "liver/test/img/Ungood/3.png", "test", *kind, masks=("liver/test/label/Ungood/3.png",)),
        ]
    )
    assert rejected == {}


def test_bmad_without_masks(tmp_path: Path) -> None:
    root = draw(tmp_path, "chest/train/good/1.png", "chest/val/Ungood/2.png", "chest/test/Ungood/3.png")
    rows, rejected = read(root)
    assert rows == by_path(
        [
            row(root, "chest/train/good/1.png", "train", "normal"),
            row(root, "chest/val/Ungood/2.png", "validation", "anomalous", "ungood"),
            row(root, "chest/test/Ungood/3.png", "test", "anomalous", "ungood"),
        ]
    )
    assert rejected == {}


def test_visa(tmp_path: Path) -> None:
    root = visa_tree(tmp_path)
    masks = {name: (f"{name}/Data/Masks/Anomaly/000.png",) for name in ("candle", "pcb1")}
    rows, rejected = read(root)
    assert rows == by_path(
        [
            row(root, "candle/Data/Images/Normal/0000.JPG", "train", "normal"),
            row(root, "candle/Data/Images/Normal/0001.JPG", "test", "normal"),
            row(
                root,
                "candle/Data/Images/Anomaly/000.JPG",
                "test",
                "anomalous",
                "bent+melded",
                masks=masks["candle"],
            ),
            row(root, "pcb1/Data/Images/Normal/0000.JPG", "train", "normal"),
            row(root, "pcb1/Data/Images/Normal/0001.JPG", "test", "normal"),
            row(root, "pcb1/Data/Images/Anomaly/000.JPG", "test", "anomalous", "anomaly", masks=masks["pcb1"]),
        ]
    )
    assert rejected == {}


def test_visa_without_split_table_has_only_labels(tmp_path: Path) -> None:
    root = visa_tree(tmp_path)
    (root / "split_csv/1cls.csv").rename(root / "split_csv/2cls_fewshot.csv")
    rows, rejected = read(root, category="candle")
    assert [(entry.split, entry.label, entry.defect_kind, len(entry.mask_uris)) for entry in rows] == [
        ("archive", "anomalous", "bent+melded", 1),
        ("archive", "normal", None, 0),
        ("archive", "normal", None, 0),
    ]
    assert rejected == {}
    assert read(root)[1] == {"split_csv/2cls_fewshot.csv": "not under Data/Images/ or Data/Masks/ of an object"}


def test_single_visa_object_has_the_same_keys(tmp_path: Path) -> None:
    root = visa_tree(tmp_path)
    whole, alone = read(root, category="candle")[0], read(root / "candle")[0]
    assert [entry.row_key for entry in alone] == [entry.row_key for entry in whole]
    assert [entry.defect_kind for entry in alone] == [entry.defect_kind for entry in whole]
    assert {entry.split for entry in alone} == {"archive"}


@pytest.mark.parametrize("name", TREES)
def test_forced_layout_equals_recognised_layout(tmp_path: Path, name: str) -> None:
    root = TREES[name](tmp_path)
    assert open_source(Location.parse(root)).layout.name == LAYOUT_OF[name]
    assert read(root, layout=LAYOUT_OF[name]) == read(root)


@pytest.mark.parametrize("name", TREES)
def test_category_folder_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    root = TREES[name](tmp_path)
    (root / "split_csv/1cls.csv").unlink(missing_ok=True)
    for category in {entry.category for entry in read(root)[0]}:
        assert read(root / category) == read(root, category=category)


@pytest.mark.parametrize("name", TREES)
def test_plain_folder_takes_every_image(tmp_path: Path, name: str) -> None:
    root = TREES[name](tmp_path)
    rows, _ = read(root, layout="folder", category="x")
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".csv"]
    assert [entry.row_key for entry in rows] == [row_key("x", str(path)) for path in sorted(files, key=str)]
    assert {(entry.split, entry.label, entry.mask_uris) for entry in rows} == {("archive", None, ())}


def test_good_folders_give_same_rows_in_all_layouts(tmp_path: Path) -> None:
    root = draw(tmp_path, "a/train/good/0.png", "a/train/good/1.png")
    expected = [row(root, f"a/train/good/{index}.png", "train", "normal") for index in (0, 1)]
    fitting = [layout.name for layout in data_set_layouts() if layout.name not in ("visa", "mvtec_3d_ad")]
    assert [read(root, layout=name) for name in ("auto", *fitting)] == [(expected, {})] * 4


def test_normal_folder_may_be_capitalised(tmp_path: Path) -> None:
    root = draw(tmp_path, "a/train/Good/0.png", "a/test/GOOD/1.png", "a/test/OK/2.png", "a/test/Scratch/3.png")
    rows, _ = read(root)
    assert {Path(entry.uri).name: entry.label for entry in rows} == {
        "0.png": "normal",
        "1.png": "normal",
        "2.png": "normal",
        "3.png": "anomalous",
    }


def test_split_table_may_have_bom_and_extra_columns(tmp_path: Path) -> None:
    root = draw(tmp_path, "candle/Data/Images/Normal/0000.JPG")
    table = root / "split_csv/1cls.csv"
    write_lines(
        table,
        "\ufeffimage,mask,object,split,label,note",
        "candle/Data/Images/Normal/0000.JPG,,candle,validation,normal,dusty",
        "",
    )
    rows, rejected = read(root)
    assert rows == [row(root, "candle/Data/Images/Normal/0000.JPG", "validation", "normal")]
    assert rejected == {}


def test_normal_annotation_of_anomalous_image_names_no_defect(tmp_path: Path) -> None:
    root = draw(tmp_path, "candle/Data/Images/Anomaly/000.JPG", "candle/Data/Images/Anomaly/001.JPG")
    write_lines(
        root / "candle/image_anno.csv",
        "image,label",
        "candle/Data/Images/Anomaly/000.JPG,normal",
        "candle/Data/Images/Anomaly/001.JPG,",
    )
    assert [entry.defect_kind for entry in read(root)[0]] == ["anomaly", "anomaly"]


def test_masks_alone_are_not_a_tree(tmp_path: Path) -> None:
    root = draw(tmp_path / "x", "ground_truth/scratch/0.png", "candle/Data/Masks/Anomaly/000.png")
    assert open_source(Location.parse(root)).layout.name == "folder"
    assert len(read(root)[0]) == 2


def test_parts_of_a_drawn_product_are_left_aside_but_a_category_of_that_name_is_read(tmp_path: Path) -> None:
    draw(tmp_path, "things/train/good/000.png", "things/test/missing/000.png", "things/parts/train-good/000.png")
    write_lines(tmp_path / "things/product.json", "{}")
    draw(tmp_path, "parts/train/good/000.png", "parts/test/good/000.png")
    rows, rejected = read(tmp_path)
    assert rejected == {}
    assert [entry.uri.removeprefix(f"{tmp_path}/") for entry in rows] == [
        "parts/test/good/000.png",
        "parts/train/good/000.png",
        "things/test/missing/000.png",
        "things/train/good/000.png",
    ]
