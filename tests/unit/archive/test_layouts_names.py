"""Names in a source: hidden and foreign folders, Unicode forms, and names that are not UTF-8."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.data_set_trees import draw, read, visa_tree
from support.trees import mask_png, mvtec_tree, png, write

from uniad_ray.archive.layouts import Attachment, Rejected, SourceImage, open_source, row_key
from uniad_ray.archive.layouts.names import hidden_reason, suffix_reason
from uniad_ray.archive.naming import normalised, printable
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError

HIDDEN = (
    ".ipynb_checkpoints",
    ".git",
    ".snapshot",
    ".thumbnails",
    ".Trash-1000",
    "@eaDir",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "__MACOSX",
    "__pycache__",
)


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


class TestHiddenNames:
    @pytest.mark.parametrize("folder", HIDDEN)
    def test_hidden_folders_are_listed_and_not_taken(self, tmp_path: Path, folder: str) -> None:
        root = mvtec_tree(tmp_path / "part", train=2, good=1, bad=1)
        rows, _ = read(root)
        places = ("", "train/", "train/good/", "test/", "ground_truth/spot/")
        paths = [f"{place}{folder}/{path}" for place in places for path in ("0.png", "test/good/0.png")]
        draw(root, *paths)
        assert open_source(Location.parse(root)).categories == frozenset()
        again, rejected = read(root)
        assert again == rows
        assert set(rejected) == set(paths)
        assert {reason.removesuffix(folder) for reason in rejected.values()} <= {
            "in the hidden folder ",
            "in the system folder ",
        }

    def test_hidden_files_of_a_plain_folder(self, tmp_path: Path) -> None:
        draw(
            tmp_path,
            "0.png",
            ".0.png.Xa3f",
            "._0.png",
            "Thumbs.db",
            ".DS_Store",
            "@eaDir/0.png/THUMB.jpg",
            "1.png.part",
        )
        rows, rejected = read(tmp_path, split="train", label="normal")
        assert [Path(entry.uri).name for entry in rows] == ["0.png"]
        assert rejected == {
            ".0.png.Xa3f": "hidden file .0.png.Xa3f",
            "._0.png": "hidden file ._0.png",
            ".DS_Store": "hidden file .DS_Store",
            "Thumbs.db": "system file Thumbs.db",
            "@eaDir/0.png/THUMB.jpg": "in the system folder @eaDir",
            "1.png.part": "not an image: 1.png.part has suffix .part",
        }

    def test_hidden_category_is_read_if_it_is_named(self, tmp_path: Path) -> None:
        draw(tmp_path, ".lid/train/good/0.png", ".lid/train/good/.x/1.png", "nut/train/good/0.png")
        rows, rejected = read(tmp_path, category=".lid")
        assert [(entry.category, Path(entry.uri).name) for entry in rows] == [(".lid", "0.png")]
        assert rejected == {".lid/train/good/.x/1.png": "in the hidden folder .x"}
        assert {entry.category for entry in read(tmp_path)[0]} == {"nut"}

    def test_source_may_be_hidden_itself(self, tmp_path: Path) -> None:
        draw(tmp_path / ".cache/@eaDir", "0.png")
        assert len(read(tmp_path / ".cache/@eaDir")[0]) == 1

    @pytest.mark.parametrize("name", [*"_-~#$@%&+=!'(),;[]^{}", "日本", "é"])
    def test_other_folders_begin_with_any_character(self, tmp_path: Path, name: str) -> None:
        draw(tmp_path, f"{name}lid/train/good/0.png", f"{name}lid/test/{name}bad/0.png")
        rows, rejected = read(tmp_path)
        assert {entry.category for entry in rows} == {f"{name}lid"}
        assert {entry.defect_kind for entry in rows} == {None, f"{name}bad"}
        assert rejected == {}


class TestForeignFolders:
    @pytest.mark.parametrize("category", [None, "bottle", "other"])
    @pytest.mark.parametrize("folder", ["depth", "parts_2", "crops"])
    def test_folder_beside_train_and_test_affects_nothing_else(
        self, tmp_path: Path, folder: str, category: str | None
    ) -> None:
        root = mvtec_tree(tmp_path / "bottle", train=2, good=1, bad=1)
        rows, _ = read(root, category=category)
        assert len(rows) == 4
        foreign = [f"{folder}/train/good/{index}.png" for index in range(9)] + [f"{folder}/ground_truth/spot/0.png"]
        draw(root, *foreign, f"{folder}/0.png")
        where = "not under train/, validation/ or test/ of a category"
        assert read(root, category=category) == (
            rows,
            {**dict.fromkeys(foreign, f"in {folder}/, beside the folders of the category"), f"{folder}/0.png": where},
        )

    def test_parts_of_a_product_are_not_listed(self, tmp_path: Path) -> None:
        root = mvtec_tree(tmp_path / "product", train=1, good=1, bad=0)
        rows, _ = read(root)
        draw(root, "parts/train/good/000.png", "parts/test/good/000.png")
        assert read(root) == (rows, {})
        found = [entry for entry in open_source(Location.parse(root)).entries() if isinstance(entry, Attachment)]
        assert len(found) == 2

    def test_foreign_folder_of_one_of_several_categories(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            mvtec_tree(tmp_path / name, train=1, good=1, bad=1)
        rows, _ = read(tmp_path)
        draw(tmp_path, "a/depth/train/good/0.png")
        where = "not under train/, validation/ or test/ of a category"
        assert read(tmp_path) == (rows, {"a/depth/train/good/0.png": where})

    @pytest.mark.parametrize("category", [None, "a"])
    def test_stray_split_beside_categories_affects_nothing_else(self, tmp_path: Path, category: str | None) -> None:
        for name in ("a", "b"):
            mvtec_tree(tmp_path / name, train=3, good=1, bad=1)
        rows, _ = read(tmp_path, category=category)
        draw(tmp_path, "train/good/0.png", "train/good/1.png")
        write(tmp_path / "ground_truth/spot/0.png", mask_png())
        reason = "beside the folders of the categories"
        stray = ("train/good/0.png", "train/good/1.png", "ground_truth/spot/0.png")
        assert read(tmp_path, category=category) == (rows, dict.fromkeys(stray, reason))

    def test_without_tests_the_larger_set_is_the_category(self, tmp_path: Path) -> None:
        draw(tmp_path / "lid", *(f"train/good/{index}.png" for index in range(3)), "depth/train/good/0.png")
        assert {entry.category for entry in read(tmp_path / "lid")[0]} == {"lid"}
        draw(tmp_path / "all", *(f"a/train/good/{index}.png" for index in range(3)), "train/good/0.png")
        assert {entry.category for entry in read(tmp_path / "all")[0]} == {"a"}

    @pytest.mark.parametrize("bad", [0, 1])
    def test_foreign_folder_may_have_another_layout(self, tmp_path: Path, bad: int) -> None:
        root = mvtec_tree(tmp_path / "bottle", train=2, good=1, bad=bad)
        rows, _ = read(root)
        visa = ("visa/Data/Images/Normal/0.png", "visa/Data/Images/Anomaly/0.png")
        bmad = ("bmad/valid/Ungood/img/0.png",)
        draw(root, *visa, *bmad)
        where = "not under train/, validation/ or test/ of a category"
        assert read(root) == (rows, dict.fromkeys((*visa, *bmad), where))
        assert {entry.category for entry in read(root, category="visa", layout="visa")[0]} == {"visa"}

    def test_foreign_folder_can_be_selected(self, tmp_path: Path) -> None:
        root = mvtec_tree(tmp_path / "bottle", train=1, good=1, bad=0)
        draw(root, "depth/train/good/0.png", "depth/test/good/0.png")
        assert {entry.category for entry in read(root, category="depth")[0]} == {"depth"}

    def test_texts_make_no_category(self, tmp_path: Path) -> None:
        root = mvtec_tree(tmp_path / "bottle", train=1, good=0, bad=0)
        write(root / "code/test/unit/test_code.py", b"")
        assert len(read(root, category="flask")[0]) == 1

    def test_other_views_of_a_kind_are_not_images_of_it(self, tmp_path: Path) -> None:
        root = mvtec_tree(tmp_path / "bottle", train=1, good=1, bad=1)
        rows, _ = read(root)
        draw(root, "test/spot/depth/000.png", "test/spot/mask/000.png", "train/good/2026-11-21/000.png")
        again, rejected = read(root)
        assert len(again) == len(rows) + 1
        assert rejected == {
            f"test/spot/{folder}/000.png": f"in {folder}/ of a defect kind, which holds no images"
            for folder in ("depth", "mask")
        }


class TestUnicodeForms:
    def test_folders_of_two_forms_are_one_category(self, tmp_path: Path) -> None:
        name = "Schraube-Ü 5"
        draw(tmp_path, f"{nfc(name)}/train/good/0.png", f"{nfd(name)}/test/riß/1.png")
        rows, rejected = read(tmp_path)
        assert {entry.category for entry in rows} == {nfc(name)}
        assert {entry.row_key for entry in rows} == {
            row_key(nfc(name), path) for path in ("train/good/0.png", "test/riß/1.png")
        }
        assert rejected == {}
        assert len(read(tmp_path, category=nfd(name))[0]) == len(read(tmp_path, category=nfc(name))[0]) == 2

    @pytest.mark.parametrize(("image", "mask"), [(nfc, nfd), (nfd, nfc)])
    def test_masks_of_another_form_are_found(self, tmp_path: Path, image: object, mask: object) -> None:
        draw(tmp_path / "teil", "train/good/0.png", f"test/{image('rißä')}/{image('ö')}.png")  # type: ignore[operator]
        path = tmp_path / f"teil/ground_truth/{mask('rißä')}/{mask('ö')}_mask.png"  # type: ignore[operator]
        write(path, mask_png())
        rows, rejected = read(tmp_path / "teil")
        assert rejected == {}
        (bad,) = [entry for entry in rows if entry.label == "anomalous"]
        assert (bad.defect_kind, bad.mask_uris) == (nfc("rißä"), (str(path),))

    def test_tables_and_files_of_two_forms(self, tmp_path: Path) -> None:
        root = visa_tree(tmp_path / "visa")
        (root / "candle").rename(root / nfd("kérze"))
        table = root / "split_csv/1cls.csv"
        table.write_text(table.read_text().replace("candle", nfc("kérze")))
        rows, rejected = read(root)
        assert {entry.category for entry in rows} == {nfc("kérze"), "pcb1"}
        assert rejected == {}

    def test_folder_keys_do_not_depend_on_the_form(self, tmp_path: Path) -> None:
        draw(tmp_path, nfd("ä.png"))
        (row,), _ = read(tmp_path, category="lid")
        assert row.row_key == row_key("lid", f"{tmp_path}/{nfc('ä.png')}")
        assert row.former_key == row_key("lid", f"{tmp_path}/{nfd('ä.png')}")
        assert row.uri == f"{tmp_path}/{nfd('ä.png')}"

    def test_former_keys_are_those_of_the_names_as_they_are(self, tmp_path: Path) -> None:
        draw(tmp_path / nfd("Öl"), nfd("test/ä/ö.png"), "train/good/0.png")
        keys = {entry.row_key: entry.former_key for entry in read(tmp_path / nfd("Öl"))[0]}
        assert keys == {
            row_key(nfc("Öl"), nfc(path)): row_key(nfd("Öl"), nfd(path))
            for path in ("test/ä/ö.png", "train/good/0.png")
        }
        draw(tmp_path / "plain", nfc("test/ä/ö.png"))
        assert [entry.former_key for entry in read(tmp_path / "plain")[0]] == [None]


class TestNamesThatAreNotUtf8:
    @pytest.mark.parametrize("name", [b"Stra\xdfe.png", b"Stra\xdfe.txt", b"\xff/0.png"])
    def test_each_affects_nothing_else(self, tmp_path: Path, name: bytes) -> None:
        for tree in ("plain", "part/train/good"):
            draw(tmp_path / tree, "0.png")
            path = Path(os.fsdecode(os.fsencode(tmp_path / tree) + b"/" + name))
            write(path, png(1))
        for root in (tmp_path / "plain", tmp_path / "part"):
            entries = list(open_source(Location.parse(root)).entries())
            assert len([entry for entry in entries if isinstance(entry, SourceImage)]) == 1
            (found,) = [entry for entry in entries if isinstance(entry, Rejected)]
            shown = name.decode("utf-8", "backslashreplace")
            assert found.source_uri.endswith(f"/{shown}")
            assert found.reason == "its name is not UTF-8 text; rename it"

    def test_source_and_category_must_be_utf8(self, tmp_path: Path) -> None:
        root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xdf"))
        draw(root, "0.png")
        with pytest.raises(ArchiveError, match=r"\\xdf: the path is not UTF-8 text; rename it"):
            read(root)
        draw(tmp_path / "a", "0.png")
        with pytest.raises(ArchiveError, match=r"the category \\xdf is not UTF-8 text"):
            read(tmp_path / "a", category="\udcdf")


class TestFunctions:
    @given(name=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
    def test_only_known_and_dotted_names_are_hidden(self, name: str) -> None:
        expected = name.startswith(".") or name.lower() in {folder.lower() for folder in HIDDEN} | {
            "#snapshot",
            "$extend",
            "@recently-snapshot",
            "@recycle",
            "@sharebin",
            "found.000",
            "recycled",
            "recycler",
            "~snapshot",
        }
        assert (hidden_reason(f"a/{name}/b.png") is not None) == expected

    @given(name=st.text())
    def test_normalised_names_stay(self, name: str) -> None:
        assert normalised(normalised(name)) == normalised(name) == normalised(nfd(name))

    @given(name=st.binary(max_size=9).filter(lambda data: b"\0" not in data))
    def test_any_name_can_be_printed(self, name: bytes) -> None:
        text = printable(os.fsdecode(name))
        text.encode()
        assert text == name.decode("utf-8", "backslashreplace")

    def test_suffixes(self) -> None:
        assert suffix_reason("a.b/c.TXT") == "not an image: c.TXT has suffix .txt"
        assert [suffix_reason(name) for name in ("a.png", "a", "a.txt/b", "a.raw")] == [None] * 4
