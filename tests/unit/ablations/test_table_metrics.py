"""Row metrics from a real bundle, compared with plain formulas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from support.normal_images import DrawnNormalImages
from support.profiles import small_config

from uniad_ray.ablations.table import AblationRow, RowFusion
from uniad_ray.ablations.table_metrics import TypeMetrics, by_type, over_fits, row_metrics
from uniad_ray.evaluation.labelled_images import LabelledImages
from uniad_ray.metrics.image import image_auroc
from uniad_ray.scoring.bundles.bundle import Bundle
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.calibration_scores import FILE_NAME, decode_calibration_scores
from uniad_ray.scoring.fitting.category import fit_category

RNG = np.random.default_rng(0)
NAMES = ("patch", "second", "third")
MEMORY = "{class: 'uniad_ray.experts.patch.memory:PatchMemory', config: {distance: cosine, memory_size: 40}}"


@dataclass(frozen=True)
class Case:
    bundle: Bundle
    labelled: LabelledImages

    @property
    def held_out(self) -> Mapping[str, np.ndarray]:
        return decode_calibration_scores(self.bundle.files[FILE_NAME]).raw

    def raw(self, name: str) -> np.ndarray:
        calibration = self.bundle.manifest.calibration.experts[name]
        return self.labelled.experts[name] * calibration.deviation + calibration.mean


def details(kinds: np.ndarray, experts: Mapping[str, np.ndarray]) -> pa.Table:
    rows = range(len(kinds))
    scored = [[{"expert": name, "calibrated": values[row]} for name, values in experts.items()] for row in rows]
    names = pa.array(kinds, pa.string())
    return pa.table({"row_key": list(map(str, rows)), "anomaly_type": names, "defect_kind": names, "experts": scored})


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    config = small_config(
        *(f"experts.{name}={MEMORY}" for name in NAMES[1:]),
        "expert_sets.patch=[patch, second, third]",
        "expert_sets.tmuad=[patch, second, third]",
        "expert_set=patch",
        "fusion={groups: {both: [patch, second]}, weights: {both: 2.0, third: 0.5}}",
        "fusions={tmuad: {rule: excess, weights: {third: 3.0}}}",
    )
    fitted = fit_category(DrawnNormalImages(12), config)
    store = BundleStore(str(tmp_path_factory.mktemp("bundles")))
    version = store.write("part", config, fitted.calibration, {"extractors": fitted.extractors}, fitted.files).version
    kinds = np.array([None, "logical", "structural"], dtype=object)[np.arange(60) % 3]
    labelled = LabelledImages(
        category="part",
        split="test",
        threshold=0.0,
        scores=RNG.normal(size=60),
        normal=np.array([kind is None for kind in kinds]),
        anomalous=np.array([kind is not None for kind in kinds]),
        details=details(kinds, {name: RNG.normal(size=60) + (kinds == "logical") for name in NAMES}),
        unlabelled_images=0,
        error_images=0,
    )
    return Case(store.load("part", version), labelled)


def z(values: np.ndarray, normal: np.ndarray) -> np.ndarray:
    return np.asarray((values - normal.mean()) / normal.std(ddof=1))


def excess(values: np.ndarray, normal: np.ndarray) -> np.ndarray:
    soft = np.log1p(np.exp(z(values, normal)))
    return np.where(soft <= 4.0, soft, 4.0 + 4.0 * np.log(soft / 4.0)) - np.log(2.0)


def expected(case: Case, scores: np.ndarray) -> list[float | None]:
    return [
        image_auroc(case.labelled.anomalous[keep], scores[keep])
        for kind in ("logical", "structural")
        for keep in [np.array([each in (None, kind) for each in case.labelled.anomaly_types])]
    ]


def found(case: Case, fusion: RowFusion, *plugged_in: str, experts: tuple[str, ...] = NAMES) -> list[float | None]:
    row = AblationRow({}, experts, fusion=fusion, plugged_in=plugged_in)
    metrics = row_metrics(row, case.bundle.manifest.config, [(case.labelled, case.bundle)])
    return [metrics.logical, metrics.structural]


@pytest.mark.parametrize(("fusion", "weights"), [("equal", (1.0, 1.0)), ("profile", (2.0, 0.5)), ("own", (2.0, 0.5))])
def test_profile_terms_sum_with_or_without_weights(case: Case, fusion: RowFusion, weights: tuple[float, float]) -> None:
    held = case.held_out
    both = z(case.raw("patch") + case.raw("second"), held["patch"] + held["second"])
    scores = weights[0] * both + weights[1] * z(case.raw("third"), held["third"])
    assert found(case, fusion) == pytest.approx(expected(case, scores))


def test_memories_are_fused_by_the_rule_of_tmuad(case: Case) -> None:
    scores = excess(case.raw("patch"), case.held_out["patch"]) + 3 * excess(case.raw("third"), case.held_out["third"])
    assert found(case, "tmuad", experts=("patch", "third")) == pytest.approx(expected(case, scores))


def test_plugged_in_expert_adds_to_fused_score(case: Case) -> None:
    held = case.held_out
    detector = z(case.raw("patch"), held["patch"])
    normal = z(held["patch"], held["patch"])
    scores = excess(detector, normal) + excess(case.raw("second"), held["second"])
    assert found(case, "equal", "second", experts=("patch",)) == pytest.approx(expected(case, scores))


def test_metrics_are_means_over_categories() -> None:
    assert by_type({"logical": [0.5, 0.7], "structural": [0.9]}) == TypeMetrics(logical=0.6, structural=0.9, mean=0.75)
    assert by_type({"logical": [], "structural": [0.9]}) == TypeMetrics(logical=None, structural=0.9, mean=None)


def test_each_metric_is_summarized_over_fits() -> None:
    fits = [TypeMetrics(logical=value, structural=0.5, mean=None) for value in (0.2, 0.4, 0.9)]
    assert over_fits(fits, np.median) == TypeMetrics(logical=0.4, structural=0.5, mean=None)
