"""Computes an ablation table of UniAD or TMUAD: fits and scores each variant once, then fuses its experts by row."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uniad_ray.ablations.stage_costs import StageCosts, measure_stages
from uniad_ray.ablations.table import Ablation, AblationRow, Paper, variant_config
from uniad_ray.ablations.table_metrics import TYPES, ScoredVariant, TypeMetrics, by_type, over_fits, row_metrics
from uniad_ray.ablations.tmuad import TmuadTableOptions, tmuad_ablation
from uniad_ray.ablations.uniad import uniad_ablation
from uniad_ray.archive.manifest import ArchiveManifest, chunks, read_manifest
from uniad_ray.archive.naming import safe_segment
from uniad_ray.archive.normal_rows import FITTED_SPLITS
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.config.loading import load_config
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError, RunError
from uniad_ray.evaluation.run import evaluate
from uniad_ray.metrics.metric import ANOMALY_TYPE, MEAN_OF_CATEGORIES
from uniad_ray.pipelines.cluster.session import ray_session
from uniad_ray.pipelines.cluster.sizing import Workers
from uniad_ray.pipelines.fit.job import fit
from uniad_ray.pipelines.score.job import score
from uniad_ray.runs.plan import MANIFEST_NAME, ScoreOptions
from uniad_ray.runs.reader import RunReader
from uniad_ray.scoring.bundles.store import BundleStore

_logger = logging.getLogger(__name__)


class AblationMetrics(StrictModel):
    """Metrics of one row of the table.

    Attributes:
        row: Position in the table, from 0.
        settings: Setting of the row in each column.
        variants: Names of the fitted variants.
        experts: Fused experts.
        image: Image AUROC, mean over the fits.
        deviation: Sample standard deviation of the image AUROC over the fits; None with a single fit.
        pixel: Pixel AUROC; None if the table does not report it.
        milliseconds: Median time per image on one thread, by stage; None if the table does not report it.
        parameters: Number of parameters of the networks, those of vision-language models behind a server left out; None
            if the table does not report it.
        flops: Floating-point operations for one image, as torch counts them; None if the table does not report it.
    """

    row: int
    settings: dict[str, str]
    variants: tuple[str, ...]
    experts: tuple[str, ...]
    image: TypeMetrics
    deviation: TypeMetrics | None = None
    pixel: TypeMetrics | None = None
    milliseconds: dict[str, float] | None = None
    parameters: int | None = None
    flops: int | None = None


class AblationReport(StrictModel):
    """Computed ablation table.

    Attributes:
        paper: Paper that defines the table.
        table: Number in the paper.
        title: Title of the table.
        archive: URI of the archive.
        categories: Categories that the metrics cover.
        rows: The rows.
        path: Parquet file of the rows.
        random_weights: Whether a network had random weights; the metrics are then meaningless.
    """

    paper: Paper
    table: int
    title: str
    archive: str
    categories: tuple[str, ...]
    rows: tuple[AblationMetrics, ...]
    path: str
    random_weights: bool


def ablate(
    archive: str,
    work: str,
    table: int,
    *,
    paper: Paper = "uniad",
    profile: str = "embedded",
    overrides: Sequence[str] = (),
    backbones: Sequence[str] = ("resnet18",),
    captions: str | None = None,
    options: TmuadTableOptions | None = None,
    categories: Sequence[str] | None = None,
    device: str = "auto",
    address: str | None = None,
) -> AblationReport:
    """Computes an ablation table and writes it to `PAPER-table-N.parquet`.

    Variants that `work` already holds are not fitted or scored again.

    Args:
        archive: Root of an archive with labels.
        work: Root of the bundles and runs of all variants.
        table: Number of the table: 4 to 9 of UniAD, 5 to 11 of TMUAD; or 13, figure 13 of TMUAD.
        paper: Paper that defines the table.
        profile: Profile, or YAML file.
        overrides: Overrides of the profile for every variant.
        backbones: Other architectures of the student, for table 4 of UniAD.
        captions: Caption sidecar with UniAD's prompt, for table 7 of UniAD and 6 of TMUAD; None leaves its rows out.
        options: Options of the TMUAD tables.
        categories: Categories; default all.
        device: `cpu`, `cuda` or `auto`.
        address: Ray cluster to join; by default, Ray starts on this machine.

    Raises:
        ArchiveError: The archive cannot be read.
        ConfigError: The table does not exist, the profile lacks a component, or a category has too few images to draw.
        RunError: A category could not be fitted.
        UserError: See `fit` and `score`.
    """
    source = Location.parse(archive)
    manifest = read_manifest(source)  # reports a wrong path before any work starts
    wanted = tuple(sorted(set(categories or manifest.categories)))
    if paper == "uniad":
        plan = uniad_ablation(table, tuple(backbones), load_config(profile, overrides), captions)
    else:
        plan = tmuad_ablation(table, load_config(profile, overrides), wanted, options, captions)
    configs = {name: variant_config(plan, name, profile, overrides) for name in plan.variants}
    for config in configs.values():
        _check_shots(manifest, wanted, config)
    root = Location.parse(work)
    runs = _Runs(source, manifest, root, wanted, device)
    with ray_session(address):
        scored = {}
        for name, config in configs.items():
            category = plan.variants[name].category
            scored[name] = runs.variant(name, config, (category,) if category else wanted, plan.has_pixels)
        pixels = [runs.pixels(row, scored[row.variants[0]]) if plan.has_pixels else None for row in plan.rows]
        costs = {name: runs.costs(each) for name, each in scored.items()} if plan.has_costs else {}
    rows = [
        _metrics(index, row, [scored[name] for name in row.variants], found, costs)
        for index, (row, found) in enumerate(zip(plan.rows, pixels, strict=True))
    ]
    path = root / f"{paper}-table-{table}.parquet"
    _write(path, rows, plan)
    return AblationReport(
        paper=paper,
        table=table,
        title=plan.title,
        archive=source.uri,
        categories=wanted,
        rows=tuple(rows),
        path=path.uri,
        random_weights=any(each.reader.manifest.random_weights for each in scored.values()),
    )


def _check_shots(manifest: ArchiveManifest, categories: Sequence[str], config: FitConfig) -> None:
    """Checks that each category has enough normal images for the draw.

    Raises:
        ConfigError: A category has too few.
    """
    most = config.normal_images.most or 0
    for category in categories:
        labels = manifest.categories[category].labels if category in manifest.categories else {}
        there = sum(labels.get(f"{split}/normal", 0) for split in FITTED_SPLITS) or labels.get("archive/normal", 0)
        if there < most:
            raise ConfigError(f"category {category!r} has {there} normal images, but {most} are drawn; lower --shots")


@dataclass(frozen=True)
class _Runs:
    """Fits and scores variants unless their results exist."""

    archive: Location
    manifest: ArchiveManifest
    work: Location
    categories: Sequence[str]
    device: str

    def variant(self, name: str, config: FitConfig, categories: Sequence[str], with_maps: bool) -> ScoredVariant:
        """Fits and scores one variant, or resumes it; each configuration and archive has its own folder."""
        identity = config.model_dump_json(by_alias=True) + self.manifest.digest
        root = self.work / f"variants/{safe_segment(name)}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
        bundles = root / "bundles"
        # Rows may need experts that the expert selection leaves out of the score.
        experts = config.chosen_experts if config.chosen_fusion.selection is not None else None
        options = ScoreOptions(maps="all" if with_maps else "none", experts=experts)
        store = BundleStore(bundles)
        missing = [category for category in categories if store.pointer(category) is None]
        if missing:
            _logger.info("fitting variant %s", root.name)
            report = fit(
                self.archive.uri,
                bundles.uri,
                config,
                categories=missing,
                device=self.device,
                accept_unusual=True,
                checkpoints=(self.work / "checkpoints").uri,
            )
            if report.failed:
                reasons = "; ".join(f"{category}: {reason}" for category, reason in report.failed.items())
                raise RunError(f"variant {root.name}: {reasons}")
        return ScoredVariant(root, config, self._score(root, "run", categories, options))

    def pixels(self, row: AblationRow, scored: ScoredVariant) -> TypeMetrics:
        """Computes the pixel AUROC of one row from a run with its experts alone."""
        reader = scored.reader
        if set(row.experts) != set(scored.config.chosen_experts):
            options = ScoreOptions(experts=row.experts)
            reader = self._score(scored.root, f"run-{'-'.join(row.experts)}", self.categories, options)
        found: dict[str, list[float]] = {name: [] for name in TYPES}
        for entry in evaluate(reader.location.uri, resamples=0).metrics:
            of_type = entry.group == ANOMALY_TYPE and entry.name in TYPES and entry.category != MEAN_OF_CATEGORIES
            if of_type and entry.metric == "pixel_auroc" and entry.expert is None and entry.value is not None:
                found[entry.name].append(entry.value)
        return by_type(found)

    def costs(self, scored: ScoredVariant) -> StageCosts:
        """Measures the stages of the bundle of the variant's first category."""
        category = min(scored.reader.manifest.categories)
        return measure_stages(self.archive, scored.reader.manifest.plan, category)

    def _score(self, root: Location, name: str, categories: Sequence[str], options: ScoreOptions) -> RunReader:
        run = root / name
        if not (run / MANIFEST_NAME).exists():
            labels = [self.manifest.categories[category].labels for category in categories]
            is_tested = all(any(key.startswith("test/") for key in each) for each in labels)
            splits = ("test",) if is_tested else None
            work = list(chunks(self.manifest, categories=categories, splits=splits))
            score(
                self.archive.uri,
                (root / "bundles").uri,
                run.uri,
                options=options.model_copy(update={"categories": tuple(categories), "splits": splits}),
                # With a single chunk, further actors would load their networks in vain.
                workers=Workers(count=1 if len(work) == 1 else None, device=self.device),
            )
        return RunReader(run)


def _metrics(
    index: int,
    row: AblationRow,
    scored: Sequence[ScoredVariant],
    pixel: TypeMetrics | None,
    costs: Mapping[str, StageCosts],
) -> AblationMetrics:
    found = [row_metrics(row, each.config, each.judged()) for each in scored]
    experts = (*row.experts, *row.plugged_in) or scored[0].config.chosen_experts
    cost = costs.get(row.variants[0])
    return AblationMetrics(
        row=index,
        settings=dict(row.settings),
        variants=row.variants,
        experts=experts,
        image=over_fits(found, np.mean),
        deviation=over_fits(found, lambda values: np.std(values, ddof=1)) if len(found) > 1 else None,
        pixel=pixel,
        milliseconds=None if cost is None else cost.of(experts),
        parameters=None if cost is None else cost.parameters(experts),
        flops=None if cost is None else cost.flops(experts),
    )


def _write(path: Location, rows: Sequence[AblationMetrics], plan: Ablation) -> None:
    schema = dataset_schema("ablation")
    columns: dict[str, list[Any]] = {
        "paper": [plan.paper] * len(rows),
        "table": [plan.table] * len(rows),
        "row": [row.row for row in rows],
        "settings": [[{"name": name, "value": value} for name, value in row.settings.items()] for row in rows],
        "variants": [list(row.variants) for row in rows],
        "experts": [list(row.experts) for row in rows],
        "milliseconds": [
            row.milliseconds and [{"stage": stage, "value": value} for stage, value in row.milliseconds.items()]
            for row in rows
        ],
        "parameters": [row.parameters for row in rows],
        "flops": [row.flops for row in rows],
    }
    for prefix, kind in (("", "image"), ("deviation_", "deviation"), ("pixel_", "pixel")):
        for name in TypeMetrics.model_fields:
            metrics = [getattr(row, kind) for row in rows]
            columns[prefix + name] = [each and getattr(each, name) for each in metrics]
    path.write_bytes(encode_table(schema, schema.table(columns)))
