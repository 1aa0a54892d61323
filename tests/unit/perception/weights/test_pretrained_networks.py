from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from support.tiny_networks import save_clip, save_sam

from uniad_ray.errors import ConfigError, WeightsError
from uniad_ray.perception.weights.pretrained_networks import load_network, load_processor, loading, one_at_a_time
from uniad_ray.perception.weights.sources import ResolvedWeights

pytest.importorskip("transformers", reason="the networks of transformers are an extra")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ResolvedWeights:
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder)
    return ResolvedWeights(folder, "0" * 64, f"file:{folder}")


def test_network_is_frozen_and_unchanged(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    save_sam(tmp_path)
    network = load_network("SamModel", ResolvedWeights(tmp_path, "0" * 64, f"file:{tmp_path}"), CPU)

    saved = load_file(tmp_path / "model.safetensors")
    loaded = network.state_dict()
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    for name, tensor in saved.items():
        assert torch.equal(loaded[name], tensor)


def test_one_tower_is_loaded_without_a_word(clip: ResolvedWeights, capfd: pytest.CaptureFixture[str]) -> None:
    load_network("CLIPVisionModelWithProjection", clip, CPU)

    assert capfd.readouterr() == ("", "")


def test_folder_of_another_network_is_rejected(clip: ResolvedWeights) -> None:
    with pytest.raises(ValueError, match="it holds a network of type clip, not grounding-dino"):
        load_network("GroundingDinoForObjectDetection", clip, CPU)


def test_incomplete_network_is_rejected(clip: ResolvedWeights, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    assert clip.path is not None
    tensors = load_file(clip.path / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((clip.path / "config.json").read_bytes())

    with pytest.raises(ValueError, match=r"it lacks visual_projection\.weight"):
        load_network("CLIPVisionModelWithProjection", ResolvedWeights(tmp_path, "0" * 64, f"file:{tmp_path}"), CPU)


def test_folder_without_processor_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"preprocessor_config\.json"):
        load_processor("SamImageProcessor", ResolvedWeights(tmp_path, "0" * 64, f"file:{tmp_path}"))


@pytest.mark.parametrize(
    ("failure", "error", "says"),
    [
        (ModuleNotFoundError("no", name="some_package"), ConfigError, "sam: Kind needs the package some-package; run"),
        (ValueError("it lacks a\nand b"), WeightsError, "Kind cannot load file:x: it lacks a; check that"),
        (RuntimeError("size mismatch"), WeightsError, "Kind cannot load file:x: size mismatch"),
    ],
)
def test_failure_is_one_line_and_releases_the_lock(failure: Exception, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught, loading("sam", "Kind", "file:x"):
        raise failure
    assert "\n" not in str(caught.value)
    with loading("sam", "Kind", "file:x"):
        pass


def test_calls_are_serialised() -> None:
    inside = threading.Lock()

    def alone(number: int, *, factor: int) -> int:
        assert inside.acquire(blocking=False)
        threading.Event().wait(0.01)
        inside.release()
        return factor * number

    together = one_at_a_time(alone)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda number: together(number, factor=2), range(8))) == list(range(0, 16, 2))
