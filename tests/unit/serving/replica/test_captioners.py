from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from uniad_ray.perception.captions.engine import CaptionEngineConfig
from uniad_ray.perception.captions.server import CaptionServer, CaptionServerConfig
from uniad_ray.perception.captions.table import CaptionTableConfig
from uniad_ray.serving.replica.captioners import DeployedCaptioner, choose_captioner
from uniad_ray.serving.settings import EngineSettings

SERVER = CaptionServerConfig(kind="server", url="http://fit:1/v1", model="m", max_tokens=9, retries=6, timeout=120)
TABLE = CaptionTableConfig(kind="table", source="/captions.parquet")
ENGINE = CaptionEngineConfig.model_validate({"kind": "vllm", "weights": {"uri": "file:model"}})


def choose(fitted: Any, deployed: Any = None, **engine: Any) -> Any:
    extractor = SimpleNamespace(name="caption", config=SimpleNamespace(captioner=fitted))
    return choose_captioner(extractor, EngineSettings.model_validate(engine), deployed, asyncio.new_event_loop())  # type: ignore[arg-type]


def test_server_of_fit_is_used_without_retries() -> None:
    chosen = choose(SERVER, deadline_seconds=1.5)
    assert isinstance(chosen, CaptionServer)
    assert chosen._config == SERVER.model_copy(update={"retries": 0, "timeout": 1.5})
    # The prompt is that of the fit.
    assert chosen.lineage() == CaptionServer("caption", SERVER).lineage()


@pytest.mark.parametrize("fitted", [SERVER, TABLE, ENGINE])
def test_configured_server_overrides_captioner_of_fit(fitted: Any) -> None:
    chosen = choose(fitted, url="http://gpu:8000/v1", model="big")
    assert isinstance(chosen, CaptionServer)
    assert (chosen._config.url, chosen._config.model, chosen._config.retries) == ("http://gpu:8000/v1", "big", 0)


@pytest.mark.parametrize(
    ("fitted", "engine", "reason"),
    [
        (SERVER, {"kind": "none"}, "no engine is configured"),
        (TABLE, {}, "of kind table; set engine.url and engine.model"),
        (ENGINE, {}, "of kind vllm; set engine.url and engine.model"),
        (TABLE, {"url": "http://gpu:8000/v1"}, "of kind table; set engine.url and engine.model"),
        (SERVER, {"kind": "deployment"}, "of kind server, which cannot be deployed"),
        (ENGINE, {"kind": "deployment"}, "no engine is deployed"),
    ],
)
def test_missing_captioner_has_reason(fitted: Any, engine: dict[str, Any], reason: str) -> None:
    assert reason in choose(fitted, **engine)


def test_deployed_model_is_that_of_bundle() -> None:
    chosen = choose(ENGINE, object(), kind="deployment")
    assert isinstance(chosen, DeployedCaptioner)
    assert chosen.lineage() == ENGINE.model_dump(mode="json")


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ({"kind": "none", "url": "http://a/v1"}, "url and model need kind: endpoint"),
        ({"model": "m"}, "model: set url as well"),
        ({"url": "http://user:secret@a/v1"}, "must not contain a user, password"),
        ({"deadline_seconds": 0}, "greater than 0"),
    ],
)
def test_invalid_engine_settings_are_refused(engine: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EngineSettings.model_validate(engine)
