from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from pydantic import ValidationError
from support.encoders import HALF, RESNET, VIT, batch, lite_config, pyramid_config, seeded, token_config
from torch.nn import functional

from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Extractor, Perception
from uniad_ray.perception.features.encoders import (
    FeaturePyramid,
    FeaturePyramidConfig,
    TokenEncoder,
    TokenEncoderConfig,
)
from uniad_ray.perception.weights.sources import resolve
from uniad_ray.perception.weights.state_dicts import load_state_dict

pytestmark = pytest.mark.usefixtures("one_thread")


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
