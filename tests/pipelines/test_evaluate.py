"""Pixels counted by Ray tasks give the same metrics and reports as those counted in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.runs import write_noise_run

from uniad_ray import verbs
from uniad_ray.errors import ArchiveError
from uniad_ray.evaluation.labelled_images import labelled_images
from uniad_ray.evaluation.pixel_counts import PixelTask, labelled_chunks
from uniad_ray.evaluation.run import METRICS_PATH
from uniad_ray.pipelines.evaluate import SharedCounter
from uniad_ray.runs.reader import RunReader

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_files_do_not_depend_on_worker_count(tmp_path: Path) -> None:
    run = write_noise_run(tmp_path, images=60)
    found = set()
    for workers in (1, 2, 3):
        verbs.report(run, format="json", resamples=100, workers=workers)
        found.add((Path(run, METRICS_PATH).read_bytes(), Path(run, "report/report.json").read_bytes()))
    assert len(found) == 1
    assert b"pixel_aupro" in found.pop()[1]


def test_results_come_in_order(tmp_path: Path) -> None:
    reader = RunReader(write_noise_run(tmp_path, images=60))
    (labelled,) = labelled_images(reader)
    work = labelled_chunks(reader.chunks, labelled)
    with SharedCounter(workers=3) as counter:
        # Fewer images in the last chunks would show another order.
        kept = [*work[:-1], work[-1].__class__(work[-1].chunk, dict(list(work[-1].images.items())[:1]))]
        assert [found.images for found in counter(PixelTask(reader.location), kept)] == [3] * 19 + [1]


def test_error_of_a_worker_has_its_class_and_message(tmp_path: Path) -> None:
    run = write_noise_run(tmp_path)
    reader = RunReader(run)
    (labelled,) = labelled_images(reader)
    work = labelled_chunks(reader.chunks, labelled)
    (Path(run) / f"maps/{work[4].chunk.chunk}.parquet").write_bytes(b"no Parquet")
    with SharedCounter(workers=2) as counter, pytest.raises(ArchiveError, match="corrupt Parquet file"):
        list(counter(PixelTask(reader.location), work))
