"""The choice of a caption engine and its options, without Ray and without vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from uniad_ray.errors import ConfigError
from uniad_ray.pipelines.caption.engines import EngineConfig, Question, choose_engine, parse_options
from uniad_ray.pipelines.cluster.sizing import Cluster

URL = "http://gpu-1:8000/v1"


def chosen(question: Question, *, gpus: int = 0, joined: bool = True) -> EngineConfig:
    return choose_engine(question, Cluster(4, 4, gpus, 4, can_grow=joined))


@pytest.mark.parametrize(
    ("question", "gpus", "kind"),
    [
        (Question(model="m", url=URL), 2, "server"),
        (Question(model="m"), 2, "ray"),
        (Question(model="m"), 0, "vllm"),
        (Question("vllm", "m"), 2, "vllm"),
    ],
)
def test_auto_fits_url_and_cluster(question: Question, gpus: int, kind: str) -> None:
    assert chosen(question, gpus=gpus).kind == kind


def test_model_folder_is_absolute_and_options_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = chosen(Question("vllm", "models/vlm", options=parse_options(["max_tokens=9", "enforce_eager=true"])))
    assert found.model.model_dump()["weights"]["uri"] == f"file:{tmp_path}/models/vlm"
    assert (found.max_tokens, found.longest_side) == (9, 1280)
    moved = chosen(Question("ray", "hub:org/vlm@main"))
    assert moved.model.model_dump()["weights"]["uri"] == "hub:org/vlm@main"


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question("gpu", "m"), "no engine 'gpu'; there are auto, ray, vllm, server, none"),  # type: ignore[arg-type]
        (Question("none"), "engine none writes no captions; to write some, run pip install"),
        (Question("server", url=URL), "--model is missing"),
        (Question("server", "m"), "engine server needs --url"),
        (Question("vllm", "m", URL), "--url is for engine server; remove it, or use --engine server instead of vllm"),
        (Question("server", "m", URL, options={"speed": 1}), "speed: unknown key; allowed: "),
    ],
)
def test_wrong_option_is_one_line(question: Question, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        chosen(question)
    assert "\n" not in str(raised.value)


def test_missing_vllm_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r'run pip install "uniad-ray\[vlm\]" .* or `make vlm` .* or use a server'):
        chosen(Question("vllm", "m"), joined=False)


@pytest.mark.parametrize("assignment", ["max_tokens", "max_tokens=[1"])
def test_assignment_without_value_is_one_line(assignment: str) -> None:
    with pytest.raises(ConfigError, match=r"--set max_tokens"):
        parse_options([assignment])
