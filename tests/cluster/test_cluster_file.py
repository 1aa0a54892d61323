"""Validates cluster.yaml with Ray, with EC2's model of RunInstances, and by rules of this project."""

from __future__ import annotations

import copy
import functools
import json
import re
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import pytest
import yaml
from botocore.model import Shape
from botocore.validate import ParamValidator

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
SECRET = re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|PRIVATE KEY|aws_secret|aws_access_key|aws_credentials|ssh_private")
ADDED_BY_RAY = {"MinCount": 1, "MaxCount": 1, "SubnetId": "subnet-0", "SecurityGroupIds": ["sg-0"], "KeyName": "ray"}
"""Parameters that Ray's node provider and bootstrap add to the request; they remove `SubnetIds`, Ray's own."""

Document = dict[str, Any]


def load() -> Document:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def problems(document: Document) -> list[str]:
    """Problems of a cluster file, from all sources."""
    return [*ray_problems(document), *ec2_problems(document), *own_problems(document)]


def ray_problems(document: Document) -> Iterator[str]:
    """Problems that `ray up` finds before it calls AWS."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(copy.deepcopy(document)))
    except (jsonschema.ValidationError, ValueError) as error:
        yield f"Ray: {error}"


def ec2_problems(document: Document) -> Iterator[str]:
    """Unknown parameters of RunInstances, and parameters with a wrong type or an unlisted value."""
    shape = run_instances_shape()
    for name, node_type in document["available_node_types"].items():
        request = {**node_type["node_config"], **ADDED_BY_RAY}
        request.pop("SubnetIds", None)
        report = ParamValidator().validate(request, shape).generate_report()
        yield from (f"EC2: {name}: {line}" for line in report.splitlines())
        if not report:
            yield from (f"EC2: {name}: {line}" for line in unlisted_values(request, shape))


@functools.cache
def run_instances_shape() -> Shape:
    return botocore.session.Session().get_service_model("ec2").operation_model("RunInstances").input_shape


@functools.cache
def regions() -> frozenset[str]:
    return frozenset(botocore.session.Session().get_available_regions("ec2"))


def unlisted_values(value: Any, shape: Shape) -> Iterator[str]:
    """Strings outside the list of their shape; botocore does not check them."""
    if shape.type_name == "structure":
        for key, inner in value.items():
            yield from unlisted_values(inner, shape.members[key])
    elif shape.type_name == "list":
        for inner in value:
            yield from unlisted_values(inner, shape.member)
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        yield f"{value!r} is no {shape.name}"


def own_problems(document: Document) -> Iterator[str]:
    """Violations of this project's rules and of safe defaults."""
    region = document["provider"].get("region")
    if region not in regions():
        yield f"unknown AWS region: {region}"
    if found := SECRET.search(yaml.safe_dump(document)):
        yield f"a credential or private key: {found[0]}"
    yield from worker_problems(document)
    yield from command_problems(document)
    for name, node_type in document["available_node_types"].items():
        config = node_type["node_config"]
        if "ImageId" not in config:
            yield f"{name}: no ImageId; Ray's default is Ubuntu 18.04"
        if "IamInstanceProfile" not in config:
            yield f"{name}: no instance profile"
        if config.get("MetadataOptions", {}).get("HttpTokens") != "required":
            yield f"{name}: version 1 of the metadata service is enabled"
        if not all(disk["Ebs"].get("Encrypted") for disk in config.get("BlockDeviceMappings", [{"Ebs": {}}])):
            yield f"{name}: the volume is not encrypted"


def worker_problems(document: Document) -> Iterator[str]:
    types = dict(document["available_node_types"])
    head = types.pop(document["head_node_type"], None)
    if head is None:
        return
    if "InstanceMarketOptions" in head["node_config"]:
        yield "the head is on spot"
    if types["gpu"]["node_config"].get("InstanceMarketOptions", {}).get("MarketType") != "spot":
        yield "the GPU workers are not on spot"
    for name, node_type in types.items():
        if node_type["node_config"].get("IamInstanceProfile") == head["node_config"].get("IamInstanceProfile"):
            yield f"{name}: workers have the head's profile"
        if not 0 <= node_type["min_workers"] <= node_type["max_workers"]:
            yield f"{name}: min_workers is not between 0 and max_workers"
    if document["max_workers"] != sum(node_type["max_workers"] for node_type in types.values()):
        yield "max_workers is not the sum of the workers of each type"


def command_problems(document: Document) -> Iterator[str]:
    mounts = document["file_mounts"]
    for local in mounts.values():
        if not local.startswith("~") and not (ROOT / local).exists():
            yield f"{local}: the file to mount is missing"
    mounted = {Path(remote).name for remote in mounts}
    own = [types.get("worker_setup_commands", []) for types in document["available_node_types"].values()]
    for command in [command for commands in (*(document[name] for name in COMMANDS), *own) for command in commands]:
        if subprocess.run(["bash", "-n", "-c", command], check=False, capture_output=True).returncode:
            yield f"invalid shell command: {command}"
        elif missing := {word for word in shlex.split(command) if word.endswith((".lock", ".toml"))} - mounted:
            yield f"a command needs {', '.join(missing)}, which the cluster does not mount"
    if not any("--dashboard-host=127.0.0.1" in command for command in document["head_start_ray_commands"]):
        yield "the dashboard is reachable from outside the head"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a check of the cluster file called out")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_cluster_file_is_valid() -> None:
    assert problems(load()) == []


def test_guide_and_cluster_file_agree() -> None:
    guide = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    chosen = load()["metadata"]
    for name in ("region", "security_group", "head_type", "cpu_type", "gpu_type", "vlm_type"):
        assert chosen[name] in guide, name
    statements = [
        statement
        for policy in re.findall(r"```json\n(.*?)```", guide, re.DOTALL)
        for statement in json.loads(policy)["Statement"]
    ]
    (passed,) = [statement["Resource"] for statement in statements if statement["Action"] == "iam:PassRole"]
    assert passed.endswith(f":role/{chosen['worker_profile']['Name']}")


def test_nodes_have_the_extras_and_the_model_a_node_of_its_own() -> None:
    document = load()
    vlm = document["available_node_types"]["vlm"]
    assert any("'.[text]'" in command for command in document["setup_commands"])
    assert any("'.[text,vlm]'" in command for command in vlm["worker_setup_commands"])
    others = {name: kind["resources"] for name, kind in document["available_node_types"].items() if name != "vlm"}
    assert vlm["resources"] == {"vlm": 1}
    assert not any(others.values())
    guide = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    (ports,) = re.findall(r"vllm\.entrypoints\.openai\.api_server .*--port (\d+)", guide)
    assert ports != "8000", "the endpoint has this port on every node"


def node_config(document: Document, name: str) -> Document:
    return document["available_node_types"][name]["node_config"]


def rename(mapping: Document, old: str, new: str) -> None:
    mapping[new] = mapping.pop(old)


BROKEN: dict[str, tuple[Callable[[Document], Any], str]] = {
    "unknown key at the top": (lambda d: d.update(max_wrokers=3), r"Ray: .*'max_wrokers' was unexpected"),
    "wrong type at the top": (lambda d: d.update(idle_timeout_minutes="5"), "Ray: '5' is not of type 'number'"),
    "unknown head type": (lambda d: d.update(head_node_type="haed"), "Ray: `head_node_type` must be one of"),
    "fewer workers than the minimum": (
        lambda d: d["available_node_types"]["gpu"].update(min_workers=10),
        "Ray: The specified global `max_workers` is smaller than",
    ),
    "typo in a node": (
        lambda d: rename(node_config(d, "gpu"), "InstanceType", "InstanceTpye"),
        'EC2: gpu: Unknown parameter in input: "InstanceTpye"',
    ),
    "typo deep in a node": (
        lambda d: rename(node_config(d, "cpu")["BlockDeviceMappings"][0]["Ebs"], "VolumeSize", "VolumeSzie"),
        "EC2: cpu: Unknown parameter in BlockDeviceMappings",
    ),
    "wrong type deep in a node": (
        lambda d: node_config(d, "head")["BlockDeviceMappings"][0]["Ebs"].update(VolumeSize="150"),
        r"EC2: head: Invalid type for parameter BlockDeviceMappings\[0\].Ebs.VolumeSize",
    ),
    "value unknown to EC2": (
        lambda d: node_config(d, "gpu")["InstanceMarketOptions"].update(MarketType="sopt"),
        "EC2: gpu: 'sopt' is no MarketType",
    ),
    "instance type unknown to EC2": (
        lambda d: node_config(d, "gpu").update(InstanceType="g6.2xxlarge"),
        "EC2: gpu: 'g6.2xxlarge' is no InstanceType",
    ),
    "no region": (lambda d: d["provider"].pop("region"), "unknown AWS region: None"),
    "unknown region": (lambda d: d["provider"].update(region="us-esat-1"), "unknown AWS region: us-esat-1"),
    "account key": (
        lambda d: d["provider"].update(aws_credentials={"aws_access_key_id": "x"}),
        "a credential or private key: aws_credentials",
    ),
    "no image": (lambda d: node_config(d, "cpu").pop("ImageId"), "cpu: no ImageId"),
    "no profile": (lambda d: node_config(d, "cpu").pop("IamInstanceProfile"), "cpu: no instance profile"),
    "workers with the head's rights": (
        lambda d: node_config(d, "cpu").update(IamInstanceProfile=node_config(d, "head")["IamInstanceProfile"]),
        "cpu: workers have the head's profile",
    ),
    "old metadata service": (
        lambda d: node_config(d, "head")["MetadataOptions"].update(HttpTokens="optional"),
        "head: version 1 of the metadata service is enabled",
    ),
    "unencrypted volume": (
        lambda d: node_config(d, "head")["BlockDeviceMappings"][0]["Ebs"].pop("Encrypted"),
        "head: the volume is not encrypted",
    ),
    "head on spot": (
        lambda d: node_config(d, "head").update(InstanceMarketOptions={"MarketType": "spot"}),
        "the head is on spot",
    ),
    "GPUs on demand": (lambda d: node_config(d, "gpu").pop("InstanceMarketOptions"), "the GPU workers are not on spot"),
    "minimum above maximum": (
        lambda d: d["available_node_types"]["cpu"].update(min_workers=5),
        "cpu: min_workers is not between 0 and max_workers",
    ),
    "wrong sum of workers": (lambda d: d.update(max_workers=7), "max_workers is not the sum"),
    "missing mount": (lambda d: d["file_mounts"].update({"~/x": "gone.txt"}), "gone.txt: the file to mount is missing"),
    "unmounted lock": (
        lambda d: d["file_mounts"].pop("~/uniad-ray/requirements.lock"),
        "a command needs requirements.lock, which the cluster does not mount",
    ),
    "invalid command": (lambda d: d["setup_commands"].append("if true"), "invalid shell command: if true"),
    "open dashboard": (
        lambda d: d.update(head_start_ray_commands=["ray start --head --dashboard-host=0.0.0.0"]),
        "the dashboard is reachable",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_cluster_file_is_caught(name: str) -> None:
    break_it, expected = BROKEN[name]
    document = load()
    break_it(document)
    assert re.search(expected, "\n".join(problems(document)))
