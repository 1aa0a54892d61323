"""Definitions of tables V to XI and figure 13 of TMUAD: the fits that each needs, and the experts of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import Field

from uniad_ray.ablations.table import WHOLE, Ablation, AblationRow, Addition, Variant, marks, stored_captions
from uniad_ray.ablations.uniad import EXPERTS as UNIAD
from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError

_TEXT, _OBJECT, _PATCH = "text_memory", "object", "patch"
_MEMORIES = (_TEXT, _OBJECT, _PATCH)
_AS_PRINTED = ("text_classes", _OBJECT, "patch_clusters")
_CLUSTERS: Final = (25, 50, 100, 300, 500, 1000)
_CORESETS: Final = (500, 2000)


class TmuadTableOptions(StrictModel):
    """Options of tables 10 and 11.

    Attributes:
        shots: Numbers of normal images in table 10.
        draws: Number of random draws for each number of images.
        clip_for_all: URI of a CLIP tuned on the objects of all categories, for table 11.
        clip_for_each: URI of a CLIP tuned for each category, with the placeholder `{category}`, for table 11.
    """

    shots: tuple[int, ...] = Field(default=(1, 2, 4, 8, 16), min_length=1)
    draws: int = Field(default=3, ge=1, le=100)
    clip_for_all: str | None = None
    clip_for_each: str | None = Field(default=None, pattern=r".*\{category\}.*")


def tmuad_ablation(
    table: int,
    config: FitConfig,
    categories: Sequence[str],
    options: TmuadTableOptions | None = None,
    captions: str | None = None,
) -> Ablation:
    """Returns one of tables 5 to 11 of TMUAD, or its figure 13; tables 8 and 9 compare the networks of the profile.

    Args:
        table: Number of the table.
        config: The profile.
        categories: Categories to fit and score.
        options: Options of tables 10 and 11.
        captions: Caption sidecar, for table 6; None leaves its rows out.

    Raises:
        ConfigError: The table does not exist, or the profile lacks a component.
    """
    chosen = options or TmuadTableOptions()
    has_clip = "clip" in config.extractors
    tables = {
        5: lambda: _BANKS,
        6: lambda: _matching(config, captions),
        7: lambda: _PLUG_AND_PLAY,
        8: lambda: _objects_of_networks(config) if has_clip else _objects_of_components(),
        9: lambda: _encoders(_paper_encoders(config) if has_clip else _EMBEDDED_ENCODERS),
        10: lambda: _few_shots(chosen),
        11: lambda: _costs(config, categories, chosen),
        13: lambda: _POSITIONS,
    }
    if table not in tables:
        raise ConfigError(f"--table {table}: unknown table of TMUAD; use {', '.join(map(str, sorted(tables)))}")
    return tables[table]()


_BANK = "text, object, patch, fusion"
_BANKS = Ablation(
    "tmuad",
    5,
    "memory banks; fused as calibrated, or raw as printed (eq. 5)",
    (
        *(
            AblationRow({**marks(_BANK, present), "fusion": "calibrated"}, experts, fusion="tmuad")
            for present, experts in (
                ("text", (_TEXT,)),
                ("object", (_OBJECT,)),
                ("patch", (_PATCH,)),
                ("object, patch", (_OBJECT, _PATCH)),
                ("text, object, patch", _MEMORIES),
            )
        ),
        AblationRow({**marks(_BANK, "text, object, patch"), "fusion": "eq. 5"}, _AS_PRINTED, ("paper",), "own"),
    ),
    {WHOLE: Variant(expert_set="tmuad"), "paper": Variant(expert_set="tmuad-paper")},
    has_pixels=True,
)


def _matching(config: FitConfig, captions: str | None) -> Ablation:
    """Returns table 6: captions and descriptions compared as whole texts, and descriptions class by class."""
    memory = _described(config)
    description = str(config.experts[memory].config["text"]) if memory in config.experts else ""
    texts = {"description": description, **({"caption": "caption/text"} if captions else {})}
    additions = [stored_captions(captions)] if captions else []
    rows = []
    for text, field in texts.items():
        for number, (encoder, of_encoder) in enumerate(_text_encoders(config).items(), start=1):
            name = f"{text}_embedding_{number}"
            options = {"embedding": f"{name}/embedding", "text": None, "neighbour_space": "text"}
            additions += [
                Addition("extractors", name, {**of_encoder.options, "text": field}, like=of_encoder.like),
                Addition("experts", f"text_{name}", options, like="text"),
            ]
            settings = {"text": text, "matching": f"whole text, cosine of {encoder}", "weighting": ""}
            rows.append(AblationRow(settings, (f"text_{name}",)))
    memories: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("text_whole", "whole text, 1 - Gestalt ratio", {"image_score": "gestalt"}),
        ("text_relaxed", "class by class, categories alone", {"matching": "relaxed", "weighting": "rarity"}),
        ("text_equal", "class by class", {"matching": "strict", "weighting": "equal"}),
        ("text_rarity", "class by class", {"matching": "strict", "weighting": "rarity"}),
    )
    for name, matching, changed in memories:
        settings = {"text": "description", "matching": matching, "weighting": changed.get("weighting", "")}
        rows.append(AblationRow(settings, (name,)))
        additions.append(Addition("experts", name, changed, like=memory))
    return Ablation(
        "tmuad",
        6,
        "matching of texts; the text memory alone",
        tuple(rows),
        {WHOLE: Variant(additions=tuple(additions))},
    )


def _described(config: FitConfig) -> str:
    """Returns the text memory of the profile: of objects from a list of classes, if it has one."""
    has_classes = bool(config.classes) and "text_classes_grid" in config.experts
    return "text_classes_grid" if has_classes else _TEXT


class _TextEncoder(NamedTuple):
    """An encoder like an extractor of the profile, with other options."""

    like: str
    options: Mapping[str, Any]


def _text_encoders(config: FitConfig) -> dict[str, _TextEncoder]:
    """Returns the text encoders of the profile by title; of `paper`, those of the paper's table too."""
    if "caption_t5" not in config.extractors:
        return {"embeddings": _TextEncoder("text_embedding", {})}
    clip = {"weights": config.extractors["object_features"].config["weights"]}
    return {
        "CLIP embeddings": _TextEncoder("text_embedding", clip),
        "Long-CLIP embeddings": _TextEncoder("text_embedding", {}),
        "T5 embeddings": _TextEncoder("caption_t5", {}),
    }


_POSITIONS = Ablation(
    "tmuad",
    13,
    "positions by a vision-language model, or by the 3 x 3 grid (figure 13)",
    tuple(
        AblationRow({"experts": title, "positions": positions}, (memory, *others), fusion="equal")
        for title, others in (("text memory", ()), ("TMUAD", (_OBJECT, "patch_clusters")))
        for positions, memory in (("grid", "text_classes_grid"), ("VLM", "text_classes"))
    ),
)

_PLUG_AND_PLAY = Ablation(
    "tmuad",
    7,
    "the text memory plugged into other detectors",
    (
        AblationRow({"detector": "patch memory", "text memory": ""}, (_PATCH,)),
        AblationRow({"detector": "patch memory", "text memory": "x"}, (_PATCH,), plugged_in=(_TEXT,)),
        AblationRow({"detector": "UniAD", "text memory": ""}, UNIAD, fusion="profile"),
        AblationRow({"detector": "UniAD", "text memory": "x"}, UNIAD, fusion="profile", plugged_in=(_TEXT,)),
        AblationRow({"detector": "TMUAD", "text memory": "x"}, _MEMORIES, fusion="tmuad"),
        AblationRow({"detector": "fused set", "text memory": "selected"}, (), fusion="own"),
    ),
    {WHOLE: Variant(expert_set="fused")},
)


def _object_memory(
    number: int,
    segmenter: str,
    encoder: str,
    segments: str,
    features: Addition,
    *others: Addition,
) -> tuple[AblationRow, tuple[Addition, ...]]:
    """Returns a row of table 8 and the components that it needs."""
    name = f"object_{number}"
    options = {"segments": segments, "vectors": f"{features.name}/vectors"}
    additions = (*others, features, Addition("experts", name, options, like=_OBJECT))
    return AblationRow({"segmenter": segmenter, "encoder": encoder}, (name,)), additions


def _object_table(memories: Sequence[tuple[AblationRow, tuple[Addition, ...]]]) -> Ablation:
    additions = {addition.name: addition for _, each in memories for addition in each}
    return Ablation(
        "tmuad",
        8,
        "segmenter and encoder of the object memory, alone",
        tuple(row for row, _ in memories),
        {WHOLE: Variant(additions=tuple(additions.values()))},
    )


def _objects_of_components() -> Ablation:
    """Returns table 8 for segments by colour, as in the embedded profile."""
    every = "all labels, heaps cut"
    segmenters: Mapping[str, Mapping[str, Any]] = {
        "one set of labels": {"most_sets": 1, "necks": []},
        "all labels": {"necks": []},
        every: {},
    }
    encoders = {
        "levels 2 and 3": ["pyramid/level2", "pyramid/level3"],
        "level 2": ["pyramid/level2"],
        "level 3": ["pyramid/level3"],
        "logical network": ["logical/level3"],
    }
    memories: list[tuple[AblationRow, tuple[Addition, ...]]] = []
    pairs = [(name, "levels 2 and 3") for name in segmenters]
    pairs += [(every, name) for name in list(encoders)[1:]]
    for number, (segmenter, encoder) in enumerate(pairs, start=1):
        parts = Addition(
            "extractors",
            f"segmenter_{list(segmenters).index(segmenter) + 1}",
            segmenters[segmenter],
            like="segmenter",
        )
        segments = f"{parts.name}/segments"
        options = {"segments": segments, "fields": encoders[encoder]}
        features = Addition("extractors", f"features_{number}", options, like="object_features")
        memories.append(_object_memory(number, segmenter, encoder, segments, features, parts))
    return _object_table(memories)


def _objects_of_networks(config: FitConfig) -> Ablation:
    """Returns table 8 for segments of SAM, and of Grounded SAM if the profile lists classes."""
    segmenters = {"SAM": "sam/segments"}
    if config.classes or config.extractors["grounded_sam"].config.get("classes"):
        segmenters["Grounded SAM"] = "grounded_sam/segments"
    memories: list[tuple[AblationRow, tuple[Addition, ...]]] = []
    for segmenter, segments in segmenters.items():
        number = len(memories) + 1
        clip = Addition("extractors", f"features_{number}", {"segments": segments}, like="object_features")
        dinov2 = Addition(
            "extractors",
            f"features_{number + 1}",
            {"segments": segments, "fields": _fields(config, "dinov2")[-1:]},
            class_path="uniad_ray.perception.objects.features:ObjectFeatures",
        )
        memories += [
            _object_memory(number, segmenter, "CLIP", segments, clip),
            _object_memory(number + 1, segmenter, "DINOv2, mean of patches", segments, dinov2),
        ]
    return _object_table(memories)


_EMBEDDED_ENCODERS: Mapping[str, Sequence[str]] = {
    "pyramid": ("pyramid/level2", "pyramid/level3"),
    "logical network": ("logical/level3",),
    "pyramid and logical network": ("pyramid/level2", "pyramid/level3", "logical/level3"),
}


def _fields(config: FitConfig, network: str) -> list[str]:
    """Returns the fields of a vision transformer of the profile, shallow to deep."""
    return [f"{network}/block{block}" for block in config.extractors[network].config["blocks"]]


def _paper_encoders(config: FitConfig) -> Mapping[str, Sequence[str]]:
    clip, dinov2 = _fields(config, "clip"), _fields(config, "dinov2")
    return {"DINOv2": dinov2, "CLIP": clip, "DINOv2 and CLIP": [*clip, *dinov2]}


def _encoders(fields: Mapping[str, Sequence[str]]) -> Ablation:
    """Returns table 9, with one patch memory for each encoder."""
    names = {encoder: f"patch_{number}" for number, encoder in enumerate(fields, start=1)}
    return Ablation(
        "tmuad",
        9,
        "encoders of the patch memory, alone",
        tuple(AblationRow({"encoder": encoder}, (name,)) for encoder, name in names.items()),
        {
            WHOLE: Variant(
                additions=tuple(
                    Addition("experts", name, {"fields": list(fields[encoder])}, like=_PATCH)
                    for encoder, name in names.items()
                )
            )
        },
    )


def _few_shots(options: TmuadTableOptions) -> Ablation:
    """Returns table 10, with a fit for each number of images and each draw; larger draws contain the smaller ones."""
    rows: list[AblationRow] = []
    variants: dict[str, Variant] = {}
    relaxed = "text_relaxed"
    for shots in options.shots:
        drawn = [f"{shots}-shot-draw-{draw}" for draw in range(options.draws)]
        fused = [f"{name}-fused" for name in drawn]
        for draw, (name, name_fused) in enumerate(zip(drawn, fused, strict=True)):
            images = (f"normal_images.most={shots}", f"normal_images.draw={draw}")
            addition = Addition("experts", relaxed, {"matching": "relaxed"}, like=_TEXT)
            variants[name] = Variant(images, (addition,))
            variants[name_fused] = Variant(images, expert_set="fused-teacher")
        rows += [
            AblationRow({"shots": str(shots), "experts": title}, experts, tuple(drawn), "tmuad")
            for title, experts in (
                ("text memory, strict", (_TEXT,)),
                ("text memory, relaxed", (relaxed,)),
                ("patch memory", (_PATCH,)),
                ("TMUAD, strict", _MEMORIES),
                ("TMUAD, relaxed", (relaxed, _OBJECT, _PATCH)),
            )
        ]
        rows.append(AblationRow({"shots": str(shots), "experts": "fused, no student"}, (), tuple(fused), "own"))
    return Ablation("tmuad", 10, "few shots: mean over draws", tuple(rows), variants)


def _costs(config: FitConfig, categories: Sequence[str], options: TmuadTableOptions) -> Ablation:
    """Returns table 11 (and figure 18): quality and time against the size of the patch memory's bank."""
    banks = [("kmeans", size) for size in _CLUSTERS] + [("coreset", size) for size in _CORESETS]
    additions = [
        Addition("experts", f"patch_{selection}_{size}", {"selection": selection, "memory_size": size}, like=_PATCH)
        for selection, size in banks
    ]
    tuned = _tuned_clips(categories, options)
    no_clip = {"CLIP": ""} if tuned else {}
    rows = [
        AblationRow(
            {"experts": title, "bank": selection, "vectors": str(size), **no_clip},
            (*others, f"patch_{selection}_{size}"),
            fusion="tmuad",
        )
        for title, others in (("patch memory", ()), ("TMUAD", (_TEXT, _OBJECT)))
        for selection, size in banks
    ]
    variants = {WHOLE: Variant(additions=tuple(additions))}
    for title, clips in tuned.items():
        namer = config.extractors.get("named_objects")
        if namer is None or not (config.classes or namer.config.get("classes")):
            raise ConfigError(
                f"profile {config.name}: a tuned CLIP needs a list of classes; set "
                "extractors.named_objects.config.classes, or classes, as in the profile paper"
            )
        variants |= {name: _with_clip(uri, category) for name, (uri, category) in clips.items()}
        settings = {"experts": "TMUAD", "bank": "as the profile", "vectors": "", "CLIP": title}
        rows.append(AblationRow(settings, _MEMORIES, tuple(clips), "tmuad"))
    return Ablation("tmuad", 11, "cost against the size of the bank", tuple(rows), variants, has_costs=True)


def _tuned_clips(categories: Sequence[str], options: TmuadTableOptions) -> dict[str, dict[str, tuple[str, str | None]]]:
    """Returns the URI and category of each tuned CLIP, by title and variant."""
    found: dict[str, dict[str, tuple[str, str | None]]] = {}
    if options.clip_for_all is not None:
        found["one for all categories"] = {"clip-for-all": (options.clip_for_all, None)}
    if options.clip_for_each is not None:
        uri = options.clip_for_each
        found["one for each category"] = {
            f"clip-for-{name}": (uri.replace("{category}", name), name) for name in categories
        }
    return found


def _with_clip(uri: str, category: str | None) -> Variant:
    """Returns a fit that names objects with a tuned CLIP; the object memory keeps the original CLIP."""
    segments = "named_objects/segments"
    return Variant(
        (
            *(f"extractors.{name}.config.weights={{uri: '{uri}'}}" for name in ("named_features", "named_objects")),
            f"extractors.object_description.config.segments={segments}",
            f"experts.text_memory.config.segments={segments}",
        ),
        category=category,
    )
