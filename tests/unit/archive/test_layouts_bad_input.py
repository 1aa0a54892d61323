"""Bad input to layouts: each file is listed with the reason, or the source is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.data_set_trees import (
    VISA_HEADER,
    bmad_tree,
    draw,
    mpdd_tree,
    mvtec_ad_2_tree,
    read,
    visa_tree,
    write_lines,
)
from support.trees import mask_png, mvtec_tree, write

from uniad_ray.archive.layouts import data_set_layouts
from uniad_ray.archive.layouts.tables import MAX_TABLE_BYTES, read_rows
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError, StoreError, UserError

SEGMENTS = (
    "train validation val test test_public test_private good Ungood bad img label ground_truth "
    "Data Images Masks Normal Anomaly split_csv 1cls.csv defects_config.json rgb gt xyz 0.png a"
)
ROW = "candle,train,normal,candle/Data/Images/Normal/0000.JPG,"


def refused(root: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        read(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def visa_with_table(root: Path, *lines: str) -> Path:
    draw(root, "candle/Data/Images/Normal/0000.JPG")
    write_lines(root / "split_csv/1cls.csv", *lines)
    return root


class TestFilesThatAreListed:
    def test_visa_rows_and_files_must_match(self, tmp_path: Path) -> None:
        root = visa_tree(tmp_path)
        (root / "candle/Data/Images/Normal/0001.JPG").unlink()
        draw(root, "candle/Data/Images/Normal/0002.JPG")
        rows, rejected = read(root)
        assert rejected == {
            "candle/Data/Images/Normal/0001.JPG": "split_csv/1cls.csv lists it in line 3, but it does not exist",
            "candle/Data/Images/Normal/0002.JPG": "not listed in split_csv/1cls.csv",
        }
        assert len(rows) == 5

    def test_visa_image_with_missing_mask_is_kept(self, tmp_path: Path) -> None:
        root = visa_tree(tmp_path)
        (root / "candle/Data/Masks/Anomaly/000.png").unlink()
        rows, rejected = read(root, category="candle")
        assert rejected == {
            "candle/Data/Masks/Anomaly/000.png": "split_csv/1cls.csv lists it in line 4, but it does not exist"
        }
        assert [entry.mask_uris for entry in rows if entry.label == "anomalous"] == [()]

    def test_missing_visa_object_is_one_line(self, tmp_path: Path) -> None:
        root = visa_with_table(
            tmp_path,
            VISA_HEADER,
            ROW,
            *(f"fryum,train,normal,fryum/Data/Images/Normal/{index:04d}.JPG," for index in range(3)),
        )
        rows, rejected = read(root)
        assert len(rows) == 1
        assert rejected == {"fryum/Data/Images": "split_csv/1cls.csv lists images in it, but it does not exist"}
        assert read(root, category="candle")[1] == {}

    def test_missing_files_of_other_categories_are_not_listed(self, tmp_path: Path) -> None:
        root = visa_tree(tmp_path)
        (root / "pcb1/Data/Images/Normal/0001.JPG").unlink()
        draw(root, "pcb1/Data/Images/Normal/0002.JPG", masks=("pcb1/Data/Masks/Anomaly/9.png",))
        assert read(root, category="candle")[1] == {}
        assert len(read(root, category="pcb1")[1]) == 3

    @pytest.mark.parametrize(
        ("draw_tree", "mask"),
        [
            (mpdd_tree, "bracket_brown/ground_truth/bend_and_parts_mismatch/001_mask.png"),
            (mpdd_tree, "bracket_brown/ground_truth/scratches/000/000.png"),
            (mvtec_ad_2_tree, "can/test_public/ground_truth/bad/001_regular_mask.png"),
            (bmad_tree, "brain/test/Ungood/label/00000_96.png"),
            (bmad_tree, "brain/valid/good/label/1.png"),
            (visa_tree, "candle/Data/Masks/Anomaly/001.png"),
        ],
    )
    def test_mask_without_an_image(self, tmp_path: Path, draw_tree: object, mask: str) -> None:
        root = draw_tree(tmp_path)  # type: ignore[operator]
        rows, _ = read(root)
        write(root / mask, mask_png())
        assert read(root) == (rows, {mask: "mask without an image"})

    def test_non_image_among_masks_is_rejected(self, tmp_path: Path) -> None:
        root = mpdd_tree(tmp_path)
        rows, _ = read(root)
        name = "bracket_brown/ground_truth/bend_and_parts_mismatch/000.json"
        write(root / name, b"{}")
        assert read(root) == (rows, {name: "not an image: 000.json has suffix .json"})

    def test_files_outside_layout_folders_are_rejected(self, tmp_path: Path) -> None:
        root = mvtec_ad_2_tree(tmp_path)
        write(root / "readme.txt", b"hello")
        draw(root, "can/test_public/ugly/1.png")
        where = "not under train/, validation/, test_public/ or test_private/ of a category"
        assert read(root, category="can")[1] == {"readme.txt": where, "can/test_public/ugly/1.png": where}


class TestSourcesThatAreRefused:
    def test_two_layouts_in_one_source(self, tmp_path: Path) -> None:
        mvtec_tree(tmp_path / "bottle", train=1, good=0, bad=1)
        bmad_tree(tmp_path)
        message = refused(tmp_path)
        assert (
            "2 layouts: mvtec (bottle/ground_truth/spot/000_mask.png) and bmad (RESC/val/ungood/img/1.png)" in message
        )
        assert {entry.category for entry in read(tmp_path, category="bottle")[0]} == {"bottle"}
        assert {entry.label for entry in read(tmp_path, category="RESC")[0]} == {"normal", "anomalous"}
        assert set(read(tmp_path, layout="bmad")[1]) == {
            "bottle/test/spot/000.png",
            "bottle/ground_truth/spot/000_mask.png",
        }

    def test_two_layouts_in_one_category(self, tmp_path: Path) -> None:
        root = mvtec_ad_2_tree(tmp_path)
        draw(root, "can/test/scratch/0.png")
        message = refused(root, category="can")
        assert "mvtec (can/test/scratch/0.png) and mvtec_ad_2 (can/test_public/bad/000_shift_1.png)" in message

    @pytest.mark.parametrize("layout", data_set_layouts(), ids=lambda layout: layout.name)
    def test_forced_layout_must_fit(self, tmp_path: Path, layout: object) -> None:
        draw(tmp_path, "a/b/0.png")
        message = refused(tmp_path, layout=layout.name)  # type: ignore[attr-defined]
        assert f"as layout {layout.name} requires" in message  # type: ignore[attr-defined]
        assert "use --layout folder" in message

    @pytest.mark.parametrize("draw_tree", [mvtec_ad_2_tree, visa_tree, bmad_tree])
    def test_plain_folder_options_and_unknown_categories_are_refused(self, tmp_path: Path, draw_tree: object) -> None:
        root = draw_tree(tmp_path)  # type: ignore[operator]
        assert "omit --split" in refused(root, split="train")
        assert "omit --split" in refused(root, label="normal")
        assert "no category 'nut'; the source has " in refused(root, category="nut")


class TestTables:
    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ((), "missing column object, split, label, image, mask"),
            (("object,split,label,image", ROW), "missing column mask; the first line must be object,split,label"),
            ((VISA_HEADER, "candle,train,normal"), "line 2: 3 cells for 5 columns"),
            ((VISA_HEADER, f"{ROW},more"), "line 2: 6 cells for 5 columns"),
            ((VISA_HEADER, f'{ROW}"open'), "line 2: not valid CSV"),
            ((VISA_HEADER, ROW.replace("train", "fit")), "line 2: split 'fit'; it must be train, validation or test"),
            ((VISA_HEADER, ROW.replace("normal", "good")), "line 2: label 'good'; it must be normal or anomaly"),
            (
                (VISA_HEADER, ROW.replace("candle/", "pcb1/")),
                "line 2: 'pcb1/Data/Images/Normal/0000.JPG' is not an image",
            ),
            ((VISA_HEADER, ROW.replace("candle/", "../../candle/")), "is not an image of object 'candle'"),
            (
                (VISA_HEADER, ROW, "", ROW.replace("train", "test")),
                "line 4: 'candle/Data/Images/Normal/0000.JPG' appears a second time",
            ),
            (
                (VISA_HEADER, f"{ROW}candle/Data/Masks/Normal/1.png"),
                "'candle/Data/Masks/Normal/1.png' is not a mask of",
            ),
            (
                (VISA_HEADER, f"{ROW}pcb1/Data/Masks/Normal/0000.png"),
                "is not a mask of 'candle/Data/Images/Normal/0000.JPG'",
            ),
            (
                (VISA_HEADER, '"a\nb",train,normal,"a\nb/Data/Images/Normal/0.JPG",x'),
                "line 4: 'x' is not a mask of 'a\\nb/",
            ),
            ((VISA_HEADER, f"{ROW}/etc/passwd"), "'/etc/passwd' is not a mask of"),
        ],
    )
    def test_invalid_visa_tables_are_refused(self, tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
        refusal = refused(visa_with_table(tmp_path, *lines))
        assert message in refusal
        assert refusal.startswith(f"{tmp_path}/split_csv/1cls.csv")

    def test_tables_must_be_utf8(self, tmp_path: Path) -> None:
        root = visa_tree(tmp_path)
        write(root / "candle/image_anno.csv", "image,label\nä".encode("latin-1"))
        assert "candle/image_anno.csv: not UTF-8 text" in refused(root)
        assert {entry.category for entry in read(root, category="pcb1")[0]} == {"pcb1"}

    def test_too_large_tables_are_refused_unread(self, tmp_path: Path) -> None:
        root = visa_tree(tmp_path)
        with (root / "split_csv/1cls.csv").open("wb") as file:
            file.truncate(MAX_TABLE_BYTES + 1)
        with pytest.raises(StoreError, match=f"{MAX_TABLE_BYTES + 1} bytes exceed the limit of {MAX_TABLE_BYTES}"):
            read(root)

    @given(data=st.one_of(st.binary(max_size=60), st.text(alphabet='ab,"\n\r\0é', max_size=60).map(str.encode)))
    def test_any_bytes_give_complete_rows_or_one_error(
        self, data: bytes, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.mktemp("tables") / "table.csv"
        path.write_bytes(data)
        try:
            rows = list(read_rows(Location.parse(path), ("a",)))
        except ArchiveError as error:
            assert str(error).startswith(f"{path}")  # noqa: PT017 - either outcome is right
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert all(set(cells) == set(rows[0][1]) and "a" in cells for _, cells in rows)


@example("train/test_public/good/train")
@example("train/test/img/Ungood/0.png")
@example("train/Data/Images/Normal/0.png")
@given(path=st.lists(st.sampled_from(SEGMENTS.split()), min_size=1, max_size=6).map("/".join))
def test_path_identifies_at_most_one_layout(path: str) -> None:
    assert len([layout.name for layout in data_set_layouts() if layout.signature.match(path)]) <= 1
