"""The verbs of the command line as Python functions, with the same names and defaults.

`uniad-ray fit ARCHIVE --bundles ROOT` and `fit(archive, bundles=root)` do the same: the command line calls these
functions. All paths are local paths or `s3://` URIs. Heavy packages are imported only when a function is called.
"""

from __future__ import annotations

from uniad_ray.verbs.data import caption, ingest, precompute
from uniad_ray.verbs.defaults import DEFAULT_PROFILE, Device
from uniad_ray.verbs.models import fit
from uniad_ray.verbs.nights import nightly
from uniad_ray.verbs.results import compare, evaluate, report, score

__all__ = [
    "DEFAULT_PROFILE",
    "Device",
    "caption",
    "compare",
    "evaluate",
    "fit",
    "ingest",
    "nightly",
    "precompute",
    "report",
    "score",
]
