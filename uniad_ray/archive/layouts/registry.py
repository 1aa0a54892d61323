"""Finds the layouts of data sets by the names of their files."""

from __future__ import annotations

import importlib
import pkgutil

from uniad_ray.archive.layouts import data_sets
from uniad_ray.archive.layouts.base import Layout

AUTO = "auto"
FOLDER = "folder"
DEFAULT_LAYOUT = "mvtec"
"""The layout of a tree with only `good` folders, which fits several layouts."""


def layout_names() -> tuple[str, ...]:
    """Values of `--layout`: `auto`, the layouts of `data_sets`, and `folder`. Imports none of them."""
    return AUTO, *_data_set_names(), FOLDER


def data_set_layouts() -> tuple[Layout, ...]:
    """The layouts that `auto` recognises, `DEFAULT_LAYOUT` first."""
    return tuple(importlib.import_module(f"{data_sets.__name__}.{name}").LAYOUT for name in _data_set_names())


def _data_set_names() -> list[str]:
    found = (module.name for module in pkgutil.iter_modules(data_sets.__path__))
    return sorted(found, key=lambda name: (name != DEFAULT_LAYOUT, name))
