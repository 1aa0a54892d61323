"""Trays to train and to measure the demonstration captioner on, with the true answers to the structured prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from uniad_ray.archive.scenes import (
    Colour,
    LogicalDefect,
    Part,
    PartKind,
    Scene,
    SceneRules,
    StructuralDefect,
    draw_logical,
    draw_normal,
    draw_structural,
    render,
)
from uniad_ray.archive.scenes.layout import draw_view
from uniad_ray.perception.captions.structure import structured_prompt
from uniad_ray.perception.text.descriptions import CELLS

CLASSES: Final = tuple(str(kind) for kind in PartKind)
"""Classes of the prompt, in the order of the answer."""
PROMPT: Final = structured_prompt(CLASSES)
"""The only prompt that the model is trained to answer."""
SIDES: Final = (72, 84, 96, 112, 128, 168, 256)
"""Sides of the drawn images, pixels; with a single one, the model fails on images of other sizes."""
_SIDE_SHARES: Final = (0.14, 0.2, 0.2, 0.16, 0.14, 0.1, 0.06)
_STREAM: Final = 0x63617074
"""Sets the random numbers apart from those of `SceneConfig`, so that no training tray is in a data set of any seed."""
_FREE: Final = 0.6
"""Share of trays that obey no rule: a model that sees only normal trays learns their counts by heart."""


@dataclass(frozen=True, slots=True)
class Tray:
    """One example.

    Attributes:
        scene: What is on the tray.
        image: uint8 [side, side, 3], RGB.
        answer: The true answer as JSON, in the format of `json.dumps`, which vLLM's structured output writes too.
    """

    scene: Scene
    image: npt.NDArray[np.uint8]
    answer: str


def true_answer(parts: Sequence[Part]) -> dict[str, Any]:
    """The true answer about the parts of a tray of 3 x 3 cells: see schema `caption_answer`."""
    objects = []
    for kind in PartKind:
        cells = sorted(part.cell for part in parts if part.kind is kind)
        if cells:
            positions = [CELLS[3 * row + column] for row, column in cells]
            objects.append({"class": str(kind), "count": len(cells), "positions": positions})
    return {"objects": objects}


def draw_tray(seed: int, index: int) -> Tray:
    """Draws one training example; it depends on nothing but these arguments.

    Most trays hold any parts in any cells. The others are normal, or have a logical or structural anomaly.
    """
    rng = np.random.default_rng([_STREAM, seed, index])
    rules = SceneRules()
    chosen = rng.random()
    if chosen < _FREE:
        scene = _free_scene(rules, rng)
    elif chosen < _FREE + (1 - _FREE) / 3:
        scene = draw_normal(rules, rng)
    elif chosen < _FREE + (1 - _FREE) * 2 / 3:
        scene = draw_logical(rules, _any(tuple(LogicalDefect), rng), rng)
    else:
        scene = draw_structural(rules, _any(tuple(StructuralDefect), rng), rng)
    side = int(rng.choice(SIDES, p=_SIDE_SHARES))
    return Tray(scene, render(scene, rules, side).image, json.dumps(true_answer(scene.parts)))


def _free_scene(rules: SceneRules, rng: np.random.Generator) -> Scene:
    number = int(rng.integers(len(rules.cells) + 1))
    cells = rng.permutation(len(rules.cells))[:number]
    parts = tuple(_free_part(_any(tuple(PartKind), rng), rules, rules.cells[cell], rng) for cell in cells)
    return Scene(parts=parts, view=draw_view(rng))


def _free_part(kind: PartKind, rules: SceneRules, cell: tuple[int, int], rng: np.random.Generator) -> Part:
    colours: tuple[Colour, ...] = rules.colours(kind)
    shift = rng.uniform(-1.2, 1.2, size=2)
    return Part(
        kind=kind,
        colour=_any(colours, rng),
        cell=cell,
        angle=float(rng.choice((0.0, 90.0)) + rng.uniform(-3.0, 3.0)) % 360.0,
        shift=(float(shift[0]), float(shift[1])),
        scale=float(rng.uniform(0.98, 1.02)),
    )


def _any(choices: Sequence[Any], rng: np.random.Generator) -> Any:
    return choices[int(rng.integers(len(choices)))]
