"""timm, imported without PyTorch's compiler: nothing here compiles, and importing it takes as long as all the rest.

torchvision and timm ask for the compiler when they are imported, for functions that are compiled at their first call
and for methods that must not be. While they are imported, a stand-in answers; it imports the compiler if it is asked
for anything else.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch  # noqa: F401 - imports the compiler if it finds a stand-in

_COMPILER = "torch._dynamo"
_PARTS = (_COMPILER, f"{_COMPILER}.utils")


class _StandIn(ModuleType):
    """Answers what is asked at import, and has the rest from the module whose place it takes."""

    def __getattr__(self, name: str) -> Any:
        # The machinery of imports asks for these, and so do tools that look at all modules.
        if name.startswith("__"):
            raise AttributeError(name)
        for part in _PARTS:
            if isinstance(sys.modules.get(part), _StandIn):
                del sys.modules[part]
        return getattr(importlib.import_module(self.__name__), name)


def _disable(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """Keeps a function from being compiled, which nothing does."""
    return function if function is not None else _disable


def _is_compile_supported(device: Any) -> Any:
    return importlib.import_module(_PARTS[1]).is_compile_supported(device)


@contextmanager
def without_compiler() -> Iterator[None]:
    """Keeps imports in a block from importing the compiler, unless it is there already."""
    if _COMPILER in sys.modules:
        yield
        return
    compiler, utilities = (_StandIn(part) for part in _PARTS)
    vars(compiler).update(disable=_disable, utils=utilities, __path__=[])
    vars(utilities).update(is_compile_supported=_is_compile_supported)
    sys.modules.update({_PARTS[0]: compiler, _PARTS[1]: utilities})
    try:
        yield
    finally:
        for part in _PARTS:
            if isinstance(sys.modules.get(part), _StandIn):
                del sys.modules[part]


with without_compiler():
    import timm
    from timm.layers import resample_abs_pos_embed
    from timm.models.vision_transformer import VisionTransformer

__all__ = ["VisionTransformer", "resample_abs_pos_embed", "timm", "without_compiler"]
