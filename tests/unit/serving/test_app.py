from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import serve
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema
from support.doc_pages import ROOT, blocks

from uniad_ray.errors import ConfigError
from uniad_ray.serving import app
from uniad_ray.serving.settings import ServeSettings
from uniad_ray.serving.settings_file import read_settings


def deployments(application: serve.Application) -> dict[str, Any]:
    """Return the deployments of an application by name."""
    bound = application._bound_deployment
    found = {bound.name: bound}
    for argument in bound.init_args:
        if isinstance(argument, serve.Application):
            found |= deployments(argument)
    return found


def test_serve_run_arguments_become_typed_settings(tmp_path: Path) -> None:
    # Same as `serve run uniad_ray.serving.app:build_app bundles=ROOT gateways=2`.
    given = {"bundles": str(tmp_path), "gateways": "2"}
    found = deployments(call_user_app_builder_with_args_if_necessary(app.build_app, given))
    assert set(found) == {"Gateway", "Scorer"}
    assert found["Gateway"].num_replicas == 2
    with pytest.raises(ValueError, match="gatways"):
        call_user_app_builder_with_args_if_necessary(app.build_app, {"bundles": "b", "gatways": "2"})


def test_serve_build_reads_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "serve.yaml").write_text("bundles: s3://plant/bundles\nreplicas: {fewest: 3, most: 3}\n")
    monkeypatch.setenv("UNIAD_RAY_SERVE", str(tmp_path / "serve.yaml"))
    assert deployments(app.application)["Scorer"].num_replicas == 3
    monkeypatch.delenv("UNIAD_RAY_SERVE")
    with pytest.raises(AttributeError, match="set UNIAD_RAY_SERVE to a YAML file"):
        _ = app.application
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = app.nothing


def test_documented_serve_config_is_valid() -> None:
    page = (ROOT / "docs/serve.md").read_text("utf-8")
    (block,) = [block for block in blocks(page) if block.language == "yaml"]
    document = ServeDeploySchema.model_validate(yaml.safe_load("\n".join(block.lines)))
    settings = ServeSettings.model_validate(document.applications[0].args)
    assert settings.replicas.most == 8
    assert document.applications[0].import_path == "uniad_ray.serving.app:build_app"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"bundles: [", "not valid YAML"),
        (b"- bundles", "expected keys and values"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"bundles: b\nrepliccas: {}", "repliccas: unknown key; allowed:"),
        (b"bundles: b\nbatch: {images: 0}", "batch.images: input should be greater"),
    ],
)
def test_invalid_settings_file_gives_one_line_error(tmp_path: Path, content: bytes, says: str) -> None:
    place = tmp_path / "serve.yaml"
    place.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_settings(str(place))
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(place))
    assert "\n" not in str(caught.value)


def test_options_override_file_and_set_overrides_both(tmp_path: Path) -> None:
    place = tmp_path / "serve.yaml"
    place.write_text("bundles: a\ngateways: 2\nbatch: {images: 3}\n")
    found = read_settings(str(place), {"bundles": "s3://b/c"}, ["batch.images=5"])
    assert (found.bundles, found.gateways, found.batch.images) == ("s3://b/c", 2, 5)
    with pytest.raises(ConfigError, match="no such file"):
        read_settings(str(tmp_path / "none.yaml"))
