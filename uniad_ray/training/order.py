"""Which images a worker sees at which step: a function of seed, step, rank and number of workers, and of nothing else.

Every epoch puts the chunks of the archive in another order, and the images within each chunk. The sequence is cut into
equal parts, one a worker, so that a worker reads few chunks and not all of them; where there are fewer chunks than
workers the cut goes through a chunk. No state is kept, so training can go on at any step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from uniad_ray.errors import FitError


def held_out_split(
    image_ids: Sequence[str], share: float, *, learner: str = "the student", images: str = "normal images"
) -> tuple[list[int], list[int]]:
    """Holds out a share of the images by hash of their content; copies of an image fall on the same side.

    Args:
        image_ids: sha256 of each image.
        share: Share to hold out, of the distinct images, at least one of them; 0 holds out none.
        learner: What is trained, for messages.
        images: What it is trained on, for messages.

    Returns:
        Indices to train on and indices held out, each ascending.

    Raises:
        FitError: Fewer than 2 distinct images are left to train on.
    """
    # Not the hash by which the calibration holds out: what is left of that would not be a sample of it.
    distinct = sorted(set(image_ids), key=lambda image_id: hashlib.sha256(f"early stop {image_id}".encode()).digest())
    wanted = max(1, round(share * len(distinct))) if share else 0
    if len(distinct) - wanted < 2:
        raise FitError(
            f"{learner} has {len(distinct)} distinct {images}, {wanted} of them held out; "
            f"it needs at least 2 to train on: add {images}"
        )
    chosen = set(distinct[:wanted])
    held_out = [index for index, image_id in enumerate(image_ids) if image_id in chosen]
    return [index for index, image_id in enumerate(image_ids) if image_id not in chosen], held_out


@dataclass(frozen=True)
class ImageOrder:
    """The endless sequence of images of one worker.

    Attributes:
        chunks: Name of the chunk of each image that is trained on.
        row_keys: Row key of each of them; the order in which images are given has no influence.
        seed: Seed of all epochs.
        rank: Number of this worker, from 0.
        world: Number of workers.
        batch_size: Images of this worker in a step.
    """

    chunks: Sequence[str]
    row_keys: Sequence[str]
    seed: int
    rank: int
    world: int
    batch_size: int
    _epochs: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def images_an_epoch(self) -> int:
        """Images of this worker in one epoch; the last workers get some a second time where they do not divide."""
        return -(-len(self.row_keys) // self.world)

    def batch(self, step: int) -> list[int]:
        """Indices of the images of a step, counted from 0; a batch may reach into the next epoch."""
        return self._batch(step, self.rank)

    def batch_of_all(self, step: int) -> list[int]:
        """Indices of the images of a step, of all workers one after the other."""
        return [index for rank in range(self.world) for index in self._batch(step, rank)]

    def epoch(self, step: int) -> int:
        """Epoch of the first image of a step, from 0."""
        return step * self.batch_size // self.images_an_epoch

    def epoch_sequence(self, epoch: int) -> list[int]:
        """Indices of all images in the order of an epoch, before it is cut into the workers' parts."""
        return [int(index) for index in self._sequence(epoch)]

    def _batch(self, step: int, rank: int) -> list[int]:
        batch = []
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, offset = divmod(position, self.images_an_epoch)
            sequence = self._sequence(epoch)
            batch.append(int(sequence[(rank * self.images_an_epoch + offset) % len(sequence)]))
        return batch

    def _sequence(self, epoch: int) -> np.ndarray:
        """All images in the order of one epoch."""
        if epoch not in self._epochs:
            self._epochs.clear()
            self._epochs[epoch] = self._shuffled(np.random.default_rng([self.seed, epoch]))
        return self._epochs[epoch]

    def _shuffled(self, rng: np.random.Generator) -> np.ndarray:
        ordered = sorted(range(len(self.row_keys)), key=lambda index: (self.chunks[index], self.row_keys[index]))
        groups = [np.asarray(list(group)) for _, group in groupby(ordered, key=lambda index: self.chunks[index])]
        return np.concatenate([rng.permutation(groups[number]) for number in rng.permutation(len(groups))])


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of everything random in one step of one worker, so that no random state needs to be kept."""
    digest = hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
