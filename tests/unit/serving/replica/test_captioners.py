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
TABLE = CaptionTableConfig(kind="table", source="captions.parquet")
ENGINE = CaptionEngineConfig.model_validate({"kind": "vllm", "weights": {"uri": "file:model"}})


def choose(fitted: Any, deployed: Any = None, **engine: Any) -> Any:
    extractor = SimpleNamespace(name="caption", config=SimpleNamespace(captioner=fitted))
    return choose_captioner(extractor, EngineSettings.model_validate(engine), deployed, asyncio.new_event_loop())  # type: ignore[arg-type]


def test_the_server_of_the_fit_is_asked_once_and_within_the_deadline() -> None:
    chosen = choose(SERVER, deadline_seconds=1.5)
    assert isinstance(chosen, CaptionServer)
    assert chosen._config == SERVER.model_copy(update={"retries": 0, "timeout": 1.5})
    # What is said to the model is what was said at the fit.
    assert chosen.lineage() == CaptionServer("caption", SERVER).lineage()


@pytest.mark.parametrize("fitted", [SERVER, TABLE, ENGINE])
def test_a_named_server_takes_the_place_of_whatever_wrote_the_texts_of_the_fit(fitted: Any) -> None:
    chosen = choose(fitted, url="http://gpu:8000/v1", model="big")
    assert isinstance(chosen, CaptionServer)
    assert (chosen._config.url, chosen._config.model, chosen._config.retries) == ("http://gpu:8000/v1", "big", 0)


@pytest.mark.parametrize(
    ("fitted", "engine", "reason"),
    [
        (SERVER, {"kind": "none"}, "no engine is configured"),
        (TABLE, {}, "of kind table; engine.url and engine.model name no server"),
        (ENGINE, {}, "of kind vllm; engine.url and engine.model name no server"),
        (TABLE, {"url": "http://gpu:8000/v1"}, "engine.model name no server"),
        (SERVER, {"kind": "deployment"}, "of kind server, which is no model that can be deployed"),
        (ENGINE, {"kind": "deployment"}, "no engine is deployed"),
    ],
)
def test_where_there_is_nothing_to_ask_the_reason_is_said(fitted: Any, engine: dict[str, Any], reason: str) -> None:
    assert reason in choose(fitted, **engine)


def test_a_deployed_model_is_that_of_the_bundle() -> None:
    chosen = choose(ENGINE, object(), kind="deployment")
    assert isinstance(chosen, DeployedCaptioner)
    assert chosen.lineage() == ENGINE.model_dump(mode="json")


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ({"kind": "none", "url": "http://a/v1"}, "of kind: endpoint"),
        ({"model": "m"}, "give the url as well"),
        ({"url": "http://user:secret@a/v1"}, "no user, password"),
        ({"deadline_seconds": 0}, "greater than 0"),
    ],
)
def test_settings_that_say_nothing_useful_are_refused(engine: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EngineSettings.model_validate(engine)
