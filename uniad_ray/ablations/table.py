"""Definition of an ablation table: the fits that it needs and the experts that each row fuses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from uniad_ray.config.loading import load_config
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError

WHOLE = "whole"
"""Name of the variant with the unchanged profile."""

Paper = Literal["uniad", "tmuad"]
RowFusion = Literal["equal", "profile", "tmuad", "own"]


@dataclass(frozen=True)
class AblationRow:
    """One row of a table.

    Attributes:
        settings: Setting of the row in each column.
        experts: Experts to fuse.
        variants: Fitted variants; the row reports the mean over them.
        fusion: Fusion rule. `equal` sums the terms of the profile's `fusion` with equal weights (UniAD, eq. 15);
            `profile` uses its weights; `tmuad` uses `fusions.tmuad`; `own` uses the fusion of the variant's expert set.
        plugged_in: Experts whose evidence is added to the fused score, as a plug-in to any other detector.
    """

    settings: Mapping[str, str]
    experts: tuple[str, ...]
    variants: tuple[str, ...] = (WHOLE,)
    fusion: RowFusion = "equal"
    plugged_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class Addition:
    """Component that a fit adds to the profile.

    Attributes:
        section: Section of the configuration.
        name: Name of the component.
        options: Options, added to those of `like`.
        like: Component of the profile whose class and options it inherits.
        class_path: Class of the component if `like` is None.
    """

    section: Literal["extractors", "experts"]
    name: str
    options: Mapping[str, Any]
    like: str | None = None
    class_path: str | None = None

    def override(self, config: FitConfig) -> str:
        """Returns the override that adds the component to the profile.

        Raises:
            ConfigError: The profile lacks the component `like`.
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


def stored_captions(source: str) -> Addition:
    """Returns the extractor `caption` with the texts of a caption sidecar: an absolute path or a URI."""
    captioner = {"kind": "table", "source": source}
    class_path = "uniad_ray.perception.captions.captioners:CaptionDescriber"
    return Addition("extractors", "caption", {"captioner": captioner}, class_path=class_path)


@dataclass(frozen=True)
class Variant:
    """One fit of a table.

    Attributes:
        overrides: Overrides of the profile, as for `--set`.
        additions: Components to add to the profile.
        experts: Further experts to fit, which lets several tables share the fit.
        expert_set: Expert set of the profile to fit unchanged, with its own fusion.
        category: The only category to fit and score; None uses all.
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
        paper: Paper that defines the table.
        table: Number in the paper.
        title: Title of the table.
        rows: The rows.
        variants: Variants by name.
        has_pixels: Whether the table reports pixel metrics; every row then needs its own run.
        has_costs: Whether the table reports the time per image.
    """

    paper: Paper
    table: int
    title: str
    rows: tuple[AblationRow, ...]
    variants: Mapping[str, Variant] = field(default_factory=lambda: {WHOLE: Variant()})
    has_pixels: bool = False
    has_costs: bool = False

    def experts_of(self, variant: str) -> tuple[str, ...]:
        """Returns the experts to fit for a variant that names no expert set."""
        fused = (name for row in self.rows if variant in row.variants for name in (*row.experts, *row.plugged_in))
        return tuple(dict.fromkeys((*self.variants[variant].experts, *fused)))


def variant_config(plan: Ablation, name: str, profile: str, overrides: Sequence[str]) -> FitConfig:
    """Returns the configuration of one variant of a table.

    Raises:
        ConfigError: The profile lacks a component or expert set of the table, or an override does not apply to it.
    """
    variant = plan.variants[name]
    changed = [*overrides, *variant.overrides]
    for addition in variant.additions:
        changed.append(addition.override(load_config(profile, changed)))
    config = load_config(profile, changed)
    if variant.expert_set is not None:
        if variant.expert_set not in config.expert_sets:
            raise ConfigError(f"profile {profile}: table {plan.table} needs the expert set {variant.expert_set}")
        chosen = load_config(profile, [*changed, f"expert_set={variant.expert_set}"])
        if chosen.chosen_fusion.selection is None:
            return chosen
        # Rows may need experts that the expert selection would not train.
        always = f"fusions.{variant.expert_set}.selection.surface.train_from=0"
        return load_config(profile, [*changed, f"expert_set={variant.expert_set}", always])
    experts = plan.experts_of(name)
    missing = sorted(set(experts) - set(config.experts))
    if missing:
        raise ConfigError(f"profile {profile}: table {plan.table} needs the experts {', '.join(missing)}")
    return load_config(profile, [*changed, f"expert_sets.ablation=[{', '.join(experts)}]", "expert_set=ablation"])


def marks(columns: str, present: str) -> dict[str, str]:
    """Returns the settings of a row, with an x in the present columns; both arguments are comma-separated names."""
    return {name: "x" if name in present.split(", ") else "" for name in columns.split(", ")}
