from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from uniad_ray import __version__
from uniad_ray.pipelines.doctor import machine as module
from uniad_ray.pipelines.doctor.machine import Machine, agreement_checks, clock_check, machine_checks, this_machine

GIB = 1 << 30
GOOD = Machine(
    host="node",
    python="3.11.9",
    package="0.1.0",
    ray="2.60.0",
    missing=(),
    cpus=4,
    memory=16 * GIB,
    disk=100 * GIB,
    shared_memory=8 * GIB,
    nvidia=False,
    gpus=(),
    gpu_problem=None,
    clock=0.0,
)


def results(machine: Machine, **options: Any) -> dict[str, str]:
    return {check.name: check.status for check in machine_checks(machine, **options)}


def test_good_machine_passes() -> None:
    assert results(GOOD) == {"versions": "ok", "memory": "ok", "disk": "ok", "GPU": "ok"}
    assert results(GOOD, with_gpu=False) == {"versions": "ok", "memory": "ok", "disk": "ok"}


@pytest.mark.parametrize(
    ("changes", "name", "status", "advice"),
    [
        ({"python": "3.13.1"}, "versions", "failed", "use Python 3.11 or 3.12"),
        ({"python": "3.1.1"}, "versions", "failed", "use Python 3.11 or 3.12"),
        ({"missing": ("timm is missing",)}, "versions", "failed", "pip install -c requirements.lock"),
        ({"memory": 3 * GIB}, "memory", "failed", "at least 4.0 GiB"),
        ({"cpus": 16}, "memory", "warning", "--workers 8"),
        ({"disk": 4 * GIB}, "disk", "failed", "RAY_TMPDIR"),
        ({"disk": 10 * GIB}, "disk", "warning", "20.0 GiB"),
        ({"shared_memory": 64 << 20}, "shared memory", "warning", "--shm-size"),
        ({"nvidia": True, "gpu_problem": "driver too old"}, "GPU", "failed", "update the driver"),
    ],
)
def test_each_lack_has_its_advice(changes: dict[str, Any], name: str, status: str, advice: str) -> None:
    found = {check.name: check for check in machine_checks(replace(GOOD, **changes))}
    assert found.pop(name).model_dump().items() >= {"status": status, "where": "node"}.items()
    assert {check.status for check in found.values()} == {"ok"}
    (check,) = (check for check in machine_checks(replace(GOOD, **changes)) if check.name == name)
    assert advice in str(check.advice)


def test_missing_gpu_fails_only_if_it_is_asked_for() -> None:
    assert results(GOOD, device="cuda")["GPU"] == "failed"
    assert results(replace(GOOD, nvidia=True, gpus=(("L4", 24 * GIB),)), device="cuda")["GPU"] == "ok"


def test_nodes_with_other_versions_are_named() -> None:
    same = list(agreement_checks(GOOD, [GOOD, replace(GOOD, python="3.11.2")]))
    assert [(check.status, check.found) for check in same] == [("ok", "2 nodes have the versions of this machine")]
    (check,) = agreement_checks(GOOD, [GOOD, replace(GOOD, host="other", python="3.12.1", ray="2.59.0")])
    assert (check.status, check.where) == ("failed", "other")
    assert check.found == "Python 3.12 instead of 3.11, Ray 2.59.0 instead of 2.60.0"
    assert list(agreement_checks(GOOD, [])) == []


def test_clock_may_differ_a_little() -> None:
    assert clock_check(4.0, "the node").status == "ok"
    early, late = clock_check(-6.0, "the node"), clock_check(6.0, "the node")
    assert (early.status, early.found) == ("failed", "6.0 s behind the node")
    assert (late.status, late.found) == ("failed", "6.0 s ahead of the node")
    assert clock_check(6.0, "the store", most=300.0).status == "ok"


def test_this_machine_has_all_requirements() -> None:
    machine = this_machine()
    assert (machine.missing, machine.package) == ((), __version__)
    assert machine.memory > GIB
    assert machine.cpus >= 1


def test_folder_of_temporary_files_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "not/there"))
    assert this_machine().disk > 0


def test_requirements_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_version", {"a": "1.4", "b": "2.0rc1", "d": "9"}.get)
    texts = ["a>=1.5", "b>=1,<3", "c", 'd; extra == "test"', "e<2; python_version < '3'"]
    assert all(Requirement(text) for text in texts)
    assert list(module._missing(texts)) == ["a 1.4 is not >=1.5", "c is missing"]
