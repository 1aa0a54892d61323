from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uniad_ray.errors import CaptionError, ConfigError, StoreError
from uniad_ray.perception.captions.base import MAX_CHARACTERS
from uniad_ray.perception.captions.table import CaptionTable, CaptionTableConfig, _read_table
from uniad_ray.perception.missing import Missing

IMAGES = np.zeros((2, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _nothing_read_before() -> None:
    _read_table.cache_clear()


def write(path: Path, *rows: tuple[str | None, ...], names: tuple[str, ...] = ("row_key", "prompt", "text")) -> str:
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), path)
    return str(path)


def table(source: Path | str) -> CaptionTable:
    return CaptionTable("caption", CaptionTableConfig(kind="table", source=str(source)))


def test_text_is_found_by_row_and_prompt(tmp_path: Path) -> None:
    source = write(
        tmp_path / "c.parquet", ("a", "what?", "a pin"), ("b", "what?", "a nut"), ("a", "where?", "top left")
    )

    assert table(source).captions(["b", "a"], IMAGES, "what?") == ["a nut", "a pin"]
    assert table(source).captions(["a"], IMAGES[:1], "where?") == ["top left"]


def test_image_without_a_text_does_not_affect_others(tmp_path: Path) -> None:
    source = write(tmp_path / "c.parquet", ("a", "what?", "a pin"), ("b", "what?", None))

    found = table(source).captions(["a", "c", "b"], [*IMAGES, IMAGES[0]], "what?")
    assert found == ["a pin", Missing(f"{source} has no caption for this image"), Missing("no text is stored")]


def test_prompt_without_captions_is_one_line(tmp_path: Path) -> None:
    source = write(tmp_path / "c.parquet", ("a", "what?", "a pin"))

    with pytest.raises(CaptionError) as raised:
        table(source).captions(["a"], IMAGES[:1], "how many?\nplease")
    assert str(raised.value) == (
        f"caption: {source} has no captions for the prompt 'how many?'; caption the archive with this prompt"
    )


def test_folder_is_read_once_with_all_files(tmp_path: Path) -> None:
    (tmp_path / "captions" / "deep").mkdir(parents=True)
    write(tmp_path / "captions" / "one.parquet", ("a", "?", "one"))
    write(tmp_path / "captions" / "deep" / "two.parquet", ("b", "?", "x" * 9999), ("a", "?", "one"))
    found = table(tmp_path / "captions")

    assert found.captions(["a", "b"], IMAGES, "?") == ["one", "x" * MAX_CHARACTERS]
    (tmp_path / "captions" / "one.parquet").unlink()
    assert table(tmp_path / "captions").captions(["a"], IMAGES[:1], "?") == ["one"]


def test_nothing_is_read_before_it_is_needed(tmp_path: Path) -> None:
    found = table(tmp_path / "none")
    with pytest.raises(CaptionError, match=r"no Parquet file at .*; write the captions there"):
        found.captions(["a"], IMAGES[:1], "?")
    write(tmp_path / "none", ("a", "?", "one"))
    assert found.captions(["a"], IMAGES[:1], "?") == ["one"]


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ([("a", "one")], ("row_key", "text"), "lacks the columns prompt; a caption table has row_key, prompt, text"),
        ([("a", None, "1")], ("row_key", "prompt", "text"), "has rows without row_key or prompt"),
        ([("a", "?", "1"), ("a", "?", "2")], ("row_key", "prompt", "text"), "image a has two captions for one prompt"),
    ],
)
def test_invalid_table_is_one_line(
    tmp_path: Path, rows: list[tuple[str | None, ...]], names: tuple[str, ...], message: str
) -> None:
    source = write(tmp_path / "c.parquet", *rows, names=names)
    with pytest.raises(CaptionError, match=message):
        table(source).lineage()


def test_invalid_parquet_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.parquet").write_text("row_key,prompt,text")
    with pytest.raises(CaptionError, match=r"c.parquet is not a table of texts \(.+\); write it again") as raised:
        table(tmp_path / "c.parquet").lineage()
    assert "\n" not in str(raised.value)


def test_the_lineage_changes_with_the_texts(tmp_path: Path) -> None:
    source = write(tmp_path / "c.parquet", ("a", "?", "one"))
    before = table(source).lineage()
    _read_table.cache_clear()
    write(tmp_path / "c.parquet", ("a", "?", "two"))

    assert before["kind"] == "table"
    assert before["source"] == source
    assert table(source).lineage()["sha256"] != before["sha256"]


def test_unknown_scheme_is_rejected() -> None:
    with pytest.raises(ValueError, match="the scheme `http` is not supported"):
        CaptionTableConfig(kind="table", source="http://captions")
    assert issubclass(StoreError, Exception)
    assert not issubclass(CaptionError, ConfigError)


def test_relative_source_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"night/captions is relative, .* give an absolute path or a URI"):
        CaptionTableConfig(kind="table", source="night/captions")
