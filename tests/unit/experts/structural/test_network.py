from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from uniad_ray.errors import FitError
from uniad_ray.experts.structural.network import (
    Discriminator,
    DiscriminatorConfig,
    NormalityFunction,
    train_discriminator,
    truncated_l1,
)

CHANNELS, HIDDEN = 5, 7
CPU = torch.device("cpu")


def normal_vectors(count: int = 400, seed: int = 0) -> np.ndarray:
    """Vectors near a plane, far from the origin, with different deviations per channel."""
    random = np.random.default_rng(seed)
    plane = np.random.default_rng(1).normal(size=(2, CHANNELS))
    vectors = random.normal(size=(count, 2)) @ plane + 0.05 * random.normal(size=(count, CHANNELS))
    return np.asarray(vectors * [1, 10, 0.1, 1, 1] + [0, 30, 0, -5, 0], dtype=np.float32)


def trained(vectors: np.ndarray | None = None, seed: int = 0, images: int = 20, **options: object) -> NormalityFunction:
    settings = {"hidden": 16, "noise": 0.3, "epochs": 30, "batch_vectors": 50, "learning_rate": 5e-3, **options}
    config = DiscriminatorConfig.model_validate({"seed": seed, **settings})
    chosen = normal_vectors() if vectors is None else vectors
    return train_discriminator(chosen, config, name="structural", device=CPU, images=images)


def network_after_training() -> Discriminator:
    """A network whose parameters and running statistics all differ from their initial values."""
    network = Discriminator(CHANNELS, HIDDEN, torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=random) + (0.5 if "running_var" in name else -0.5))
    return network.eval()


def normality_slowly(network: Discriminator, vector: np.ndarray) -> float:
    """Adapter, linear, batch norm, leaky ReLU of slope 0.2 and linear, computed number by number."""
    of = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    adapted = [
        sum(of["adapter.weight"][out, c] * vector[c] for c in range(CHANNELS)) + of["adapter.bias"][out]
        for out in range(CHANNELS)
    ]
    normality = of["output.bias"][0]
    for unit in range(HIDDEN):
        value = sum(of["hidden.weight"][unit, c] * adapted[c] for c in range(CHANNELS)) + of["hidden.bias"][unit]
        value = (value - of["norm.running_mean"][unit]) / math.sqrt(of["norm.running_var"][unit] + 1e-5)
        value = value * of["norm.weight"][unit] + of["norm.bias"][unit]
        normality += of["output.weight"][0, unit] * (value if value > 0 else 0.2 * value)
    return float(normality)


def test_normality_matches_the_layers_of_the_paper() -> None:
    network = network_after_training()
    vectors = normal_vectors(6)

    with torch.no_grad():
        normality = network(network.adapt(torch.from_numpy(vectors))).numpy()

    assert normality == pytest.approx([normality_slowly(network, one) for one in vectors], rel=1e-4)


def test_folding_does_not_change_results() -> None:
    network = network_after_training()
    vectors = normal_vectors(6)
    mean, deviation = vectors.mean(axis=0).astype(np.float64), vectors.std(axis=0).astype(np.float64)

    folded = NormalityFunction.folded(network, mean, deviation)

    assert set(folded.arrays) == NormalityFunction.ARRAYS
    assert {array.dtype for array in folded.arrays.values()} == {np.dtype(np.float32)}
    expected = [normality_slowly(network, (one - mean) / deviation) for one in vectors.astype(np.float64)]
    assert folded(torch.from_numpy(vectors)).numpy() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_loss_is_the_truncated_l1_of_the_paper() -> None:
    normal = torch.tensor([0.9, 0.2, -0.4, 0.5])
    pseudo = torch.tensor([-0.9, 0.1, 0.3, -0.5])

    loss = truncated_l1(normal, pseudo, 0.5)

    cells = [max(0.0, 0.5 - float(d)) + max(0.0, 0.5 + float(noisy)) for d, noisy in zip(normal, pseudo, strict=True)]
    assert cells[0] == cells[3] == 0.0
    assert float(loss) == pytest.approx(sum(cells) / 4)


def test_distant_vectors_are_less_normal() -> None:
    normality = trained()
    held_out = normal_vectors(seed=5)
    odd = held_out + np.random.default_rng(6).normal(size=held_out.shape) * held_out.std(axis=0)

    normal, anomalous = (normality(torch.from_numpy(one.astype(np.float32))).numpy() for one in (held_out, odd))

    assert np.median(normal) > 0.3
    assert np.mean(normal[:, None] > anomalous[None]) > 0.9


def test_standardised_training_ignores_channel_scale() -> None:
    vectors = normal_vectors()
    scale = np.float32([4.0, 0.25, 16.0, 1.0, 0.5])  # powers of two: scaling is exact

    plain, scaled = trained(vectors), trained(vectors * scale)

    one = torch.from_numpy(normal_vectors(50, seed=2))
    torch.testing.assert_close(scaled(one * torch.from_numpy(scale)), plain(one), rtol=1e-3, atol=1e-3)


def test_noise_is_absolute_without_standardising() -> None:
    assert not np.array_equal(
        trained(standardise=False).arrays["hidden_weight"], trained(standardise=True).arrays["hidden_weight"]
    )


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"batch_vectors": 150}, 3 * 3),
        # MVTec LOCO has 354 normal images per category on average: 160 epochs are 14,240 steps, 3 are 267.
        ({"batch_vectors": 30, "batch_images": 4}, 3 * 89),
    ],
)
def test_steps_follow_from_vectors_or_images(
    options: dict[str, int], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(Discriminator, "adapt", _counted(Discriminator.adapt, sizes))
    trained(images=354, epochs=3, **options)
    assert len(sizes) == steps
    assert max(sizes) <= options["batch_vectors"]


def _counted(method: Callable[..., torch.Tensor], sizes: list[int]) -> Callable[..., torch.Tensor]:
    def counted(network: Discriminator, vectors: torch.Tensor) -> torch.Tensor:
        sizes.append(len(vectors))
        return method(network, vectors)

    return counted


def test_constant_channel_is_handled() -> None:
    vectors = normal_vectors()
    vectors[:, 2] = 3.0

    normality = trained(vectors)(torch.from_numpy(vectors))

    assert bool(torch.isfinite(normality).all())
    assert float(normality.median()) > 0.0


def test_equal_vectors_can_be_trained_on() -> None:
    assert bool(torch.isfinite(trained(np.ones((3, 4), dtype=np.float32))(torch.ones(1, 4))).all())


def test_weights_depend_on_the_seed() -> None:
    one, same, other = trained(), trained(), trained(seed=1)

    for name, array in one.arrays.items():
        assert array.tobytes() == same.arrays[name].tobytes()
        assert array.tobytes() != other.arrays[name].tobytes()


def test_training_does_not_use_global_random_state() -> None:
    before = torch.random.get_rng_state()

    trained(epochs=1)

    assert torch.equal(torch.random.get_rng_state(), before)


def test_non_finite_loss_names_expert_and_remedy() -> None:
    with pytest.raises(FitError, match=r"structural: the discriminator's loss is not finite in epoch 1 .*standardise"):
        trained(np.full((8, 3), 3e38, dtype=np.float32), standardise=False)


@pytest.mark.parametrize(
    "options", [{"noise": 0.0}, {"epochs": 0}, {"learning_rate": 2.0}, {"max_vectors": 1}, {"epoch": 5}]
)
def test_invalid_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DiscriminatorConfig.model_validate(options)
