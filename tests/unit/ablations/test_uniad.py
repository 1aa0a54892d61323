from __future__ import annotations

import pytest
import torch

from uniad_ray.ablations.table import WHOLE, variant_config
from uniad_ray.ablations.uniad import EXPERTS, uniad_ablation
from uniad_ray.config.loading import load_config
from uniad_ray.errors import ConfigError
from uniad_ray.perception.features.student import LossWeights, StudentConfig, TeacherShapes, build_student

TABLES = range(4, 10)


@pytest.mark.parametrize("table", TABLES)
def test_variants_fit_the_experts_of_their_rows(table: int) -> None:
    plan = uniad_ablation(table, ("resnet18",))
    assert plan.table == table
    for row in plan.rows:
        (variant,) = row.variants
        assert variant in plan.variants
        assert set(row.experts) <= set(plan.experts_of(variant))
        assert row.settings.keys() == plan.rows[0].settings.keys()
    assert len({tuple(row.settings.values()) for row in plan.rows}) == len(plan.rows)


@pytest.mark.parametrize("table", TABLES)
def test_every_variant_is_a_valid_configuration(table: int) -> None:
    plan = uniad_ablation(table, ("resnet18", "resnet34"))
    for variant in plan.variants:
        config = variant_config(plan, variant, "embedded", ["image_size=[64, 64]"])
        assert config.image_size == (64, 64)
        assert config.chosen_experts == plan.experts_of(variant)
        StudentConfig.model_validate(config.extractors["student"].config)


def test_tables_seven_to_nine_share_one_fit() -> None:
    configs = [variant_config(uniad_ablation(table, ()), WHOLE, "embedded", []) for table in TABLES]
    assert all(config == configs[0] for config in configs)
    assert configs[0].chosen_experts == EXPERTS


def test_tables_five_and_six_switch_losses_off() -> None:
    def losses(table: int, variant: str) -> LossWeights:
        config = variant_config(uniad_ablation(table, ()), variant, "embedded", [])
        return StudentConfig.model_validate(config.extractors["student"].config).losses

    assert losses(5, "low-level") == LossWeights(high=0)
    assert losses(5, "high-level") == LossWeights(low=0)
    assert losses(6, "structural-teacher") == LossWeights(logical=0)
    assert losses(6, "logical-teacher") == LossWeights(low=0, high=0)


def test_table_four_trains_requested_backbones() -> None:
    plan = uniad_ablation(4, ("resnet18", "resnet34"))
    backbones = ["as the teacher", "as the teacher", "resnet18", "resnet34"]
    assert [row.settings["backbone"] for row in plan.rows] == backbones


@pytest.mark.parametrize("row", range(3))
def test_every_backbone_of_table_four_builds(row: int) -> None:
    plan = uniad_ablation(4, ("resnet18",))
    config = variant_config(plan, plan.rows[row].variants[0], "embedded", [])
    student = StudentConfig.model_validate(config.extractors["student"].config)
    shapes = TeacherShapes(levels=[(24, 8, 8), (40, 4, 4), (112, 2, 2)], logical=(120, 2, 2))

    network = build_student(student, shapes)

    assert student.architecture == ("tf_efficientnet_lite0", "tf_efficientnet_lite0", "resnet18")[row]
    assert (student.initial is None) == (row > 0)
    assert [level.shape[1] for level in network(torch.zeros(1, 3, 32, 32)).levels] == [24, 40, 112]


def test_unknown_table_or_missing_expert_is_refused() -> None:
    with pytest.raises(ConfigError, match="--table 3: unknown table of UniAD; use 4, 5, 6, 7, 8, 9"):
        uniad_ablation(3, ())
    assert "relations" in load_config("embedded").experts
    with pytest.raises(ConfigError, match="table 8 needs the experts"):
        variant_config(
            uniad_ablation(8, ()),
            WHOLE,
            "embedded",
            [
                "experts={patch: {class: 'a:B'}}",
                "expert_sets={patch: [patch]}",
                "expert_set=patch",
                "fusion={}",
                "fusions={}",
            ],
        )


@pytest.mark.parametrize(
    ("profile", "titles"),
    [
        ("embedded", ["none", "sentences about components", "captions"]),
        ("paper", ["none", "sentences about components", "captions", "captions, T5"]),
    ],
)
def test_table_seven_compares_describers(profile: str, titles: list[str]) -> None:
    plan = uniad_ablation(7, (), load_config(profile), "/data/captions")
    config = variant_config(plan, WHOLE, profile, [])
    assert list(dict.fromkeys(row.settings["text"] for row in plan.rows)) == titles
    assert config.extractors["caption"].config == {"captioner": {"kind": "table", "source": "/data/captions"}}
    read = {}
    for row in plan.rows:
        for name in set(row.experts) & {"text", "text_captions", "text_captions_t5"}:
            encoder = config.extractors[config.experts[name].config.get("embedding", "text_embedding/").split("/")[0]]
            read[row.settings["text"]] = encoder.config["text"]
    assert read.pop("sentences about components") == "description/text"
    assert set(read.values()) == {"caption/text"}
    # Without captions, no row needs a model.
    assert [row.settings["text"] for row in uniad_ablation(7, (), load_config(profile)).rows] == [
        "none",
        *["sentences about components"] * 2,
    ]
