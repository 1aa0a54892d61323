"""The stored form of a fitted category: safetensors, Parquet, JSON, and a manifest with digests. No pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import PrivateAttr, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from uniad_ray.archive.formats import other_format
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import BundleError, ConfigError, ObjectNotFoundError, ObjectTooLargeError
from uniad_ray.perception.base import State
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.bundles.reference_images import Reference, ReferenceScores
from uniad_ray.scoring.calibration import ExpertCalibration, Threshold, choose_threshold
from uniad_ray.scoring.calibration_scores import FILE_NAME as CALIBRATION_SCORES
from uniad_ray.scoring.calibration_scores import HeldOutScores, decode_calibration_scores
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of
from uniad_ray.scoring.fusion import Fusion
from uniad_ray.scoring.scorer import Scorer
from uniad_ray.scoring.selection import ExpertSelection, with_selected_weights

FORMAT_VERSION = 3
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 16 << 20


class FileDigest(StrictModel):
    """One file of a bundle."""

    sha256: str
    bytes: int


class CalibrationRecord(StrictModel):
    """Calibration of a bundle.

    Attributes:
        method: `holdout`, `cross_fit`, `validation_split` or `altered_copies`.
        fit_images: Number of normal images that the stored experts were fitted on.
        held_out_images: Number of held-out images behind mean, deviation and threshold.
        experts: Mean and deviation by expert.
        terms: Mean and deviation by term: a group of experts, or a single expert without a group.
        threshold: The chosen threshold.
        images_without_text: Held-out images that are not among them because they lack a text.
        selection: Weights of the selected experts, with reasons; None without expert selection.
        review: Lower threshold; images between it and the threshold are for review. None without review.
    """

    method: str
    fit_images: int
    held_out_images: int
    experts: dict[str, ExpertCalibration]
    terms: dict[str, ExpertCalibration]
    threshold: Threshold
    images_without_text: int = 0
    selection: ExpertSelection | None = None
    review: Threshold | None = None


class BundleManifest(StrictModel):
    """Content and provenance of a bundle; the sha256 of the manifest is the digest of the bundle.

    Attributes:
        format_version: Version of the bundle's layout.
        category: Scored category.
        version: Name of this version; names sort by time.
        created_at: UTC, ISO 8601.
        code_version: Version of uniad_ray at the fit.
        content_digest: sha256 over configuration and files; two fits with the same result have the same digest.
        config: The whole fit configuration.
        calibration: Calibration and threshold.
        lineage: Archive digest, image counts, and weights with their digests.
        files: Digests by file name.
    """

    format_version: int
    category: str
    version: str
    created_at: str
    code_version: str
    content_digest: str
    config: FitConfig
    calibration: CalibrationRecord
    lineage: dict[str, Any]
    files: dict[str, FileDigest]

    _stored_digest: str | None = PrivateAttr(default=None)

    @property
    def name(self) -> str:
        """Name of the bundle in messages."""
        return f"bundle {self.category} {self.version}"

    @property
    def fitted_experts(self) -> tuple[str, ...]:
        """All experts of the set in order, without those whose student was not worth a training."""
        return tuple(name for name in self.config.chosen_experts if name in self.calibration.experts)

    def check_experts(self, names: Collection[str]) -> None:
        """Check that experts can score.

        Raises:
            BundleError: An expert is not in the set, or not fitted.
        """
        known = self.fitted_experts
        unknown = sorted(set(names) - set(known))
        if not unknown:
            return
        untrained = sorted(set(unknown).intersection(self.config.chosen_experts))
        selection = self.config.chosen_fusion.selection
        logical = () if selection is None else (*selection.arrangement.base, *selection.arrangement.candidates)
        kind = "arrangement" if untrained and set(untrained).issubset(logical) else "surface"
        advice = (
            f"; to train the student of {', '.join(untrained)} in any case, fit with "
            f"--set fusions.{self.config.expert_set}.selection.{kind}.train_from=0"
            if untrained
            else ""
        )
        raise BundleError(f"{self.name}: has no expert {', '.join(unknown)}; it has {', '.join(known)}{advice}")

    @property
    def taking_part(self) -> tuple[str, ...]:
        """The selected experts in order; all experts without expert selection."""
        selection = self.calibration.selection
        return tuple(name for name in self.config.chosen_experts if selection is None or selection.weights[name])

    @property
    def fusion(self) -> Fusion:
        """The fitted fusion of the selected experts."""
        experts = {name: self.calibration.experts[name] for name in self.taking_part}
        return Fusion(
            with_selected_weights(self.config.chosen_fusion, self.calibration.selection),
            experts,
            self.calibration.terms,
        )

    def encode(self) -> bytes:
        """Encode the manifest as stored."""
        document = self.model_dump(mode="json", by_alias=True)
        return (json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()

    @property
    def digest(self) -> str:
        """sha256 of the encoded manifest, as stored.

        An older manifest lacks options that were added since, so encoding it again gives other bytes.
        """
        return self._stored_digest or hashlib.sha256(self.encode()).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory: the manifest, and the verified bytes of its files."""

    manifest: BundleManifest
    files: Mapping[str, bytes]

    def scorer(
        self,
        *,
        device: str = "cpu",
        false_positive_rate: float | None = None,
        only: Collection[str] | None = None,
    ) -> Scorer:
        """Build the scorer.

        Args:
            device: Torch device of networks and experts.
            false_positive_rate: Choose the threshold for this rate from the held-out scores; None keeps the stored one.
            only: Experts to fuse; None takes those of the bundle. Another choice gets its calibration and
                threshold from the held-out scores.

        Raises:
            BundleError: The stored state does not match this version of the code, or `only` names an expert that is not
                in the bundle.
            WeightsError: Weights are missing or differ from those of the fit.
        """
        config = self.manifest.config
        chosen = self._chosen(only)
        try:
            experts = build_experts(config, states=self._states("experts", chosen), only=chosen)
        except (ConfigError, KeyError, ValueError) as error:
            raise self._does_not_fit(error) from error
        pipeline = self.pipeline(needs_of(experts), device=device)
        fusion, threshold = self.fusion(only, false_positive_rate)
        # The scorer outlives the other files of the bundle.
        kept = Bundle(self.manifest, {CALIBRATION_SCORES: self.files[CALIBRATION_SCORES]})

        def fusion_of(names: Collection[str]) -> tuple[Fusion, float]:
            some, own = kept.fusion(names, false_positive_rate)
            return some, own.value

        return Scorer(
            config, pipeline, experts, fusion, threshold.value, self.review_threshold(only), fusion_of=fusion_of
        )

    def pipeline(self, fields: Iterable[tuple[str, str]], *, device: str = "cpu") -> PerceptionPipeline:
        """Build the extractors behind some fields, with their learned state.

        Args:
            fields: Pairs of a needed field and the component that needs it, for messages.
            device: Torch device.

        Raises:
            BundleError: The stored state does not match this version of the code.
            WeightsError: Weights are missing or differ from those of the fit.
        """
        try:
            pipeline = build_pipeline(self.manifest.config, fields, device=device, check_unused=False)
            pipeline.restore(self._states("extractors", [extractor.name for extractor in pipeline.stateful]))
        except (ConfigError, KeyError, ValueError) as error:
            raise self._does_not_fit(error) from error
        self._check_weights(pipeline.lineage(pipeline.provides))
        return pipeline

    @property
    def state_digests(self) -> dict[str, str]:
        """Digest of the learned state by extractor."""
        found: dict[str, str] = {}
        for name, file in sorted(self.manifest.files.items()):
            folder, _, rest = name.partition("/")
            if folder == "extractors":
                extractor = rest.rpartition(".")[0]
                found[extractor] = f"{found.get(extractor, '')}{file.sha256}"
        return found

    def fusion(
        self, only: Collection[str] | None = None, false_positive_rate: float | None = None
    ) -> tuple[Fusion, Threshold]:
        """Return fusion and threshold of the experts of the bundle, or of some of them.

        Args:
            only: Experts to fuse; None takes those of the bundle.
            false_positive_rate: False-positive rate of the threshold; None takes that of the stored threshold.

        Raises:
            BundleError: The bundle lacks an expert of `only`, or its fusion rule needs the maps of all experts.
        """
        manifest = self.manifest
        config = manifest.config
        chosen = self._chosen(only)
        stored = manifest.calibration.threshold
        rate = stored.asked_rate if false_positive_rate is None else false_positive_rate
        held_out = self.held_out_scores
        if chosen == list(manifest.taking_part):
            is_stored = false_positive_rate is None
            threshold = stored if is_stored else choose_threshold(held_out.fused, rate)
            return manifest.fusion, threshold
        rule = config.chosen_fusion
        if rule.rule == "maps":
            raise BundleError(
                f"{self.manifest.name}: the fusion rule needs the maps of all experts; score with all of them"
            )
        if manifest.calibration.selection is not None:
            # An explicitly named expert gets a weight even if the expert selection omitted it.
            weights = {name: manifest.calibration.selection.weights[name] or 1.0 for name in chosen}
            rule = rule.model_copy(update={"weights": weights})
        raw = {name: held_out.raw[name] for name in chosen}
        fusion = Fusion.fit(rule, raw)
        return fusion, choose_threshold(fusion.fuse_held_out(raw), rate)

    def review_threshold(self, only: Collection[str] | None = None) -> float | None:
        """Return the lower threshold of the experts of the bundle, or of some of them; None without review.

        Raises:
            BundleError: As `fusion`.
        """
        review = self.manifest.calibration.review
        if review is None:
            return None
        chosen = self._chosen(only)
        if chosen == list(self.manifest.taking_part):
            return review.value
        return self.fusion(chosen, review.false_positive_rate)[1].value

    def _chosen(self, only: Collection[str] | None) -> list[str]:
        if only is None:
            return list(self.manifest.taking_part)
        self.manifest.check_experts(only)
        return [name for name in self.manifest.fitted_experts if name in only]

    @property
    def held_out_scores(self) -> HeldOutScores:
        """Scores of the held-out normal images."""
        return decode_calibration_scores(self.files[CALIBRATION_SCORES])

    @property
    def reference(self) -> Reference:
        """Reference images with their scores at the fit."""
        return Reference(
            where=self.manifest.name,
            images=load_safetensors(self.files["reference.safetensors"])["images"],
            scores=ReferenceScores.model_validate_json(self.files["reference.json"]),
            deviations={name: entry.deviation for name, entry in self.manifest.calibration.experts.items()},
        )

    def check_reference(self, scorer: Scorer) -> None:
        """Score the reference images and compare with the scores of the fit; see `Reference.check`."""
        self.reference.check(scorer)

    def _does_not_fit(self, error: Exception) -> BundleError:
        return BundleError(f"{self.manifest.name}: does not fit this version of uniad_ray: {error}; fit again")

    def _states(self, folder: str, names: Sequence[str]) -> dict[str, State]:
        states = {}
        for name in names:
            try:
                arrays = load_safetensors(self.files[f"{folder}/{name}.safetensors"])
            except SafetensorError as error:
                raise BundleError(f"{self.manifest.name}: {folder}/{name}.safetensors is corrupt: {error}") from error
            states[name] = State(arrays=arrays, document=json.loads(self.files[f"{folder}/{name}.json"]))
        return states

    def _check_weights(self, found: Mapping[str, Any]) -> None:
        fitted = self.manifest.lineage["extractors"]
        for name, record in found.items():
            if "weights" not in record:
                continue
            expected, weights = fitted[name]["weights"]["sha256"], record["weights"]
            if weights["sha256"] != expected:
                raise BundleError(
                    f"{self.manifest.name}: network {name} was fitted with weights of sha256 {expected}, but "
                    f"{weights['uri']} has {weights['sha256']}; install the weights of the fit, or fit again"
                )


def encode_state(folder: Literal["experts", "extractors"], name: str, state: State) -> dict[str, bytes]:
    """Encode the state of one expert or extractor as files."""
    arrays = {key: np.ascontiguousarray(value) for key, value in sorted(state.arrays.items())}
    document = json.dumps(dict(state.document), sort_keys=True, indent=1) + "\n"
    return {f"{folder}/{name}.safetensors": save_safetensors(arrays), f"{folder}/{name}.json": document.encode()}


def content_digest(config: FitConfig, files: Mapping[str, bytes]) -> str:
    """Compute the sha256 over configuration and files; two fits with the same result have the same digest."""
    # Without regions and a value range, fits have the digest that they had before there were any.
    given = {"regions": bool(config.regions), "value_range": config.value_range is not None}
    unused = {name for name, is_given in given.items() if not is_given}
    digest = hashlib.sha256(config.model_dump_json(by_alias=True, exclude=unused).encode())
    for name in sorted(files):
        digest.update(f"\n{name} {hashlib.sha256(files[name]).hexdigest()}".encode())
    return digest.hexdigest()


def read_bundle_manifest(folder: Location) -> BundleManifest:
    """Read the manifest of one bundle version.

    Raises:
        BundleError: There is no manifest, or it is corrupt or of another format version.
    """
    location = folder / MANIFEST_NAME
    try:
        data = location.read_bytes(max_bytes=MAX_MANIFEST_BYTES)
        document = json.loads(data)
    except ObjectNotFoundError as error:
        raise BundleError(f"{folder}: no bundle there; list the bundles with `uniad-ray bundles ROOT`") from error
    except ValueError as error:
        raise BundleError(f"{location}: not valid JSON; publish another version") from error
    if message := other_format(location, document, "bundle", FORMAT_VERSION):
        raise BundleError(message)
    try:
        manifest = BundleManifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{location}: {key}: {first['msg']}; publish another version") from error
    read = manifest.model_copy(update={"config": manifest.config.with_origin(manifest.name)})
    read._stored_digest = hashlib.sha256(data).hexdigest()
    return read


def read_bundle(folder: Location) -> Bundle:
    """Read a whole bundle and verify the digest of every file.

    Raises:
        BundleError: A file is missing, or its size or digest differs from the manifest.
    """
    manifest = read_bundle_manifest(folder)
    files = {}
    for name, expected in manifest.files.items():
        try:
            data = (folder / name).read_bytes(max_bytes=expected.bytes)
        except ObjectNotFoundError as error:
            raise BundleError(f"{folder / name}: missing; publish another version or fit again") from error
        except ObjectTooLargeError:
            data = b""
        if len(data) != expected.bytes or hashlib.sha256(data).hexdigest() != expected.sha256:
            raise BundleError(
                f"{folder / name}: checksum mismatch: the file is corrupt; publish another version or fit again"
            )
        files[name] = data
    return Bundle(manifest, files)
