"""Types and defaults that verbs share."""

from __future__ import annotations

from typing import Literal

Device = Literal["auto", "cpu", "cuda"]

DEFAULT_PROFILE = "embedded"
