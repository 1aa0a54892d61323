"""Checks manifests against the parts of KubeRay's published schemas that they use.

The custom resource definitions take megabytes, so `tests/deploy/kuberay_parts.json` keeps only the fields that the
files of `deploy/kuberay` use, with their types, allowed values and required fields. If a file uses further fields,
write it anew:

    python tests/support/kuberay.py FOLDER_WITH_CRDS

where the folder holds `ray.io_*.yaml` from `ray-operator/config/crd/bases` of ray-project/kuberay (Apache-2.0).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "deploy/kuberay").glob("*.yaml"))
PARTS = ROOT / "tests/deploy/kuberay_parts.json"
_KEPT = (
    "type",
    "enum",
    "required",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "anyOf",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
)


def documents() -> dict[str, dict[str, Any]]:
    """The documents of `deploy/kuberay` by kind."""
    found = [yaml.safe_load(path.read_text("utf-8")) for path in FILES]
    return {document["kind"]: document for document in found}


def problems(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """What is wrong with a document; unknown fields are wrong, though a cluster would drop them silently."""
    errors = jsonschema.Draft202012Validator(closed(schema)).iter_errors(document)
    return [f"{error.json_path}: {error.message[:300]}" for error in errors]


def closed(schema: Any) -> Any:
    """The schema, with no fields allowed but those it names."""
    if not isinstance(schema, dict):
        return schema
    copy = {key: closed(value) if key in ("items", "additionalProperties") else value for key, value in schema.items()}
    if "properties" in schema:
        copy["properties"] = {name: closed(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            copy["additionalProperties"] = False
    return copy


def published(folder: Path) -> dict[str, dict[str, Any]]:
    """The stored version of each published schema by kind, with metadata as Kubernetes has them."""
    found = {}
    for path in sorted(folder.glob("ray.io_*.yaml")):
        spec = yaml.safe_load(path.read_text("utf-8"))["spec"]
        version = next(entry for entry in spec["versions"] if entry["storage"])
        schema = version["schema"]["openAPIV3Schema"]
        schema["properties"]["apiVersion"] = {"type": "string", "enum": [f"{spec['group']}/{version['name']}"]}
        schema["properties"]["kind"] = {"type": "string", "enum": [spec["names"]["kind"]]}
        schema["properties"]["metadata"] = {
            "type": "object",
            "properties": {"name": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}},
            "required": ["name"],
        }
        found[spec["names"]["kind"]] = schema
    return found


def parts(schema: dict[str, Any], value: Any) -> dict[str, Any]:
    """The part of a schema that a value uses."""
    kept = {key: schema[key] for key in _KEPT if key in schema}
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        kept["properties"] = {name: parts(known[name], value[name]) for name in value if name in known}
    if isinstance(value, dict) and isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = schema["additionalProperties"]
    if isinstance(value, list) and value and "items" in schema:
        kept["items"] = _merged([parts(schema["items"], entry) for entry in value])
    return kept


def _merged(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for schema in schemas:
        for key, value in schema.items():
            if key == "properties":
                own = merged.setdefault(key, {})
                for name, entry in value.items():
                    own[name] = _merged([own[name], entry]) if name in own else entry
            elif key == "items" and key in merged:
                merged[key] = _merged([merged[key], value])
            else:
                merged[key] = value
    return merged


def write_parts(folder: Path) -> Iterator[str]:
    """Writes the parts; yields what is wrong with the documents by the whole schemas."""
    schemas = published(folder)
    used = {kind: parts(schemas[kind], document) for kind, document in documents().items()}
    PARTS.write_text(json.dumps(used, sort_keys=True, separators=(",", ":")) + "\n", "utf-8")
    for kind, document in documents().items():
        yield from (f"{kind}: {problem}" for problem in problems(document, schemas[kind]))


if __name__ == "__main__":
    sys.exit("\n".join(write_parts(Path(sys.argv[1]))) or 0)
