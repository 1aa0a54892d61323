"""Synthetic trays of parts in MVTec LOCO's folder layout, for the demo and the tests."""

from __future__ import annotations

from uniad_ray.archive.scenes.dataset import SceneConfig, defect_masks, draw_scene, iterate_files
from uniad_ray.archive.scenes.files import SceneFile
from uniad_ray.archive.scenes.layout import draw_logical, draw_normal, draw_structural
from uniad_ray.archive.scenes.model import Colour, LogicalDefect, Part, PartKind, Scene, StructuralDefect, View
from uniad_ray.archive.scenes.painting import Rendering, part_masks, render
from uniad_ray.archive.scenes.rules import SceneRules

__all__ = [
    "Colour",
    "LogicalDefect",
    "Part",
    "PartKind",
    "Rendering",
    "Scene",
    "SceneConfig",
    "SceneFile",
    "SceneRules",
    "StructuralDefect",
    "View",
    "defect_masks",
    "draw_logical",
    "draw_normal",
    "draw_scene",
    "draw_structural",
    "iterate_files",
    "part_masks",
    "render",
]
