"""Parameters of a network from an ONNX file: only read, never run.

An exporter folds constants. The weight of a linear layer is then stored transposed, and the position embeddings of a
vision transformer in two parts, all without the names of the parameters. The names follow from the graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

_BIAS: Final = ".bias"
_CLASS_TOKEN: Final = "cls_token"  # noqa: S105 - the end of a parameter's name
_POSITIONS: Final = "position_embeddings"
_KEEPS_ORDER: Final = frozenset({"Identity", "Cast", "Reshape", "Transpose", "Resize", "Expand"})
"""Operations between a stored tensor and its use as tokens; position embeddings are resized as an image."""


def read_onnx(path: Path) -> dict[str, torch.Tensor]:
    """Reads the floating-point initialisers of an ONNX file as parameters.

    Two kinds of parameters get back the names that the exporter dropped:

    - A matrix that is multiplied from the right, before `<layer>.bias` is added, is `<layer>.weight`, transposed.
    - Tensors that are concatenated and added to the tokens behind `<prefix>cls_token` are
      `<prefix>position_embeddings`.

    All others keep their names in the graph. A tensor that the exporter stored once for several parameters is returned
    under each of their names.

    Args:
        path: The file. Tensors in other files (external data) are refused.

    Returns:
        Tensors by parameter name: float16, float32 or float64, in the layout of torch's modules.

    Raises:
        ValueError: The file has no parameters, refers to another file, or a tensor does not have its declared shape.
        google.protobuf.message.DecodeError: The file is no ONNX file, or is truncated.
    """
    import onnx  # Takes 0.2 s, and only profiles with an ONNX file need it.

    graph = onnx.ModelProto.FromString(path.read_bytes()).graph
    floats = {onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}
    stored: dict[str, torch.Tensor] = {}
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ValueError(f"the tensor {tensor.name} is in another file; save the model as one file")
        if tensor.name in stored:
            raise ValueError(f"it has two tensors {tensor.name}")
        # Integers are shapes and indices, not parameters.
        if tensor.data_type in floats:
            stored[tensor.name] = _as_torch(tensor)
    if not stored:
        raise ValueError("it has no parameters")
    return _Graph(graph, stored).named_parameters()


def _as_torch(tensor: TensorProto) -> torch.Tensor:
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor)
    if array.shape != tuple(tensor.dims):
        raise ValueError(f"the tensor {tensor.name} does not have its declared shape")
    # torch needs arrays that it may write to.
    return torch.from_numpy(np.array(array))


class _Named(NamedTuple):
    """A parameter whose name follows from the graph.

    Attributes:
        name: Its name.
        tensor: Its value, as in torch's module.
        sources: Names in the graph of the tensors that it consists of.
    """

    name: str
    tensor: torch.Tensor
    sources: list[str]


class _Graph:
    """A graph and its tensors, by the names of the values."""

    def __init__(self, graph: GraphProto, stored: Mapping[str, torch.Tensor]) -> None:
        self._tensors = dict(stored)
        self._nodes = list(graph.node)
        self._producer = {output: node for node in self._nodes for output in node.output}
        self._consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self._nodes:
            for name in node.input:
                self._consumers[name].append(node)
            # Equal parameters are stored once; the others are copies of it.
            if node.op_type == "Identity" and node.input[0] in self._tensors:
                self._tensors[node.output[0]] = self._tensors[node.input[0]]

    def named_parameters(self) -> dict[str, torch.Tensor]:
        parameters = dict(self._tensors)
        for found in [*self._linear_weights(), *self._position_embeddings()]:
            if found.name in parameters:
                raise ValueError(f"the graph has two candidates for {found.name}")
            parameters[found.name] = found.tensor
            for source in found.sources:
                # A tensor may be the source of several equal parameters.
                parameters.pop(source, None)
        return parameters

    def _linear_weights(self) -> Iterator[_Named]:
        """Matrices that are multiplied from the right, before a bias is added."""
        for node in self._nodes:
            if node.op_type != "MatMul" or node.input[1] not in self._tensors:
                continue
            matrix = self._tensors[node.input[1]]
            bias = self._added_bias(node.output[0])
            if bias is None or matrix.ndim != 2 or self._tensors[bias].shape != matrix.shape[1:]:
                continue
            name = f"{bias.removesuffix(_BIAS)}.weight"
            if name not in self._tensors:
                yield _Named(name, matrix.T.contiguous(), [node.input[1]])

    def _added_bias(self, value: str) -> str | None:
        """The bias that is added to a value, if nothing else is done with the value."""
        consumers = self._consumers[value]
        if len(consumers) != 1 or consumers[0].op_type != "Add":
            return None
        names = [name for name in consumers[0].input if name.endswith(_BIAS) and name in self._tensors]
        return names[0] if len(names) == 1 else None

    def _position_embeddings(self) -> Iterator[_Named]:
        """Tensors that are added to the concatenation of the class token and the patches."""
        for class_token in [name for name in self._tensors if name.endswith(_CLASS_TOKEN)]:
            name = f"{class_token.removesuffix(_CLASS_TOKEN)}{_POSITIONS}"
            if name in self._tensors:
                continue
            for added in self._added_to_tokens(class_token):
                sources = [added] if added in self._tensors else self._joined(self._producer.get(added))
                if sources and all(self._is_like(source, class_token) for source in sources):
                    yield _Named(name, torch.cat([self._tensors[source] for source in sources], dim=1), sources)

    def _added_to_tokens(self, class_token: str) -> Iterator[str]:
        """The values that are added to a concatenation with the class token."""
        for tokens in [node.output[0] for node in self._nodes if class_token in self._joined(node)]:
            for node in self._consumers[tokens]:
                if node.op_type == "Add":
                    yield from (value for value in node.input if value != tokens)

    def _joined(self, node: NodeProto | None) -> list[str]:
        """What a node concatenates along the tokens; empty for other nodes."""
        if node is None or node.op_type != "Concat" or not any(a.name == "axis" and a.i == 1 for a in node.attribute):
            return []
        return [self._origin(value) for value in node.input]

    def _origin(self, value: str) -> str:
        """The tensor, or the first value, that a value is a copy of, perhaps in another shape or size."""
        for _ in self._nodes:
            producer = self._producer.get(value)
            if value in self._tensors or producer is None or producer.op_type not in _KEEPS_ORDER:
                break
            value = producer.input[0]
        return value

    def _is_like(self, name: str, class_token: str) -> bool:
        """Whether a name is that of a tensor with one vector per token; a grid of vectors, for example, is not."""
        if name not in self._tensors or self._tensors[name].ndim != 3:
            return False
        return self._tensors[name].shape[::2] == self._tensors[class_token].shape[::2]
