"""Tunes CLIP on labelled crops, in a loop that resumes after a crash (TMUAD, section IV-B)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import FitError
from uniad_ray.perception.base import State
from uniad_ray.perception.features.network import TORCH_DTYPE, check_precision
from uniad_ray.perception.objects.clip_tuning_config import ClipTuningConfig
from uniad_ray.training.adam_state import adam_arrays, restore_adam, trained_parameters
from uniad_ray.training.array_file import read_arrays
from uniad_ray.training.checkpoints import Checkpoint, CheckpointStore
from uniad_ray.training.clip.crop_classifier import CropClassifier, class_loss
from uniad_ray.training.clip.labelled_crops import LabelledCrop, LabelledCrops, class_counts
from uniad_ray.training.group import WorkerGroup, check_batch_size
from uniad_ray.training.order import ImageOrder, held_out_split
from uniad_ray.training.schedule import HalfCosine, learning_rate
from uniad_ray.training.step_log import StepLog

STATE_NAME = "clip.safetensors"
"""File of the tuned parameters in the training folder; written last."""

_VERSION = 1


class Look(NamedTuple):
    """Evaluation of a CLIP on the held-out crops: mean loss, and the number of correctly named crops by class."""

    loss: float
    right: tuple[int, ...]

    @property
    def quality(self) -> tuple[int, float]:
        """Key to compare epochs: accuracy, then loss."""
        return sum(self.right), -self.loss


@dataclass
class _Standing:
    """Progress of a tuning: completed steps, first evaluation, best evaluation and its epoch (0: the original CLIP)."""

    step: int
    before: Look
    best: Look
    best_epoch: int
    best_arrays: Mapping[str, np.ndarray]


class ClipTuning:
    """Tuning of one CLIP, alone or as one worker of a group.

    Attributes:
        digest: sha256 over everything that determines the result: options, classes, CLIP's weights, crops, workers.
        epoch_steps: Number of steps per epoch.
        iterations: Total number of steps.
    """

    def __init__(
        self,
        config: ClipTuningConfig,
        classifier: CropClassifier,
        texts: Sequence[str],
        crops: LabelledCrops,
        *,
        seed: int = 0,
        group: WorkerGroup | None = None,
    ) -> None:
        """Splits off the held-out images; computes nothing yet.

        Args:
            config: Options of the tuning.
            classifier: CLIP with the texts of the classes, frozen; it is modified.
            texts: One text per class.
            crops: Crops of at least two classes.
            seed: Seed of the order of the crops.
            group: Workers that train together; default: only this one.

        Raises:
            ConfigError: The batch size is not divisible by the workers, or an option does not fit CLIP or the device.
            FitError: There are no crops, all have the same class, or they come from too few images.
        """
        self._config = config
        self._classifier = classifier
        self._group = group or WorkerGroup()
        self._device = next(classifier.parameters()).device
        self._seed = seed
        check_precision("the tuning of CLIP", config.precision, self._device)
        check_batch_size(config.batch_size, self._group.world)
        classifier.thaw(config.blocks)
        self._parameters = trained_parameters(classifier)
        members = list(crops.crops)
        _check_classes(members, texts, crops.left_out)
        trained, held_out = held_out_split(
            [crop.image_id for crop in members], config.held_out, learner="the CLIP", images="images with objects"
        )
        self._members = [members[position] for position in trained]
        self._held_out = [members[position] for position in held_out]
        _check_classes(self._members, texts, crops.left_out)
        self._counts = class_counts(self._members, texts), class_counts(self._held_out, texts)
        self._order = ImageOrder(
            chunks=[crop.category for crop in self._members],
            row_keys=[crop.key for crop in self._members],
            seed=seed,
            rank=self._group.rank,
            world=self._group.world,
            batch_size=config.batch_size // self._group.world,
        )
        self.epoch_steps = -(-len(self._members) // config.batch_size)
        self.iterations = config.epochs * self.epoch_steps
        self._rates = HalfCosine(self.iterations, config.learning_rate, config.warm_up)
        identity = {
            "version": _VERSION,
            "tuning": config.model_dump(mode="json"),
            "texts": list(texts),
            "weights": classifier.weights.sha256,
            "crops": crops.digest,
            "seed": seed,
            "workers": self._group.world,
        }
        self.digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def run(self, folder: Location | None = None, on_step: Callable[[int], None] | None = None) -> State:
        """Tunes to the end; resumes from the last checkpoint if there is one.

        With one worker on the CPU and the same number of threads, the result is bit-identical, however often the tuning
        was interrupted.

        Args:
            folder: Folder for a checkpoint per epoch, a log (schema `training_step`) and the final state; None stores
                nothing.
            on_step: Called after each step with the number of completed steps.

        Returns:
            The tuned parameters by their names in the image tower, and a document: the chosen `epoch`, `epochs`,
            `crops` and `held_out` by class, the correctly named crops `before` and `after`, and both losses.

        Raises:
            FitError: The loss is not finite.
        """
        if folder is not None and (folder / STATE_NAME).exists():
            return read_tuned(folder / STATE_NAME)
        store = CheckpointStore(folder / "checkpoints", self.digest) if folder is not None else None
        log = StepLog(folder if self._group.leads else None)
        optimiser = torch.optim.AdamW(
            [parameter for _, parameter in self._parameters], weight_decay=self._config.weight_decay
        )
        # Evaluation mode throughout: CLIP needs no dropout, and naming uses the same mode.
        self._classifier.eval()
        standing = self._resume(store, optimiser)
        network = self._group.distribute(self._classifier)
        while standing.step < self.iterations:
            row = self._step(network, optimiser, standing.step)
            standing.step += 1
            if standing.step % self.epoch_steps == 0:
                row["held_out_loss"] = self._judge(standing)
            log.add(**row)
            if standing.step % self.epoch_steps == 0:
                # Write the log first: a training resumed from the checkpoint does not log these steps again.
                log.write()
                if store is not None and self._group.leads:
                    store.write(self._checkpoint(standing, optimiser))
            if on_step is not None:
                on_step(standing.step)
        state = self._final(standing)
        if folder is not None and store is not None:
            store.finish(folder / STATE_NAME, state, self._group)
        return state

    def _step(self, network: nn.Module, optimiser: torch.optim.AdamW, step: int) -> dict[str, Any]:
        """Runs one step of AdamW; returns its row of the log."""
        rate = learning_rate(self._rates, step)
        for parameters in optimiser.param_groups:
            parameters["lr"] = rate
        loss = self._loss(network, [self._members[position] for position in self._order.batch(step)])
        mean = self._group.mean({"loss": loss})["loss"]
        if not math.isfinite(mean):
            raise FitError(f"the loss of CLIP is {mean} at step {step + 1}; lower tuning.learning_rate")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return {"step": step + 1, "epoch": self._order.epoch(step), "learning_rate": rate, "loss": mean}

    def _loss(self, network: nn.Module, crops: Sequence[LabelledCrop]) -> torch.Tensor:
        return class_loss(self._logits(network, crops), self._labels(crops))

    def _logits(self, network: nn.Module, crops: Sequence[LabelledCrop]) -> torch.Tensor:
        pixels = self._classifier.pixels([crop.pixels() for crop in crops])
        precision = self._config.precision
        with torch.autocast(self._device.type, TORCH_DTYPE[precision], enabled=precision != "float32"):
            logits: torch.Tensor = network(pixels)
        return logits.float()

    def _labels(self, crops: Sequence[LabelledCrop]) -> torch.Tensor:
        return torch.tensor([crop.label for crop in crops], device=self._device)

    def _look(self) -> Look:
        """Classifies the held-out crops, each worker its share."""
        own = self._held_out[self._group.rank :: self._group.world]
        sums = torch.zeros(1 + len(self._counts[1]), dtype=torch.float64)
        with torch.no_grad():
            for start in range(0, len(own), self._config.batch_size):
                crops = own[start : start + self._config.batch_size]
                logits, labels = self._logits(self._classifier, crops), self._labels(crops)
                sums[0] += float(class_loss(logits, labels)) * len(crops)
                for label in labels[logits.argmax(dim=1) == labels].tolist():
                    sums[1 + label] += 1
        loss, *right = self._group.total(sums.to(self._device)).tolist()
        return Look(loss / len(self._held_out), tuple(int(count) for count in right))

    def _judge(self, standing: _Standing) -> float:
        """Evaluates on the held-out crops; keeps the parameters if they are the best so far."""
        look = self._look()
        if not math.isfinite(look.loss):
            raise FitError(
                f"the held-out loss of CLIP is {look.loss} after step {standing.step}; lower tuning.learning_rate"
            )
        if look.quality > standing.best.quality:
            standing.best, standing.best_epoch = look, standing.step // self.epoch_steps
            standing.best_arrays = self._arrays()
        return look.loss

    def _arrays(self) -> dict[str, np.ndarray]:
        """Copies of the trained parameters, because training continues."""
        return {name: np.array(parameter.detach().cpu().numpy()) for name, parameter in self._parameters}

    def _final(self, standing: _Standing) -> State:
        crops, held_out = self._counts
        document = {
            "epoch": standing.best_epoch,
            "epochs": self._config.epochs,
            "crops": crops,
            "held_out": held_out,
            "before": list(standing.before.right),
            "after": list(standing.best.right),
            "loss_before": standing.before.loss,
            "loss_after": standing.best.loss,
        }
        arrays = {name.removeprefix("network."): array for name, array in standing.best_arrays.items()}
        return State(arrays, document)

    def _checkpoint(self, standing: _Standing, optimiser: torch.optim.AdamW) -> Checkpoint:
        arrays, updates = adam_arrays(optimiser, self._parameters)
        arrays |= {f"network/{name}": array for name, array in self._arrays().items()}
        arrays |= {f"best/{name}": array for name, array in standing.best_arrays.items()}
        document = {
            "updates": updates,
            "before": list(standing.before),
            "best": list(standing.best),
            "best_epoch": standing.best_epoch,
        }
        return Checkpoint(standing.step, arrays, document)

    def _resume(self, store: CheckpointStore | None, optimiser: torch.optim.AdamW) -> _Standing:
        """Loads the last checkpoint, the same in all workers, or evaluates the original CLIP."""
        checkpoint = store.latest() if store is not None and self._group.leads else None
        step = self._group.from_leader(checkpoint.step if checkpoint else 0, self._device)
        if not step or store is None:
            before = self._look()
            return _Standing(0, before, before, 0, self._arrays())
        checkpoint = checkpoint or store.at(step)
        with torch.no_grad():
            for name, parameter in self._parameters:
                parameter.copy_(torch.from_numpy(np.array(checkpoint.arrays[f"network/{name}"])))
        restore_adam(optimiser, self._parameters, checkpoint.arrays, checkpoint.document["updates"])
        before, best = (_read_look(checkpoint.document[name]) for name in ("before", "best"))
        arrays = {name: checkpoint.arrays[f"best/{name}"] for name, _ in self._parameters}
        return _Standing(step, before, best, checkpoint.document["best_epoch"], arrays)


def read_tuned(location: Location) -> State:
    """Reads the tuned parameters of a finished training.

    Raises:
        StoreError: They are missing or corrupt.
    """
    arrays, document = read_arrays(location)
    return State(arrays, document)


def _read_look(stored: Sequence[Any]) -> Look:
    return Look(float(stored[0]), tuple(stored[1]))


def _check_classes(crops: Sequence[LabelledCrop], texts: Sequence[str], left_out: Mapping[str, int]) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())) or "none"
    if not crops:
        raise FitError(
            f"there are no object crops to tune CLIP on; left out: {reasons}; check the segments and the tuning options"
        )
    there = [text for text, count in zip(texts, class_counts(crops, texts), strict=True) if count]
    if len(there) < 2:
        raise FitError(
            f"all {len(crops)} crops to tune CLIP on have one class ({there[0]!r}); tuning needs at least two; left "
            f"out: {reasons}; check the classes and the labels"
        )
