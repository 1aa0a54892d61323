"""The vLLM captioner, tested with a stub module because vLLM is not a test dependency."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from uniad_ray.errors import CaptionError, ConfigError, WeightsError
from uniad_ray.perception.captions.engine import ENVIRONMENT, CaptionEngine, CaptionEngineConfig, _engine
from uniad_ray.perception.missing import Missing

IMAGES = np.random.default_rng(0).integers(0, 256, size=(2, 6, 4, 3), dtype=np.uint8)


class StubLLM:
    """Accepts the arguments of vLLM's class; returns the answers set by a test."""

    made: list[dict[str, Any]] = []  # noqa: RUF012
    asked: list[tuple[Any, Any]] = []  # noqa: RUF012
    texts: list[str] = ["one pin", "two pins"]  # noqa: RUF012
    failure: Exception | None = None

    def __init__(self, **options: Any) -> None:
        self.made.append(options)
        if isinstance(self.failure, OSError):
            raise self.failure

    def chat(self, conversations: list[Any], options: Any, *, use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        if self.failure is not None:
            raise self.failure
        self.asked.append((conversations, options))
        return [SimpleNamespace(outputs=[SimpleNamespace(text=text)]) for text in self.texts]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StubLLM]]:
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "0")  # lets monkeypatch restore it after the test
        monkeypatch.delenv(name)
    found = type("Stub", (StubLLM,), {"made": [], "asked": [], "texts": list(StubLLM.texts)})
    module = ModuleType("vllm")
    module.LLM = found  # type: ignore[attr-defined]
    module.SamplingParams = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    _engine.cache_clear()
    yield found
    _engine.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    save_file({"w": np.zeros(1, dtype=np.float32)}, tmp_path / "model.safetensors")
    return str(tmp_path)


def engine(folder: str, **options: Any) -> CaptionEngine:
    document = {"kind": "vllm", "weights": {"uri": f"file:{folder}"}, **options}
    return CaptionEngine("caption", CaptionEngineConfig.model_validate(document))


def test_requests_use_temperature_zero(stub: type[StubLLM], folder: str) -> None:
    assert engine(folder, max_tokens=9).captions(["a", "b"], IMAGES, "What is it?") == ["one pin", "two pins"]

    ((conversations, options),) = stub.asked
    assert vars(options) == {"temperature": 0.0, "max_tokens": 9, "seed": 0}
    for image, (message,) in zip(IMAGES, conversations, strict=True):
        picture, text = message["content"]
        np.testing.assert_array_equal(np.asarray(picture["image_pil"]), image)
        assert (picture["type"], text) == ("image_pil", {"type": "text", "text": "What is it?"})


def test_engine_starts_once_on_first_use(stub: type[StubLLM], folder: str) -> None:
    first, second = (
        engine(folder, max_model_len=512, dtype="float32"),
        engine(folder, max_model_len=512, dtype="float32"),
    )
    first.lineage()
    assert stub.made == []
    for one in (first, second, first):
        one.captions(["a", "b"], IMAGES, "?")

    assert stub.made == [
        {
            "model": folder,
            "dtype": "float32",
            "max_model_len": 512,
            "max_num_seqs": 8,
            "gpu_memory_utilization": 0.9,
            "enforce_eager": False,
            "limit_mm_per_prompt": {"image": 1, "video": 0},
            "enable_prefix_caching": False,
            "trust_remote_code": False,
            "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
            "seed": 0,
        }
    ]
    assert ENVIRONMENT.items() <= dict(os.environ).items()
    assert ENVIRONMENT["VLLM_NO_USAGE_STATS"] == "1"


def test_missing_vllm_names_the_extra(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    asking = engine(folder)
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError) as raised:
        asking.captions(["a", "b"], IMAGES, "?")
    assert str(raised.value) == (
        'caption: kind: vllm needs the package vllm; run: pip install "uniad-ray[vlm]", or use kind: server'
    )


def test_vllm_import_error_is_one_line(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    def broken(name: str) -> Any:
        raise ImportError(f"{name}: libcudart.so.13: cannot open shared object file\nmore")

    asking = engine(folder)
    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ConfigError, match=r"cannot import vLLM: vllm: libcudart.* file; use kind: server$"):
        asking.captions(["a", "b"], IMAGES, "?")


def test_engine_failures_are_one_line(stub: type[StubLLM], folder: str) -> None:
    stub.failure = OSError("no such architecture\nmore")
    with pytest.raises(WeightsError, match=r"vllm cannot load .*: no such architecture; check"):
        engine(folder).captions(["a", "b"], IMAGES, "?")
    stub.failure = ValueError("the prompt is longer than max_model_len\nmore")
    with pytest.raises(CaptionError, match=r"vLLM failed: the prompt is longer than max_model_len; check"):
        engine(folder).captions(["a", "b"], IMAGES, "?")


def test_one_empty_answer_costs_one_image(stub: type[StubLLM], folder: str) -> None:
    stub.texts = ["one", " \n"]
    first, second = engine(folder).captions(["a", "b"], IMAGES, "?")
    assert first == "one"
    assert isinstance(second, Missing)
    assert "returned an empty answer; raise max_tokens" in second.reason


def test_one_rejected_image_does_not_affect_others(stub: type[StubLLM], folder: str) -> None:
    def chat(self: StubLLM, conversations: list[Any], options: Any, *, use_tqdm: bool) -> list[Any]:  # noqa: ARG001
        sides = [message["content"][0]["image_pil"].size for (message,) in conversations]
        if (99, 1) in sides:
            raise ValueError("too many tokens")
        return [SimpleNamespace(outputs=[SimpleNamespace(text="a pin")]) for _ in conversations]

    stub.chat = chat  # type: ignore[method-assign]
    wide = np.zeros((1, 99, 3), dtype=np.uint8)
    answers = engine(folder).answers([IMAGES[0], wide], "?")
    assert [(answer.text, answer.error_kind) for answer in answers] == [("a pin", None), ("", "rejected")]
    with pytest.raises(CaptionError, match="too many tokens"):
        engine(folder).captions(["a"], [wide], "?")


def test_missing_folder_is_found_early(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        engine(str(tmp_path))


def test_lineage_covers_weights_and_chat_template(folder: str) -> None:
    before = engine(folder).lineage()
    assert set(before) == {"kind", "max_tokens", "dtype", "max_model_len", "longest_side", "weights"}
    assert before["weights"]["trained"]
    assert engine(folder, max_num_seqs=1, gpu_memory_utilization=0.5).lineage() == before
    (Path(folder) / "chat_template.jinja").write_text("{{ other }}")
    assert engine(folder).lineage()["weights"]["sha256"] != before["weights"]["sha256"]
