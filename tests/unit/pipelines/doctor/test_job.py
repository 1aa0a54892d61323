"""The report and the command, with neither Ray nor networks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from uniad_ray.cli import main
from uniad_ray.errors import RunError, WeightsError
from uniad_ray.pipelines.cluster.sizing import Cluster
from uniad_ray.pipelines.doctor import job
from uniad_ray.scoring import factory


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces Ray, its nodes and the networks."""

    @contextmanager
    def session(_address: str | None) -> Iterator[Cluster]:
        yield Cluster(logical_cpus=4, physical_cpus=2, gpus=0, node_cpus=4)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(job, "ray_session", session)
    monkeypatch.setattr(job, "_nodes", lambda *_: iter(()))
    monkeypatch.setattr(factory, "build_pipeline", lambda *_, **__: type("Pipeline", (), {"extractors": ()})())


def run(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *options])
    return int(ended.value.code or 0), capsys.readouterr().out


def test_good_machine_ends_with_code_zero(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, text = run(capsys, "--store", str(tmp_path), "--set", "expert_set=patch")
    assert code == 0, text
    for name in ("versions", "memory", "Ray", "weights (embedded)", f"write ({tmp_path})"):
        assert name in text
    assert "0 failed" in text


def test_failure_gives_code_one_and_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def session(_address: str | None) -> Iterator[Cluster]:
        raise RunError("cannot join the Ray cluster at here:1; check the address")
        yield

    def build(*_: object, **__: object) -> None:
        raise WeightsError("hub:timm/a@b is not here; set UNIAD_RAY_ALLOW_DOWNLOAD=1")

    monkeypatch.setattr(job, "ray_session", session)
    monkeypatch.setattr(factory, "build_pipeline", build)
    code, text = run(capsys, "--address", "here:1", "--json")
    report = json.loads(text)
    checks = {check["name"]: check for check in report["checks"]}
    assert (code, report["failures"]) == (1, 2)
    assert checks["Ray"]["advice"] == "check the address"
    assert checks["weights"]["advice"] == "set UNIAD_RAY_ALLOW_DOWNLOAD=1"


def test_wrong_key_of_the_profile_fails_the_weights(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "--set", "expert_st=patch")
    assert code == 1
    assert "expert_st" in text
