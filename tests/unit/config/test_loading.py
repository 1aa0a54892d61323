from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from uniad_ray.config.loading import import_class, load_config, profile_names, read_words
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError

MINIMAL = {
    "name": "mine",
    "extractors": {"net": {"class": "a.b:C", "config": {"x": 1}}},
    "experts": {"patch": {"class": "a.b:D"}},
    "expert_sets": {"patch": ["patch"]},
    "expert_set": "patch",
}


def write(path: Path, **changes: object) -> str:
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return str(path)


def test_both_profiles_load() -> None:
    assert set(profile_names()) >= {"embedded", "paper"}
    for name in profile_names():
        assert load_config(name).name == name


def test_overrides_reach_any_depth(tmp_path: Path) -> None:
    profile = write(tmp_path / "p.yaml")
    config = load_config(
        profile,
        [
            "calibration.holdout=0.5",
            "extractors.net.config.levels=[1, 2]",
            "experts.patch.config.new.deep=true",
            "seed=7",
        ],
    )
    assert config.calibration.holdout == 0.5
    assert config.extractors["net"].config == {"x": 1, "levels": [1, 2]}
    assert config.experts["patch"].config == {"new": {"deep": True}}
    assert config.seed == 7


def test_config_knows_its_origin(tmp_path: Path) -> None:
    profile = write(tmp_path / "p.yaml")
    from_files = {"names.yaml": ["extractors.objects.config.names={part-1: bolt}"]}
    assert load_config("embedded").origin == "profile embedded"
    assert load_config("embedded", ["seed=1"]).origin == "profile embedded with --set"
    named = load_config("embedded", ["seed=1"], from_files=from_files)
    assert named.origin == "profile embedded with --set with names.yaml"
    assert named.extractors["objects"].config["names"] == {"part-1": "bolt"}
    assert load_config(profile).origin == profile
    assert FitConfig.model_validate(MINIMAL).origin == "the configuration"


def test_origin_survives_copies_but_not_dumps(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "p.yaml"))
    moved = config.with_origin("elsewhere")
    assert (moved.origin, config.origin) == ("elsewhere", str(tmp_path / "p.yaml"))
    assert moved.model_copy(update={"seed": 3}).origin == "elsewhere"
    assert moved == config
    assert moved != config.model_copy(update={"seed": 3})
    assert moved != MINIMAL
    assert moved.model_dump_json() == config.model_dump_json()
    assert "origin" not in FitConfig.model_json_schema()["properties"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("calibration.holdot=0.5", "calibration.holdot: unknown key; allowed: false_positive_rate, folds, holdout"),
        ("calibration.holdout=2", r"calibration.holdout: input should be less than 0.9 \(got 2\)"),
        ("map_size=big", r"map_size: input should be a valid integer.*\(got 'big'\)"),
        ("input_size=256", "input_size: unknown key; allowed: .*image_size, large_images, longest_side, map_size"),
        ("longest_side=31", r"longest_side: input should be greater than or equal to 32 \(got 31\)"),
        ("image_size=[64, 4097]", r"image_size.1: input should be less than or equal to 4096 \(got 4097\)"),
        ("image_size=64", r"image_size: input should be a valid tuple \(got 64\)"),
        ("sise=3", "sise: unknown key; allowed: batch_size"),
        ("expert_set=none", "expert_set is 'none'; expert_sets has patch"),
        ("expert_sets.patch=[other]", r"expert_sets.patch names \['other'\]; experts has patch"),
        ("expert_sets.patch=[]", "expert_sets.patch is empty"),
        ("fusion.weights.other=1", r"fusion.weights names \['other'\]"),
        ("extractors.net.clas=a:B", "extractors.net.clas: unknown key; allowed: class, config"),
        ("extractors.net.class=nonsense", "extractors.net.class: string should match pattern"),
        ("calibration", "write it as key.of.option=value"),
        ("=3", "write it as key.of.option=value"),
        ("name.deep=3", "name has no keys below it"),
        ("seed=[", "the value is not valid YAML"),
    ],
)
def test_wrong_overrides_name_key_and_allowed_values(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write(tmp_path / "p.yaml"), [override])
    assert "\n" not in str(caught.value)


def test_wrong_files_name_the_file(tmp_path: Path) -> None:
    profile = write(tmp_path / "mine.yaml", map_size="x")
    with pytest.raises(ConfigError, match=r"mine\.yaml: map_size: input should be a valid integer"):
        load_config(profile)
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match=r"list\.yaml: expected keys and values"):
        load_config(str(tmp_path / "list.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"bad\.yaml: not valid YAML"):
        load_config(str(tmp_path / "bad.yaml"))
    with pytest.raises(ConfigError, match="no profile 'gone': use one of embedded, paper, or the path of a YAML file"):
        load_config("gone")


def test_missing_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in MINIMAL.items() if name != "experts"}))
    with pytest.raises(ConfigError, match="experts: missing"):
        load_config(str(path))


def test_classes_are_imported_by_name() -> None:
    assert import_class("pathlib:Path", where="here") is Path
    for wrong in ("pathlib:Nothing", "no_such_module:Path", "pathlib:sys"):
        with pytest.raises(ConfigError, match="here: "):
            import_class(wrong, where="here")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fusions.other={}", r"fusions names \['other'\]"),
        ("fusions.patch.selection={surface: {base: [object]}}", "must name each of patch once, in surface or arrange"),
        ("fusions.patch.selection={surface: {candidates: [patch]}}", "surface.base or arrangement.base must name an"),
        (
            "fusions.patch={weights: {patch: 2}, selection: {surface: {base: [patch]}}}",
            "the expert selection sets the weights",
        ),
        ("fusions.patch.rule=product", "fusions.patch.rule"),
        ("fusions.tmuad.weights.relations=1", r"fusions.tmuad.weights names \['relations'\]"),
    ],
)
def test_fusion_of_a_set_is_checked(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("embedded", [override])


def test_words_stay_words_in_a_file_of_words(tmp_path: Path) -> None:
    file = tmp_path / "names.yaml"
    file.write_text("part-1: tray\npart-2: 2\npart-3: no\n")
    assert read_words(str(file), example="a: b") == {"part-1": "tray", "part-2": "2", "part-3": "no"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("part-1: a\npart-2: b\npart-1: c\n", "names part-1 twice; keep one line for each name"),
        ("- part-1\n", "write one line for each name, such as `part-1: bolt`"),
        ("part-1: [a]\n", "write one line for each name"),
        ("", "write one line for each name"),
        ("part-1: 'a\n", "not valid YAML"),
        (None, "cannot be read"),
    ],
)
def test_wrong_file_of_words_gives_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "names.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_words(str(file), example="part-1: bolt")
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_one_word_chooses_smaller_networks() -> None:
    def chosen(*overrides: str) -> tuple[str, str, list[int]]:
        found = load_config("paper", overrides).extractors
        clip, sam = found["clip"].config, found["sam"].config
        return clip["architecture"], sam["weights"]["uri"], clip["blocks"]

    large = ("vit_large_patch14_clip_quickgelu_224", "hub:facebook/sam-vit-huge@main", [5, 11, 17, 23])
    base = ("vit_base_patch16_clip_quickgelu_224", "hub:facebook/sam-vit-base@main", [2, 5, 8, 11])
    assert chosen() == chosen("size=large") == large
    assert chosen("size=base") == base
    # Own options replace those of a size, in any order.
    own = "extractors.clip.config.blocks=[1]"
    assert chosen(own, "size=base") == chosen("size=base", own) == (*base[:2], [1])


def test_unknown_size_is_one_line() -> None:
    with pytest.raises(ConfigError, match="profile paper: size is 'tiny'; there are large, base"):
        load_config("paper", ["size=tiny"])
    with pytest.raises(ConfigError, match="size: unknown key; allowed: batch_size"):
        load_config("embedded", ["size=base"])
