"""Plan and manifest of a caption sidecar: texts of one model to one prompt about the images of an archive."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.archive.formats import read_document
from uniad_ray.archive.kinds import other_kind
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import read_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ArchiveError, ObjectExistsError, SidecarError

PLAN_NAME: Final = "plan.json"
MANIFEST_NAME: Final = "manifest.json"
FORMAT_VERSION: Final = 1

ANSWER_ERRORS: Final = ("empty", "cut", "rejected", "schema")
"""Kinds of errors of an answer; other kinds are those of an image that cannot be decoded."""


class CaptionPlan(StrictModel):
    """Everything that determines the texts of a caption sidecar, apart from the images.

    The archive may grow: the same sidecar then gets further files.

    Attributes:
        format_version: Version of the sidecar's layout.
        engine: `server`, `vllm` or `ray`.
        model: Name or URI of the model.
        model_lineage: Everything about the model that affects its answers.
        model_digest: sha256 of `model_lineage`.
        prompt: Prompt for every image.
        classes: Classes of the structured prompt; empty for free text.
        answer_schema: JSON schema of the answers; empty for free text.
        prompt_digest: sha256 over prompt and schema.
    """

    format_version: int
    engine: str
    model: str
    model_lineage: dict[str, Any]
    model_digest: str
    prompt: str
    classes: tuple[str, ...]
    answer_schema: dict[str, Any]
    prompt_digest: str


class CaptionManifest(StrictModel):
    """A finished caption sidecar.

    Attributes:
        plan: The plan.
        archive: URI of the archive.
        archive_digest: Digest of its content when the sidecar was last finished.
        images: Number of rows; every image has one.
        errors: Number of rows with status `error`, by kind.
        prompt_tokens: Tokens of images and prompts, as far as the engine reports them.
        tokens: Tokens of all answers, as far as the engine reports them.
        seconds: Sum of the seconds of the rows.
        files: sha256 of each file by chunk.
    """

    plan: CaptionPlan
    archive: str
    archive_digest: str
    images: int
    errors: dict[str, int]
    prompt_tokens: int
    tokens: int
    seconds: float
    files: dict[str, str]


def caption_plan(
    engine: str, lineage: Mapping[str, Any], prompt: str, classes: tuple[str, ...], schema: Mapping[str, Any] | None
) -> CaptionPlan:
    """Builds a plan with its digests.

    Args:
        engine: `server`, `vllm` or `ray`.
        lineage: Lineage of the model.
        prompt: Prompt for every image.
        classes: Classes of the structured prompt.
        schema: JSON schema of the answers; None for free text.
    """
    found = dict(lineage)
    weights = found.get("weights") or {}
    # vLLM in an actor and through Ray Data give the same texts.
    decisive = {**found, "weights": weights.get("sha256")} if weights else found
    return CaptionPlan(
        format_version=FORMAT_VERSION,
        engine=engine,
        model=str(weights.get("uri") or found.get("model")),
        model_lineage=found,
        model_digest=_digest(decisive),
        prompt=prompt,
        classes=classes,
        answer_schema=dict(schema or {}),
        prompt_digest=_digest([prompt, schema]),
    )


def adopt_caption_plan(sidecar: Location, plan: CaptionPlan) -> None:
    """Writes the plan of a new sidecar, or checks it against the stored plan.

    Raises:
        SidecarError: The sidecar has captions of another model or prompt, or something else is there.
    """
    if not (sidecar / PLAN_NAME).exists() and (message := other_kind(sidecar, "a caption sidecar")):
        raise SidecarError(message)
    try:
        (sidecar / PLAN_NAME).write_json(plan.model_dump(mode="json"), if_absent=True)
    except ObjectExistsError:
        stored = _read_plan(sidecar)
        differences = [
            name for name in ("model", "prompt") if getattr(stored, f"{name}_digest") != getattr(plan, f"{name}_digest")
        ]
        if differences:
            raise SidecarError(
                f"{sidecar}: has captions of another {' and '.join(differences)} ({stored.model}); use a new --out"
            ) from None


def read_caption_sidecar(sidecar: Location) -> CaptionManifest:
    """Reads the manifest of a finished caption sidecar.

    Raises:
        SidecarError: There is no caption sidecar, it is unfinished, or its manifest is corrupt.
    """
    if not (sidecar / MANIFEST_NAME).exists():
        _read_plan(sidecar)
        raise SidecarError(f"{sidecar}: the sidecar is not finished; repeat the `uniad-ray caption` command")
    return read_document(
        sidecar, MANIFEST_NAME, CaptionManifest, kind="caption sidecar", reads=FORMAT_VERSION, error=SidecarError
    )


def read_captions(sidecar: Location, row_keys: Collection[str]) -> dict[str, str]:
    """Reads the captions of some images, by row key; images without one are left out.

    A structured answer is put into words, such as `2 bolt: top left, middle centre; 1 nut: top right`.

    Raises:
        SidecarError: There is no caption sidecar, it is unfinished, or a file is corrupt.
    """
    manifest = read_caption_sidecar(sidecar)
    schema = dataset_schema("caption_sidecar")
    wanted = pa.array(list(row_keys), pa.string())
    found: dict[str, str] = {}
    for chunk in manifest.files:
        location = sidecar / caption_path(chunk)
        try:
            table = read_table(schema, location, columns=["row_key", "status", "text", "objects"])
        except ArchiveError as error:
            raise SidecarError(str(error)) from error
        rows = table.filter(pc.is_in(table.column("row_key"), value_set=wanted)).to_pylist()
        found |= {row["row_key"]: _in_words(row) for row in rows if row["status"] == "ok"}
    return found


def caption_path(chunk: str) -> str:
    """Path of the captions of a chunk within a sidecar."""
    return f"captions/{chunk}.parquet"


def _in_words(row: Mapping[str, Any]) -> str:
    if row["objects"] is None:
        return str(row["text"])
    said = [f"{one['count']} {one['class']}: {', '.join(one['positions'])}" for one in row["objects"]]
    return "; ".join(said) or "no objects"


def _read_plan(sidecar: Location) -> CaptionPlan:
    if not (sidecar / PLAN_NAME).exists():
        raise SidecarError(
            other_kind(sidecar, "a caption sidecar")
            or f"{sidecar}: no captions there; make some with `uniad-ray caption ARCHIVE --out {sidecar}`"
        )
    if message := other_kind(sidecar, "a caption sidecar"):
        raise SidecarError(message)
    return read_document(
        sidecar, PLAN_NAME, CaptionPlan, kind="caption sidecar", reads=FORMAT_VERSION, error=SidecarError
    )


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
