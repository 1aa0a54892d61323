"""The picture of an expert selection."""

from __future__ import annotations

from types import ModuleType
from xml.etree import ElementTree

import pytest
from support.scripts import load_script

from uniad_ray.config.expert_selection import ExpertGroupConfig, ExpertSelectionConfig
from uniad_ray.scoring.selection import CandidateExpert, ExpertSelection

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    return load_script("docs/selection.py")


def expert(weight: float, surface: float, amount: float) -> CandidateExpert:
    return CandidateExpert(weight=weight, auroc={"surface": surface, "amount": amount}, trial=None)


def test_every_expert_has_its_figures_and_a_bar_of_its_weight(picture: ModuleType) -> None:
    config = ExpertSelectionConfig(
        surface=ExpertGroupConfig(base=("patch",)),
        arrangement=ExpertGroupConfig(base=("relations",), candidates=("text",)),
    )
    selection = ExpertSelection(
        synthetic_anomalies={"scratch": 24},
        normal_images=24,
        least_gain=0.2,
        base_auroc={},
        fused_auroc={},
        experts={"patch": expert(1.0, 0.97, 0.6), "relations": expert(0.5, 0.5, 0.88), "text": expert(0.0, 0.4, 0.51)},
    )

    drawn = ElementTree.fromstring(picture.drawing(selection, config))  # noqa: S314 - our own SVG

    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    assert {"patch", "relations", "text (candidate)", "97", "88", "51", "1.00", "0.50", "not used"} <= set(texts)
    bars = [float(bar.get("width", 0)) for bar in drawn.iter(f"{SVG}rect") if bar.get("fill") == "#2f855a"]
    assert bars == [220.0, 110.0, 0.0]
