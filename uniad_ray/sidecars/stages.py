"""Choose the fields that each stage of a sidecar stores, and build the extractors behind them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    """Extractors of one category, and the fields that they can extract.

    Attributes:
        config: The fit configuration.
        experts: The experts to fuse, unfitted; only their needs are used.
        pipeline: The extractors behind them; learned ones are restored from a bundle or left unfitted.
        digests: Digest of each field that the pipeline can extract.
    """

    config: FitConfig
    experts: Mapping[str, Expert]
    pipeline: PerceptionPipeline
    digests: Mapping[str, str]

    @classmethod
    def unfitted(cls, config: FitConfig, *, device: str, fields: Collection[str] | None = None) -> CategoryPipeline:
        """Build the extractors of a configuration with the image size of the category.

        Args:
            config: The fit configuration.
            device: Torch device.
            fields: The only fields to extract; None takes those that the experts need.

        Raises:
            ConfigError: The options of a component are invalid.
            WeightsError: Weights of a network are missing.
        """
        experts = build_experts(config)
        pipeline = build_pipeline(config, _asked(experts, fields), device=device, check_unused=fields is None)
        return cls(config, experts, pipeline, feature_fingerprints(pipeline, config.decoded_size, {}))

    @classmethod
    def restored(
        cls,
        store: BundleStore,
        category: str,
        planned: PlannedBundle,
        *,
        device: str,
        fields: Collection[str] | None = None,
    ) -> CategoryPipeline:
        """Restore the extractors of a bundle; the arguments are those of `unfitted`.

        Raises:
            BundleError: The bundle is missing, corrupt, or not the planned one.
            WeightsError: Weights are missing or differ from those of the fit.
        """
        bundle = store.load(category, planned.version)
        if bundle.manifest.digest != planned.digest:
            raise BundleError(f"{store.root}: bundle {category} {planned.version} was changed; publish or fit it again")
        config = bundle.manifest.config
        experts = build_experts(config, only=bundle.manifest.taking_part)
        pipeline = bundle.pipeline(_asked(experts, fields), device=device)
        return cls(config, experts, pipeline, feature_fingerprints(pipeline, config.decoded_size, bundle.state_digests))

    def plan(self, stages: Sequence[Stage] | None, bundle: PlannedBundle | None) -> CategoryPlan:
        """Choose the fields to store.

        Args:
            stages: Stages to store; None stores all that can be extracted.
            bundle: Bundle that provides the learned state.

        Raises:
            SidecarError: All fields of a requested stage need a bundle.
        """
        fields: dict[Stage, dict[str, str]] = {}
        for stage in (stage for stage in STAGES if stages is None or stage in stages):
            members = [name for name in self._candidates() if self._stage_of(name) == stage]
            known = {name: self.digests[name] for name in members if name in self.digests}
            if known:
                fields[stage] = known
            elif members and stages is not None:
                raise SidecarError(
                    f"{', '.join(members)}: learned from normal images; fit first and pass --bundles, or omit "
                    f"{stage} from --stages"
                )
        stored = frozenset(name for members in fields.values() for name in members)
        return CategoryPlan(
            bundle=bundle,
            image_size=self.config.decoded_size,
            extractors=self.pipeline.lineage(stored),
            fields=fields,
            value_range=self.config.value_range,
        )

    def _stage_of(self, name: str) -> Stage:
        """Return the stage of a field: texts that a model gives without another network are captions."""
        asking = (extractor for extractor in self.pipeline.asking if not extractor.needs)
        return "captions" if any(name in extractor.provides for extractor in asking) else stage_of(name)

    def _candidates(self) -> Sequence[str]:
        """Return all needed segments and texts, and some tensors.

        Tensors are large and cheap to compute. A tensor is a candidate if an expert or a fit needs it directly, and if
        it is computed from tensors alone, not from segments or texts. Those computed from image files are not: they
        would take more space than the files.
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
            if set(behind).intersection(pipeline.detailed):
                return False
            needs_tensors_alone = all(stage_of(need) == "features" for one in behind for need in one.needs)
            return needs_tensors_alone and name in of_experts | (of_fit - learned)

        return sorted(filter(is_candidate, needed | of_fit))


def _asked(experts: Mapping[str, Expert], fields: Collection[str] | None) -> list[tuple[str, str]]:
    return needs_of(experts) if fields is None else [(name, "the sidecar") for name in sorted(fields)]


def load_pipeline(plan: SidecarPlan, category: str, stage: Stage, device: str) -> CategoryPipeline:
    """Build or restore the extractors of a stage of a planned category; those of captions load nothing but the model.

    Raises:
        UserError: As `CategoryPipeline.unfitted` and `CategoryPipeline.restored`.
    """
    bundle = plan.categories[category].bundle
    fields = plan.categories[category].fields["captions"] if stage == "captions" else None
    if bundle is not None and plan.bundle_root is not None:
        store = BundleStore(plan.bundle_root)
        return CategoryPipeline.restored(store, category, bundle, device=device, fields=fields)
    if plan.config is None:
        raise SidecarError(f"the plan has no bundle or configuration for {category}; use a new --out")
    planned = plan.categories[category]
    own = plan.config.of_category(category)
    sized = own.model_copy(update={"image_size": planned.image_size, "value_range": planned.value_range})
    return CategoryPipeline.unfitted(sized.with_origin("the plan"), device=device, fields=fields)
