"""The names of layouts, splits and labels, apart from what reads them, so that the command line stays light."""

from __future__ import annotations

from typing import Literal, get_args

LayoutName = Literal["auto", "mvtec", "mvtec_ad_2", "visa", "bmad", "folder"]
Split = Literal["train", "validation", "test", "archive"]
Label = Literal["normal", "anomalous"]

LAYOUT_NAMES: tuple[LayoutName, ...] = get_args(LayoutName)
"""What `--layout` may be: `auto`, the layouts that are recognised, and `folder`, which fits everything."""
