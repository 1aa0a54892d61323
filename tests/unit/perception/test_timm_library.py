"""timm is imported without PyTorch's compiler, which still works for those who use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORTED = """
import sys
import uniad_ray.perception.features.encoders
assert "timm" in sys.modules
assert not [name for name in sys.modules if name.startswith(("torch._dynamo", "sympy"))]
import torch
assert torch._dynamo.__file__
compiled = torch.compile(lambda x: x + 1, backend="eager")
assert compiled(torch.zeros(1)).item() == 1
from torchvision.ops import roi_align
boxes = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])]
assert roi_align(torch.ones(1, 1, 8, 8), boxes, 2).sum() == 4
"""

USED = """
import sys
from uniad_ray.perception.timm_library import without_compiler
with without_compiler():
    from torch._dynamo.utils import counters, is_compile_supported
import torch
assert counters is torch._dynamo.utils.counters
assert is_compile_supported("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
with without_compiler():
    assert sys.modules["torch._dynamo"].__file__
"""


@pytest.mark.parametrize("code", [IMPORTED, USED], ids=["imported", "used"])
def test_compiler_is_imported_only_on_use(code: str) -> None:
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
