"""Import timm without PyTorch's compiler, which nothing here uses and which takes 40 % of the import time.

torchvision and timm import the compiler for two small functions. During their import, a stand-in provides these two.
For anything else, the stand-in imports the compiler itself.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch  # noqa: F401 - it would import the compiler if it found a stand-in

_COMPILER = "torch._dynamo"
_MODULES = (_COMPILER, f"{_COMPILER}.utils")


class _StandIn(ModuleType):
    """Provide the attributes set on it, and any other from the real module of the same name."""

    def __getattr__(self, name: str) -> Any:
        # Import machinery and debugging tools read these from every module.
        if name.startswith("__"):
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


def _disable(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """Return a function unchanged: it is never compiled, so it needs no protection from the compiler."""
    return function if function is not None else _disable


def _is_compile_supported(device: Any) -> Any:
    return importlib.import_module(_MODULES[1]).is_compile_supported(device)


def _remove_stand_ins() -> None:
    for name in _MODULES:
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


@contextmanager
def without_compiler() -> Iterator[None]:
    """Keep imports in a block from importing the compiler, unless it is imported already."""
    if _COMPILER in sys.modules:
        yield
        return
    compiler, utilities = (_StandIn(name) for name in _MODULES)
    vars(compiler).update(disable=_disable, utils=utilities, __path__=[])
    vars(utilities).update(is_compile_supported=_is_compile_supported)
    sys.modules.update({compiler.__name__: compiler, utilities.__name__: utilities})
    try:
        yield
    finally:
        _remove_stand_ins()


with without_compiler():
    import timm
    from timm.models.vision_transformer import VisionTransformer

__all__ = ["VisionTransformer", "timm", "without_compiler"]
