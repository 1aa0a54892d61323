"""The deployment with vLLM in real Serve; vLLM itself is a stub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import support
from ray import serve
from ray.serve.handle import DeploymentHandle
from safetensors.numpy import save_file

from uniad_ray.errors import CaptionError
from uniad_ray.perception.caption_engine import CaptionEngineConfig
from uniad_ray.serving.captioners import DeployedCaptioner
from uniad_ray.serving.replica import scorer_application
from uniad_ray.serving.settings import ServeSettings
from uniad_ray.serving.text_engine import TextEngine

IMAGES = np.full((3, 6, 4, 3), 10, dtype=np.uint8) * np.arange(1, 4, dtype=np.uint8)[:, None, None, None]


@pytest.fixture
def handle(serve_port: int) -> Iterator[DeploymentHandle]:  # noqa: ARG001 - Serve must run
    folder = Path(next(iter(support.__path__))) / "stub_packages"
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    deployment = serve.deployment(TextEngine).options(
        ray_actor_options={"num_cpus": 0.5, "runtime_env": {"env_vars": {"PYTHONPATH": path}}}
    )
    yield serve.run(deployment.bind(), name="engine", route_prefix=None)
    serve.delete("engine")


def config(folder: Path) -> CaptionEngineConfig:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    save_file({"w": np.zeros(1, dtype=np.float32)}, folder / "model.safetensors")
    return CaptionEngineConfig.model_validate({"kind": "vllm", "weights": {"uri": f"file:{folder}"}})


def test_images_are_captioned_together_by_replicas(handle: DeploymentHandle, tmp_path: Path) -> None:
    captioner = DeployedCaptioner("caption", config(tmp_path / "model"), handle, timeout=60)
    texts = captioner.captions(["a", "b", "c"], IMAGES, "how bright?")
    assert [text.partition(" of ")[0] for text in texts] == [f"how bright? {10 * n}" for n in (1, 2, 3)]
    # The first may have gone alone; what came while it was answered went together.
    assert texts[-1].endswith((" of 2", " of 3"))
    with pytest.raises(CaptionError, match="the deployed model does not answer"):
        captioner.captions(["a"], IMAGES[:1], "fail")
    with pytest.raises(CaptionError, match="does not answer: TimeoutError"):
        DeployedCaptioner("caption", config(tmp_path / "other"), handle, timeout=0.0001).captions(["a"], IMAGES, "x")


def test_the_application_has_an_engine_only_if_it_is_to_be_deployed() -> None:
    for kind, wanted in (("none", []), ("endpoint", []), ("deployment", ["TextEngine"])):
        app = scorer_application(ServeSettings.model_validate({"bundles": "b", "engine": {"kind": kind}}))
        bound = [argument for argument in app._bound_deployment.init_args if isinstance(argument, serve.Application)]
        assert [entry._bound_deployment.name for entry in bound] == wanted
