from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.scripts import load_script


@pytest.fixture
def segmentation() -> ModuleType:
    """The script as a module."""
    return load_script("benchmarks/segmentation.py")


def test_overlaps_are_taken_at_the_size_of_the_truth(segmentation: ModuleType) -> None:
    truth = np.zeros((2, 8, 12), dtype=bool)
    truth[0, 0:4, 0:6] = True
    truth[1, 4:8, 6:12] = True
    masks = np.zeros((2, 4, 6), dtype=bool)
    masks[0, 0:2, 0:3] = True
    masks[1, 2:4] = True

    found = segmentation.best_overlaps(truth, masks)

    np.testing.assert_allclose(found, [[1.0, 0.0], [0.0, 0.5]])


def test_measured_products_are_kept(
    segmentation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[int] = []

    def measure(seed: int, *_: object) -> dict[str, object]:
        measured.append(seed)
        figures = dict.fromkeys(("worst_image", "parts", "segments", "segments_that_are_parts"), 1.0)
        return {"layout": "rows", "best_iou": seed / 10, "cpu_seconds_per_image": 0.1, **figures}

    monkeypatch.setattr(segmentation, "measure", measure)
    for seeds in (["3", "5"], ["3-8"]):
        monkeypatch.setattr(sys, "argv", ["segmentation.py", *seeds, "--results", str(tmp_path / "results.json")])
        segmentation.main()

    assert measured == [3, 5, 4, 6, 7, 8]
    assert "mean 0.550, median 0.550, worst five 0.500" in capsys.readouterr().out
    stored = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert stored["summary"]["best_iou"]["worst"] == {"3": 0.3, "4": 0.4, "5": 0.5, "6": 0.6, "7": 0.7}


def test_a_product_is_measured(segmentation: ModuleType, tmp_path: Path) -> None:
    found = segmentation.measure(7, 3, 1, tmp_path)

    assert found["parts"] >= 1.0
    assert 0.0 <= found["worst_image"] <= found["best_iou"] <= 1.0
    assert (tmp_path / "7.png").exists()
