from __future__ import annotations

import json

import pytest
import yaml
from pydantic import ValidationError

from uniad_ray.ablations.table import WHOLE, Ablation, Addition, variant_config
from uniad_ray.ablations.tmuad import TmuadTableOptions, tmuad_ablation
from uniad_ray.ablations.uniad import EXPERTS
from uniad_ray.config.loading import load_config
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of

TABLES = range(5, 12)
CLASSES = ["classes=[bolt, nut]"]
CLIP = [f"extractors.{name}.config.classes=[bolt, nut]" for name in ("named_objects", "grounded_sam")]


def table(number: int, profile: str = "embedded", *overrides: str, **options: object) -> Ablation:
    chosen = TmuadTableOptions.model_validate({"shots": (1, 4), "draws": 2, **options})
    return tmuad_ablation(number, load_config(profile, overrides), ("lid", "tray"), chosen)


def configs(plan: Ablation, profile: str = "embedded", *overrides: str) -> dict[str, FitConfig]:
    return {name: variant_config(plan, name, profile, overrides) for name in plan.variants}


@pytest.mark.parametrize("profile", ["embedded", "paper"])
@pytest.mark.parametrize("number", TABLES)
def test_variants_fit_the_experts_of_their_rows(number: int, profile: str) -> None:
    plan = table(number, profile)
    found = configs(plan, profile)
    assert (plan.paper, plan.table) == ("tmuad", number)
    for row in plan.rows:
        for variant in row.variants:
            assert {*row.experts, *row.plugged_in} <= set(found[variant].chosen_experts)
        assert row.settings.keys() == plan.rows[0].settings.keys()
    assert len({tuple(row.settings.values()) for row in plan.rows}) == len(plan.rows)
    assert {variant for row in plan.rows for variant in row.variants} == set(plan.variants)


@pytest.mark.parametrize("number", TABLES)
def test_embedded_variants_build_and_only_table_seven_needs_a_student(number: int) -> None:
    for config in configs(table(number)).values():
        experts = build_experts(config)
        pipeline = build_pipeline(config, needs_of(experts), device="cpu")
        assert ("student" in {extractor.name for extractor in pipeline.extractors}) == (number == 7)


@pytest.mark.parametrize(("number", "fits"), [(5, 2), (6, 1), (7, 1), (8, 1), (9, 1), (10, 2 * 2 * 2), (11, 1)])
def test_rows_share_fits(number: int, fits: int) -> None:
    assert len(table(number).variants) == fits


def test_banks_are_fused_calibrated_and_as_printed() -> None:
    plan = table(5)
    found = configs(plan)
    assert plan.has_pixels
    assert found[WHOLE].chosen_fusion.rule == "excess"
    assert found["paper"].chosen_fusion.rule == "maps"
    assert found["paper"].chosen_fusion.weights == {
        "text_classes": 0.05,
        "object": 0.3,
        "patch_clusters": 0.65,
    }
    assert [len(row.experts) for row in plan.rows] == [1, 1, 1, 2, 3, 3]


def test_text_matchings_are_variants_of_the_text_memory() -> None:
    (config,) = configs(table(6)).values()
    memory = config.experts["text_memory"]
    changed = {
        name: {key: value for key, value in config.experts[name].config.items() if memory.config.get(key) != value}
        for name in config.chosen_experts
        if name != "text_description_embedding_1"
    }
    assert changed == {
        "text_whole": {"image_score": "gestalt"},
        "text_relaxed": {"matching": "relaxed", "weighting": "rarity"},
        "text_equal": {"matching": "strict", "weighting": "equal"},
        "text_rarity": {"matching": "strict", "weighting": "rarity"},
    }
    assert config.extractors["description_embedding_1"].config["text"] == "object_description/text"
    assert {row.settings["text"] for row in table(6).rows} == {"description"}


def test_texts_are_captions_and_descriptions_by_clip_and_t5() -> None:
    loaded = load_config("paper", CLASSES)
    plan = tmuad_ablation(6, loaded, ("lid",), None, "s3://plant/captions")
    config = variant_config(plan, WHOLE, "paper", CLASSES)
    cosines = [row for row in plan.rows if "cosine" in row.settings["matching"]]
    kinds = {(row.settings["text"], row.settings["matching"].removeprefix("whole text, cosine of ")) for row in cosines}
    encoders = ("CLIP embeddings", "Long-CLIP embeddings", "T5 embeddings")
    assert kinds == {(text, encoder) for text in ("caption", "description") for encoder in encoders}
    assert config.extractors["caption"].config["captioner"] == {"kind": "table", "source": "s3://plant/captions"}
    for row in cosines:
        expert = config.experts[row.experts[0]].config
        encoder = config.extractors[expert["embedding"].removesuffix("/embedding")]
        field = "caption/text" if row.settings["text"] == "caption" else "grid_description/text"
        assert encoder.config["text"] == field
        assert encoder.class_path.endswith("SentenceEncoder") == ("T5" in row.settings["matching"])
        is_clip = row.settings["matching"].endswith("of CLIP embeddings")
        assert ("openai/clip" in encoder.config["weights"]["uri"]) == is_clip


def test_positions_differ_only_in_who_says_them() -> None:
    plan = table(13, "paper", *CLASSES)
    (config,) = configs(plan, "paper", *CLASSES).values()
    grid, vlm = (config.experts[row.experts[0]].config for row in plan.rows[:2])
    assert {key for key in grid if grid[key] != vlm[key]} == {"text"}
    assert (grid["text"], vlm["text"]) == ("grid_description/text", "named_description/text")
    with pytest.raises(ConfigError, match="profile embedded: table 13 needs the experts text_classes_grid"):
        configs(table(13))


def test_text_memory_plugs_into_each_detector() -> None:
    plan = table(7)
    pairs = {(row.experts, row.plugged_in) for row in plan.rows}
    for experts in (("patch",), EXPERTS):
        assert {(experts, ()), (experts, ("text_memory",))} <= pairs
    assert plan.variants[WHOLE].expert_set == "fused"


def test_object_memories_have_own_segmenter_and_encoder() -> None:
    (config,) = configs(table(8)).values()
    for row in table(8).rows:
        memory = config.experts[row.experts[0]].config
        features = config.extractors[memory["vectors"].removesuffix("/vectors")].config
        segmenter = config.extractors[memory["segments"].removesuffix("/segments")].config
        assert features["segments"] == memory["segments"]
        assert (segmenter.get("most_sets") == 1) == row.settings["segmenter"].startswith("one")
        assert (segmenter.get("necks") != []) == row.settings["segmenter"].endswith("heaps cut")
        assert ("logical/level3" in features["fields"]) == (row.settings["encoder"] == "logical network")


def test_grounded_sam_is_compared_if_classes_are_given() -> None:
    assert [tuple(row.settings.values()) for row in table(8, "paper").rows] == [
        ("SAM", "CLIP"),
        ("SAM", "DINOv2, mean of patches"),
    ]
    plan = table(8, "paper", *CLIP)
    assert [row.settings["segmenter"] for row in plan.rows] == ["SAM", "SAM", "Grounded SAM", "Grounded SAM"]
    (config,) = configs(plan, "paper", *CLIP).values()
    assert config.experts["object_4"].config["segments"] == "grounded_sam/segments"


def test_patch_encoders_are_compared_alone_and_combined() -> None:
    plan = table(9, "paper")
    (config,) = configs(plan, "paper").values()
    fields = [config.experts[row.experts[0]].config["fields"] for row in plan.rows]
    assert [len(each) for each in fields] == [4, 4, 8]
    assert (
        set(fields[0]) | set(fields[1]) == set(fields[2]) == set(load_config("paper").experts["patch"].config["fields"])
    )


def test_few_shot_draws_with_and_without_expert_selection() -> None:
    plan = table(10)
    found = configs(plan)
    draws = {(config.normal_images.most, config.normal_images.draw, config.expert_set) for config in found.values()}
    assert draws == {(most, draw, name) for most in (1, 4) for draw in (0, 1) for name in ("ablation", "fused-teacher")}
    relaxed = next(row for row in plan.rows if row.settings["experts"] == "text memory, relaxed")
    for variant in relaxed.variants:
        assert found[variant].experts[relaxed.experts[0]].config["matching"] == "relaxed"
    assert all(len(row.variants) == 2 for row in plan.rows)


def test_cost_table_fits_all_bank_sizes_once() -> None:
    plan = table(11)
    assert plan.has_costs
    (config,) = configs(plan).values()
    sizes = {
        (config.experts[row.experts[-1]].config["selection"], config.experts[row.experts[-1]].config["memory_size"])
        for row in plan.rows
    }
    assert {("kmeans", 25), ("kmeans", 100), ("coreset", 2000)} <= sizes
    assert len(plan.rows) == 2 * len(sizes)


def test_tuned_clip_adds_a_row_and_only_names_objects() -> None:
    assert not [row for row in table(11, "paper", *CLIP).rows if "CLIP" in row.settings]
    plan = table(11, "paper", *CLIP, clip_for_all="file:one", clip_for_each="file:{category}/clip")
    rows = {row.settings["CLIP"]: row.variants for row in plan.rows if row.settings["CLIP"]}
    assert rows == {
        "one for all categories": ("clip-for-all",),
        "one for each category": ("clip-for-lid", "clip-for-tray"),
    }
    assert [plan.variants[name].category for name in rows["one for each category"]] == ["lid", "tray"]
    config = configs(plan, "paper", *CLIP)["clip-for-lid"]
    for name in ("named_objects", "named_features"):
        assert config.extractors[name].config["weights"] == {"uri": "file:lid/clip"}
    assert config.experts["text_memory"].config["segments"] == "named_objects/segments"
    assert config.extractors["object_description"].config["segments"] == "named_objects/segments"
    own = load_config("paper").extractors["object_features"]
    assert config.extractors["object_features"] == own
    assert config.experts["object"].config["vectors"] == "object_features/vectors"


def test_invalid_tables_raise_clear_errors() -> None:
    with pytest.raises(ConfigError, match="--table 4: unknown table of TMUAD; use 5, 6, 7, 8, 9, 10, 11, 13"):
        table(4)
    with pytest.raises(ConfigError, match="a tuned CLIP needs a list of classes"):
        table(11, clip_for_all="file:one")
    with pytest.raises(ConfigError, match=r"profile paper: .*; set extractors\.named_objects\.config\.classes"):
        table(11, "paper", clip_for_all="file:one")
    with pytest.raises(ValidationError, match="clip_for_each"):
        table(11, clip_for_each="file:one")
    without = ["experts={patch: {class: 'a:B'}}", "expert_sets={patch: [patch]}", "fusion={}", "fusions={}"]
    without += ["expert_set=patch"]
    with pytest.raises(ConfigError, match=r"the table needs extractors.nothing"):
        Addition("extractors", "new", {}, like="nothing").override(load_config("embedded"))
    with pytest.raises(ConfigError, match="table 5 needs the expert set tmuad"):
        variant_config(table(5), WHOLE, "embedded", without)
    bare = Ablation("tmuad", 5, "", table(5).rows)
    with pytest.raises(ConfigError, match="table 5 needs the experts object, text_memory"):
        variant_config(bare, WHOLE, "embedded", without)


def test_addition_becomes_an_override() -> None:
    config = load_config("embedded")
    key, _, value = Addition("experts", "other", {"memory_size": 7}, like="patch").override(config).partition("=")
    assert key == "experts.other"
    assert json.loads(value) == yaml.safe_load(value)
    assert json.loads(value)["config"] == {**config.experts["patch"].config, "memory_size": 7}
