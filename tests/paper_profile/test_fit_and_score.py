"""The whole profile `paper` on tiny random networks of its architectures: builds, fits, and scores.

The scores mean nothing. What is tested is that the parts of both papers work together as configured.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.captioned import brightness_text
from support.chat_server import Asked, ChatServer, chat_server
from support.normal_images import DrawnNormalImages
from support.paper_networks import save_folders, tiny_architectures, tiny_profile

from uniad_ray.config.loading import load_config
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError
from uniad_ray.experts.structural import discriminator
from uniad_ray.perception.captions.captioners import CAPTION_PROMPT
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of
from uniad_ray.scoring.fitting.category import fit_category

pytest.importorskip("sentence_transformers", reason="the networks of transformers are an extra")

IMAGES = 8
ROUNDS = 3  # two folds, and all images
OTHERS = np.random.default_rng(5).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


def answer(asked: Asked) -> str:
    """The fake model: a caption, or one position for each class, which is right for classes with one object."""
    if asked.prompt == CAPTION_PROMPT:
        return brightness_text(asked)
    names = asked.prompt.splitlines()[0].removeprefix("The image shows: ").removesuffix(".").split(", ")
    return "\n".join(f"{name}: bottom right" for name in names)


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with chat_server(answer) as fake:
        yield fake


@pytest.fixture(scope="module")
def overrides(server: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with tiny_architectures():
        yield tiny_profile(save_folders(tmp_path_factory.mktemp("networks")), server.url)


def configured(overrides: list[str], expert_set: str, *further: str) -> FitConfig:
    return load_config("paper", [*overrides, f"expert_set={expert_set}", *further])


def fitted(config: FitConfig, root: Path) -> dict[str, Any]:
    """Fits, stores, loads and checks a bundle; returns its lineage by extractor and its scores of other images."""
    found = fit_category(DrawnNormalImages(IMAGES), config)
    store = BundleStore(str(root))
    manifest = store.write("part", config, found.calibration, {"extractors": found.extractors}, found.files)
    bundle = store.load("part", manifest.version)
    scorer = bundle.scorer(device="cpu")
    bundle.check_reference(scorer)
    evidence = scorer.evidence([f"other-{row}" for row in range(len(OTHERS))], OTHERS)
    assert evidence.keys() == set(config.chosen_experts)
    for name, one in evidence.items():
        assert np.isfinite(one.scores).all(), name
    return dict(found.extractors)


def test_every_expert_set_builds(overrides: list[str]) -> None:
    for name in load_config("paper").expert_sets:
        config = configured(overrides, name)
        experts = build_experts(config)
        assert {need for need, _ in needs_of(experts)} <= build_pipeline(
            config, needs_of(experts), device="cpu"
        ).provides


def test_smaller_networks_build(overrides: list[str]) -> None:
    for name in ("uniad-paper-sentences", "tmuad-paper-s"):
        config = configured([*overrides, "size=base"], name)
        pipeline = build_pipeline(config, needs_of(build_experts(config)), device="cpu")
        assert ("clip/block11" in pipeline.provides) == (name == "tmuad-paper-s")


def test_tmuad_needs_classes(overrides: list[str]) -> None:
    config = configured(overrides, "tmuad-paper", "classes=[]")
    with pytest.raises(ConfigError, match=r"there are no classes; .*, or set classes to a list or to the name of one"):
        build_pipeline(config, needs_of(build_experts(config)), device="cpu")


def test_uniad_fits_and_scores_with_captions_of_a_server(
    overrides: list[str], server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    train = discriminator.train_discriminator

    def counted(*arguments: Any, **options: Any) -> Any:
        trained.append(options["name"])
        return train(*arguments, **options)

    monkeypatch.setattr(discriminator, "train_discriminator", counted)
    server.asked.clear()
    lineage = fitted(configured(overrides, "uniad-paper"), tmp_path)

    assert {asked.prompt for asked in server.asked} == {CAPTION_PROMPT}
    assert lineage["caption_embedding"]["text"] == "caption/text"
    assert lineage["pyramid"]["architecture"] == "wide_resnet50_2"
    assert lineage["pyramid"]["weights"]["trained"] is False, "the weights say that they are fakes"
    assert len(trained) == ROUNDS, "teacher and student share one discriminator in each round"


@pytest.mark.slow
def test_uniad_reads_stored_captions_through_t5_and_spills_half(overrides: list[str], tmp_path: Path) -> None:
    keys = [row.row_key for row in DrawnNormalImages(IMAGES).rows] + [f"other-{row}" for row in range(len(OTHERS))]
    texts = [f"There are {number % 3} pins." for number in range(len(keys))]
    columns = {"row_key": keys, "prompt": [CAPTION_PROMPT] * len(keys), "text": texts}
    pq.write_table(pa.table(columns), tmp_path / "captions.parquet")
    source = f"{{kind: table, source: '{tmp_path / 'captions.parquet'}'}}"
    lineage = fitted(
        configured(
            overrides, "uniad-paper-t5", f"extractors.caption.config.captioner={source}", "spill.precision=float16"
        ),
        tmp_path / "bundles",
    )
    assert lineage["caption"]["captioner"]["kind"] == "table"
    assert "caption_embedding" not in lineage


def test_tmuad_fits_and_scores_with_names_and_positions(
    overrides: list[str], server: ChatServer, tmp_path: Path
) -> None:
    server.asked.clear()
    lineage = fitted(configured(overrides, "tmuad-paper"), tmp_path)

    assert server.asked
    assert all(asked.prompt.startswith("The image shows: ") for asked in server.asked)
    assert lineage["grounded_sam"]["classes"] == lineage["named_objects"]["classes"] == ["red pin", "bolt"]
    assert lineage["clip"]["architecture"] == "vit_large_patch14_clip_quickgelu_224"
    assert lineage["clip"]["blocks"] == [5, 11, 17, 23]
    assert lineage["clip"]["weights"]["trained"] is False, "the weights say that they are fakes"


@pytest.mark.slow
def test_tmuad_without_a_vision_language_model(overrides: list[str], server: ChatServer, tmp_path: Path) -> None:
    server.asked.clear()
    lineage = fitted(configured(overrides, "tmuad-paper-s"), tmp_path)
    assert not server.asked
    assert lineage["grid_description"]["positions"] == "grid"
