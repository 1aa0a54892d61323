from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.scripts import load_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    return load_script("benchmarks/run_memory.py")


def test_images_are_linked_in_turn(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "drawn").mkdir()
    for name in "ab":
        (tmp_path / f"drawn/{name}.png").write_text(name)
    script.link_images(tmp_path / "drawn", tmp_path / "source", 5001)
    assert len(list((tmp_path / "source").rglob("*.png"))) == 5001
    assert [(tmp_path / f"source/0000/{index:07d}.png").read_text() for index in range(3)] == ["a", "b", "a"]
    assert (tmp_path / "source/0001/0005000.png").read_text() == "a"


def test_private_memory_counts_what_a_process_holds(script: ModuleType) -> None:
    before = script.private_mib(os.getpid())
    held = np.ones(40 * 2**20, np.uint8)
    assert 35 < script.private_mib(os.getpid()) - before < 60
    assert held[-1] == 1
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    assert script.private_mib(int(ended.stdout)) == 0.0


def test_workers_are_those_of_this_process(script: ModuleType) -> None:
    # Ray's workers name themselves so; the first is below another process that is below this one.
    own = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    sleeper = ["bash", "-c", "exec -a ray::Fake sleep 60"]
    with subprocess.Popen([sys.executable, "-c", own, *sleeper]) as process:
        deadline = time.monotonic() + 20
        while not (found := fakes(script)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(found) == 1
        os.kill(found[0], 9)
        process.wait()
    assert fakes(script) == []


def fakes(script: ModuleType) -> list[int]:
    """The workers that this test started; other tests of this process may have some of a Ray."""
    found = []
    for pid in script.worker_processes():
        with contextlib.suppress(OSError):
            found += [pid] if b"ray::Fake" in Path(f"/proc/{pid}/cmdline").read_bytes() else []
    return found


def test_object_store_is_read_from_what_ray_prints(script: ModuleType) -> None:
    text = "Plasma memory usage 80 MiB, 4 objects, 80.0% full\nSpilled 24 MiB, 4 objects, avg write throughput 1 MiB/s"
    assert script._STORE.findall(text) == [("Plasma memory usage", "80"), ("Spilled", "24")]


def test_growth_of_nothing_is_unknown(script: ModuleType) -> None:
    assert script.ratio(3, 2) == 1.5
    assert script.ratio(3, 0) is None
