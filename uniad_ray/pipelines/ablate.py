"""Fills in an ablation table of UniAD on an archive: fits and scores each variant once, then fuses row by row."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import numpy as np

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.naming import safe_segment
from uniad_ray.archive.object_store import Location
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table
from uniad_ray.config.base import StrictModel
from uniad_ray.config.loading import load_config
from uniad_ray.config.model import FitConfig, FusionConfig
from uniad_ray.errors import ConfigError, RunError
from uniad_ray.metrics.image import image_auroc
from uniad_ray.metrics.metric import ANOMALY_TYPE
from uniad_ray.pipelines.ablations import Ablation, AblationRow, ablation
from uniad_ray.pipelines.cohorts import Cohort, cohorts
from uniad_ray.pipelines.fit import fit
from uniad_ray.pipelines.ray_session import ray_session
from uniad_ray.pipelines.run_plan import MANIFEST_NAME, ScoreOptions
from uniad_ray.pipelines.run_reader import RunReader
from uniad_ray.pipelines.score import Workers, score
from uniad_ray.scoring.bundle_store import BundleStore
from uniad_ray.scoring.calibration_scores import FILE_NAME as CALIBRATION_SCORES
from uniad_ray.scoring.calibration_scores import decode_calibration_scores
from uniad_ray.scoring.fusion import Fusion

_logger = logging.getLogger(__name__)

TYPES = ("logical", "structural")


class AblationFigures(StrictModel):
    """One row of the table, filled in.

    Attributes:
        row: Position in the table, from 0.
        settings: What the row has and has not, by column.
        variant: The fit that gave the evidence.
        experts: Experts that were fused.
        logical: Mean image AUROC over the categories on logical anomalies, or None where there are none.
        structural: The same on structural ones.
        mean: Mean of the two, where both are there.
    """

    row: int
    settings: dict[str, str]
    variant: str
    experts: tuple[str, ...]
    logical: float | None
    structural: float | None
    mean: float | None


class AblationReport(StrictModel):
    """A filled table.

    Attributes:
        table: Number in the paper.
        title: What it shows.
        archive: URI of the archive.
        categories: Categories behind the figures.
        rows: The rows.
        path: Parquet file that holds them.
        random_weights: Whether a network had random weights, so that the figures say nothing of quality.
    """

    table: int
    title: str
    archive: str
    categories: tuple[str, ...]
    rows: tuple[AblationFigures, ...]
    path: str
    random_weights: bool


def ablate(
    archive: str,
    work: str,
    table: int,
    *,
    profile: str = "embedded",
    overrides: Sequence[str] = (),
    backbones: Sequence[str] = ("resnet18",),
    categories: Sequence[str] | None = None,
    device: str = "auto",
    address: str | None = None,
) -> AblationReport:
    """Fits and scores what a table needs and is not there yet, fuses its rows, and writes `table-N.parquet`.

    Args:
        archive: Root of an archive with labels.
        work: Root of the bundles and runs of all variants; the same root again fits nothing twice.
        table: Number of the table, 4 to 9.
        profile: Profile, or YAML file.
        overrides: Overrides of the profile for every variant.
        backbones: Other architectures of the student, for table 4.
        categories: Categories; default all.
        device: `cpu`, `cuda` or `auto`.
        address: Ray cluster to join; default is a Ray on this machine.

    Raises:
        ArchiveError: The archive cannot be read.
        ConfigError: There is no such table, or the profile lacks an expert of it.
        RunError: A category could not be fitted.
        UserError: As of `fit` and `score`.
    """
    source = Location.parse(archive)
    read_manifest(source)  # a wrong path is said before anything starts
    plan = ablation(table, tuple(backbones))
    configs = {name: variant_config(plan, name, profile, overrides) for name in plan.overrides}
    root = Location.parse(work)
    with ray_session(address):
        readers = {
            name: _run(archive, _variant_root(root, name, config), config, categories, device)
            for name, config in configs.items()
        }
    rows = [_figures(index, row, readers[row.variant], configs[row.variant]) for index, row in enumerate(plan.rows)]
    path = root / f"table-{table}.parquet"
    _write(path, rows, table)
    return AblationReport(
        table=table,
        title=plan.title,
        archive=source.uri,
        categories=tuple(sorted(next(iter(readers.values())).manifest.categories)),
        rows=tuple(rows),
        path=path.uri,
        random_weights=any(reader.manifest.random_weights for reader in readers.values()),
    )


def variant_config(plan: Ablation, variant: str, profile: str, overrides: Sequence[str]) -> FitConfig:
    """The configuration of one variant of a table.

    Raises:
        ConfigError: The profile lacks an expert of the table, or an override does not fit it.
    """
    config = load_config(profile, [*overrides, *plan.overrides[variant]])
    experts = plan.experts_of(variant)
    missing = sorted(set(experts) - set(config.experts))
    if missing:
        raise ConfigError(f"profile {profile}: table {plan.table} needs the experts {', '.join(missing)}")
    chosen = [f"expert_sets.ablation=[{', '.join(experts)}]", "expert_set=ablation"]
    return load_config(profile, [*overrides, *plan.overrides[variant], *chosen])


def _variant_root(work: Location, variant: str, config: FitConfig) -> Location:
    """Where a variant's bundles and run are; another configuration goes elsewhere."""
    digest = hashlib.sha256(config.model_dump_json(by_alias=True).encode()).hexdigest()[:8]
    return work / f"variants/{safe_segment(variant)}-{digest}"


def _run(archive: str, root: Location, config: FitConfig, categories: Sequence[str] | None, device: str) -> RunReader:
    """Fits and scores one variant, or finds it done."""
    bundles, run = root / "bundles", root / "run"
    if not (run / MANIFEST_NAME).exists():
        _logger.info("fitting variant %s", root.name)
        report = fit(archive, bundles.uri, config, categories=categories, device=device, accept_unusual=True)
        if report.failed:
            reasons = "; ".join(f"{category}: {reason}" for category, reason in report.failed.items())
            raise RunError(f"variant {root.name}: {reasons}")
        options = ScoreOptions(maps="none", categories=tuple(categories) if categories else None)
        score(archive, bundles.uri, run.uri, options=options, workers=Workers(device=device))
    return RunReader(run)


def _figures(index: int, row: AblationRow, reader: RunReader, config: FitConfig) -> AblationFigures:
    values: dict[str, list[float]] = {name: [] for name in TYPES}
    store = BundleStore(reader.manifest.plan.bundle_root)
    for cohort in cohorts(reader):
        bundle = store.load(cohort.category, reader.manifest.plan.bundles[cohort.category].version)
        held_out = decode_calibration_scores(bundle.files[CALIBRATION_SCORES]).raw
        rule = config.fusion if row.is_weighted else FusionConfig(groups=config.fusion.groups)
        fusion = Fusion.fit(rule, {name: held_out[name] for name in row.experts})
        calibrations = bundle.manifest.calibration.experts
        raw = {
            name: cohort.experts[name] * calibrations[name].deviation + calibrations[name].mean for name in row.experts
        }
        for name, value in _auroc_by_type(cohort, fusion.fuse_scores(raw)).items():
            values[name].append(value)
    logical, structural = (float(np.mean(values[name])) if values[name] else None for name in TYPES)
    return AblationFigures(
        row=index,
        settings=dict(row.settings),
        variant=row.variant,
        experts=row.experts,
        logical=logical,
        structural=structural,
        mean=(logical + structural) / 2 if logical is not None and structural is not None else None,
    )


def _auroc_by_type(cohort: Cohort, scores: np.ndarray) -> dict[str, float]:
    found = {}
    for group in cohort.groups():
        if group.group == ANOMALY_TYPE and group.name in TYPES:
            value = image_auroc(cohort.anomalous[group.members], scores[group.members])
            if value is not None:
                found[group.name] = value
    return found


def _write(path: Location, rows: Sequence[AblationFigures], number: int) -> None:
    schema = dataset_schema("ablation")
    table = schema.table(
        {
            "table": [number] * len(rows),
            "row": [row.row for row in rows],
            "settings": [[{"name": name, "value": value} for name, value in row.settings.items()] for row in rows],
            "variant": [row.variant for row in rows],
            "experts": [list(row.experts) for row in rows],
            "logical": [row.logical for row in rows],
            "structural": [row.structural for row in rows],
            "mean": [row.mean for row in rows],
        }
    )
    path.write_bytes(encode_table(schema, table))
