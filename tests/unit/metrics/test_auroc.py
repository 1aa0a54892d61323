from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from sklearn.metrics import roc_auc_score

from uniad_ray.metrics.auroc import PixelAuroc, image_auroc

LABELS = np.array([0, 0, 1, 1])
SCORES = np.array([0.1, 0.4, 0.35, 0.4])
# Of the four pairs, 0.35 > 0.1, 0.4 > 0.1, 0.4 ties with 0.4, and 0.35 < 0.4: (1 + 1 + 1/2 + 0) / 4.
AREA = 0.625

float16s = st.floats(-65504, 65504, width=16)


def two_pixel_rows(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).reshape(2, -1)


class TestImageAuroc:
    def test_by_hand(self) -> None:
        assert image_auroc(LABELS, SCORES) == AREA
        assert image_auroc(LABELS.astype(bool), -SCORES) == 1 - AREA

    @pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
    def test_one_class_has_no_area(self, labels: list[int]) -> None:
        assert image_auroc(np.array(labels, bool), np.zeros(len(labels))) is None

    @pytest.mark.parametrize(
        ("labels", "scores"),
        [
            ([0, 1], [0.5]),
            ([[0, 1]], [[0.1, 0.2]]),
            ([0, 2], [0.1, 0.2]),
            ([0, 1], [0.1, np.nan]),
            ([0, 1], [0.1, np.inf]),
        ],
    )
    def test_refused(self, labels: list[int], scores: list[float]) -> None:
        with pytest.raises(ValueError, match="must be"):
            image_auroc(np.array(labels), np.array(scores))


class TestPixelAuroc:
    def test_by_hand(self) -> None:
        auroc = PixelAuroc()
        auroc.update(two_pixel_rows(SCORES), LABELS.astype(bool).reshape(2, 2))
        assert auroc.compute() == AREA

    @given(
        images=st.lists(
            st.tuples(hnp.arrays(np.float16, (3, 4), elements=float16s), hnp.arrays(np.bool_, (3, 4))),
            min_size=1,
            max_size=4,
        )
    )
    def test_agrees_with_sklearn_for_any_float16(self, images: list[tuple[np.ndarray, np.ndarray]]) -> None:
        auroc = PixelAuroc()
        for anomaly_map, mask in images:
            auroc.update(anomaly_map, mask)
        scores = np.concatenate([anomaly_map.ravel() for anomaly_map, _ in images]).astype(np.float64)
        labels = np.concatenate([mask.ravel() for _, mask in images])
        if labels.all() or not labels.any():
            assert auroc.compute() is None
        else:
            assert auroc.compute() == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)

    def test_signed_zeros_tie(self) -> None:
        auroc = PixelAuroc()
        auroc.update(np.array([[-0.0, 0.0]], np.float16), np.array([[False, True]]))
        assert auroc.compute() == 0.5

    @pytest.mark.parametrize("shape", [(32, 48), (5, 3), (8, 40)])
    def test_map_is_resized_to_the_mask_and_rounded(self, shape: tuple[int, int]) -> None:
        rng = np.random.default_rng(0)
        anomaly_map, mask = rng.normal(size=(8, 12)).astype(np.float16), rng.random(shape) < 0.3
        auroc = PixelAuroc()
        auroc.update(anomaly_map, mask)
        image = Image.fromarray(anomaly_map.astype(np.float32)).resize(shape[::-1], Image.Resampling.BILINEAR)
        scores = np.asarray(image).astype(np.float16).ravel()
        assert auroc.compute() == pytest.approx(roc_auc_score(mask.ravel(), scores), abs=1e-12)

    def test_bilinear_by_hand(self) -> None:
        # Doubled with pixel centres at halves, (0, 1) becomes (0, 1/4, 3/4, 1). Three of the four pairs are in order.
        auroc = PixelAuroc()
        auroc.update(np.array([[0.0, 1.0]], np.float16), np.array([[False, True, False, True]]))
        assert auroc.compute() == 0.75
        # A normal pixel of 1/4 ties with the anomalous 1/4: (1/2 + 1) more of two more pairs.
        auroc.update(np.array([[0.25]], np.float16), np.array([[False]]))
        assert auroc.compute() == (3 + 1.5) / 6

    def test_merged_parts_equal_the_whole(self) -> None:
        rng = np.random.default_rng(1)
        whole, parts = PixelAuroc(), [PixelAuroc(), PixelAuroc()]
        for index in range(6):
            anomaly_map, mask = rng.normal(size=(7, 5)).astype(np.float16), rng.random((14, 10)) < 0.5
            whole.update(anomaly_map, mask)
            parts[index % 2].update(anomaly_map, mask)
        parts[0].merge(parts[1])
        assert parts[0].compute() == whole.compute()

    def test_more_pairs_than_64_bits(self) -> None:
        auroc = PixelAuroc()
        auroc.update(two_pixel_rows(SCORES), LABELS.astype(bool).reshape(2, 2))
        for _ in range(33):
            auroc.merge(auroc)
        assert auroc.compute() == AREA

    @pytest.mark.parametrize("mask", [np.zeros((2, 2), bool), np.ones((2, 2), bool)])
    def test_one_class_has_no_area(self, mask: np.ndarray) -> None:
        auroc = PixelAuroc()
        assert auroc.compute() is None
        auroc.update(np.zeros((2, 2), np.float16), mask)
        assert auroc.compute() is None

    @pytest.mark.parametrize(
        ("anomaly_map", "mask"),
        [
            (np.array([[np.nan]], np.float16), np.ones((1, 1), bool)),
            (np.array([[np.inf]], np.float16), np.ones((1, 1), bool)),
            (np.array([[1e6]], np.float32), np.ones((1, 1), bool)),
            (np.zeros((1, 1), np.float16), np.full((1, 1), 255, np.uint8)),
            (np.zeros((1, 1), np.uint8), np.ones((1, 1), bool)),
            (np.zeros((1, 1, 1), np.float16), np.ones((1, 1), bool)),
            (np.zeros((0, 1), np.float16), np.ones((1, 1), bool)),
            (np.zeros((1, 1), np.float16), np.ones((1, 0), bool)),
        ],
    )
    def test_refused(self, anomaly_map: np.ndarray, mask: np.ndarray) -> None:
        with pytest.raises(ValueError, match="must be"):
            PixelAuroc().update(anomaly_map, mask)
