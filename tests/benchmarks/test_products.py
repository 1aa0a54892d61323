from __future__ import annotations

import argparse
import contextlib
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.scripts import load_script

from uniad_ray.archive.scenes.products.product import SMALL_FLAW


@pytest.fixture(scope="module")
def products() -> ModuleType:
    """The script as a module."""
    return load_script("benchmarks/products.py")


def options(folder: Path, *seeds: str, **changes: Any) -> argparse.Namespace:
    given = {"train": 6, "good": 2, "logical": 2, "structural": 2, "expert_set": "patch", "config": "embedded"}
    paths = {"results": folder / "results.json", "cache": folder / "cache"}
    return argparse.Namespace(**{"seeds": seeds, "overrides": [], "json": False, **given, **paths, **changes})


def product(logical: float, structural: float, small: float | None = None, **experts: float) -> dict[str, Any]:
    fused = {"logical": logical, "structural": structural, "large": structural, "small": small}
    return {
        "layout": "grid",
        "selected": ["patch"],
        "auroc": {"fused": fused, **{name: dict.fromkeys(fused, value) for name, value in experts.items()}},
        "rules": {"fused": {"missing": logical}, **{name: {"missing": value} for name, value in experts.items()}},
        "recall": {"logical": logical / 2, "structural": structural, "large": structural, "small": None},
        "false_alarms": 0.125,
        "found": {},
        "unusual_images": 0,
        "fit_seconds_per_image": 2.0,
        "score_seconds_per_image": logical / 100,
        "peak_mib": 1000.0,
    }


def test_seeds_are_numbers_and_ranges(products: ModuleType) -> None:
    assert products.parse_seeds(["7", "100-103", "101"]) == [7, 100, 101, 102, 103]


def test_auroc_by_group(products: ModuleType) -> None:
    scores = np.array([1.0, 2.0, 3.0, 0.5, 9.0, 2.5])
    normal = np.array([True, True, False, False, False, False])
    members = products.groups_of(
        [None, None, "logical", "logical", "structural", "structural"], [None, None, None, None, True, False]
    )
    assert {group: chosen.tolist().count(True) for group, chosen in members.items()} == {
        **{"logical": 2, "structural": 2},
        **{"large": 1, "small": 1},
    }
    # Of the four pairs of a logical and a normal image, two are in order.
    assert products.aurocs(scores, normal, members) == {
        "logical": 50.0,
        "structural": 100.0,
        "large": 100.0,
        "small": 100.0,
    }
    assert products.aurocs(scores, np.zeros(6, bool), members)["logical"] is None
    nothing = products.groups_of([None] * 6, [None] * 6)
    assert products.aurocs(scores, normal, nothing) == dict.fromkeys(products.GROUPS)


def test_recall_at_one_per_cent_of_false_alarms(products: ModuleType) -> None:
    members = {"logical": np.r_[np.zeros(200, bool), np.ones(4, bool)], "small": np.zeros(204, bool)}
    normal = ~members["logical"]
    scores = np.r_[np.arange(200.0), 196.5, 197.5, 198.5, 500.0]
    # Two of 200 normal images may score higher: those with 198 and 199.
    assert products.recalls(scores, normal, members) == {"logical": 75.0, "small": None}
    few = np.r_[scores[150:200], scores[200:]]
    assert products.recalls(few, normal[150:], {"logical": members["logical"][150:]}) == {"logical": 25.0}


def test_images_by_the_rule_that_they_break(products: ModuleType) -> None:
    described = {"images": {"test/good/000.png": {}, "test/logical_anomalies/000.png": {"defect": "missing"}}}
    folder = Path("/drawn/product-1")
    assert products.defect_of(described, folder, "/drawn/product-1/test/good/000.png") is None
    assert products.defect_of(described, folder, "/drawn/product-1/test/logical_anomalies/000.png") == "missing"
    broken = products.rules_of([None, "missing", "extra", "scratch", "missing"], ["missing", "extra"])
    assert {rule: chosen.tolist() for rule, chosen in broken.items()} == {
        "missing": [False, True, False, False, True],
        "extra": [False, False, True, False, False],
    }


def test_summary_of_products(products: ModuleType) -> None:
    found = {
        str(seed): product(logical, 90.0, patch=60.0) for seed, logical in enumerate([80, 50, 60, 100, 70, 90, 40])
    }
    found["3"]["auroc"]["relations"] = dict.fromkeys(products.GROUPS, 30.0)
    found["9"] = {"failed": "no parts"}
    summary = products.summary(found)
    assert summary["products"] == 7
    assert summary["failed"] == {"9": "no parts"}
    logical = summary["auroc"]["fused"]["logical"]
    assert (logical["mean"], logical["median"]) == (70.0, 70.0)
    assert list(logical["worst"].items()) == [("6", 40), ("1", 50), ("2", 60), ("4", 70), ("0", 80)]
    assert summary["auroc"]["fused"]["small"] is None
    assert summary["auroc"]["patch"]["structural"]["mean"] == 60.0
    # An expert that one product only has counts there only.
    assert summary["auroc"]["relations"]["logical"] == {"mean": 30.0, "median": 30.0, "worst": {"3": 30.0}}
    assert summary["rules"] == {"missing": {"products": 7, "fused": 70.0, "patch": 60.0}}
    assert summary["recall"]["logical"]["mean"] == 35.0
    assert summary["recall"]["small"] is None
    slowest = summary["score_seconds_per_image"]["worst"]
    assert list(slowest) == ["3", "5", "0", "4", "2"]
    text = products.table({"products": found, "summary": summary})
    assert "70.0 (70.0)" in text
    assert "9  failed: no parts" in text
    assert "patch 60.0" in text
    assert "6: 40.0, 1: 50.0" in text


def test_size_of_a_flaw_follows_from_its_mask(products: ModuleType, tmp_path: Path) -> None:
    for index, share in enumerate((0.9 * SMALL_FLAW, 1.1 * SMALL_FLAW)):
        mask = np.zeros(100_000, np.uint8)
        mask[: round(share * mask.size)] = 249
        folder = tmp_path / f"ground_truth/structural_anomalies/{index:03d}"
        folder.mkdir(parents=True)
        Image.fromarray(mask.reshape(250, 400)).save(folder / "000.png")
    uri = "/somewhere/test/structural_anomalies/{}.png"
    assert [products.large_flaw(tmp_path, uri.format(name)) for name in ("000", "001")] == [False, True]
    assert products.large_flaw(tmp_path, "/somewhere/test/good/000.png") is None


def test_a_cut_benchmark_resumes(products: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def measure(seed: int, _asked: dict[str, Any], _cache: Path) -> dict[str, Any]:
        measured.append(seed)
        if seed == 3 and measured.count(3) == 1:
            return {"failed": "for the first time"}
        if seed == 4 and measured.count(4) == 1:
            raise KeyboardInterrupt
        return product(50.0 + seed, 90.0)

    monkeypatch.setattr(products, "measure", measure)
    monkeypatch.setattr("uniad_ray.pipelines.cluster.session.ray_session", _NoRay)
    with pytest.raises(KeyboardInterrupt):
        products.run(options(tmp_path, "2-4"))
    kept = json.loads((tmp_path / "results.json").read_text())
    assert list(kept["products"]) == ["2", "3"]
    results = products.run(options(tmp_path, "2-4"))
    # What failed is tried again, what succeeded is not.
    assert measured == [2, 3, 4, 3, 4]
    assert results == json.loads((tmp_path / "results.json").read_text())
    assert results["summary"]["auroc"]["fused"]["logical"]["mean"] == pytest.approx(53.0)
    assert products.run(options(tmp_path, "4")) == results
    assert len(measured) == 5
    with pytest.raises(SystemExit, match="other options"):
        products.run(options(tmp_path, "2", expert_set="fused"))


class _NoRay:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_memory_counts_this_process(products: ModuleType) -> None:
    assert 10 < products.memory_of_descendants(os.getpid()) < 100_000


@pytest.mark.slow
def test_a_product_from_drawing_to_metrics(products: ModuleType, tmp_path: Path) -> None:
    results = products.run(options(tmp_path, "17"))
    found = results["products"]["17"]
    assert found["selected"] == ["patch"]
    assert found["layout"] == "slots"
    assert set(found["auroc"]) == {"patch", "fused"}
    assert found["auroc"]["patch"] == found["auroc"]["fused"]
    assert all(0 <= value <= 100 for value in found["auroc"]["fused"].values())
    assert found["peak_mib"] > 100
    assert not (tmp_path / "cache/unfinished/17").exists()
    (drawn,) = (tmp_path / "cache/drawn").glob("*/17/product-17/product.json")
    assert len(json.loads(drawn.read_text())["images"]) == 12
    assert "17  slots" in products.table(results)


def test_a_lock_is_held_by_one_process(products: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "unfinished" / "7.lock"

    with products.lock(path, wait=False) as first, products.lock(path, wait=False) as second:
        assert (first, second) == (True, False)
    with products.lock(path, wait=False) as third:
        assert third


def test_results_of_another_process_are_kept(
    products: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = options(tmp_path, "1", "2")

    def measured(seed: int, asked: dict[str, Any], _cache: Path) -> dict[str, Any]:
        assert seed == 1, "the other process has measured product 2"
        results = products.read_results(given.results, asked)
        results["products"]["2"] = product(70.0, 80.0)
        products.write_results(given.results, results)
        return product(90.0, 95.0)

    monkeypatch.setattr(products, "measure", measured)
    monkeypatch.setattr("uniad_ray.pipelines.cluster.session.ray_session", contextlib.nullcontext)

    results = products.run(given)

    assert set(results["products"]) == {"1", "2"}
    assert results["summary"]["products"] == 2
