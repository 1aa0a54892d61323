"""Trains the demonstration captioner on drawn trays."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from uniad_ray.archive.scenes import PartKind
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError
from uniad_ray.training.captioner.network import build_network, save_model, train_patches_as_linear
from uniad_ray.training.captioner.processing import END, IMAGE, PADDING, PATCH, SIDE, build_processor, question
from uniad_ray.training.captioner.trays import CLASSES, Tray, draw_tray

_CELLS: Final = 9
_PATCHES: Final = (SIDE // PATCH) ** 2
_CLIP: Final = 1.0
_WARM_UP: Final = 100
_LAST_RATE: Final = 0.03
_SCAFFOLD_WEIGHT: Final = 0.1
"""Weight of tokens that only follow the schema, such as keys and brackets."""
_CELL_WEIGHT: Final = 0.3
"""Weight of the loss on the image tokens."""
_IGNORED: Final = -100


class CaptionerTrainingConfig(StrictModel):
    """Options of the training.

    Attributes:
        trays: Number of training trays.
        steps: Number of steps.
        batch: Trays per step.
        learning_rate: Highest learning rate.
        seed: Seed of the trays, of the parameters and of the order.
        processes: Processes that draw trays.
        threads: Threads of the steps. On a busy machine one is fastest, because threads that wait keep their core.
    """

    trays: int = Field(default=10_000, ge=1)
    steps: int = Field(default=1_500, ge=1)
    batch: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=1.5e-3, gt=0)
    seed: int = Field(default=0, ge=0)
    processes: int = Field(default=2, ge=1)
    threads: int = Field(default=1, ge=1)


class TrainingReport(StrictModel):
    """Result of a training.

    Attributes:
        folder: Folder of the model.
        parameters: Number of its parameters.
        steps: Number of steps.
        loss: Mean loss of the last steps.
        seconds_drawing: Time to draw the trays.
        seconds_training: Time of the steps.
    """

    folder: str
    parameters: int
    steps: int
    loss: float
    seconds_drawing: float
    seconds_training: float


class _Examples(NamedTuple):
    """Training trays.

    Attributes:
        patches: Pixels as the image processor gives them, float32 [N, patches, values].
        answers: Tokens of each answer, with the end token.
        cells: Class of the part in each cell, 0 for an empty one, int64 [N, 9].
    """

    patches: torch.Tensor
    answers: list[list[int]]
    cells: torch.Tensor


def train_captioner(
    folder: Path, config: CaptionerTrainingConfig, say: Callable[[str], None] = lambda _: None
) -> TrainingReport:
    """Draws trays, trains the captioner on them, and writes it to a folder in the layout of transformers.

    Args:
        folder: Folder of the model; files of the same names are replaced.
        config: Options.
        say: Receives a line of progress now and then.

    Raises:
        ConfigError: The folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be created ({error.strerror}); name another folder") from error
    torch.set_num_threads(config.threads)
    started = time.perf_counter()
    processor = build_processor()
    network = build_network(processor, config.seed)
    examples = _examples(processor, config)
    drawn = time.perf_counter()
    say(f"{config.trays} trays drawn in {drawn - started:.0f} s")
    trainer = _Trainer(network, processor, config)
    losses: list[float] = []
    for step, batch in enumerate(_batches(examples.answers, config)):
        losses.append(trainer.step(examples, batch, step))
        if (step + 1) % 50 == 0:
            elapsed = time.perf_counter() - drawn
            say(
                f"step {step + 1} of {config.steps}, {elapsed:.0f} s, loss {np.mean(losses[-50:]):.4f}, {trainer.state}"
            )
    seconds = time.perf_counter() - drawn
    save_model(network, processor, folder)
    return TrainingReport(
        folder=str(folder),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        steps=config.steps,
        loss=float(np.mean(losses[-50:])),
        seconds_drawing=drawn - started,
        seconds_training=seconds,
    )


def _examples(processor: Any, config: CaptionerTrainingConfig) -> _Examples:
    patches, answers, cells = [], [], []
    end = processor.tokenizer.convert_tokens_to_ids(END)
    with ProcessPoolExecutor(config.processes, get_context("spawn")) as pool:
        for tray in pool.map(partial(draw_tray, config.seed), range(config.trays), chunksize=100):
            pixels = processor.image_processor(images=[tray.image], return_tensors="pt")["pixel_values"]
            patches.append(pixels.to(torch.bfloat16))
            answers.append([*processor.tokenizer(tray.answer)["input_ids"], end])
            cells.append(_cells(tray))
    return _Examples(torch.stack(patches), answers, torch.tensor(cells))


def _cells(tray: Tray) -> list[int]:
    found = [0] * _CELLS
    for part in tray.scene.parts:
        found[3 * part.cell[0] + part.cell[1]] = 1 + CLASSES.index(str(part.kind))
    return found


def _batches(answers: Sequence[Sequence[int]], config: CaptionerTrainingConfig) -> Iterator[np.ndarray]:
    """Batches of answers of similar length, in random order."""
    lengths = np.array([len(answer) for answer in answers])
    rng = np.random.default_rng(config.seed)
    group = 8 * config.batch
    done = 0
    while done < config.steps:
        order = rng.permutation(len(answers))
        batches = []
        for start in range(0, len(order), group):
            alike = order[start : start + group]
            alike = alike[np.argsort(lengths[alike], kind="stable")]
            batches += [alike[first : first + config.batch] for first in range(0, len(alike), config.batch)]
        for index in rng.permutation(len(batches))[: config.steps - done]:
            yield batches[index]
            done += 1


class _Trainer:
    """Network, optimizer and losses.

    The loss on the image tokens, one per cell, asks a linear layer for the part in the cell and for the cell itself.
    Without it the network does not learn to look at the image in a few minutes. The layer is not part of the model.
    """

    def __init__(self, network: Any, processor: Any, config: CaptionerTrainingConfig) -> None:
        train_patches_as_linear(network)
        self._network = network.train()
        self._config = config
        tokenizer = processor.tokenizer
        self._padding = tokenizer.convert_tokens_to_ids(PADDING)
        self._image = tokenizer.convert_tokens_to_ids(IMAGE)
        blank = np.zeros((SIDE, SIDE, 3), np.uint8)
        request = processor(text=[question(processor)], images=[blank], return_tensors="pt")
        self._request = request["input_ids"][0]
        self._grid = request["image_grid_thw"]
        self._weights = _token_weights(tokenizer, network.config.text_config.vocab_size)
        width = network.config.text_config.hidden_size
        self._head = nn.Linear(width, 1 + len(PartKind) + _CELLS)
        self._tokens: torch.Tensor | None = None
        network.model.visual.merger.register_forward_hook(self._keep)
        parameters = [*network.parameters(), *self._head.parameters()]
        self._optimizer = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
        self.state = ""

    def step(self, examples: _Examples, batch: np.ndarray, step: int) -> float:
        """One step on the examples with the given indices; returns the loss."""
        answers = [examples.answers[index] for index in batch]
        longest = max(len(answer) for answer in answers)
        wanted = torch.full((len(batch), longest), _IGNORED)
        given = torch.full((len(batch), longest), self._padding)
        for row, answer in enumerate(answers):
            wanted[row, : len(answer)] = given[row, : len(answer)] = torch.tensor(answer)
        tokens = torch.cat([self._request.expand(len(batch), -1), given], dim=1)
        with torch.autocast("cpu", torch.bfloat16):
            found = self._network(
                input_ids=tokens,
                mm_token_type_ids=(tokens == self._image).int(),
                pixel_values=examples.patches[batch].float().flatten(0, 1),
                image_grid_thw=self._grid.repeat(len(batch), 1),
                logits_to_keep=longest + 1,
            )
        logits = found.logits[:, :-1].float()
        text = functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), weight=self._weights, ignore_index=_IGNORED
        )
        cells = self._cell_loss(examples.cells[batch])
        self._update(text + _CELL_WEIGHT * cells, step)
        if (step + 1) % 50 == 0:
            is_right = logits.argmax(-1) == wanted
            whole = (is_right | (wanted == _IGNORED)).all(dim=1).float().mean()
            self.state = f"cells {cells.item():.3f}, answers right token by token {whole.item():.2f}"
        return float(text.item())

    def _update(self, loss: torch.Tensor, step: int) -> None:
        progress = step / self._config.steps
        decay = _LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * min(1.0, (step + 1) / _WARM_UP) * decay
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([one for group in self._optimizer.param_groups for one in group["params"]], _CLIP)
        self._optimizer.step()

    def _keep(self, module: nn.Module, given: Any, found: torch.Tensor) -> None:  # noqa: ARG002
        self._tokens = found

    def _cell_loss(self, cells: torch.Tensor) -> torch.Tensor:
        assert self._tokens is not None  # noqa: S101 - the forward pass has set it
        logits = self._head(self._tokens.float()).reshape(-1, 1 + len(PartKind) + _CELLS)
        kinds = functional.cross_entropy(logits[:, : 1 + len(PartKind)], cells.flatten())
        places = torch.arange(_CELLS).repeat(len(cells))
        return kinds + functional.cross_entropy(logits[:, 1 + len(PartKind) :], places)


def _token_weights(tokenizer: Any, size: int) -> torch.Tensor:
    """Weight of each token: 1 if it says something about the tray."""
    from uniad_ray.perception.text.descriptions import CELLS

    weights = torch.full((size,), _SCAFFOLD_WEIGHT)
    telling = [*CLASSES, *CELLS, *"0123456789", '", "', '"]}, {"class": "', '"]}]}', END]
    for text in telling:
        weights[tokenizer(text)["input_ids"]] = 1.0
    return weights
