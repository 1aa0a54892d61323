"""Experts: each turns a perception into evidence of an anomaly.

This package defines the contract. Each family of experts is a subpackage.
"""

from __future__ import annotations

from uniad_ray.experts.base import Evidence, Expert

__all__ = ["Evidence", "Expert"]
