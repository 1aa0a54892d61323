"""An ablation table before it is filled in: the fits that it needs, and the experts that each row fuses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from uniad_ray.config.loading import load_config
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError

WHOLE = "whole"
"""The variant that is the profile as it is."""

Paper = Literal["uniad", "tmuad"]
RowFusion = Literal["equal", "profile", "tmuad", "own"]


@dataclass(frozen=True)
class AblationRow:
    """One row of a table.

    Attributes:
        settings: What the row has and has not, by column.
        experts: Experts that are fused.
        variants: The fits that give their evidence; the row has the mean over them.
        fusion: `equal` adds the terms of the profile's `fusion` with equal weights (UniAD, eq. 15), `profile` with its
            own, `tmuad` by its `fusions.tmuad`; `own` fuses the variant's expert set as the set says.
        plugged_in: Experts whose evidence is added to the fused score as to that of any other detector.
    """

    settings: Mapping[str, str]
    experts: tuple[str, ...]
    variants: tuple[str, ...] = (WHOLE,)
    fusion: RowFusion = "equal"
    plugged_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class Addition:
    """A component that a fit has beside those of the profile.

    Attributes:
        section: Where it stands.
        name: Its name.
        options: Options that differ from those of the component that it is like.
        like: A component of the profile whose class and options it takes over.
        class_path: Its class, where it is like none.
    """

    section: Literal["extractors", "experts"]
    name: str
    options: Mapping[str, Any]
    like: str | None = None
    class_path: str | None = None

    def override(self, config: FitConfig) -> str:
        """The override of the profile that adds it.

        Raises:
            ConfigError: The profile lacks the component that it is like.
        """
        known = getattr(config, self.section)
        if self.like is None:
            component = {"class": self.class_path, "config": dict(self.options)}
        elif self.like in known:
            base = known[self.like]
            component = {"class": base.class_path, "config": {**base.config, **self.options}}
        else:
            raise ConfigError(f"profile {config.name}: the table needs {self.section}.{self.like}")
        return f"{self.section}.{self.name}={json.dumps(component)}"


@dataclass(frozen=True)
class Variant:
    """One fit.

    Attributes:
        overrides: Overrides of the profile, as for `--set`.
        additions: Components beside those of the profile.
        experts: Experts to fit beside those that the rows fuse, so that tables share the fit.
        expert_set: A set of the profile that is fitted as it is, with its own fusion.
        category: The only category that is fitted and scored; None takes all.
    """

    overrides: tuple[str, ...] = ()
    additions: tuple[Addition, ...] = ()
    experts: tuple[str, ...] = ()
    expert_set: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class Ablation:
    """One table.

    Attributes:
        paper: Whose table it is.
        table: Its number in the paper.
        title: What it shows.
        rows: Its rows.
        variants: The fits by name.
        has_pixels: Whether pixel figures are part of it, for which every row is scored by itself.
        has_costs: Whether the time that an image takes is part of it.
    """

    paper: Paper
    table: int
    title: str
    rows: tuple[AblationRow, ...]
    variants: Mapping[str, Variant] = field(default_factory=lambda: {WHOLE: Variant()})
    has_pixels: bool = False
    has_costs: bool = False

    def experts_of(self, variant: str) -> tuple[str, ...]:
        """The experts to fit for a variant, if it is no set of the profile."""
        fused = (name for row in self.rows if variant in row.variants for name in (*row.experts, *row.plugged_in))
        return tuple(dict.fromkeys((*self.variants[variant].experts, *fused)))


def variant_config(plan: Ablation, name: str, profile: str, overrides: Sequence[str]) -> FitConfig:
    """The configuration of one variant of a table.

    Raises:
        ConfigError: The profile lacks a component or a set of the table, or an override does not fit it.
    """
    variant = plan.variants[name]
    changed = [*overrides, *variant.overrides]
    for addition in variant.additions:
        changed.append(addition.override(load_config(profile, changed)))
    config = load_config(profile, changed)
    if variant.expert_set is not None:
        if variant.expert_set not in config.expert_sets:
            raise ConfigError(f"profile {profile}: table {plan.table} needs the expert set {variant.expert_set}")
        return load_config(profile, [*changed, f"expert_set={variant.expert_set}"])
    experts = plan.experts_of(name)
    missing = sorted(set(experts) - set(config.experts))
    if missing:
        raise ConfigError(f"profile {profile}: table {plan.table} needs the experts {', '.join(missing)}")
    return load_config(profile, [*changed, f"expert_sets.ablation=[{', '.join(experts)}]", "expert_set=ablation"])


def marks(columns: str, present: str) -> dict[str, str]:
    """A row's settings: an x in those columns that it has, both given as names with commas between them."""
    return {name: "x" if name in present.split(", ") else "" for name in columns.split(", ")}
