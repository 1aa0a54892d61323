"""The ablation tables of UniAD as data: the fits that each needs, and the experts that each row fuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from uniad_ray.errors import ConfigError

WHOLE = "whole"
"""The variant that is the profile as it is."""

_STRUCTURAL = ("structural_teacher", "structural_student")
_LOGICAL = ("logical_teacher", "logical_student")
_PAPER = (*_STRUCTURAL, *_LOGICAL, "text")
EXPERTS = (*_PAPER, "relations", "discrepancy")
"""Every expert that some table fuses."""
_STUDENT = "perceivers.student.config"
_LOSSES = f"{_STUDENT}.losses"


@dataclass(frozen=True)
class AblationRow:
    """One row of a table.

    Attributes:
        settings: What the row has and has not, by column.
        experts: Experts that are fused.
        variant: The fit that gives their evidence.
        is_weighted: Whether the profile's weights are used; without them all terms count the same (eq. 15).
    """

    settings: Mapping[str, str]
    experts: tuple[str, ...]
    variant: str = WHOLE
    is_weighted: bool = False


@dataclass(frozen=True)
class Ablation:
    """One table.

    Attributes:
        table: Its number in the paper.
        title: What it shows.
        rows: Its rows.
        overrides: Overrides of the profile, as for `--set`, by variant.
    """

    table: int
    title: str
    rows: tuple[AblationRow, ...]
    overrides: Mapping[str, tuple[str, ...]]

    def experts_of(self, variant: str) -> tuple[str, ...]:
        """The experts to fit for a variant; the profile as it is has all of them, so that the tables share its fit."""
        if variant == WHOLE:
            return EXPERTS
        return tuple(dict.fromkeys(name for row in self.rows if row.variant == variant for name in row.experts))


def ablation(table: int, backbones: tuple[str, ...]) -> Ablation:
    """One of the tables 4 to 9 of UniAD.

    Tables 4 to 6 train other students; tables 7 to 9 fuse the stored evidence of one fit in other ways.

    Args:
        table: Number of the table.
        backbones: Other architectures of the student, for table 4.

    Raises:
        ConfigError: There is no such table.
    """
    tables = {4: _backbones(backbones), 5: _DISTILLED, 6: _TEACHERS, 7: _TEXTS, 8: _BRANCHES, 9: _FUSIONS}
    if table not in tables:
        raise ConfigError(f"--table {table}: there are the tables {', '.join(map(str, sorted(tables)))} of UniAD")
    return tables[table]


def _backbones(names: tuple[str, ...]) -> Ablation:
    same, given, random = "as the teacher", "as the profile says", "random"
    from_scratch = f"{_STUDENT}.initial=null"
    return Ablation(
        4,
        "backbone of the student",
        (
            AblationRow({"backbone": same, "initial weights": given}, _PAPER),
            AblationRow({"backbone": same, "initial weights": random}, _PAPER, variant="from-scratch"),
            *(
                AblationRow({"backbone": name, "initial weights": random}, _PAPER, variant=f"student-{name}")
                for name in names
            ),
        ),
        {
            WHOLE: (),
            "from-scratch": (from_scratch,),
            # Initial weights are those of one architecture.
            **{f"student-{name}": (f"{_STUDENT}.architecture={name}", from_scratch) for name in names},
        },
    )


def _marks(columns: str, present: str) -> dict[str, str]:
    return {name: "x" if name in present.split(", ") else "" for name in columns.split(", ")}


_LEVELS = "low-level, high-level"
_DISTILLED = Ablation(
    5,
    "features that the student learns of the structural teacher",
    (
        AblationRow(_marks(_LEVELS, "low-level"), _PAPER, "low-level"),
        AblationRow(_marks(_LEVELS, "high-level"), _PAPER, "high-level"),
        AblationRow(_marks(_LEVELS, _LEVELS), _PAPER),
    ),
    {"low-level": (f"{_LOSSES}.high=0",), "high-level": (f"{_LOSSES}.low=0",), WHOLE: ()},
)

_TEACHER = "structural teacher, logical teacher"
_TEACHERS = Ablation(
    6,
    "teachers",
    (
        AblationRow(_marks(_TEACHER, "structural teacher"), _STRUCTURAL, "structural-teacher"),
        AblationRow(_marks(_TEACHER, "logical teacher"), (*_LOGICAL, "text"), "logical-teacher"),
        AblationRow(_marks(_TEACHER, _TEACHER), _PAPER),
    ),
    {
        "structural-teacher": (f"{_LOSSES}.logical=0",),
        "logical-teacher": (f"{_LOSSES}.low=0", f"{_LOSSES}.high=0"),
        WHOLE: (),
    },
)

_TEXTS = Ablation(
    7,
    "text score",
    (
        AblationRow({"text": "without"}, (*_STRUCTURAL, *_LOGICAL)),
        AblationRow({"text": "logical branch only"}, (*_LOGICAL, "text")),
        AblationRow({"text": "both branches"}, _PAPER),
    ),
    {WHOLE: ()},
)

_PART = "structural, logical, text, relations, discrepancy, weights"
_BRANCHES = Ablation(
    8,
    "branches; relations, discrepancy and the profile's weights are ours",
    (
        AblationRow(_marks(_PART, "structural"), _STRUCTURAL),
        AblationRow(_marks(_PART, "logical"), _LOGICAL),
        AblationRow(_marks(_PART, "logical, text"), (*_LOGICAL, "text")),
        AblationRow(_marks(_PART, "structural, logical"), (*_STRUCTURAL, *_LOGICAL)),
        AblationRow(_marks(_PART, "structural, logical, text"), _PAPER),
        AblationRow(_marks(_PART, "discrepancy"), ("discrepancy",)),
        AblationRow(_marks(_PART, "relations"), ("relations",)),
        AblationRow(_marks(_PART, "structural, relations"), (*_STRUCTURAL, "relations")),
        AblationRow(_marks(_PART, "structural, logical, relations"), (*_STRUCTURAL, *_LOGICAL, "relations")),
        AblationRow(_marks(_PART, "structural, logical, text, relations"), (*_PAPER, "relations")),
        AblationRow(_marks(_PART, _PART.removesuffix(", weights")), EXPERTS),
        AblationRow(_marks(_PART, _PART), EXPERTS, is_weighted=True),
    ),
    {WHOLE: ()},
)

_SCORE = "structural_teacher, logical_teacher, structural_student, logical_student"
_FUSIONS = Ablation(
    9,
    "scores of teachers and student",
    tuple(
        AblationRow(_marks(_SCORE, ", ".join(names)), names)
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
    {WHOLE: ()},
)
