"""The vLLM deployment with real Serve; vLLM itself is a stub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
from ray import serve
from ray.serve.handle import DeploymentHandle
from safetensors.numpy import save_file
from support.asking_replica import AskingReplica

from uniad_ray.serving.replica.deployment import scorer_application
from uniad_ray.serving.replica.vllm import VllmDeployment
from uniad_ray.serving.settings import OF_REPLICAS, ServeSettings

IMAGES = np.full((3, 6, 4, 3), 10, dtype=np.uint8) * np.arange(1, 4, dtype=np.uint8)[:, None, None, None]


@pytest.fixture
def handle(serve_port: int) -> Iterator[DeploymentHandle]:  # noqa: ARG001 - Serve must run
    folder = Path(next(iter(support.__path__))) / "stub_packages"
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    engine = serve.deployment(VllmDeployment).options(
        ray_actor_options={"num_cpus": 0.5, "runtime_env": {"env_vars": {"PYTHONPATH": path}}}
    )
    asking = serve.deployment(AskingReplica).options(
        ray_actor_options={"num_cpus": 0.5, "runtime_env": {"env_vars": OF_REPLICAS}}
    )
    yield serve.run(asking.bind(engine.bind()), name="engine", route_prefix=None)
    serve.delete("engine")


def config(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    save_file({"w": np.zeros(1, dtype=np.float32)}, folder / "model.safetensors")
    return {"kind": "vllm", "weights": {"uri": f"file:{folder}"}}


def test_replicas_batch_captions(handle: DeploymentHandle, tmp_path: Path) -> None:
    model = config(tmp_path / "model")
    texts = handle.ask.remote(model, IMAGES, "how bright?", 60.0).result(timeout_s=120)
    assert [text.partition(" of ")[0] for text in texts] == [f"how bright? {10 * n}" for n in (1, 2, 3)]
    # The first image may be a batch of its own; the others arrived meanwhile and share one.
    assert texts[-1].endswith((" of 2", " of 3"))
    says = handle.ask.remote(model, IMAGES[:1], "fail", 60.0).result(timeout_s=120)
    assert "the deployed model does not respond" in says
    says = handle.ask.remote(config(tmp_path / "other"), IMAGES[:1], "x", 0.0001).result(timeout_s=120)
    assert says == "caption: the deployed model does not respond: TimeoutError"


def test_engine_is_deployed_only_if_configured() -> None:
    for kind, wanted in (("none", []), ("endpoint", []), ("deployment", ["VllmDeployment"])):
        app = scorer_application(ServeSettings.model_validate({"bundles": "b", "engine": {"kind": kind}}))
        bound = [argument for argument in app._bound_deployment.init_args if isinstance(argument, serve.Application)]
        assert [entry._bound_deployment.name for entry in bound] == wanted
