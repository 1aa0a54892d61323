"""Writes the pages that follow from the code: configuration.md from the pydantic models, schemas.md from `schemas/`.

`python docs/generate.py` writes both; with `--check` it writes nothing, names the pages that are stale, and exits 1.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from uniad_ray.archive.images import ImageLimits
from uniad_ray.archive.scenes import SceneConfig
from uniad_ray.archive.schemas import schema_directory
from uniad_ray.cli import cli
from uniad_ray.config.loading import import_class, load_config, profile_names
from uniad_ray.config.model import FitConfig
from uniad_ray.metrics.catalogue import CATALOGUE
from uniad_ray.pipelines.run_plan import ScoreOptions
from uniad_ray.serving.settings import ServeSettings

DOCS = Path(__file__).parent
STAMP = "<!-- Written by docs/generate.py; change the {source} and run `make docs`. -->\n"

PATHS = {
    "image": "`ARCHIVE/images/<category>/*.parquet`",
    "ingest_plan": "`ARCHIVE/_ingest/<ingest>/plan.parquet`",
    "archive_manifest": "`ARCHIVE/manifest.json`",
    "sidecar_plan": "`SIDECAR/plan.json`",
    "feature_sidecar": "`SIDECAR/features/<category>/*.parquet`",
    "segment_sidecar": "`SIDECAR/segments/<category>/*.parquet`",
    "description_sidecar": "`SIDECAR/descriptions/<category>/*.parquet`",
    "sidecar_file": "`SIDECAR/files.parquet`",
    "sidecar_manifest": "`SIDECAR/manifest.json`",
    "bundle_manifest": "`ROOT/<category>/<version>/manifest.json`",
    "calibration_score": "`ROOT/<category>/<version>/calibration_scores.parquet`",
    "gallery_image": "`ROOT/<category>/<version>/gallery.parquet`",
    "training_step": "`ROOT/.checkpoints/<digest>/log/*.parquet`",
    "run_plan": "`RUN/plan.json`",
    "score": "`RUN/scores/<category>/*.parquet`",
    "anomaly_map": "`RUN/maps/<category>/*.parquet`",
    "attempt": "`RUN/attempts/<time>.json`",
    "run_chunk": "`RUN/chunks.parquet`",
    "run_manifest": "`RUN/manifest.json`",
    "mark": "`RUN/marks/*.parquet`",
    "metric": "`RUN/evaluation/metrics.parquet`",
    "report": "`RUN/report/report.json`",
    "ablation": "`WORK/<paper>-table-<number>.parquet`",
}
"""Where the files of each schema lie, in the order in which they come to be."""

_KEY_HEADER = ("key", "type", "default", "allowed", "meaning")
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "{} or more entries",
    "pattern": "matches `{}`",
}


class UndescribedFieldError(Exception):
    """A field of a configuration model that nothing describes."""


@dataclass(frozen=True)
class Row:
    """One key of a configuration.

    Attributes:
        key: Path of the key, as after `--set`.
        name: Name of the field in its model.
        type: Type, as Markdown.
        default: Default, as Markdown.
        allowed: Allowed values, as Markdown; empty where the type says all.
        description: What the key does.
    """

    key: str
    name: str
    type: str
    default: str
    allowed: str
    description: str


def configuration_page() -> str:
    """The page on every key of a profile, and on the options of a run, of the scenes and of decoding."""
    parts = [
        STAMP.format(source="models' descriptions"),
        _CONFIGURATION_INTRODUCTION,
        _table(_KEY_HEADER, [_cells(row) for row in rows(FitConfig)]),
        _COMPONENTS_INTRODUCTION,
    ]
    for (kind, class_path), names in _components().items():
        found = import_class(class_path, where="the profiles")
        parts += [
            f"### `{class_path}`\n\n{_summary(found)}\n\n"
            f"{kind.capitalize()}; {', '.join(names)}. Keys below `{kind}s.<name>.config`:\n",
            _table(_KEY_HEADER, [_cells(row) for row in rows(found.config_model)]),
        ]
    for title, introduction, model, verb in _OTHER_MODELS:
        parts += [f"## {title}\n\n{introduction}\n", _options_table(model, verb)]
    return "\n".join(parts)


def schemas_page() -> str:
    """The page on every column of every stored dataset and every field of every stored document."""
    documents = [json.loads((schema_directory() / f"{name}.json").read_text("utf-8")) for name in PATHS]
    overview = [
        (f"[{document['name']}](#{document['name']})", document["version"], document["kind"], PATHS[document["name"]])
        for document in documents
    ]
    parts = [
        STAMP.format(source="files in schemas/"),
        _SCHEMAS_INTRODUCTION,
        _table(("schema", "version", "kind", "where"), overview),
    ]
    for document in documents:
        name, what = document["name"], "column" if document["kind"] == "dataset" else "field"
        table = [
            (
                f"`{column['name']}`",
                f"`{column['type']}`",
                column["unit"] or "",
                "yes" if column["nullable"] else "no",
                column["description"],
            )
            for column in document[f"{what}s"]
        ]
        parts += [
            f"## {name}\n\n{document['description']}\n\nVersion {document['version']}; {PATHS[name]}.\n",
            _table((what, "type", "unit", "null", "meaning"), table),
        ]
        if name == "metric":
            parts += [_METRICS_INTRODUCTION, _metrics_table()]
    return "\n".join(parts)


def _metrics_table() -> str:
    """The catalogue of metrics, one row per metric and limit."""
    units = {"share": "share between 0 and 1", "score": "scale of the scores"}
    return _table(
        ("metric", "limit", "name", "unit", "better"),
        [
            (
                f"`{entry.key}`",
                "" if entry.limit is None else f"{entry.limit:g}",
                entry.name.replace("\N{NON-BREAKING HYPHEN}", "-"),
                units[entry.unit],
                entry.better or "",
            )
            for entry in CATALOGUE
        ],
    )


PAGES = {"configuration.md": configuration_page, "schemas.md": schemas_page}


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[Row]:
    """Every key of a model, those of the models inside it included.

    Args:
        model: A configuration model.
        prefix: Key of the model itself, with a dot at its end.

    Raises:
        UndescribedFieldError: A field has neither a description nor a line in the docstring's `Attributes:`.
    """
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        inner = _models_in(field.annotation)
        description = field.description or _attributes(model).get(name) or (_summary(inner[0]) if inner else "")
        if not description:
            raise UndescribedFieldError(f"{model.__name__}.{name} has no description")
        schema = properties[field.alias or name]
        if len(inner) != 1 or _is_mapping(schema):
            yield Row(key, name, _type(schema), _default(field), _allowed(schema), description)
        for choice in inner:
            yield from rows(choice, f"{key}.<name>." if _is_mapping(schema) else f"{key}.")


def _components() -> dict[tuple[str, str], list[str]]:
    """Where each class of a perceiver or an expert is named: profile and name, by kind and class."""
    configs = {profile: load_config(profile) for profile in profile_names()}
    found: dict[tuple[str, str], list[str]] = {}
    for kind in ("perceiver", "expert"):
        for profile, config in configs.items():
            for name, component in (config.perceivers if kind == "perceiver" else config.experts).items():
                found.setdefault((kind, component.class_path), []).append(f"`{name}` of profile `{profile}`")
    return found


def _attributes(model: type) -> dict[str, str]:
    """The `Attributes:` of the docstrings of a class and its bases, by name."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")
        for entry in re.split(r"\n(?= {4}\w)", "\n" + section.partition("\n\n")[0]):
            name, separator, text = entry.strip().partition(": ")
            if separator:
                found[name] = " ".join(text.split())
    return found


def _summary(described: type) -> str:
    """The first paragraph of a class's docstring."""
    return " ".join(inspect.cleandoc(described.__doc__ or "").split("\n\n")[0].split())


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The configuration models within an annotation such as `dict[str, Model]` or `One | Other`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _models_in(inner)]


def _is_mapping(schema: dict[str, Any]) -> bool:
    return isinstance(schema.get("additionalProperties"), dict)


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema's type in words."""
    if "oneOf" in schema:
        return "the keys below, from one `kind` to the next"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "prefixItems" in schema:
        return f"{len(schema['prefixItems'])} x {_type(schema['prefixItems'][0])}"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if _is_mapping(schema):
        return f"mapping of name to {_type(schema['additionalProperties'])}"
    if "$ref" in schema:
        return "the keys below"
    return str({"object": "mapping", "boolean": "true or false"}.get(schema["type"], schema["type"]))


def _allowed(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return "; ".join(filter(None, (_allowed(option) for option in schema["anyOf"])))
    bounds = [text.format(schema[bound]) for bound, text in _BOUNDS.items() if bound in schema]
    if schema.get("type") == "array" and "prefixItems" not in schema:
        bounds += [f"entries {inner}" for inner in filter(None, [_allowed(schema["items"])])]
    if "prefixItems" in schema:
        bounds = [f"each {inner}" for inner in filter(None, [_allowed(schema["prefixItems"][0])])]
    return ", ".join(bounds)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _options_table(model: type[BaseModel], verb: str | None) -> str:
    """The keys of a model, each with the option of a verb that sets it; None where no verb does."""
    if verb is None:
        return _table(_KEY_HEADER, [_cells(row) for row in rows(model)])
    _, command, _ = cli.resolve_command(click.Context(cli), [verb])
    options = {parameter.name: f"`{parameter.opts[0]}`" for parameter in command.params} if command else {}
    table = []
    for row in rows(model):
        key, *rest = _cells(row)
        table.append((key, options.get(row.name, "Python only"), *rest))
    return _table((_KEY_HEADER[0], "option", *_KEY_HEADER[1:]), table)


def _cells(row: Row) -> tuple[str, ...]:
    return f"`{row.key}`", row.type, row.default, row.allowed, row.description


def _table(header: tuple[str, ...], table: list[tuple[Any, ...]]) -> str:
    lines = [header, ("---",) * len(header), *table]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


_CONFIGURATION_INTRODUCTION = """\
# Configuration

A *profile* is everything that decides what a fitted bundle is. `uniad-ray fit --profile NAME` takes one of the package
([embedded](../uniad_ray/config/profiles/embedded.yaml), [paper](../uniad_ray/config/profiles/paper.yaml)),
`--profile FILE.yaml` one of yours, and `--set KEY=VALUE` changes one key of either; the value is read as YAML.
A key that does not exist, or a value out of its range, is an error that names the file, the key and what is allowed.
The whole configuration is stored in the bundle; scoring reads it from there.

Keys are written with dots, as after `--set`. `<name>` stands for a name of your choice.

## Keys of a profile
"""

_COMPONENTS_INTRODUCTION = """\
## Perceivers and experts

A perceiver or an expert names its class, and the class defines the keys of its `config`. These classes are named in the
profiles; [experts.md](experts.md) shows how to add one of your own. The keys `map_size` and `seed` are set at the top
level of a profile, where they hold for all experts; an expert's own may only repeat them.
"""

_SCHEMAS_INTRODUCTION = """\
# Schemas

Everything that is stored is Parquet, JSON or safetensors, and has a schema in [schemas/](../schemas): *datasets* are
Parquet files, *documents* are JSON files. Name and version of its schema travel in the metadata of a Parquet file
(`uniad_ray.schema`, `uniad_ray.schema_version`). Files are checked against their schema when they are written and when
they are read. A version rises by one with every change that an old reader would not understand.

How the files belong together is told in [concepts.md](concepts.md).
"""

_METRICS_INTRODUCTION = "The metrics, from [catalogue.py](../uniad_ray/metrics/catalogue.py):\n"

_OTHER_MODELS: tuple[tuple[str, str, type[BaseModel], str | None], ...] = (
    (
        "Options of a run",
        "What decides the content of a run beside archive and bundles: options of `uniad-ray score`, or a "
        "`ScoreOptions` in Python. A run goes on only with the options that it was started with. The other options of "
        "the verb (`--workers`, `--threads`, `--device`, `--address`) say where it runs and how fast; they may change.",
        ScoreOptions,
        "score",
    ),
    (
        "Settings of the endpoint",
        "What `uniad-ray serve --settings FILE.yaml` reads, `--set KEY=VALUE` changes, and Serve takes as `args` of "
        "`uniad_ray.serving.app:build_app`; see [serve.md](serve.md).",
        ServeSettings,
        None,
    ),
    (
        "Synthetic trays",
        "What `uniad-ray scenes` draws: its options, or a `SceneConfig` in Python.",
        SceneConfig,
        "scenes",
    ),
    (
        "Limits of an image",
        "What one image file may cost at most. `ingest` and `score` use these defaults; other limits can be given in "
        "Python alone, to the functions of `uniad_ray.archive.images`. A file above a limit is refused by `ingest`, "
        "and is an error row of kind `too_large` in `score`.",
        ImageLimits,
        None,
    ),
)


def main() -> None:
    """Writes the pages, or says which of them are stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="Write nothing; exit 1 if a page is stale.")
    check = parser.parse_args().check
    stale = False
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        if check:
            print(f"docs/{name} is stale; run `make docs`", file=sys.stderr)
            stale = True
        else:
            path.write_text(text, "utf-8")
            print(f"docs/{name} written")
    sys.exit(stale)


if __name__ == "__main__":
    main()
