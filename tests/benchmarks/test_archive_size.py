from __future__ import annotations

from pathlib import Path

from support.scripts import load_script


def test_every_step_does_the_work_of_a_driver(tmp_path: Path) -> None:
    script = load_script("benchmarks/archive_size.py")
    script.write_archive(tmp_path, 150)
    script.write_scores(tmp_path)
    script.write_source(tmp_path, 150)
    for step in script.STEPS.values():
        found = script.measured(step, tmp_path)
        assert found["seconds"] >= 0
    assert (tmp_path / "run/manifest.json").exists()
