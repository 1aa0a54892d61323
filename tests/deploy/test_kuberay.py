"""The files for KubeRay fit its published schemas, and what they start exists."""

from __future__ import annotations

import copy
import importlib
import json
import re
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema
from support.doc_pages import check
from support.dockerfile import DOCKERFILE
from support.kuberay import PARTS, ROOT, documents, parts, problems

from uniad_ray.nights.config import load_nightly
from uniad_ray.serving.settings import ServeSettings

DOCUMENTS = documents()
SCHEMAS = json.loads(PARTS.read_text("utf-8"))


def cluster(document: dict[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    found: dict[str, Any] = spec.get("jobTemplate", spec).get("rayClusterSpec") or spec["rayClusterConfig"]
    return found


def pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    spec = cluster(document)
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def test_there_is_a_file_of_each_kind() -> None:
    assert set(DOCUMENTS) == set(SCHEMAS) == {"RayCronJob", "RayJob", "RayService"}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_file_fits_the_published_schema(kind: str) -> None:
    assert problems(DOCUMENTS[kind], SCHEMAS[kind]) == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("spec", "shedule"), "0 2 * * *", "'shedule' was unexpected"),
        (("spec", "jobTemplate", "rayClusterSpec", "headGroupSpec", "template", "spec", "image"), "x", "unexpected"),
        (("spec", "jobTemplate", "backoffLimit"), "2", "not of type 'integer'"),
        (("spec", "jobTemplate", "rayClusterSpec", "authOptions", "mode"), "secret", "is not one of"),
        (("spec", "jobTemplate", "rayClusterSpec", "workerGroupSpecs"), [{"groupName": "a"}], "required property"),
        (("apiVersion",), "ray.io/v2", "is not one of"),
    ],
)
def test_mistakes_are_found(path: tuple[str, ...], value: Any, problem: str) -> None:
    document = copy.deepcopy(DOCUMENTS["RayCronJob"])
    place = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    assert any(problem in found for found in problems(document, SCHEMAS["RayCronJob"]))


def test_parts_of_a_schema_are_those_that_are_used() -> None:
    schema = {
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}, "c": {}}}},
            "d": {"type": "string"},
        },
    }
    used = parts(schema, {"a": [{"b": "x"}, {}]})
    assert used == {
        "type": "object",
        "required": ["a"],
        "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}}},
    }


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_ray_version_is_that_of_the_lock(kind: str) -> None:
    assert cluster(DOCUMENTS[kind])["rayVersion"] == metadata.version("ray")


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_pods_run_without_root_and_fit_the_image(kind: str) -> None:
    for pod in pods(DOCUMENTS[kind]):
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert f"USER {pod['securityContext']['runAsUser']}\n" in DOCKERFILE.read_text("utf-8")
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        is_gpu = container["image"].endswith(":gpu")
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == is_gpu == ("tolerations" in pod)
        names = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == names


def test_entrypoints_are_in_the_image() -> None:
    copied = re.search(r'cp -r (.+) "\$\{PREFIX\}/"', DOCKERFILE.read_text("utf-8"))
    assert copied is not None
    inside = {Path(source).name: ROOT / source for source in copied[1].split()}
    for kind in ("RayCronJob", "RayJob"):
        spec = DOCUMENTS[kind]["spec"]
        program, script, *arguments = shlex.split(spec.get("jobTemplate", spec)["entrypoint"])
        name, _, rest = script.removeprefix("/opt/uniad-ray/").partition("/")
        path = inside[name] / rest if rest else inside[name]
        assert path.is_file()
        if program == "python":
            check(("uniad-ray", path.stem, *arguments))


def test_night_reads_the_configuration_and_the_secret_that_it_mounts() -> None:
    pod = pods(DOCUMENTS["RayCronJob"])[0]
    (container,) = pod["containers"]
    variables = {entry["name"]: entry for entry in container["env"]}
    folder, _, name = variables["CONFIG"]["value"].rpartition("/")
    assert name == "nightly.yaml"
    (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == folder]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
    assert "configMap" in volume
    config = load_nightly(str(ROOT / "deploy/nightly.yaml"))
    secrets = {hook.secret.env for hook in config.notify.webhooks.values()}
    assert secrets == {name for name, entry in variables.items() if "valueFrom" in entry}
    page = (ROOT / "docs/deploy.md").read_text("utf-8")
    reference = variables["NIGHT_WEBHOOK_SECRET"]["valueFrom"]["secretKeyRef"]
    assert f"create configmap {volume['configMap']['name']} --from-file=deploy/{name}" in page
    assert f"create secret generic {reference['name']} --from-literal={reference['key']}=" in page


def test_service_starts_the_endpoint_with_valid_settings() -> None:
    config = yaml.safe_load(DOCUMENTS["RayService"]["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(config)
    (application,) = config["applications"]
    module, _, function = application["import_path"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    settings = ServeSettings.model_validate(application["args"])
    (mounted,) = {
        mount["mountPath"] for pod in pods(DOCUMENTS["RayService"]) for mount in pod["containers"][0]["volumeMounts"]
    } - {"/dev/shm"}  # noqa: S108 - a path in the file
    assert str(settings.keys).startswith(f"{mounted}/")
