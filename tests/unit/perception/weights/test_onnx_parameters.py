from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from support.dinov2 import onnx_bytes, random_network

from uniad_ray.perception.weights.onnx_parameters import read_onnx

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.array([7, 8, 9], dtype=np.float32)
TOKEN = np.full((1, 1, 4), 5, dtype=np.float32)
POSITIONS = np.arange(20, dtype=np.float32).reshape(1, 5, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.onnx"


def save(path: Path, tensors: Sequence[TensorProto], nodes: Sequence[NodeProto] = ()) -> None:
    graph = helper.make_graph(list(nodes), "g", [], [], initializer=list(tensors))
    path.write_bytes(helper.make_model(graph).SerializeToString())


def stored(**arrays: np.ndarray) -> list[TensorProto]:
    """Initialisers; a double underscore in a name stands for a dot."""
    return [numpy_helper.from_array(array, name.replace("__", ".")) for name, array in arrays.items()]


def linear(matrix: str, bias: str, output: str = "sum") -> list[NodeProto]:
    product = f"{output}-product"
    return [helper.make_node("MatMul", ["x", matrix], [product]), helper.make_node("Add", [bias, product], [output])]


def plain(parameters: dict[str, torch.Tensor]) -> dict[str, object]:
    return {name: tensor.tolist() for name, tensor in parameters.items()}


class TestExportedNetwork:
    @pytest.mark.parametrize("initial_norms", [False, True])
    def test_every_parameter_has_its_name_and_value(self, path: Path, initial_norms: bool) -> None:
        network = random_network(initial_norms=initial_norms)
        path.write_bytes(onnx_bytes(network))
        graph = onnx.load(path).graph
        names = {tensor.name for tensor in graph.initializer}
        expected = network.state_dict()
        # The inference graph does not use it.
        del expected["backbone.embeddings.mask_token"]
        # The test needs a file with lost names, and one with parameters that are stored once for several layers.
        assert not names & {name for name in expected if name.endswith(("query.weight", "position_embeddings"))}
        assert any(node.op_type == "Identity" for node in graph.node) is initial_norms
        found = read_onnx(path)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name
            assert found[name].is_contiguous()


class TestLinearLayers:
    def test_weight_is_transposed_and_named_like_its_bias(self, path: Path) -> None:
        save(path, stored(folded=MATRIX, layer__bias=BIAS), linear("folded", "layer.bias"))
        assert plain(read_onnx(path)) == {"layer.bias": [7, 8, 9], "layer.weight": [[0, 3], [1, 4], [2, 5]]}

    def test_one_matrix_of_two_equal_layers(self, path: Path) -> None:
        nodes = [*linear("folded", "a.bias", "first"), *linear("folded", "b.bias", "second")]
        save(path, stored(folded=MATRIX, a__bias=BIAS, b__bias=BIAS + 1), nodes)
        found = read_onnx(path)
        assert found.keys() == {"a.bias", "a.weight", "b.bias", "b.weight"}
        assert torch.equal(found["a.weight"], found["b.weight"])

    def test_a_named_weight_is_not_transposed(self, path: Path) -> None:
        save(path, stored(layer__weight=MATRIX, layer__bias=BIAS), linear("layer.weight", "layer.bias"))
        assert plain(read_onnx(path))["layer.weight"] == MATRIX.tolist()

    @pytest.mark.parametrize(
        ("tensors", "nodes"),
        [
            pytest.param({"layer__bias": BIAS[:1]}, linear("folded", "layer.bias"), id="bias of another width"),
            pytest.param({"offset": BIAS}, linear("folded", "offset"), id="no bias"),
            pytest.param(
                {"layer__bias": BIAS},
                [*linear("folded", "layer.bias"), helper.make_node("Relu", ["sum-product"], ["y"])],
                id="product has another use",
            ),
            pytest.param(
                {"layer__bias": BIAS},
                [
                    helper.make_node("MatMul", ["folded", "x"], ["p"]),
                    helper.make_node("Add", ["layer.bias", "p"], ["y"]),
                ],
                id="multiplied from the left",
            ),
            pytest.param(
                {"layer__bias": BIAS},
                [
                    helper.make_node("MatMul", ["x", "folded"], ["p"]),
                    helper.make_node("Mul", ["layer.bias", "p"], ["y"]),
                ],
                id="not added",
            ),
        ],
    )
    def test_other_matrices_keep_their_names(
        self, path: Path, tensors: dict[str, np.ndarray], nodes: list[NodeProto]
    ) -> None:
        save(path, stored(folded=MATRIX, **tensors), nodes)
        found = read_onnx(path)
        assert found["folded"].tolist() == MATRIX.tolist()
        assert "layer.weight" not in found

    def test_two_matrices_for_one_name(self, path: Path) -> None:
        nodes = [*linear("one", "layer.bias", "first"), *linear("two", "layer.bias", "second")]
        save(path, stored(one=MATRIX, two=MATRIX, layer__bias=BIAS), nodes)
        with pytest.raises(ValueError, match=r"two candidates for layer\.weight"):
            read_onnx(path)


class TestPositionEmbeddings:
    TOKENS = helper.make_node("Concat", ["net.cls_token", "patches"], ["tokens"], axis=1)

    def test_one_tensor_for_images_of_one_size(self, path: Path) -> None:
        nodes = [self.TOKENS, helper.make_node("Add", ["tokens", "folded"], ["y"])]
        save(path, stored(net__cls_token=TOKEN, folded=POSITIONS), nodes)
        assert plain(read_onnx(path)) == {
            "net.cls_token": TOKEN.tolist(),
            "net.position_embeddings": POSITIONS.tolist(),
        }

    def test_two_tensors_of_which_one_is_resized(self, path: Path) -> None:
        nodes = [
            self.TOKENS,
            helper.make_node("Reshape", ["grid", "shape"], ["image"]),
            helper.make_node("Resize", ["image", "", "", "size"], ["resized"]),
            helper.make_node("Concat", ["first", "resized"], ["positions"], axis=1),
            helper.make_node("Add", ["positions", "tokens"], ["y"]),
        ]
        save(path, stored(net__cls_token=TOKEN, first=POSITIONS[:, :1], grid=POSITIONS[:, 1:]), nodes)
        assert plain(read_onnx(path))["net.position_embeddings"] == POSITIONS.tolist()

    @pytest.mark.parametrize(
        ("folded", "operation"),
        [
            pytest.param(POSITIONS.transpose(0, 2, 1).copy(), "Add", id="not one vector per token"),
            pytest.param(POSITIONS, "Mul", id="not added"),
        ],
    )
    def test_other_tensors_keep_their_names(self, path: Path, folded: np.ndarray, operation: str) -> None:
        nodes = [self.TOKENS, helper.make_node(operation, ["tokens", "folded"], ["y"])]
        save(path, stored(net__cls_token=TOKEN, folded=folded), nodes)
        assert read_onnx(path).keys() == {"net.cls_token", "folded"}


class TestTensors:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_floating_point_types(self, path: Path, dtype: type[np.floating]) -> None:
        save(path, stored(a=MATRIX.astype(dtype)))
        assert read_onnx(path)["a"].numpy().dtype == dtype

    def test_values_may_be_stored_one_by_one(self, path: Path) -> None:
        save(path, [helper.make_tensor("a", TensorProto.FLOAT, (2, 3), MATRIX.ravel().tolist())])
        assert read_onnx(path)["a"].tolist() == MATRIX.tolist()

    def test_integers_are_not_parameters(self, path: Path) -> None:
        save(path, stored(a=BIAS, shape=np.array([1, -1], dtype=np.int64)))
        assert read_onnx(path).keys() == {"a"}

    def test_tensors_can_be_written_to(self, path: Path) -> None:
        save(path, stored(a=BIAS))
        read_onnx(path)["a"].add_(1)

    def test_other_files_are_not_read(self, path: Path) -> None:
        BIAS.tofile(path.with_name("secret.bin"))
        (tensor,) = stored(a=BIAS)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="secret.bin")
        save(path, [tensor])
        with pytest.raises(ValueError, match="the tensor a is in another file"):
            read_onnx(path)

    @pytest.mark.parametrize("shape", [(2,), (-1,), (4,), (3, 2), (1 << 40,), (-1, 3)])
    def test_declared_shapes_are_checked(self, path: Path, shape: tuple[int, ...]) -> None:
        (tensor,) = stored(a=BIAS)
        tensor.dims[:] = shape
        save(path, [tensor])
        with pytest.raises(ValueError, match="shape"):
            read_onnx(path)

    def test_two_tensors_of_one_name(self, path: Path) -> None:
        save(path, [*stored(a=BIAS), *stored(a=MATRIX)])
        with pytest.raises(ValueError, match="two tensors a"):
            read_onnx(path)

    @pytest.mark.parametrize("content", [b"", onnx.ModelProto(producer_name="x").SerializeToString()])
    def test_a_file_without_parameters(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no parameters"):
            read_onnx(path)
