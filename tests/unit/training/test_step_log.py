from __future__ import annotations

from pathlib import Path

from uniad_ray.archive.stores.location import Location
from uniad_ray.training.step_log import StepLog, read_step_log


def add(log: StepLog, *steps: int) -> None:
    for step in steps:
        log.add(step=step, epoch=0, learning_rate=0.1, loss=float(step), low=None, held_out_loss=None)


def test_steps_are_ordered_with_nulls_for_disabled_losses(tmp_path: Path) -> None:
    folder = Location.parse(tmp_path)
    log = StepLog(folder)
    add(log, 1, 2)
    log.write()
    add(log, 3)
    log.write()
    log.write()
    table = read_step_log(folder)
    assert table.column("step").to_pylist() == [1, 2, 3]
    assert table.column("loss").to_pylist() == [1.0, 2.0, 3.0]
    assert table.column("high").null_count == 3
    assert [info.relative for info in folder.list()] == ["log/steps-00000001.parquet", "log/steps-00000003.parquet"]


def test_repeated_steps_are_replaced(tmp_path: Path) -> None:
    folder = Location.parse(tmp_path)
    for _ in range(2):
        log = StepLog(folder)
        add(log, 1, 2)
        log.write()
    assert read_step_log(folder).column("step").to_pylist() == [1, 2]


def test_no_folder_means_no_log(tmp_path: Path) -> None:
    log = StepLog(None)
    add(log, 1)
    log.write()
    assert read_step_log(Location.parse(tmp_path)).num_rows == 0
