from __future__ import annotations

import pytest

from uniad_ray.config.class_lists import all_classes, class_lists, classes_of_category
from uniad_ray.config.loading import load_config
from uniad_ray.errors import ConfigError
from uniad_ray.perception.segmentation.sam.grounded_sam_segmenter import GroundedSamSegmenterConfig
from uniad_ray.scoring.fitting.clip.setup import find_clip

SEVEN = ["mvtec-loco", "mvtec-ad", "visa", "mpdd", "brain-mri", "liver-ct", "resc"]
FOLDERS = {"embedding": "a/b", "sam_weights": {"uri": "file:a"}, "weights": {"uri": "file:a"}}


def test_there_are_lists_for_the_seven_data_sets() -> None:
    assert list(class_lists()) == SEVEN
    assert [len(lists) for lists in class_lists().values()] == [5, 15, 12, 6, 1, 1, 1]


@pytest.mark.parametrize("data_set", SEVEN)
def test_every_list_is_valid_for_grounding_dino(data_set: str) -> None:
    for classes in (*class_lists()[data_set].values(), all_classes(data_set)):
        assert GroundedSamSegmenterConfig.model_validate({**FOLDERS, "classes": classes}).classes == classes


def test_a_category_gets_its_own_list() -> None:
    assert classes_of_category("mvtec-loco", "pushpins") == ("pushpin",)
    assert classes_of_category("mvtec-loco/screw_bag", "pushpins")[-1] == "washer"
    assert classes_of_category(("bolt",), "pushpins") == ("bolt",)
    assert classes_of_category("resc", "whatever") == ("retina",)
    with pytest.raises(ConfigError, match=r"no list for the category 'tray' but for breakfast_box.*=mvtec-loco/breakf"):
        classes_of_category("mvtec-loco", "tray")


def test_all_classes_are_those_of_every_category_once() -> None:
    assert all_classes("visa").count("macaroni") == 1
    assert all_classes("visa/macaroni2") == ("macaroni",)


def test_configuration_of_a_category_has_its_classes() -> None:
    config = load_config("paper", ["classes=mvtec-loco"])
    assert config.of_category("splicing_connectors").classes == ("splicing connector", "cable")
    assert load_config("paper").of_category("splicing_connectors") == load_config("paper")
    with pytest.raises(ConfigError, match="profile paper with --set: classes is mvtec-loco, which has no list for"):
        config.of_category("tray")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("mvtec", "classes: there is no list 'mvtec'; list the classes, or use one of mvtec-loco, mvtec-ad, visa"),
        ("mvtec-loco/box", "classes: mvtec-loco has no list 'box'; it has breakfast_box, juice_bottle"),
        ("{a: 1}", r"classes: write a list of words, such as \[bolt, nut\], or the name of a list"),
    ],
)
def test_unknown_list_is_one_line(value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config("paper", [f"classes={value}"])
    assert "\n" not in str(caught.value)


def test_tuned_clip_knows_all_classes_and_own_ones_come_first() -> None:
    setup = find_clip(load_config("paper", ["classes=mvtec-loco"]))
    assert (setup.name, setup.namer.classes) == ("named_objects", all_classes("mvtec-loco"))
    own = "extractors.named_objects.config.classes=[bolt, nut]"
    assert find_clip(load_config("paper", ["classes=mvtec-loco", own])).namer.classes == ("bolt", "nut")
