"""The simulation of many nodes against cases computed by hand."""

from __future__ import annotations

import pytest
from support.scripts import load_script

script = load_script("benchmarks/scale_model.py")


def costs(**changes: float) -> object:
    values = {"decode": 0.0, "score": 0.1, "write": 0.0, "driver": 0.0, "start": 0.0, "chunk_images": 10}
    return script.Costs(**{**values, **changes})


def test_one_actor_scores_one_chunk_after_the_other() -> None:
    node = script.NodeType(cores=1, price=1.0)
    assert node.actors == 1
    # Twelve images: chunks of ten and of two.
    assert script.simulate(costs(start=5.0), node, 1, 12) == pytest.approx(5.0 + 1.2)


def test_nodes_share_the_work_and_the_last_chunk_ends_it() -> None:
    node = script.NodeType(cores=10, price=1.0)
    assert node.actors == 9
    one = script.simulate(costs(), node, 1, 10 * 9 * 8)
    assert one == pytest.approx(8 * 1.0)
    assert script.simulate(costs(), node, 2, 10 * 9 * 8) == pytest.approx(4 * 1.0)
    # One chunk more costs a whole round.
    assert script.simulate(costs(), node, 2, 10 * 9 * 8 + 1) == pytest.approx(4 * 1.0 + 0.1)


def test_processes_share_the_cores_of_their_node() -> None:
    # Two actors and decoding on two cores: all work is done by both cores, so the sum decides.
    node = script.NodeType(cores=2, price=1.0)
    images = 2000
    found = script.simulate(costs(decode=0.05), node, 1, images)
    assert found == pytest.approx(images * 0.15 / 2, rel=0.03)


def test_driver_that_is_too_slow_is_the_limit() -> None:
    node = script.NodeType(cores=16, price=1.0)
    found = script.simulate(costs(score=0.001, driver=0.1), node, 4, 1000)
    assert found == pytest.approx(100 * 0.1, rel=0.05)


def test_gpus_score_beside_the_cores() -> None:
    node = script.NodeType(cores=8, price=1.0, gpus=1, gpu_speed=10.0)
    assert node.actors == 1
    assert script.simulate(costs(), node, 1, 1000) == pytest.approx(1000 * 0.01)


def test_prices_follow_from_nodes_and_hours() -> None:
    node = script.NodeType(cores=10, price=2.0)
    found = script.predict(costs(), node, 2, 90_000, 100)
    seconds = 90_000 / 9 / 2 * 0.1
    assert found["images_per_second"] == pytest.approx(90_000 / seconds, rel=0.01)
    assert found["price"] == pytest.approx(2 * 2.0 * seconds / 3600, abs=0.01)
    assert found["actors_at_work"] == pytest.approx(1.0, abs=0.01)
