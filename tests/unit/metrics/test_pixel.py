from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from uniad_ray.metrics.bootstrap import LEVEL, Interval, percentile_interval, stratified_draws
from uniad_ray.metrics.pixel import AUPRO_LIMIT, SPRO_LIMITS, PixelMetrics
from uniad_ray.metrics.saturation import Defect

Counted = tuple[np.ndarray, np.ndarray, list[Defect]]
LIMITS = (0.01, 0.05, 0.3, 0.77, 1.0)

# Few distinct values, to produce ties; includes signed zeros and extremes.
float16s = st.sampled_from([-65504.0, -1.5, -0.0, 0.0, 6e-8, 0.25, 1.0, 1.0009765625, 65504.0]) | st.floats(
    -65504, 65504, width=16
)


@st.composite
def counted_image(draw: st.DrawFn) -> Counted:
    """A map, and defects that overlap, touch, have several places, or are absent."""
    masks = draw(st.lists(hnp.arrays(np.bool_, (4, 5)), max_size=3))
    defects = [
        Defect(mask, draw(st.integers(1, int(np.count_nonzero(mask))))) for mask in masks if np.count_nonzero(mask)
    ]
    joined = np.any([np.zeros((4, 5), bool), *(defect.mask for defect in defects)], axis=0)
    return draw(hnp.arrays(np.float16, (4, 5), elements=float16s)), joined, defects


images_of_counts = st.lists(counted_image(), min_size=1, max_size=4)


def intervals_of(metrics: PixelMetrics, *, level: float = LEVEL, **drawn: int) -> list[Interval | None]:
    return [percentile_interval(values, level) for values in metrics.resampled(**drawn).T]


def metrics_of(images: Iterable[Counted]) -> PixelMetrics:
    metrics = PixelMetrics()
    for anomaly_map, mask, defects in images:
        metrics.update(anomaly_map, mask, defects)
    return metrics


def area_threshold_by_threshold(
    images: list[Counted], overlaps: Callable[[np.ndarray, Counted], list[float]], limit: float
) -> float | None:
    """Plain integration over all distinct thresholds, from the highest down."""
    normal_pixels = sum(np.count_nonzero(~mask) for _, mask, _ in images)
    if normal_pixels == 0 or not any(mask.any() for _, mask, _ in images):
        return None
    points = []
    for threshold in sorted({float(value) for values, _, _ in images for value in values.flat} | {-math.inf})[::-1]:
        called = [values > threshold for values, _, _ in images]
        false = sum(np.count_nonzero(above & ~mask) for above, (_, mask, _) in zip(called, images, strict=True))
        every = [overlap for above, image in zip(called, images, strict=True) for overlap in overlaps(above, image)]
        points.append((false / normal_pixels, sum(every) / len(every)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            at_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + at_end) / 2
    return area / limit


def region_overlaps(called: np.ndarray, image: Counted) -> list[float]:
    labels, count = ndimage.label(image[1], structure=np.ones((3, 3)))
    return [float(called[labels == number].mean()) for number in range(1, count + 1)]


def saturated_overlaps(called: np.ndarray, image: Counted) -> list[float]:
    return [min(np.count_nonzero(called & defect.mask) / defect.saturation_area, 1.0) for defect in image[2]]


def row(*values: float) -> np.ndarray:
    return np.array([values], np.float16)


def places(text: str) -> np.ndarray:
    """A mask of one row, or of several rows separated by blanks."""
    return np.array([[mark == "#" for mark in line] for line in text.split()])


def drawn(count: int, *, seed: int = 0, shape: tuple[int, int] = (24, 32)) -> list[Counted]:
    """Smooth noise; every other image has one or two brighter rectangles."""
    rng = np.random.default_rng(seed)
    images = []
    for index in range(count):
        values = ndimage.gaussian_filter(rng.normal(size=shape), 2) * 5
        defects = []
        for _ in range(rng.integers(1, 3) if index % 2 else 0):
            mask = np.zeros(shape, bool)
            top, left = rng.integers(0, 16, 2)
            mask[top : top + rng.integers(3, 8), left : left + rng.integers(3, 8)] = True
            values[mask] += rng.uniform(0, 4)
            defects.append(Defect(mask, int(rng.integers(1, mask.sum() + 1))))
        joined = np.any([np.zeros(shape, bool), *(defect.mask for defect in defects)], axis=0)
        images.append((values.astype(np.float16), joined, defects))
    return images


class TestAuroc:
    def test_by_hand(self) -> None:
        metrics = PixelMetrics()
        metrics.update(row(0.1, 0.4, 0.35, 0.4), places("..##"))
        assert metrics.auroc() == (1 + 1 + 1 / 2 + 0) / 4

    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(images_of_counts)
    def test_agrees_with_sklearn_for_any_float16(self, images: list[Counted]) -> None:
        scores = np.concatenate([values.ravel() for values, _, _ in images]).astype(np.float64)
        labels = np.concatenate([mask.ravel() for _, mask, _ in images])
        expected = None if labels.all() or not labels.any() else roc_auc_score(labels, scores)
        assert metrics_of(images).auroc() == pytest.approx(expected, abs=1e-12)

    def test_signed_zeros_tie(self) -> None:
        metrics = PixelMetrics()
        metrics.update(row(-0.0, 0.0), places(".#"))
        assert metrics.auroc() == 0.5

    def test_map_is_resized_to_the_mask(self) -> None:
        # Doubled with pixel centres at half-integers, (0, 1) becomes (0, 1/4, 3/4, 1). Three of four pairs are ordered.
        metrics = PixelMetrics()
        metrics.update(row(0.0, 1.0), places(".#.#"))
        assert metrics.auroc() == 0.75
        # A normal pixel of 1/4 ties with the anomalous 1/4: two more pairs add 1/2 + 1.
        metrics.update(row(0.25), places("."))
        assert metrics.auroc() == (3 + 1.5) / 6

    def test_more_pairs_than_64_bits(self) -> None:
        metrics = PixelMetrics()
        metrics.update(row(0.1, 0.4, 0.35, 0.4), places("..##"))
        for _ in range(33):
            metrics._images = []
            metrics.merge(metrics)
        assert metrics.auroc() == 0.625


class TestAupro:
    def test_by_hand(self) -> None:
        # Regions of one and of two pixels, four normal pixels. From the highest score down:
        # 5 a half of the mean overlap; 4 false positives 1/4; 3 and 2 both pixels of the second region; then 2/4 to 1.
        values, mask = row(5, 4, 3, 2, 1, 0, -1), places("#.##...")
        metrics = PixelMetrics()
        metrics.update(values, mask)
        first, whole = 1 / 4 * 1 / 2, 3 / 4 * 1
        assert metrics.aupro(1.0) == pytest.approx(first + whole)
        assert metrics.aupro(0.25) == pytest.approx(first / 0.25)
        assert metrics.aupro(0.5) == pytest.approx((first + 0.25) / 0.5)
        assert metrics.aupro() == pytest.approx((first + 0.05) / 0.3)

    def test_limit_within_a_tie_is_interpolated(self) -> None:
        # One score for the region and a normal pixel: a straight line from (0, 0) to (1/2, 1).
        metrics = PixelMetrics()
        metrics.update(row(1, 1, 0), places("#.."))
        assert metrics.aupro(0.25) == pytest.approx(0.25 * 0.5 / 2 / 0.25)
        assert metrics.aupro(0.5) == pytest.approx(0.5)

    def test_pixels_touching_at_a_corner_are_one_region(self) -> None:
        # A region of three pixels and one of one: the found pixel of the first adds a sixth to the mean.
        metrics = PixelMetrics()
        metrics.update(np.array([[9, 0, 0, 0, 0], [0, 0, 1, 1, 1]], np.float16), places("#.#.# .#..."))
        assert metrics.aupro(1.0) == pytest.approx(
            area_threshold_by_threshold(
                [(np.array([[9, 0, 0, 0, 0], [0, 0, 1, 1, 1]], np.float16), places("#.#.# .#..."), [])],
                region_overlaps,
                1.0,
            )
        )
        assert metrics.aupro(0.5) == pytest.approx(1 / 6)

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(images_of_counts, st.sampled_from(LIMITS))
    def test_matches_plain_thresholding(self, images: list[Counted], limit: float) -> None:
        expected = area_threshold_by_threshold(images, region_overlaps, limit)
        assert metrics_of(images).aupro(limit) == pytest.approx(expected, abs=1e-12)


class TestSpro:
    def test_by_hand(self) -> None:
        # One defect of four pixels, saturated at two: 5 finds half, 4 gives false positives 1/2, 3 finds all.
        metrics = PixelMetrics()
        metrics.update(row(5, 4, 3, 2, 1, 0), places("#.###."), [Defect(places("#.###."), 2)])
        assert metrics.spro(0.5) == pytest.approx(1 / 2)
        assert metrics.spro(1.0) == pytest.approx((1 / 2 * 1 / 2) + (1 / 2 * 1))

    def test_overlapping_defects_count_separately(self) -> None:
        first, second = places("##.."), places(".##.")
        metrics = PixelMetrics()
        metrics.update(row(0, 2, 0, 1), first | second, [Defect(first, 1), Defect(second, 2)])
        # Score 2 finds the first and half of the second before the only normal pixel is a false positive.
        assert metrics.spro(1.0) == pytest.approx(3 / 4)

    def test_equals_pro_without_saturation_areas(self) -> None:
        metrics = PixelMetrics()
        for values, mask, _ in drawn(6):
            metrics.update(values, mask)
        for limit in LIMITS:
            assert metrics.spro(limit) == metrics.aupro(limit)

    def test_saturation_area_counts_as_all(self) -> None:
        mask = places("######....")
        metrics = PixelMetrics()
        metrics.update(row(0, 0, 9, 9, 0, 0, 1, 1, 1, 1), mask, [Defect(mask, 2)])
        assert metrics.spro(0.05) == 1.0
        assert metrics.aupro(0.05) == pytest.approx(1 / 3)

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(images_of_counts, st.sampled_from(LIMITS))
    def test_matches_plain_thresholding(self, images: list[Counted], limit: float) -> None:
        expected = area_threshold_by_threshold(images, saturated_overlaps, limit)
        assert metrics_of(images).spro(limit) == pytest.approx(expected, abs=1e-12)


def every_metric(metrics: PixelMetrics) -> list[float | None]:
    return [metrics.auroc(), *(metric(limit) for metric in (metrics.aupro, metrics.spro) for limit in LIMITS)]


class TestManyImages:
    def test_merged_parts_equal_the_whole(self) -> None:
        images = drawn(8)
        whole, parts = metrics_of(images), [metrics_of(images[:3]), metrics_of(images[3:])]
        parts[0].merge(parts[1])
        assert every_metric(parts[0]) == pytest.approx(every_metric(whole), abs=1e-12)
        assert intervals_of(parts[0]) == intervals_of(whole)

    def test_merging_does_not_change_the_other(self) -> None:
        images = drawn(8)
        group, normal_images = metrics_of(images[1::2]), metrics_of(images[0::2])
        group.merge(normal_images)
        group.update(*images[1])
        assert every_metric(normal_images) == [None] * len(every_metric(normal_images))
        assert len(normal_images._images) == 4

    def test_order_of_images_has_no_effect(self) -> None:
        images = drawn(8)
        assert every_metric(metrics_of(images[::-1])) == pytest.approx(every_metric(metrics_of(images)), abs=1e-12)

    def test_images_of_several_sizes_count_pixel_by_pixel(self) -> None:
        metrics = PixelMetrics()
        metrics.update(row(1, 0), places("#."))
        metrics.update(row(2, 2, 2), places("..."))
        assert metrics.auroc() == 1 / 4

    def test_memory_does_not_grow_with_pixels(self) -> None:
        rng = np.random.default_rng(0)
        metrics = PixelMetrics()
        metrics.update(rng.normal(size=(500, 500)), rng.random((500, 500)) < 0.5)
        (image,) = metrics._images
        assert image.index.nbytes + image.value.nbytes <= 96 * 1024


@pytest.mark.parametrize("mask", ["..", "##"])
def test_metrics_need_both_classes_of_pixels(mask: str) -> None:
    for metrics in (PixelMetrics(), PixelMetrics()):
        assert every_metric(metrics) == [None] * len(every_metric(metrics))
        metrics.update(row(0, 1), places(mask))
        assert every_metric(metrics) == [None] * len(every_metric(metrics))
        assert intervals_of(metrics) == [None] * (2 + len(SPRO_LIMITS))


class TestIntervals:
    def test_match_metrics_of_resampled_images(self) -> None:
        # Values of few bits: no two share a coarse bin.
        images = [(np.round(values * 4) / 4, mask, defects) for values, mask, defects in drawn(12)]
        classes = images[0::2], images[1::2]
        (normal, anomalous) = next(stratified_draws((6, 6), 30, 3, at_once=30))
        resampled = [
            metrics_of([*(classes[0][index] for index in few), *(classes[1][index] for index in others)])
            for few, others in zip(normal, anomalous, strict=True)
        ]

        def expected(metric: Callable[[PixelMetrics], float | None]) -> Interval:
            return Interval(*np.quantile([metric(metrics) for metrics in resampled], (0.05, 0.95)))

        auroc, aupro, *spro = intervals_of(metrics_of(images), level=0.9, resamples=30, seed=3)
        assert auroc == pytest.approx(expected(PixelMetrics.auroc), abs=1e-5)
        assert aupro == pytest.approx(expected(PixelMetrics.aupro), abs=1e-5)
        for limit, interval in zip(SPRO_LIMITS, spro, strict=True):
            assert interval == pytest.approx(expected(lambda metrics, limit=limit: metrics.spro(limit)), abs=1e-5)

    def test_contain_the_metric_and_have_a_width(self) -> None:
        metrics = metrics_of(drawn(40))
        values = [metrics.auroc(), metrics.aupro(AUPRO_LIMIT), *map(metrics.spro, SPRO_LIMITS)]
        for value, interval in zip(values, intervals_of(metrics), strict=True):
            assert value is not None
            assert interval is not None
            assert 0 <= interval.low < value < interval.high <= 1
            assert interval.high - interval.low < 0.5

    def test_are_centred_despite_coarse_bins(self) -> None:
        metrics = metrics_of([(values + np.float16(12), mask, defects) for values, mask, defects in drawn(40)])
        interval, value = intervals_of(metrics)[0], metrics.auroc()
        assert value is not None
        assert interval is not None
        assert interval.low < value < interval.high

    def test_are_undefined_if_one_coarse_bin_holds_all(self) -> None:
        # The bin from 1024 to 1040 holds all values.
        images = [
            (np.clip(values + np.float16(1032), 1024, 1039), mask, defects) for values, mask, defects in drawn(40)
        ]
        metrics = metrics_of(images)
        value = metrics.auroc()
        assert value is not None
        assert value > 0.55
        assert intervals_of(metrics) == [None] * (2 + len(SPRO_LIMITS))

    def test_perfect_separation_has_no_width(self) -> None:
        metrics = PixelMetrics()
        for index in range(6):
            mask = places("##...") if index % 2 else places(".....")
            metrics.update(np.where(mask, 9.0, index / 10), mask)
        one = Interval(pytest.approx(1.0), pytest.approx(1.0))
        assert intervals_of(metrics) == [one] * (2 + len(SPRO_LIMITS))

    def test_work_without_normal_images(self) -> None:
        metrics = metrics_of(drawn(12)[1::2])
        interval, value = intervals_of(metrics)[0], metrics.auroc()
        assert value is not None
        assert interval is not None
        assert interval.low < value < interval.high

    def test_depend_on_the_seed(self) -> None:
        metrics = metrics_of(drawn(12))
        assert intervals_of(metrics, seed=1) == intervals_of(metrics, seed=1) != intervals_of(metrics, seed=2)


class TestRefusals:
    @pytest.mark.parametrize("limit", [0.0, -0.1, 1.1, math.nan])
    def test_limits_out_of_range(self, limit: float) -> None:
        metrics = metrics_of(drawn(2))
        for metric in (metrics.aupro, metrics.spro):
            with pytest.raises(ValueError, match="a limit must be"):
                metric(limit)

    @pytest.mark.parametrize(
        "mask", [np.full((1, 1), 255, np.uint8), np.ones((1, 0), bool), np.ones((1, 1, 1), bool), np.ones(1, bool)]
    )
    def test_masks_must_be_bool_planes(self, mask: np.ndarray) -> None:
        with pytest.raises(ValueError, match="the mask must be"):
            PixelMetrics().update(np.zeros((1, 1), np.float16), mask)

    @pytest.mark.parametrize("values", [np.array([[np.nan]], np.float16), np.zeros((1, 1), np.uint8)])
    def test_bad_maps_leave_no_counts(self, values: np.ndarray) -> None:
        metrics = metrics_of(drawn(4))
        before = every_metric(metrics)
        with pytest.raises(ValueError, match="the map must be"):
            metrics.update(values, np.ones((1, 1), bool))
        assert every_metric(metrics) == before
        assert len(metrics._images) == 4

    @pytest.mark.parametrize(
        "defects",
        [[], [Defect(places("#.."), 1)], [Defect(places("###"), 1)], [Defect(places("##"), 1)]],
        ids=["none", "too little", "too much", "another shape"],
    )
    def test_defects_must_cover_the_mask(self, defects: list[Defect]) -> None:
        with pytest.raises(ValueError, match="the defects must"):
            PixelMetrics().update(row(0, 0, 0), places("##."), defects)


def test_pixels_outside_of_a_region_do_not_count() -> None:
    rng = np.random.default_rng(3)
    whole, cropped = PixelMetrics(), PixelMetrics()
    for _ in range(4):
        values = rng.normal(size=(12, 16)).astype(np.float16)
        mask = rng.random((12, 16)) < 0.2
        inside = np.zeros((12, 16), dtype=bool)
        inside[2:9, 3:11] = True
        whole.update(values, mask & inside, inside=inside)
        cropped.update(values[2:9, 3:11], mask[2:9, 3:11])
    for area in (PixelMetrics.auroc, PixelMetrics.aupro):
        assert area(whole) == area(cropped) is not None
    assert whole.spro(0.3) == cropped.spro(0.3)
