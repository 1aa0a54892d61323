"""Captions by the real vLLM, with the demonstration model: in an actor, through Ray Data, and behind a server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.scripts import load_script

from uniad_ray.archive.scenes import SceneConfig
from uniad_ray.archive.scenes.products.dataset import ProductConfig
from uniad_ray.archive.scenes.products.product import draw_image, draw_product

ROOT = Path(__file__).parents[2]
VLM = ROOT / ".venv-vlm/bin/python"
ENGINES = ("vllm", "ray", "server")

Objects = Mapping[str, tuple[int, tuple[str, ...]]]


@pytest.mark.slow
@pytest.mark.skipif(not VLM.exists(), reason="there is no .venv-vlm; run `make vlm`")
def test_all_engines_caption_unseen_trays() -> None:
    command = [str(VLM), "benchmarks/caption_accuracy.py", "--images", "12", "--engines", *ENGINES]
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "PYTEST_"))},
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    ended = subprocess.run(command, cwd=ROOT, env=variables, check=False, capture_output=True, text=True, timeout=580)
    assert ended.returncode == 0, ended.stderr[-4000:]
    found = json.loads(ended.stdout)
    assert found["model"] == "builtin:tray-captioner"
    for engine in ENGINES:
        assert (found[engine]["images"], found[engine]["valid"], found[engine]["errors"]) == (12, 1.0, {}), engine
        # On 300 trays, at least 0.9 are right; docs/captions.md has the number.
        assert found[engine]["right"] >= 0.75, engine
        assert found[engine]["tokens_per_image"] > 10, engine


def test_answers_are_compared_by_class_and_group() -> None:
    script = load_script("benchmarks/caption_accuracy.py")
    true: Objects = {"bolt": (1, ("top left",)), "nut": (2, ("top left", "top right"))}
    moved: Objects = {**true, "nut": (2, ("top left", "top left"))}
    found = [
        ("good", true, true, 1.0),
        ("good", true, moved, 2.0),
        ("logical_anomalies", true, {"nut": true["nut"], "pin": (1, ("top left",))}, 3.0),
        ("logical_anomalies", true, None, 9.0),
    ]
    compared = script.compare(found, ("bolt", "nut", "pin", "block"))
    assert (compared["right"], compared["valid"], compared["seconds_per_image"]) == (0.25, 0.75, 2.5)
    assert compared["right_by_group"] == {"good": 0.5, "logical_anomalies": 0.0, "structural_anomalies": None}
    assert compared["by_class"] == {
        "bolt": {"images": 4, "right": 0.5, "right_number": 0.5},
        "nut": {"images": 4, "right": 0.5, "right_number": 0.75},
        "pin": {"images": 1, "right": 0.0, "right_number": 0.0},
        "block": {"images": 0, "right": None, "right_number": None},
    }


def test_truth_is_what_was_drawn() -> None:
    script = load_script("benchmarks/caption_accuracy.py")
    normal = script.truth(SceneConfig(seed=script.SEED), "test", "good", 0)
    assert {name: number for name, (number, _) in normal.items()} == {
        "bolt": 1,
        "nut": 1,
        "washer": 2,
        "pin": 1,
        "block": 1,
    }
    product = script.truth(ProductConfig(product=3, category="p"), "test", "good", 0)
    drawn = draw_image(draw_product(3), "test", "good", 0)
    assert sum(number for number, _ in product.values()) == len(drawn.part_kinds)
