from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from support.runs import ScoredImage, write_archive, write_run
from support.trees import png

from uniad_ray.runs.parts import part_verdicts, read_parts, write_parts
from uniad_ray.runs.plan import scores_path
from uniad_ray.runs.reader import RunReader


def view(
    name: str, score: float | None, serial: str | None, category: str = "top", label: str | None = None
) -> ScoredImage:
    metadata = {"camera": category} | ({} if serial is None else {"serial": serial})
    return ScoredImage(name, png(1), score, label=label, category=category, metadata=metadata)


@pytest.fixture
def run(tmp_path: Path) -> RunReader:
    """Parts A (anomalous, one error), B (one error), C (normal), all seen from top and side; threshold 0.5."""
    images = [
        view("a", 0.7, "A", label="normal"),
        view("a", 0.9, "A", "side", label="anomalous"),
        view("a2", None, "A", "side"),
        view("b", 0.1, "B", label="normal"),
        view("b", None, "B", "side", label="normal"),
        view("c", 0.2, "C", label="normal"),
        view("c", 0.4, "C", "side"),
        view("d", 0.8, None),
    ]
    return RunReader(write_run(tmp_path / "run", write_archive(tmp_path / "archive", images), images))


def test_part_with_several_views_gets_one_verdict(run: RunReader) -> None:
    parts = {part.serial: part for part in part_verdicts([run.scores()])}
    assert list(parts) == ["A", "B", "C"]
    assert [part.decision for part in parts.values()] == ["anomalous", None, "normal"]
    assert [(part.views, part.anomalous_views, part.error_views) for part in parts.values()] == [
        (3, 2, 1),
        (2, 0, 1),
        (2, 0, 0),
    ]
    assert [part.category for part in parts.values()] == ["side", "top", "side"]
    assert [part.margin for part in parts.values()] == pytest.approx([0.4, -0.4, -0.1])
    assert [part.label for part in parts.values()] == ["anomalous", "normal", None]
    assert parts["A"].row_key == view("a", 0.9, "A", "side").row_key
    assert parts["A"].categories == ("side", "top")


def test_part_with_a_view_for_review_is_not_normal(run: RunReader) -> None:
    table = run.scores()
    found = [
        "review" if decision == "normal" and key == view("c", 0.2, "C").row_key else decision
        for key, decision in zip(table["row_key"].to_pylist(), table["decision"].to_pylist(), strict=True)
    ]
    at = table.schema.get_field_index("decision")
    changed = table.set_column(at, table.schema.field(at), pa.array(found, table.schema.field(at).type))
    assert [part.decision for part in part_verdicts([changed])] == ["anomalous", None, "review"]


def test_verdict_does_not_depend_on_the_order_of_the_views(run: RunReader) -> None:
    table = run.scores()
    backwards = table.take(list(range(table.num_rows))[::-1])
    assert part_verdicts([backwards]) == part_verdicts([table.slice(0, 3), table.slice(3)])


def test_parts_are_stored_with_the_run(run: RunReader) -> None:
    assert run.parts() == []
    write_parts(run.location, [scores_path(chunk.chunk) for chunk in run.chunks])
    assert run.parts() == read_parts(run.location) == part_verdicts([run.scores()])


def test_run_without_serials_has_no_parts(tmp_path: Path) -> None:
    images = [view("a", 0.7, None)]
    reader = RunReader(write_run(tmp_path / "run", write_archive(tmp_path / "archive", images), images))
    write_parts(reader.location, [scores_path(chunk.chunk) for chunk in reader.chunks])
    assert not (reader.location / "parts.parquet").exists()
