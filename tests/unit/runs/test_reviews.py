from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError
from uniad_ray.runs import reviews as module
from uniad_ray.runs.reviews import Mark, MarkKind, MarkLog, read_marks, write_marks


def mark(row_key: str, kind: MarkKind = "false_alarm", at: int = 0, *, score: float = 3.0) -> Mark:
    return Mark(row_key, "part", kind, score, 2.0, "anna", f"2026-11-27T10:00:00.{at:06d}+00:00", "bright spot")


def test_latest_mark_wins(store_root: str) -> None:
    run = Location.parse(store_root)
    assert read_marks(run) == {}
    first, second = mark("a", at=1), mark("a", "confirmed", at=2)
    write_marks(run, [second, mark("b", at=2)])
    # The time of the mark decides, not the order of writing.
    write_marks(run, [first])
    write_marks(run, [mark("b", "none", at=3)])
    assert read_marks(run) == {"a": second}


@pytest.mark.parametrize(
    ("kind", "score", "label"),
    [
        ("false_alarm", 3.0, "normal"),
        ("miss", 1.0, "anomalous"),
        ("confirmed", 3.0, "anomalous"),
        ("confirmed", 2.0, "normal"),
        ("none", 3.0, None),
    ],
)
def test_mark_gives_a_label(kind: MarkKind, score: float, label: str | None) -> None:
    assert mark("a", kind, score=score).label == label


def test_concurrent_marks_are_all_kept(store_root: str) -> None:
    run = Location.parse(store_root)
    written = [replace(mark(str(key)), reviewer=f"reviewer-{key % 4}") for key in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda entry: write_marks(run, [entry]), written))
    assert read_marks(run) == {entry.row_key: entry for entry in written}


def test_log_reads_each_file_once(store_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Location.parse(store_root)
    read: list[str] = []
    real = module.read_table
    monkeypatch.setattr(module, "read_table", lambda schema, place: (read.append(place.name), real(schema, place))[1])
    log = MarkLog(run)
    write_marks(run, [mark("a", at=1)])
    before = log.read()
    assert before == {"a": mark("a", at=1)}
    assert log.read() is before
    write_marks(run, [mark("b", at=2)])
    assert set(log.read()) == {"a", "b"}
    assert len(read) == len(set(read)) == 2


def test_corrupt_file_of_marks_is_refused(tmp_path: object) -> None:
    run = Location.parse(str(tmp_path))
    (run / "marks/x.parquet").write_bytes(b"nonsense")
    with pytest.raises(ArchiveError, match=r"marks/x\.parquet: corrupt"):
        read_marks(run)
