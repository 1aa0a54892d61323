"""Which fields each stage of a sidecar stores, and the extractors that give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uniad_ray.config.model import FitConfig
from uniad_ray.errors import BundleError, SidecarError
from uniad_ray.experts.base import Expert
from uniad_ray.perception.base import TrainedExtractor
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.bundles.published import PlannedBundle
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of
from uniad_ray.sidecars.encoding import STAGES, Stage, stage_of
from uniad_ray.sidecars.fingerprints import feature_fingerprints
from uniad_ray.sidecars.plan import CategoryPlan, SidecarPlan


@dataclass(frozen=True)
class CategoryPipeline:
    """What extracts the images of one category.

    Attributes:
        config: The fit configuration.
        experts: The experts that take part, not fitted; only their needs matter.
        pipeline: The extractors behind them; those that learn are restored from a bundle, or left unfitted.
        digests: Digests of the fields that it can extract.
    """

    config: FitConfig
    experts: Mapping[str, Expert]
    pipeline: PerceptionPipeline
    digests: Mapping[str, str]

    @classmethod
    def unfitted(cls, config: FitConfig, *, device: str) -> CategoryPipeline:
        """The extractors of a configuration.

        Raises:
            ConfigError: A component's options are wrong.
            WeightsError: A network's weights cannot be found.
        """
        experts = build_experts(config)
        pipeline = build_pipeline(config, needs_of(experts), device=device)
        return cls(config, experts, pipeline, feature_fingerprints(pipeline, config.input_size, {}))

    @classmethod
    def restored(cls, store: BundleStore, category: str, planned: PlannedBundle, *, device: str) -> CategoryPipeline:
        """The extractors of a bundle.

        Raises:
            BundleError: The bundle is missing, damaged, or not the planned one.
            WeightsError: A network's weights cannot be found, or are not those of the fit.
        """
        bundle = store.load(category, planned.version)
        if bundle.manifest.digest != planned.digest:
            raise BundleError(f"{store.root}: bundle {category} {planned.version} was changed; publish or fit it again")
        config = bundle.manifest.config
        experts = build_experts(config, only=bundle.manifest.taking_part)
        pipeline = bundle.pipeline(needs_of(experts), device=device)
        return cls(config, experts, pipeline, feature_fingerprints(pipeline, config.input_size, bundle.state_digests))

    def plan(self, stages: Sequence[Stage] | None, bundle: PlannedBundle | None) -> CategoryPlan:
        """Chooses the fields to store.

        Args:
            stages: Stages to store; None takes those that can be extracted.
            bundle: Where what is learned comes from.

        Raises:
            SidecarError: A stage that was asked for has fields, but none that can be extracted without a bundle.
        """
        fields: dict[Stage, dict[str, str]] = {}
        for stage in (stage for stage in STAGES if stages is None or stage in stages):
            members = [name for name in self._candidates() if stage_of(name) == stage]
            known = {name: self.digests[name] for name in members if name in self.digests}
            if known:
                fields[stage] = known
            elif members and stages is not None:
                raise SidecarError(
                    f"{', '.join(members)}: learned from normal images; fit first, then give --bundles, or leave "
                    f"{stage} out of --stages"
                )
        stored = frozenset(name for members in fields.values() for name in members)
        return CategoryPlan(
            bundle=bundle,
            input_size=self.config.input_size,
            extractors=self.pipeline.lineage(stored),
            fields=fields,
        )

    def _candidates(self) -> Sequence[str]:
        """All segments and texts that somebody needs; of the tensors, which take more room than time, fewer.

        Those that an expert needs, or that a fit starts from; and not those that are computed from segments or texts.
        """
        pipeline = self.pipeline
        of_experts = frozenset(need for expert in self.experts.values() for need in expert.needs)
        learned = frozenset(name for extractor in pipeline.dependent for name in extractor.provides)
        of_fit = frozenset(
            need
            for extractor in pipeline.dependent
            for need in extractor.needs
            | (extractor.training_needs & pipeline.provides if isinstance(extractor, TrainedExtractor) else set())
        )
        needed = of_experts.union(*(extractor.needs for extractor in pipeline.extractors))

        def is_candidate(name: str) -> bool:
            if stage_of(name) != "features":
                return True
            behind = pipeline.extractors_for(frozenset({name}))
            needs_tensors_alone = all(stage_of(need) == "features" for one in behind for need in one.needs)
            return needs_tensors_alone and name in of_experts | (of_fit - learned)

        return sorted(filter(is_candidate, needed | of_fit))


def load_pipeline(plan: SidecarPlan, category: str, device: str) -> CategoryPipeline:
    """What extracts the images of a category that a plan names.

    Raises:
        UserError: As `CategoryPipeline.unfitted` and `CategoryPipeline.restored`.
    """
    bundle = plan.categories[category].bundle
    if bundle is not None and plan.bundle_root is not None:
        return CategoryPipeline.restored(BundleStore(plan.bundle_root), category, bundle, device=device)
    if plan.config is None:
        raise SidecarError(f"the plan has neither a bundle nor a configuration for {category}; choose another --out")
    return CategoryPipeline.unfitted(plan.config.with_origin("the plan"), device=device)
