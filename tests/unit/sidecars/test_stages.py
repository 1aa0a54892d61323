"""Fields stored by the stages, without running networks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.captioned import captioned_config
from support.profiles import small_config
from support.steps import Learning, Step, Trained

from uniad_ray.errors import SidecarError
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.bundles.published import PlannedBundle
from uniad_ray.sidecars.encoding import STAGES, Stage
from uniad_ray.sidecars.fingerprints import feature_fingerprints
from uniad_ray.sidecars.stages import CategoryPipeline

BUNDLE = PlannedBundle(version="v1", digest="d")


def pipeline(needs: list[str], *steps: Step, learned: tuple[str, ...] = ()) -> CategoryPipeline:
    """A category of one expert with the given needs and learned extractors."""
    found = PerceptionPipeline(steps)
    digests = feature_fingerprints(found, (64, 64), dict.fromkeys(learned, "state"))
    return CategoryPipeline(small_config(), {"expert": SimpleNamespace(needs=frozenset(needs))}, found, digests)  # type: ignore[dict-item]


def names(category: CategoryPipeline, stages: list[Stage] | None = None) -> dict[Stage, list[str]]:
    return {stage: sorted(fields) for stage, fields in category.plan(stages, BUNDLE).fields.items()}


OBJECTS = (
    Step("net/out"),
    Step("unused/out"),
    Learning("labels/out", "net/out"),
    Learning("pieces/segments", "labels/out"),
    Step("looks/vectors", "pieces/segments", "net/out"),
    Step("words/text", "pieces/segments"),
    Learning("embedding/out", "words/text"),
)


def test_needed_fields_segments_and_texts_are_stored() -> None:
    category = pipeline(["looks/vectors", "embedding/out"], *OBJECTS, learned=("labels", "pieces", "embedding"))
    assert names(category) == {
        "features": ["net/out"],
        "segments": ["looks/vectors", "pieces/segments"],
        "descriptions": ["words/text"],
    }
    planned = category.plan(None, BUNDLE)
    assert planned.fields["segments"]["pieces/segments"] == category.digests["pieces/segments"]
    assert set(planned.extractors) == {"net", "labels", "pieces", "looks", "words"}
    assert planned.bundle == BUNDLE


class Asking(Step):
    """An extractor that asks a model."""

    config = None
    captioner = object()


def test_texts_of_a_model_alone_are_captions() -> None:
    category = pipeline(
        ["said/text", "placed/text", "words/text"],
        Step("net/segments"),
        Step("words/text"),
        Asking("said/text"),
        # What a model says about segments needs their networks.
        Asking("placed/text", "net/segments"),
    )
    assert names(category) == {
        "segments": ["net/segments"],
        "captions": ["said/text"],
        "descriptions": ["placed/text", "words/text"],
    }
    assert tuple(category.plan(None, BUNDLE).fields) == ("segments", "captions", "descriptions")


def test_captions_are_extracted_without_any_network() -> None:
    config = captioned_config("http://gpu-1:8001/v1")
    whole = CategoryPipeline.unfitted(config, device="cpu")
    alone = CategoryPipeline.unfitted(config, device="cpu", fields=["caption/text"])
    assert len(whole.pipeline.extractors) > 1
    assert [extractor.name for extractor in alone.pipeline.extractors] == ["caption"]
    assert alone.digests["caption/text"] == whole.digests["caption/text"]


def test_needed_label_map_is_stored() -> None:
    assert names(pipeline(["labels/out"], *OBJECTS, learned=("labels", "pieces", "embedding")))["features"] == [
        "labels/out",
        "net/out",
    ]


def test_unlearned_fields_are_stored_without_bundle() -> None:
    category = pipeline(["looks/vectors", "embedding/out"], *OBJECTS)
    assert names(category) == {"features": ["net/out"]}
    assert names(category, ["features"]) == {"features": ["net/out"]}
    with pytest.raises(
        SidecarError,
        match=r"looks/vectors, pieces/segments: learned from normal images; fit first and pass --bundles",
    ):
        names(category, ["features", "segments"])


def test_stateless_segmenter_needs_no_bundle() -> None:
    category = pipeline(["named/segments"], Step("sam/segments"), Learning("named/segments", "sam/segments"))
    assert names(category, ["segments"]) == {"segments": ["sam/segments"]}


def test_teacher_fields_are_stored() -> None:
    steps = (Step("net/out"), Trained("student/out"), Step("difference/out", "student/out", "net/out"))
    assert names(pipeline(["difference/out"], *steps)) == {"features": ["net/out"]}
    assert names(pipeline(["difference/out"], *steps, learned=("student",)))["features"] == [
        "difference/out",
        "net/out",
    ]


def test_stages_are_planned_in_fixed_order() -> None:
    category = pipeline(["looks/vectors", "words/text"], *OBJECTS, learned=("labels", "pieces", "embedding"))
    assert tuple(names(category, ["descriptions", "segments", "features"])) == tuple(
        stage for stage in STAGES if stage != "captions"
    )
    assert tuple(names(category, ["descriptions"])) == ("descriptions",)


def test_unneeded_stage_is_omitted() -> None:
    assert names(pipeline(["net/out"], Step("net/out")), ["features", "segments"]) == {"features": ["net/out"]}


def test_levels_of_image_files_are_not_stored() -> None:
    class Detailed(Step):
        reads_originals = True

    category = pipeline(["net/out", "large/out"], Step("net/out"), Detailed("large/out"))
    assert names(category) == {"features": ["net/out"]}
