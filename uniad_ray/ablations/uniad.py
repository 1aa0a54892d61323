"""Definitions of tables 4 to 9 of UniAD: the fits that each needs and the experts that each row fuses."""

from __future__ import annotations

from uniad_ray.ablations.table import WHOLE, Ablation, AblationRow, Addition, Variant, marks, stored_captions
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError

_STRUCTURAL = ("structural_teacher", "structural_student")
_LOGICAL = ("logical_teacher", "logical_student")
_PAPER = (*_STRUCTURAL, *_LOGICAL, "text")
EXPERTS = (*_PAPER, "relations", "discrepancy")
"""Experts that at least one table fuses."""
_STUDENT = "extractors.student.config"
_LOSSES = f"{_STUDENT}.losses"
_WHOLE = {WHOLE: Variant(experts=EXPERTS)}


def uniad_ablation(
    table: int, backbones: tuple[str, ...], config: FitConfig | None = None, captions: str | None = None
) -> Ablation:
    """Returns one of tables 4 to 9 of UniAD.

    Tables 4 to 6 train other students; tables 7 to 9 fuse the stored evidence of a single fit.

    Args:
        table: Number of the table.
        backbones: Other architectures of the student, for table 4.
        config: The profile; table 7 with captions uses its text encoders.
        captions: Caption sidecar, for table 7; None leaves its rows out.

    Raises:
        ConfigError: The table does not exist.
    """
    texts = _texts(config, captions)
    tables = {4: _backbones(backbones), 5: _DISTILLED, 6: _TEACHERS, 7: texts, 8: _BRANCHES, 9: _FUSIONS}
    if table not in tables:
        raise ConfigError(f"--table {table}: unknown table of UniAD; use {', '.join(map(str, sorted(tables)))}")
    return tables[table]


def _backbones(names: tuple[str, ...]) -> Ablation:
    same, given, random = "as the teacher", "as the profile says", "random"
    from_scratch = f"{_STUDENT}.initial=null"
    return Ablation(
        "uniad",
        4,
        "backbone of the student",
        (
            AblationRow({"backbone": same, "initial weights": given}, _PAPER),
            AblationRow({"backbone": same, "initial weights": random}, _PAPER, ("from-scratch",)),
            *(
                AblationRow({"backbone": name, "initial weights": random}, _PAPER, (f"student-{name}",))
                for name in names
            ),
        ),
        {
            **_WHOLE,
            "from-scratch": Variant((from_scratch,)),
            # The profile's initial weights fit one architecture only.
            **{f"student-{name}": Variant((f"{_STUDENT}.architecture={name}", from_scratch)) for name in names},
        },
    )


_LEVELS = "low-level, high-level"
_DISTILLED = Ablation(
    "uniad",
    5,
    "features of the structural teacher that the student learns",
    (
        AblationRow(marks(_LEVELS, "low-level"), _PAPER, ("low-level",)),
        AblationRow(marks(_LEVELS, "high-level"), _PAPER, ("high-level",)),
        AblationRow(marks(_LEVELS, _LEVELS), _PAPER),
    ),
    {
        "low-level": Variant((f"{_LOSSES}.high=0",)),
        "high-level": Variant((f"{_LOSSES}.low=0",)),
        **_WHOLE,
    },
)

_TEACHER = "structural teacher, logical teacher"
_TEACHERS = Ablation(
    "uniad",
    6,
    "teachers",
    (
        AblationRow(marks(_TEACHER, "structural teacher"), _STRUCTURAL, ("structural-teacher",)),
        AblationRow(marks(_TEACHER, "logical teacher"), (*_LOGICAL, "text"), ("logical-teacher",)),
        AblationRow(marks(_TEACHER, _TEACHER), _PAPER),
    ),
    {
        "structural-teacher": Variant((f"{_LOSSES}.logical=0",)),
        "logical-teacher": Variant((f"{_LOSSES}.low=0", f"{_LOSSES}.high=0")),
        **_WHOLE,
    },
)


def _texts(config: FitConfig | None, captions: str | None) -> Ablation:
    """Returns table 7 by describer: none, sentences about the components, and captions if there are some."""
    describers = {"sentences about components": "text"}
    additions: tuple[Addition, ...] = ()
    if captions is not None and config is not None:
        describers["captions"] = "text_captions"
        additions = (stored_captions(captions),)
        if "text_captions" not in config.experts:
            read = {"embedding": "caption_embedding/embedding", "text": "caption/text"}
            additions += (
                Addition("extractors", "caption_embedding", {"text": "caption/text"}, like="text_embedding"),
                Addition("experts", "text_captions", read, like="text"),
            )
        if "text_captions_t5" in config.experts:
            describers["captions, T5"] = "text_captions_t5"
    return Ablation(
        "uniad",
        7,
        "text score by describer",
        (
            AblationRow({"text": "none", "branches": "both"}, (*_STRUCTURAL, *_LOGICAL)),
            *(
                AblationRow({"text": title, "branches": branches}, (*experts, name))
                for title, name in describers.items()
                for branches, experts in (("logical", _LOGICAL), ("both", (*_STRUCTURAL, *_LOGICAL)))
            ),
        ),
        {WHOLE: Variant(additions=additions, experts=EXPERTS)},
    )


_PART = "structural, logical, text, relations, discrepancy, weights"
_BRANCHES = Ablation(
    "uniad",
    8,
    "branches; relations, discrepancy and the profile's weights are ours",
    (
        AblationRow(marks(_PART, "structural"), _STRUCTURAL),
        AblationRow(marks(_PART, "logical"), _LOGICAL),
        AblationRow(marks(_PART, "logical, text"), (*_LOGICAL, "text")),
        AblationRow(marks(_PART, "structural, logical"), (*_STRUCTURAL, *_LOGICAL)),
        AblationRow(marks(_PART, "structural, logical, text"), _PAPER),
        AblationRow(marks(_PART, "discrepancy"), ("discrepancy",)),
        AblationRow(marks(_PART, "relations"), ("relations",)),
        AblationRow(marks(_PART, "structural, relations"), (*_STRUCTURAL, "relations")),
        AblationRow(marks(_PART, "structural, logical, relations"), (*_STRUCTURAL, *_LOGICAL, "relations")),
        AblationRow(marks(_PART, "structural, logical, text, relations"), (*_PAPER, "relations")),
        AblationRow(marks(_PART, _PART.removesuffix(", weights")), EXPERTS),
        AblationRow(marks(_PART, _PART), EXPERTS, fusion="profile"),
    ),
    _WHOLE,
)

_SCORE = "structural_teacher, logical_teacher, structural_student, logical_student"
_FUSIONS = Ablation(
    "uniad",
    9,
    "scores of teachers and student",
    tuple(
        AblationRow(marks(_SCORE, ", ".join(names)), names)
        for names in (
            ("structural_teacher",),
            ("logical_teacher",),
            ("structural_student",),
            ("logical_student",),
            ("structural_teacher", "logical_teacher"),
            ("structural_student", "logical_student"),
            (*_STRUCTURAL, *_LOGICAL),
        )
    ),
    _WHOLE,
)
