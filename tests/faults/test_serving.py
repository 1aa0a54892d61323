"""Faults around an endpoint cause no wrong verdict, no hang, and only documented errors."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.endpoint import Client, Load, Response, agrees, endpoint, png, verdicts, wait_for, write_bundle

from uniad_ray.scoring.scorer import Verdict

IMAGES = [png(number) for number in range(8)]
REPLICAS = 2
QUEUED = 4
BATCH = 2


@dataclass
class Served:
    """Running endpoint of two replicas with short queues.

    Attributes:
        root: Root of its bundles; `part` is loaded, `lid` is not.
        client: Client without an access key.
        wanted: Expected verdicts of `IMAGES`.
    """

    root: Path
    client: Client
    wanted: list[Verdict]

    def send(self, number: int) -> tuple[int, Response]:
        """Sends one of the images; returns its index and the response."""
        chosen = number % len(IMAGES)
        return chosen, self.client.score("part", IMAGES[chosen])

    def check(self, chosen: int, answer: Response, *kinds: str) -> str:
        """Checks that a response is correct or one of the given problems, and returns which."""
        if answer.status == 200:
            assert agrees(answer.image, self.wanted[chosen]), answer.body
            return "ok"
        return str(answer.problem(*kinds)["type"]).removeprefix("/problems/")


@pytest.fixture(scope="module")
def served(serve_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("faults") / "bundles"
    version = write_bundle(root, "part").version
    write_bundle(root, "lid")
    settings = {
        "bundles": str(root),
        "replicas": {
            "fewest": REPLICAS,
            "most": REPLICAS,
            "threads": 1,
            "device": "cpu",
            "queued_images": QUEUED,
            "loaded_at_start": ["part"],
        },
        "batch": {"images": BATCH},
        "refresh_seconds": 0.5,
    }
    with endpoint(serve_port, settings) as client:
        yield Served(root, client, verdicts(root, "part", version, IMAGES))


def scorer_processes() -> list[int]:
    """Process ids of the scoring deployment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            title = (place / "cmdline").read_bytes()
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if title.startswith(b"ray::ServeReplica:") and b"Scorer" in title and _is_ours(parent):
            found.append(int(place.name))
    return found


def _is_ours(process: int) -> bool:
    """Returns whether a process descends from this one; other tests run their own endpoints."""
    while process > 1:
        if process == os.getpid():
            return True
        try:
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def test_killed_replica_gives_no_wrong_verdict(served: Served) -> None:
    with Load(served.send, clients=3) as load:
        load.wait_for_more(10)
        before = scorer_processes()
        assert len(before) == REPLICAS
        os.kill(before[0], signal.SIGKILL)
        load.wait_for_more(40)
        wait_for(lambda: len(set(scorer_processes()) - {before[0]}) == REPLICAS, seconds=120)
        load.wait_for_more(10)
    assert load.errors == []
    found = Counter(served.check(chosen, answer, "overloaded") for chosen, answer in load.answers)
    assert found["ok"] > 50
    assert served.check(*served.send(0)) == "ok"


def test_loaded_categories_survive_a_store_outage(served: Served) -> None:
    away = served.root.with_name("away")
    served.root.rename(away)
    try:
        for number in range(4):
            assert served.check(*served.send(number)) == "ok"
        served.client.score("lid", IMAGES[0]).problem("bundle-unusable", "store-unavailable", "unknown-category")
        assert served.client.get("/healthz").status == 200
        assert served.client.get("/readyz").status == 200
    finally:
        away.rename(served.root)
    wait_for(lambda: served.client.score("lid", IMAGES[0]).status == 200)


def test_malformed_requests_do_not_affect_others(served: Served) -> None:
    draw = np.random.default_rng(3)
    broken = [b"", b"nonsense", IMAGES[0][:100], b"\x89PNG\r\n\x1a\n" + bytes(200)]
    lock = threading.Lock()

    def send(number: int) -> tuple[int, Response]:
        with lock:
            is_broken = draw.random() < 0.1
            content = broken[draw.integers(len(broken))]
        return (-1, served.client.score("part", content)) if is_broken else served.send(number)

    with Load(send, clients=3) as load:
        load.wait_for_more(150)
    assert load.errors == []
    refused = [answer for chosen, answer in load.answers if chosen < 0]
    assert 3 < len(refused) < len(load.answers) / 3
    for answer in refused:
        assert answer.status == 422
        answer.problem("unusable-image")
    assert {served.check(chosen, answer) for chosen, answer in load.answers if chosen >= 0} == {"ok"}


def test_fourfold_overload_is_refused_and_admitted_requests_finish(served: Served) -> None:
    room = REPLICAS * 2 * BATCH + QUEUED
    with Load(served.send, clients=4 * room) as load:
        load.wait_for_more(300)
    assert load.errors == []
    found = Counter(served.check(chosen, answer, "overloaded") for chosen, answer in load.answers)
    assert found["ok"] > 50
    assert found["overloaded"] > 0
    for number in range(4):
        assert served.check(*served.send(number)) == "ok"
