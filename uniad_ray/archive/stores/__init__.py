"""Stores of objects: the local disk and S3 behind one `Location`."""

from __future__ import annotations

from uniad_ray.archive.stores.location import Location, ObjectInfo

__all__ = ["Location", "ObjectInfo"]
