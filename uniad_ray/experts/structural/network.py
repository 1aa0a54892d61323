"""A network that separates normal patch vectors from noisy copies (UniAD, eq. 6-7; after SimpleNet)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import nn
from torch.nn.utils import skip_init

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import FitError
from uniad_ray.perception.features.network import TORCH_DTYPE, Precision

_SLOPE = 0.2


class DiscriminatorConfig(StrictModel):
    """The discriminator and its training.

    Attributes:
        hidden: Width of the hidden layer.
        standardise: Scale each channel to mean 0 and deviation 1 on the training vectors, so that `noise` has the same
            meaning for all networks and channels.
        noise: Standard deviation of the Gaussian noise added to adapted vectors to create pseudo-anomalies. The paper's
            0.015 is for a WideResNet50 without standardisation; other features may be hundreds of times larger.
        truncation: th+ and -th-: a normal vector above it, or a pseudo-anomaly below its negative, has no loss.
        epochs: Number of passes over the training vectors, or over the images.
        batch_vectors: Training vectors per step, drawn from all images. The paper's 4 images hold 4 grids of them.
        batch_images: Normal images per step: an epoch then has one step for every so many images, as in the paper, and
            each step draws its vectors anew. 160 epochs of 354 images, the average of MVTec LOCO, with 4 images per
            step are 14,240 steps. null: an epoch is one pass over the training vectors.
        precision: Precision of the training; below float32 on CUDA only. Parameters and scores are always float32.
        learning_rate: Learning rate of Adam.
        weight_decay: Weight decay of Adam.
        max_vectors: Maximum number of training vectors in memory, sampled evenly over all normal images. Each takes
            4 bytes per channel; sampling needs up to two and a half times the memory.
        seed: Seed of the sample, the initial weights, the order and the noise.
    """

    hidden: int = Field(default=1024, ge=1, le=65_536)
    standardise: bool = True
    noise: float = Field(default=0.5, gt=0.0, le=1000.0)
    truncation: float = Field(default=0.5, gt=0.0, le=1000.0)
    epochs: int = Field(default=160, ge=1, le=100_000)
    batch_vectors: int = Field(default=4096, ge=2, le=1_000_000)
    batch_images: int | None = Field(default=None, ge=1, le=10_000)
    precision: Precision = "float32"
    learning_rate: float = Field(default=2e-4, gt=0.0, le=1.0)
    weight_decay: float = Field(default=1e-5, ge=0.0, le=1.0)
    max_vectors: int = Field(default=100_000, ge=2, le=20_000_000)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class Discriminator(nn.Module):
    """Adapter and two-layer perceptron that compute the normality D of each patch vector."""

    def __init__(self, channels: int, hidden: int, generator: torch.Generator) -> None:
        """Draws initial weights (Xavier, as in SimpleNet) from a generator on the CPU."""
        super().__init__()
        # The default initial values would use the global random state.
        self.adapter = skip_init(nn.Linear, channels, channels)  # type: ignore[no-untyped-call]
        self.hidden = skip_init(nn.Linear, channels, hidden)  # type: ignore[no-untyped-call]
        self.norm = nn.BatchNorm1d(hidden)
        self.output = skip_init(nn.Linear, hidden, 1)  # type: ignore[no-untyped-call]
        for layer in (self.adapter, self.hidden, self.output):
            nn.init.xavier_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)

    def adapt(self, vectors: torch.Tensor) -> torch.Tensor:
        """Adapts vectors to the domain of the data: shape (P, C) in and out."""
        adapted: torch.Tensor = self.adapter(vectors)
        return adapted

    def forward(self, adapted: torch.Tensor) -> torch.Tensor:
        """Normality of adapted vectors, shape (P, C): float32, shape (P,)."""
        hidden = F.leaky_relu(self.norm(self.hidden(adapted)), _SLOPE)
        normality: torch.Tensor = self.output(hidden)
        return normality[:, 0]


def truncated_l1(normal: torch.Tensor, pseudo_anomalous: torch.Tensor, truncation: float) -> torch.Tensor:
    """Mean truncated l1 loss over cells (UniAD, eq. 6 and 7).

    Args:
        normal: D of normal vectors, shape (P,).
        pseudo_anomalous: D of pseudo-anomalies, shape (P,).
        truncation: th+, and -th-.
    """
    return (F.relu(truncation - normal) + F.relu(truncation + pseudo_anomalous)).mean()


class NormalityFunction:
    """A trained discriminator for inference.

    After training, standardisation, adapter, hidden layer and batch norm are affine; they are stored as one layer.
    """

    ARRAYS: ClassVar[frozenset[str]] = frozenset({"hidden_weight", "hidden_bias", "output_weight", "output_bias"})

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes `hidden_weight` (H, C), `hidden_bias` (H,), `output_weight` (H,), `output_bias` (1,), float32."""
        self.arrays = dict(arrays)
        self._on_device: dict[torch.device, dict[str, torch.Tensor]] = {}

    @classmethod
    def folded(cls, network: Discriminator, mean: np.ndarray, deviation: np.ndarray) -> Self:
        """Folds a network trained on (vector - mean) / deviation."""
        values = {name: tensor.detach().cpu().double().numpy() for name, tensor in network.state_dict().items()}
        scale = values["norm.weight"] / np.sqrt(values["norm.running_var"] + network.norm.eps)
        weight = scale[:, None] * (values["hidden.weight"] @ values["adapter.weight"]) / deviation
        shift = values["hidden.weight"] @ values["adapter.bias"] + values["hidden.bias"] - values["norm.running_mean"]
        folded = {
            "hidden_weight": weight,
            "hidden_bias": scale * shift + values["norm.bias"] - weight @ mean,
            "output_weight": values["output.weight"][0],
            "output_bias": values["output.bias"],
        }
        return cls({name: value.astype(np.float32) for name, value in folded.items()})

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """Normality D of patch vectors: float32, shape (P, C) to (P,)."""
        if vectors.device not in self._on_device:
            self._on_device[vectors.device] = {
                name: torch.from_numpy(array).to(vectors.device) for name, array in self.arrays.items()
            }
        layer = self._on_device[vectors.device]
        hidden = F.leaky_relu(F.linear(vectors, layer["hidden_weight"], layer["hidden_bias"]), _SLOPE)
        return hidden @ layer["output_weight"] + layer["output_bias"]


def train_discriminator(
    vectors: np.ndarray, config: DiscriminatorConfig, *, name: str, device: torch.device, images: int
) -> NormalityFunction:
    """Trains on normal vectors and noisy copies of them.

    On the CPU with one thread, the same vectors in the same order give bit-identical weights.

    Args:
        vectors: Normal patch vectors, float32, shape (M, C), M >= 1, finite.
        config: Network and training.
        name: Name of the expert, for messages.
        device: Device for training.
        images: Number of normal images that the vectors come from, for `batch_images`.

    Raises:
        FitError: The loss is not finite.
    """
    order = torch.Generator().manual_seed(config.seed)
    noise = torch.Generator(device).manual_seed(config.seed)
    rows = torch.from_numpy(vectors)
    mean, deviation = _mean_and_deviation(rows, config.standardise)
    # One copy: a batch would otherwise cross the bus in each of thousands of steps.
    rows = rows.to(device)
    shift, scale = mean.to(device), deviation.to(device)
    network = Discriminator(vectors.shape[1], config.hidden, order).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
    half = torch.autocast(device.type, TORCH_DTYPE[config.precision], enabled=config.precision != "float32")
    for epoch in range(config.epochs):
        total = torch.zeros((), device=device)
        for chosen in _batches(len(rows), images, config, order):
            with half:
                adapted = network.adapt((rows[chosen.to(device)] - shift) / scale)
                disturbed = adapted + config.noise * torch.randn(adapted.shape, generator=noise, device=device)
                normal, pseudo_anomalous = network(torch.cat([adapted, disturbed])).float().chunk(2)
                loss = truncated_l1(normal, pseudo_anomalous, config.truncation)
            optimiser.zero_grad()
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimiser)
            scaler.update()
            total += loss.detach()
        if not bool(torch.isfinite(total)):
            raise FitError(
                f"{name}: the discriminator's loss is not finite in epoch {epoch + 1} of {config.epochs}; "
                "lower learning_rate, or enable standardise"
            )
    return NormalityFunction.folded(network, mean.double().numpy(), deviation.double().numpy())


def _batches(count: int, images: int, config: DiscriminatorConfig, order: torch.Generator) -> Iterator[torch.Tensor]:
    """The rows of each step of an epoch, out of `count` rows."""
    if config.batch_images is None:
        yield from torch.randperm(count, generator=order).tensor_split(math.ceil(count / config.batch_vectors))
        return
    for _ in range(math.ceil(images / config.batch_images)):
        yield torch.randint(count, (min(count, config.batch_vectors),), generator=order)


def _mean_and_deviation(vectors: torch.Tensor, standardise: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each channel, shape (C,) each; 0 and 1 without standardisation."""
    if not standardise:
        return torch.zeros(vectors.shape[1]), torch.ones(vectors.shape[1])
    variance, mean = torch.var_mean(vectors, dim=0, correction=0)
    deviation = variance.sqrt()
    largest = float(deviation.max())
    # A channel that hardly varies would turn rounding errors into anomalies.
    return mean, deviation.clamp(min=1e-3 * largest if largest > 0.0 else 1.0)
