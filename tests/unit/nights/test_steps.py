"""Single steps of a night, with the tasks of Ray in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.nights import CATEGORY, Factory, without_ray, write_factory
from support.trees import write


def test_source_with_a_manifest_gives_rows_with_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    write_factory(tmp_path / "prepared")
    factory = Factory.copy(tmp_path / "prepared", tmp_path)
    listed = tmp_path / "list.csv"
    factory.options["sources"] = [
        {"path": str(tmp_path / "camera"), "category": CATEGORY, "manifest": str(listed)},
    ]
    factory.arrive(3)
    names = sorted(path.name for path in (tmp_path / "camera").iterdir())
    write(listed, "\n".join(["path,serial", *(f"{name},S{name[4]}" for name in names[:2])]).encode())
    assert factory.night("n1").nights[0].images == 2
    assert [row["metadata"] for row in factory.rows("n1")] == [
        [{"name": "serial", "value": "S0"}],
        [{"name": "serial", "value": "S1"}],
    ]
    # The next night reads what the list has got since.
    write(listed, "\n".join(["path,serial", *(f"{name},S{name[4]}" for name in names)]).encode())
    assert factory.night("n2").nights[0].images == 1
    listed.unlink()
    assert [alarm.kind for alarm in factory.night("n3").nights[0].alarms] == ["source", "no_images"]
