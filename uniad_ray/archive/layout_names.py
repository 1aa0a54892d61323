"""Names of layouts, splits and labels, without the readers: the command line imports this module."""

from __future__ import annotations

from typing import Literal, get_args

LayoutName = Literal["auto", "mvtec", "mvtec_ad_2", "visa", "bmad", "folder"]
Split = Literal["train", "validation", "test", "archive"]
Label = Literal["normal", "anomalous"]

LAYOUT_NAMES: tuple[LayoutName, ...] = get_args(LayoutName)
"""Values of `--layout`: `auto`, the recognised layouts, and `folder`, which fits any source."""
