"""Loading of the networks of encoders: once per process, from files of every kind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from support.encoders import HALF, RESNET, VIT, batch, lite_config, pyramid_config, seeded, token_config

from uniad_ray.errors import WeightsError
from uniad_ray.perception.features import encoders
from uniad_ray.perception.features.encoders import FeaturePyramid, TokenEncoder


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
