from __future__ import annotations

from typing import Any

import pytest
from support.tuning import colour_fit

from uniad_ray.config.loading import load_config
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError
from uniad_ray.scoring.fitting.clip.setup import find_clip


def refused(config: FitConfig, namer: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        find_clip(config.with_origin("here"), namer=namer)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(name: str, **options: Any) -> FitConfig:
    """The tiny fit with changed options of an extractor, or with another extractor like `objects`."""
    config = colour_fit("file:clip")
    base = config.extractors.get(name, config.extractors["objects"])
    component = base.model_copy(update={"config": {**base.config, **options}})
    return config.model_copy(update={"extractors": {**config.extractors, name: component}})


def test_only_namer_with_classes_is_found() -> None:
    found = find_clip(changed("looks", padding=0.3))
    assert (found.name, found.padding, found.cropped) == ("objects", 0.3, "finder/segments")
    assert find_clip(colour_fit("file:clip")).padding == 0.1
    assert find_clip(changed("spare", classes=[])).name == "objects"
    assert find_clip(changed("spare"), namer="spare").name == "spare"
    assert find_clip(changed("objects", tuning={}, segments="other/segments")).cropped == "other/segments"


def test_paper_profile_uses_grounding_dino_labels() -> None:
    config = load_config("paper", ["extractors.named_objects.config.classes=[screw, washer]"])
    found = find_clip(config)
    assert (found.name, found.cropped, found.namer.tuning.images) == ("named_objects", "grounded_sam/segments", 200)


def test_invalid_classes_are_refused() -> None:
    assert "no extractor names objects by CLIP" in refused(load_config("embedded"))
    assert "list them in extractors.named_objects.config.classes" in refused(load_config("paper"))
    assert "has only 'red'; tuning needs at least two classes" in refused(changed("objects", classes=["red"]))
    assert "two classes have the same name, rename one: red, red" in refused(changed("objects", classes=["red", "red"]))
    assert "'' is not a class name" in refused(changed("objects", classes=["red", ""]))


def test_inconsistent_namers_are_refused() -> None:
    assert "objects and spare name objects by CLIP; choose one with --namer" in refused(changed("spare"))
    assert "no namer 'looks' that works by CLIP; there are objects" in refused(colour_fit("file:clip"), "looks")
    assert "objects has the weights file:clip, but its vectors have file:other" in refused(
        changed("looks", weights={"uri": "file:other"})
    )
    assert "needs vectors of a ClipObjectFeatures, not finder/vectors" in refused(
        changed("objects", vectors="finder/vectors")
    )
    assert "here: extractors.objects.config.tuning.epoch: unknown key; allowed: batch_size, blocks" in refused(
        changed("objects", tuning={"epoch": 3})
    )
