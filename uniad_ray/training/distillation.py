"""Trains the student against its teachers, in a loop that resumes after a crash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ConfigError, FitError
from uniad_ray.perception.base import State, StoredFields, TrainedExtractor
from uniad_ray.perception.features.network import TORCH_DTYPE, check_precision
from uniad_ray.perception.features.student import (
    DistilledFeatures,
    Student,
    StudentConfig,
    TeacherShapes,
    build_student,
    load_parameters,
    student_pixels,
)
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.perception.weights.sources import resolve
from uniad_ray.training.adam_state import adam_arrays, restore_adam, trained_parameters
from uniad_ray.training.array_file import read_arrays
from uniad_ray.training.checkpoints import Checkpoint, CheckpointStore
from uniad_ray.training.examples import Example, Examples, ReadableImages
from uniad_ray.training.group import WorkerGroup, check_batch_size
from uniad_ray.training.losses import distillation_losses, weighted_sum
from uniad_ray.training.order import ImageOrder, held_out_split, step_seed
from uniad_ray.training.schedule import learning_rate
from uniad_ray.training.step_log import StepLog

STATE_NAME = "student.safetensors"
"""File of the trained student in the training folder; written last."""

_VERSION = 1
_NAMED_IMAGES = 16


def train_student(
    student: TrainedExtractor,
    teachers: PerceptionPipeline,
    images: ReadableImages,
    indices: Sequence[int],
    *,
    device: str = "cpu",
) -> State:
    """Trains a student in this process, without checkpoints.

    Args:
        student: The student; only its configuration is used.
        teachers: Provides the fields in the student's `training_needs`.
        images: Normal images of one category.
        indices: Indices of the training images, in any order.
        device: Torch device.

    Raises:
        ConfigError: The extractor is not a student, or its options do not fit the device.
        FitError: There are too few distinct images, none can be decoded, or the loss is not finite.
        WeightsError: The initial weights cannot be found.
    """
    return Distillation(student_config(student), teachers, images, indices, device=device).run()


def student_config(student: TrainedExtractor) -> StudentConfig:
    """The configuration of a student.

    Raises:
        ConfigError: It is another trained extractor.
    """
    if not isinstance(student, Student):
        raise ConfigError(f"extractor {student.name}: a {type(student).__name__} cannot be distilled; use Student")
    return student.config


@dataclass
class _Standing:
    """Progress of a training.

    Attributes:
        step: Number of completed steps.
        best_loss: Lowest held-out loss so far.
        best_step: Step of the lowest loss.
        best: Parameters at that step.
        looks_without_better: Number of evaluations on the held-out images since then.
    """

    step: int = 0
    best_loss: float | None = None
    best_step: int = 0
    best: Mapping[str, np.ndarray] | None = None
    looks_without_better: int = 0


class Distillation:
    """Training of one student, alone or as one worker of a group.

    Attributes:
        digest: sha256 over everything that determines the result: configuration, teachers and weights, images, workers.
        iterations: Number of steps unless the training stops early.
    """

    def __init__(
        self,
        config: StudentConfig,
        teachers: PerceptionPipeline,
        images: ReadableImages,
        indices: Sequence[int],
        *,
        group: WorkerGroup | None = None,
        device: str = "cpu",
        stored: StoredFields | None = None,
    ) -> None:
        """Builds the untrained student; reads one image to learn the field shapes of the teachers.

        Args:
            config: Configuration of the student.
            teachers: Provides the fields that the student learns.
            images: Normal images of one category.
            indices: Indices of the training images, in any order.
            group: Workers that train together; default: only this one.
            device: Torch device.
            stored: Precomputed fields of the teachers.

        Raises:
            ConfigError: The batch size is not divisible by the workers, or an option does not fit the device.
            FitError: There are too few distinct images, or none can be decoded.
            WeightsError: The initial weights cannot be found.
        """
        self._config = config
        self._training = config.training
        self._group = group or WorkerGroup()
        self._device = torch.device(device)
        check_precision("the training of the student", config.training.precision, self._device)
        check_batch_size(config.training.batch_size, self._group.world)
        rows = sorted((images.rows[index].row_key, index) for index in indices)
        members = [index for _, index in rows]
        trained, held_out = held_out_split([images.rows[i].image_id for i in members], config.training.held_out)
        self._members = [members[position] for position in trained]
        self._held_out = [members[position] for position in held_out]
        self._order = ImageOrder(
            chunks=[images.rows[index].chunk for index in self._members],
            row_keys=[images.rows[index].row_key for index in self._members],
            seed=config.seed,
            rank=self._group.rank,
            world=self._group.world,
            batch_size=config.training.batch_size // self._group.world,
        )
        self._examples = Examples(images, teachers, config, stored)
        first = [self._members[position] for position in self._order.epoch_sequence(0)]
        example = self._examples.first_readable(first)
        self._shapes = TeacherShapes.of(example.teachers)
        self._network = build_student(config, self._shapes).to(self._device)
        identity = {
            "version": _VERSION,
            "student": config.model_dump(mode="json", exclude={"training": {"cache_bytes"}}),
            "initial": resolve(config.initial.source).sha256 if config.initial else None,
            "teachers": teachers.lineage(frozenset({*config.structural_teacher, config.logical_teacher})),
            "shapes": self._shapes.document(),
            "image_shape": list(example.image.shape),
            "images": [[key, images.rows[index].image_id, images.rows[index].chunk] for key, index in rows],
            "workers": self._group.world,
            **({} if teachers.value_range is None else {"value_range": teachers.value_range}),
            **({} if teachers.region is None else {"region": teachers.region.digest}),
        }
        self.digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.iterations = config.training.iterations

    def run(self, folder: Location | None = None, on_step: Callable[[int], None] | None = None) -> State:
        """Trains to the end; resumes from the last checkpoint if there is one.

        With one worker on the CPU and the same number of threads, the result is bit-identical, however often the
        training was interrupted.

        Args:
            folder: Folder for checkpoints, a log (schema `training_step`) and the final state; None stores nothing.
            on_step: Called after each step with the number of completed steps.

        Raises:
            FitError: The loss is not finite, or no held-out image can be decoded.
        """
        if folder is not None and (folder / STATE_NAME).exists():
            return read_student(folder / STATE_NAME)
        store = CheckpointStore(folder / "checkpoints", self.digest) if folder is not None else None
        log = StepLog(folder if self._group.leads else None)
        optimiser = torch.optim.Adam(p for p in self._network.parameters() if p.requires_grad)
        scaler = torch.amp.GradScaler(self._device.type, enabled=self._training.precision == "float16")
        standing = self._resume(store, optimiser, scaler)
        network = self._group.distribute(self._network)
        while standing.step < self.iterations and not self._stops(standing):
            row = self._step(network, optimiser, scaler, standing.step)
            standing.step += 1
            is_checkpoint = standing.step % self._training.checkpoint_every == 0 or standing.step == self.iterations
            if is_checkpoint and self._held_out:
                row["held_out_loss"] = self._look(standing)
            log.add(**row)
            if is_checkpoint:
                # Write the log first: a training resumed from the checkpoint does not log these steps again.
                log.write()
                if store is not None and self._group.leads:
                    store.write(self._checkpoint(standing, optimiser, scaler))
            if on_step is not None:
                on_step(standing.step)
        state = self._final(standing)
        if folder is not None and store is not None:
            store.finish(folder / STATE_NAME, state, self._group)
        return state

    def _step(
        self, network: nn.Module, optimiser: torch.optim.Adam, scaler: torch.amp.GradScaler, step: int
    ) -> dict[str, Any]:
        """Runs one step of Adam; returns its row of the log."""
        rate = learning_rate(self._training, step)
        for parameters in optimiser.param_groups:
            parameters["lr"] = rate
        network.train()
        with torch.random.fork_rng(self._cuda_devices()):
            torch.manual_seed(step_seed(self._config.seed, step, self._group.rank))
            losses = self._losses(network, self._batch(step))
        total = weighted_sum(losses, self._config.losses)
        row: dict[str, Any] = dict(self._group.mean({**losses, "loss": total}))
        if not math.isfinite(row["loss"]):
            raise FitError(
                f"the loss of the student is {row['loss']} at step {step + 1}; check the images "
                f"{self._names(step)}, or lower learning_rate"
            )
        optimiser.zero_grad()
        scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimiser)
        scaler.update()
        return row | {"step": step + 1, "epoch": self._order.epoch(step), "learning_rate": rate}

    def _losses(self, network: nn.Module, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        images = np.stack([example.image for example in examples])
        pixels = student_pixels(images, self._config, self._device)
        precision = self._training.precision
        with torch.autocast(self._device.type, TORCH_DTYPE[precision], enabled=precision != "float32"):
            student: DistilledFeatures = network(pixels)
        student = DistilledFeatures([level.float() for level in student.levels], student.logical.float())
        teachers = [example.teachers for example in examples]
        teacher = DistilledFeatures(
            [torch.cat(level).to(self._device) for level in zip(*(each.levels for each in teachers), strict=True)],
            torch.cat([each.logical for each in teachers]).to(self._device),
        )
        return distillation_losses(teacher, student, self._config.losses, self._config.neighbourhood)

    def _batch(self, step: int) -> list[Example]:
        """The examples of a step; undecodable ones are replaced, so that all batches have the same size."""
        found = self._examples.get([self._members[position] for position in self._order.batch(step)])
        if None not in found:
            return [example for example in found if example is not None]
        sequence = [self._members[position] for position in self._order.epoch_sequence(self._order.epoch(step))]
        start = step % len(sequence)
        substitute = self._examples.first_readable([*sequence[start:], *sequence[:start]])
        return [example or substitute for example in found]

    def _look(self, standing: _Standing) -> float:
        """The loss on the held-out images; keeps the student if it is the best so far."""
        self._network.eval()
        self._group.share_buffers(self._network)
        own = self._held_out[self._group.rank :: self._group.world]
        total, count = 0.0, 0
        with torch.no_grad():
            for start in range(0, len(own), self._training.batch_size):
                found = self._examples.get(own[start : start + self._training.batch_size])
                examples = [example for example in found if example is not None]
                if examples:
                    losses = self._losses(self._network, examples)
                    total += float(weighted_sum(losses, self._config.losses)) * len(examples)
                    count += len(examples)
        counted = self._group.sum(count, self._device)
        loss = self._group.sum(total, self._device) / counted if counted else math.nan
        if not math.isfinite(loss):
            reason = f"is {loss}; lower learning_rate" if counted else "has no image that can be decoded; fix them"
            raise FitError(f"the held-out loss of the student after step {standing.step} {reason}")
        if standing.best_loss is None or loss < standing.best_loss:
            standing.best_loss, standing.best_step, standing.looks_without_better = loss, standing.step, 0
            standing.best = _arrays(self._network.state_dict()) if self._training.keep == "best" else None
        else:
            standing.looks_without_better += 1
        return loss

    def _stops(self, standing: _Standing) -> bool:
        patience = self._training.patience
        return patience is not None and standing.looks_without_better >= patience

    def _final(self, standing: _Standing) -> State:
        arrays = standing.best if standing.best is not None else _arrays(self._network.state_dict())
        training = {
            "steps": standing.step,
            "step": standing.best_step if standing.best is not None else standing.step,
            "best_held_out_loss": standing.best_loss,
        }
        return State(arrays, self._shapes.document() | {"training": training})

    def _checkpoint(self, standing: _Standing, optimiser: torch.optim.Adam, scaler: torch.amp.GradScaler) -> Checkpoint:
        arrays = {f"network/{name}": array for name, array in _arrays(self._network.state_dict()).items()}
        arrays |= {f"best/{name}": array for name, array in (standing.best or {}).items()}
        moments, updates = adam_arrays(optimiser, trained_parameters(self._network))
        arrays |= moments
        document = {
            "best_loss": standing.best_loss,
            "best_step": standing.best_step,
            "looks_without_better": standing.looks_without_better,
            "updates": updates,
            "scaler": scaler.state_dict(),
        }
        return Checkpoint(standing.step, arrays, document)

    def _resume(
        self, store: CheckpointStore | None, optimiser: torch.optim.Adam, scaler: torch.amp.GradScaler
    ) -> _Standing:
        """Loads the last checkpoint, the same in all workers.

        It holds no random state: each step has its own seed.
        """
        if store is None:
            return _Standing()
        checkpoint = store.latest() if self._group.leads else None
        step = self._group.from_leader(checkpoint.step if checkpoint else 0, self._device)
        if not step:
            return _Standing()
        checkpoint = checkpoint or store.at(step)
        load_parameters(self._network, _below("network/", checkpoint.arrays))
        restore_adam(optimiser, trained_parameters(self._network), checkpoint.arrays, checkpoint.document["updates"])
        scaler.load_state_dict(checkpoint.document["scaler"])
        return _Standing(
            step=step,
            best_loss=checkpoint.document["best_loss"],
            best_step=checkpoint.document["best_step"],
            best=_below("best/", checkpoint.arrays) or None,
            looks_without_better=checkpoint.document["looks_without_better"],
        )

    def _names(self, step: int) -> str:
        names = [self._order.row_keys[position] for position in self._order.batch_of_all(step)]
        return ", ".join(names[:_NAMED_IMAGES]) + (", ..." if len(names) > _NAMED_IMAGES else "")

    def _cuda_devices(self) -> list[torch.device]:
        return [self._device] if self._device.type == "cuda" else []


def read_student(location: Location) -> State:
    """Reads the student of a finished training.

    Raises:
        StoreError: It is missing or corrupt.
    """
    arrays, document = read_arrays(location)
    return State(arrays, document)


def _arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Copies, because the tensors are trained further."""
    return {name: np.array(tensor.detach().cpu().numpy()) for name, tensor in tensors.items()}


def _below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
