"""Visual anomaly detection, structural and logical, for production image archives, on Ray.

The names in `__all__` are the public API. Each is imported on first use, to keep `import uniad_ray` fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniad_ray.config.base import StrictModel
    from uniad_ray.experts.base import Evidence, Expert
    from uniad_ray.model import Model, Verdict, load_model
    from uniad_ray.perception.base import Extractor as Extractor
    from uniad_ray.perception.base import Perception, State
    from uniad_ray.verbs import caption, compare, evaluate, fit, ingest, nightly, report, score
    from uniad_ray.verbs import precompute as precompute

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "Evidence",
    "Expert",
    "Extractor",
    "Model",
    "Perception",
    "State",
    "StrictModel",
    "Verdict",
    "caption",
    "compare",
    "evaluate",
    "fit",
    "ingest",
    "load_model",
    "nightly",
    "precompute",
    "report",
    "score",
]

_LAZY = {
    "Evidence": ("uniad_ray.experts.base", "Evidence"),
    "Expert": ("uniad_ray.experts.base", "Expert"),
    "Extractor": ("uniad_ray.perception.base", "Extractor"),
    "Model": ("uniad_ray.model", "Model"),
    "Perception": ("uniad_ray.perception.base", "Perception"),
    "State": ("uniad_ray.perception.base", "State"),
    "StrictModel": ("uniad_ray.config.base", "StrictModel"),
    "Verdict": ("uniad_ray.model", "Verdict"),
    "caption": ("uniad_ray.verbs", "caption"),
    "compare": ("uniad_ray.verbs", "compare"),
    "evaluate": ("uniad_ray.verbs", "evaluate"),
    "fit": ("uniad_ray.verbs", "fit"),
    "ingest": ("uniad_ray.verbs", "ingest"),
    "load_model": ("uniad_ray.model", "load_model"),
    "nightly": ("uniad_ray.verbs", "nightly"),
    "precompute": ("uniad_ray.verbs", "precompute"),
    "report": ("uniad_ray.verbs", "report"),
    "score": ("uniad_ray.verbs", "score"),
}
"""Module and name of each public name."""


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    found = getattr(import_module(module), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, including those not yet imported."""
    return sorted({*globals(), *__all__})
