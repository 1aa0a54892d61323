from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from uniad_ray.config.spill import SpillConfig
from uniad_ray.errors import FitError
from uniad_ray.perception.base import Perception
from uniad_ray.scoring.fitting import spill
from uniad_ray.scoring.fitting.spill import Shelf, SpillOptions

KEYS = ["a", "b"]
LEVEL = torch.linspace(-3.0, 3.0, 2 * 4 * 3 * 3).reshape(2, 4, 3, 3)
LABELS = torch.arange(2 * 6 * 6, dtype=torch.uint8).reshape(2, 1, 6, 6)
BATCH = Perception(KEYS, np.zeros((2, 8, 8, 3), dtype=np.uint8), fields={"net/level1": LEVEL, "net/labels": LABELS})


def options(**config: object) -> SpillOptions:
    return SpillOptions(SpillConfig.model_validate(config))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def test_half_precision_rounds_tensors_and_keeps_labels(tmp_path: Path) -> None:
    found = {}
    for precision in ("float32", "float16"):
        shelf = Shelf(tmp_path / precision, 2, options(precision=precision))
        shelf.put(BATCH, with_images=True)
        found[precision] = shelf.get(KEYS, frozenset(BATCH.fields)).fields
    for fields in found.values():
        assert fields["net/level1"].dtype == torch.float32
        assert torch.equal(fields["net/labels"], LABELS)
    assert torch.equal(found["float32"]["net/level1"], LEVEL)
    assert torch.equal(found["float16"]["net/level1"], LEVEL.half().float())
    assert not torch.equal(found["float16"]["net/level1"], LEVEL)
    assert size(tmp_path / "float32") - size(tmp_path / "float16") == 2 * LEVEL.numel()


def test_space_is_said_before_it_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shared = options()
    with caplog.at_level(logging.INFO, logger=spill.__name__):
        for name in ("one", "other"):
            Shelf(tmp_path / name, 1000, shared).put(BATCH, with_images=True)
    # One image: 36 float32, 36 labels and 192 bytes of pixels.
    assert shared.promised == 2 * 1000 * (36 * 4 + 36 + 192)
    assert [record.message.split(" in ")[0] for record in caplog.records] == ["the fit keeps fields of 1000 images"] * 2


def test_bound_ends_the_fit_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = 10_000_000  # 3.5 GiB
    with pytest.raises(FitError, match=r"needs 3\.5 GiB on disk .*, but spill\.most_gib allows 2; .*precision=float16"):
        Shelf(tmp_path / "a", images, options(most_gib=2)).put(BATCH, with_images=True)
    assert not list((tmp_path / "a").iterdir())
    monkeypatch.setattr(spill.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 30}))
    with pytest.raises(FitError, match=r"but the disk of .* has 1\.0 GiB free"):
        Shelf(tmp_path / "b", images, options(most_gib=100)).put(BATCH, with_images=True)
