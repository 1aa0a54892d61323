"""Rows of any category are read by every Parquet reader, from the folder `images/` as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from support.ingests import rows, without_ray
from support.trees import png, write

NAMES = [*(f"{first}lid" for first in "_-~#$@%&+=!'(),;[]^{}"), "__", "ü", "日本", "a b", "a=b", "0", "lid"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("readers")
    for index, name in enumerate(NAMES):
        write(root / f"source/{name}/train/good/0.png", png(index))
    write(root / "dotted/0.png", png(99))
    with pytest.MonkeyPatch.context() as patch:
        ingest = without_ray(patch)
        ingest(root / "source", root / "archive")
        ingest(root / "dotted", root / "archive", category=".lid")
    return root / "archive"


def by_arrow(images: Path) -> list[str]:
    found: list[str] = ds.dataset(images).to_table(columns=["row_key"]).column("row_key").to_pylist()
    return found


def by_pandas(images: Path) -> list[str]:
    pandas = pytest.importorskip("pandas")
    return list(pandas.read_parquet(images, columns=["row_key"])["row_key"])


def by_duckdb(images: Path) -> list[str]:
    duckdb = pytest.importorskip("duckdb")
    query = "select row_key from read_parquet(?)"
    return [key for (key,) in duckdb.execute(query, [f"{images}/**/*.parquet"]).fetchall()]


def by_polars(images: Path) -> list[str]:
    polars = pytest.importorskip("polars")
    return list(polars.read_parquet(images, columns=["row_key"])["row_key"])


def by_spark(images: Path) -> list[str]:
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    session = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        table = session.read.option("recursiveFileLookup", "true").parquet(str(images))
        return [row.row_key for row in table.select("row_key").collect()]
    finally:
        session.stop()


@pytest.mark.parametrize("read", [by_arrow, by_pandas, by_duckdb, by_polars, by_spark])
def test_every_reader_finds_every_row(archive: Path, read: Callable[[Path], list[str]]) -> None:
    expected = {row["row_key"]: row["category"] for row in rows(archive)}
    assert set(expected.values()) == {*NAMES, ".lid"}
    assert sorted(read(archive / "images")) == sorted(expected)
