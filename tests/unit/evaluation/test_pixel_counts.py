"""Counts of chunks: equal to the last bit however they are shared out, and intervals from units of images."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import write_noise_run

from uniad_ray.evaluation import pixel_counts
from uniad_ray.evaluation.labelled_images import labelled_images
from uniad_ray.evaluation.pixel_counts import PixelCounts, PixelTask, count_chunks, labelled_chunks
from uniad_ray.evaluation.run import EvaluationReport, evaluate
from uniad_ray.metrics.pixel import PixelMetrics
from uniad_ray.pipelines.evaluate import job
from uniad_ray.pipelines.evaluate.job import SharedCounter, count_batch
from uniad_ray.runs.reader import RunReader


def sent(value: Any) -> Any:
    """A copy through the state that Ray sends from one process to another (`__getstate__`, `__setstate__`)."""
    return copy.deepcopy(value)


def histograms(counts: PixelCounts) -> dict[Any, Any]:
    return {part: metrics.__getstate__()["value"].tobytes() for part, metrics in counts.metrics.items()}


@pytest.mark.parametrize("size", [1, 2, 5])
def test_counts_do_not_depend_on_who_counts(tmp_path: Path, size: int) -> None:
    run = write_noise_run(tmp_path)
    reader = RunReader(run)
    (labelled,) = labelled_images(reader)
    work, task = labelled_chunks(reader.chunks, labelled), PixelTask(reader.location)
    assert len(work) == 7
    plain, shared = PixelCounts(), PixelCounts()
    for found in count_chunks(task, work):
        plain.merge(found)
    # As Ray does: tasks and results pass between processes, and tasks end in any order.
    batches = [work[start : start + size] for start in range(0, len(work), size)]
    ended = {place: sent(count_batch(*sent((task, batches[place])))) for place in reversed(range(len(batches)))}
    for place in sorted(ended):
        for found in ended[place]:
            shared.merge(found)
    assert histograms(shared) == histograms(plain)
    assert (shared.counted, shared.images, shared.left_out) == (plain.counted, 20, plain.left_out)


def test_sent_metrics_are_small_and_equal() -> None:
    metrics, mask = PixelMetrics(), np.zeros((32, 32), bool)
    mask[4:9, 4:9] = True
    for seed in range(3):
        values = np.random.default_rng(seed).normal(size=(32, 32)).astype(np.float16)
        metrics.update(values, mask, unit=seed // 2)
        metrics.update(values, np.zeros_like(mask))
    assert len(pickle.dumps(metrics)) < 200_000
    again = sent(metrics)
    assert (again.auroc(), again.aupro()) == (metrics.auroc(), metrics.aupro())
    np.testing.assert_array_equal(again.resampled(resamples=20), metrics.resampled(resamples=20))


def intervals(report: EvaluationReport) -> dict[tuple[str, float | None], tuple[float | None, ...]]:
    return {
        (entry.metric, entry.limit): (entry.value, entry.low, entry.high)
        for entry in report.metrics
        if entry.group == "all" and entry.metric.startswith("pixel")
    }


def test_many_images_share_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_noise_run(tmp_path, images=120)
    every = intervals(evaluate(run, resamples=300))
    monkeypatch.setattr(pixel_counts, "MAX_UNITS", 30)
    reader = RunReader(run)
    (labelled,) = labelled_images(reader)
    units = [unit for chunk in labelled_chunks(reader.chunks, labelled) for _, unit in chunk.images.values()]
    # 90 normal images make 30 units of three; 30 anomalous ones are few enough.
    assert [units.count((pixel_counts.NORMAL, number)) for number in range(30)] == [3] * 30
    assert units.count(None) == 30
    for key, (value, low, high) in intervals(evaluate(run, resamples=300)).items():
        before, lowest, highest = every[key]
        assert value == before
        assert None not in (low, high, lowest, highest)
        # The normal images are all alike: their units change the interval little.
        assert high - low == pytest.approx(highest - lowest, rel=0.4)  # type: ignore[operator]


def test_small_runs_start_no_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class RayStartedError(Exception):
        pass

    def refuse(_address: str | None) -> None:
        raise RayStartedError

    monkeypatch.setattr(job, "ray_session", refuse)
    run = write_noise_run(tmp_path)
    plain = evaluate(run, resamples=20)
    with caplog.at_level("INFO"), SharedCounter() as counter:
        assert evaluate(run, resamples=20, counter=counter) == plain
    assert "20 images: counted in this process, since they are under 20,000; --workers shares them" in caplog.text
    with SharedCounter(workers=2) as counter, pytest.raises(RayStartedError):
        evaluate(run, resamples=20, counter=counter)
    monkeypatch.setattr(job, "SHARED_FROM", 20)
    with SharedCounter() as counter, pytest.raises(RayStartedError):
        evaluate(run, resamples=20, counter=counter)
    with SharedCounter(workers=1) as counter:
        assert evaluate(run, resamples=20, counter=counter) == plain
