from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_networks import SAM_SIDE, save_sam

from uniad_ray.errors import WeightsError
from uniad_ray.perception.base import Extractor, Perception
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.perception.segmentation.sam.sam_encoder import Sam, SamEncoder, SamEncoderConfig
from uniad_ray.perception.segmentation.sam.sam_segmenter import SamSegmenter, SamSegmenterConfig
from uniad_ray.perception.segments import MOST_SEGMENTS, Segments

pytest.importorskip("transformers", reason="the networks of transformers are an extra")

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("sam")
    save_sam(found)
    return found


def pipeline(folder: Path, **options: Any) -> PerceptionPipeline:
    weights = {"uri": f"file:{folder}"}
    encoder = SamEncoder("sam_encoder", SamEncoderConfig.model_validate({"weights": weights}), "cpu")
    config = {
        "embedding": "sam_encoder/embedding",
        "weights": weights,
        "points_per_side": 4,
        "side": 40,
        # With random parameters, masks are unstable, few are confident, and their boxes are similar.
        "predicted_iou": 0.01,
        "stability": 0.0,
        "box_overlap": 1.0,
    }
    options = {**config, **options}
    return PerceptionPipeline([encoder, SamSegmenter("sam", SamSegmenterConfig.model_validate(options), "cpu")])


def extracted(folder: Path, images: np.ndarray = IMAGES, **options: Any) -> list[Segments]:
    keys = [f"{number:032x}" for number in range(len(images))]
    found = pipeline(folder, **options).extract(keys, images, frozenset({"sam/segments"}))
    return list(found.segments["sam/segments"])


def decodes(folder: Path, monkeypatch: pytest.MonkeyPatch, logit: float, predicted: float) -> None:
    """Makes the decoder return the same mask for every point: the whole image, or nothing."""
    decoder = loaded(folder).network.mask_decoder
    decode = decoder.forward

    def same(**inputs: Any) -> Any:
        masks, scores = decode(**inputs)
        return torch.full_like(masks, logit), torch.full_like(scores, predicted)

    monkeypatch.setattr(decoder, "forward", same)


def loaded(folder: Path) -> Sam:
    encoder = pipeline(folder).extractors[0]
    assert isinstance(encoder, SamEncoder)
    return encoder._sam


def test_encoder_and_segmenter_keep_the_contract(folder: Path) -> None:
    encoder, segmenter = pipeline(folder).extractors
    embedding = encoder.extract(Perception(["a", "b", "c"], IMAGES))["sam_encoder/embedding"]

    assert isinstance(encoder, Extractor)
    assert isinstance(segmenter, Extractor)
    assert isinstance(embedding, torch.Tensor)
    assert (embedding.dtype, tuple(embedding.shape)) == (torch.float32, (3, 16, SAM_SIDE // 4, SAM_SIDE // 4))
    for extractor in (encoder, segmenter):
        lineage = extractor.lineage()["weights"]
        assert (lineage["uri"], len(lineage["sha256"]), lineage["trained"]) == (f"file:{folder}", 64, True)


@pytest.mark.parametrize(
    ("predicted_iou", "stability", "box_overlap"), [(0.01, 0.0, 1.0), (0.5, 0.2, 1.0), (0.01, 0.0, 0.99)]
)
def test_masks_match_transformers_mask_generation(
    folder: Path, predicted_iou: float, stability: float, box_overlap: float
) -> None:
    from PIL import Image
    from transformers import pipeline as library_pipeline

    options = {"predicted_iou": predicted_iou, "stability": stability, "box_overlap": box_overlap}
    generator = library_pipeline("mask-generation", model=str(folder), device="cpu")
    for image, segments in zip(IMAGES, extracted(folder, smallest_area=0.0, **options), strict=True):
        expected = generator(
            Image.fromarray(image),
            points_per_crop=4,
            pred_iou_thresh=predicted_iou,
            stability_score_thresh=stability,
            crops_nms_thresh=box_overlap,
        )
        masks = np.array([np.asarray(mask) for mask in expected["masks"]])
        reference = Segments.of(masks, np.asarray(expected["scores"]).clip(0, 1))
        assert len(reference) > 1
        np.testing.assert_array_equal(segments.masks(), reference.masks())
        np.testing.assert_allclose(segments.confidences, reference.confidences, atol=1e-5)


def test_segments_do_not_depend_on_the_batch(folder: Path) -> None:
    together = extracted(folder)

    for row in (2, 0):
        (alone,) = extracted(folder, IMAGES[row : row + 1])
        for name, array in alone.arrays().items():
            np.testing.assert_array_equal(array, together[row].arrays()[name])


def test_image_encoder_runs_once_per_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractors = pipeline(folder).extractors
    other = SamSegmenter("other", extractors[1].config, "cpu")  # type: ignore[attr-defined]
    network = extractors[0]._sam.network  # type: ignore[attr-defined]
    calls = []
    encode = network.vision_encoder.forward
    monkeypatch.setattr(network.vision_encoder, "forward", lambda *a, **k: calls.append(1) or encode(*a, **k))

    PerceptionPipeline([*extractors, other]).extract(
        ["a", "b", "c"], IMAGES, frozenset({"sam/segments", "other/segments"})
    )

    assert len(calls) == len(IMAGES)


def test_images_need_not_be_square(folder: Path) -> None:
    points = []
    hook = loaded(folder).network.prompt_encoder.register_forward_pre_hook(
        lambda _, __, inputs: points.append(inputs["input_points"]), with_kwargs=True
    )
    try:
        (found,) = extracted(folder, IMAGES[:1, :20])
    finally:
        hook.remove()

    assert found.size == (20, 40)
    right, down = points[0][0, :, 0].max(dim=0).values.tolist()
    assert (right, down) == (SAM_SIDE * 7 / 8, SAM_SIDE / 2 * 7 / 8)


@pytest.mark.parametrize(("logit", "predicted"), [(9.0, 0.5), (0.5, 0.95), (-9.0, 0.95)])
def test_no_segments_without_confident_stable_masks(
    logit: float, predicted: float, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decodes(folder, monkeypatch, logit, predicted)

    (found,) = extracted(folder, IMAGES[:1], predicted_iou=0.88, stability=0.95)

    assert (len(found), found.size) == (0, (40, 40))


def test_object_filling_the_image_is_kept_or_dropped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decodes(folder, monkeypatch, 9.0, 0.95)

    (found,) = extracted(folder, IMAGES[:1], predicted_iou=0.88, stability=0.95, box_overlap=0.7)

    assert (len(found), found.areas.tolist()) == (1, [1.0])
    assert found.confidences.tolist() == pytest.approx([0.95])
    assert [len(each) for each in extracted(folder, IMAGES[:1], largest_area=0.9)] == [0]


def test_most_confident_objects_are_kept(folder: Path) -> None:
    options = {"points_per_side": 16, "side": 16}
    (many,) = extracted(folder, IMAGES[:1], **options)
    (few,) = extracted(folder, IMAGES[:1], most_segments=5, **options)

    assert MOST_SEGMENTS >= len(many) > 100
    assert sorted(few.confidences) == sorted(many.confidences)[-5:]


def test_areas_out_of_bounds_are_dropped(folder: Path) -> None:
    (every,) = extracted(folder, IMAGES[:1])
    low, high = np.quantile(every.areas, [0.3, 0.7])
    (found,) = extracted(folder, IMAGES[:1], smallest_area=float(low), largest_area=float(high))

    assert found.areas.tolist() == [area for area in every.areas.tolist() if low <= area <= high]
    assert 0 < len(found) < len(every)


def test_folder_of_another_network_is_rejected(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"model_type": "sam",', '"model_type": "clip",'))

    with pytest.raises(WeightsError, match=r"SamEncoder cannot load .*: it holds a network of type clip, not sam"):
        pipeline(tmp_path)
