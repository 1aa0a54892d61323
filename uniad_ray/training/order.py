"""The images of each worker at each step, as a function of seed, step, rank and number of workers alone.

Every epoch shuffles the chunks of the archive and the images within each chunk. The sequence is divided into equal
parts, one per worker, so that each worker reads only a few chunks. With fewer chunks than workers, chunks are divided
too. No state is kept: training can resume at any step.
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
    """Holds out a share of the images by content hash; copies of an image stay on the same side.

    Args:
        image_ids: sha256 of each image.
        share: Fraction of the distinct images to hold out, at least one image; 0 holds out none.
        learner: Name of the trained network, for messages.
        images: Name of the training images, for messages.

    Returns:
        Training indices and held-out indices, each ascending.

    Raises:
        FitError: Fewer than 2 distinct training images remain.
    """
    # Not the hash of the calibration hold-out: its remainder would not be a sample of this hash.
    distinct = sorted(set(image_ids), key=lambda image_id: hashlib.sha256(f"early stop {image_id}".encode()).digest())
    wanted = max(1, round(share * len(distinct))) if share else 0
    if len(distinct) - wanted < 2:
        raise FitError(
            f"{learner} has {len(distinct)} distinct {images}, {wanted} of them held out; "
            f"it needs at least 2 for training: add {images}"
        )
    chosen = set(distinct[:wanted])
    held_out = [index for index, image_id in enumerate(image_ids) if image_id in chosen]
    return [index for index, image_id in enumerate(image_ids) if image_id not in chosen], held_out


@dataclass(frozen=True)
class ImageOrder:
    """The endless sequence of images of one worker.

    Attributes:
        chunks: Chunk name of each training image.
        row_keys: Row key of each training image; the order of the images has no effect.
        seed: Seed of all epochs.
        rank: Rank of this worker, from 0.
        world: Number of workers.
        batch_size: Number of images of this worker per step.
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
        """Images of this worker per epoch; the last workers repeat some if the images do not divide evenly."""
        return -(-len(self.row_keys) // self.world)

    def batch(self, step: int) -> list[int]:
        """Indices of the images of a step, from 0; a batch may extend into the next epoch."""
        return self._batch(step, self.rank)

    def batch_of_all(self, step: int) -> list[int]:
        """Indices of the images of a step for all workers, one after the other."""
        return [index for rank in range(self.world) for index in self._batch(step, rank)]

    def epoch(self, step: int) -> int:
        """Epoch of the first image in a step, from 0."""
        return step * self.batch_size // self.images_an_epoch

    def epoch_sequence(self, epoch: int) -> list[int]:
        """Indices of all images in the order of an epoch, before they are divided among the workers."""
        return [int(index) for index in self._sequence(epoch)]

    def _batch(self, step: int, rank: int) -> list[int]:
        batch = []
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, offset = divmod(position, self.images_an_epoch)
            sequence = self._sequence(epoch)
            batch.append(int(sequence[(rank * self.images_an_epoch + offset) % len(sequence)]))
        return batch

    def _sequence(self, epoch: int) -> np.ndarray:
        """All images in the order of an epoch."""
        if epoch not in self._epochs:
            self._epochs.clear()
            self._epochs[epoch] = self._shuffled(np.random.default_rng([self.seed, epoch]))
        return self._epochs[epoch]

    def _shuffled(self, rng: np.random.Generator) -> np.ndarray:
        ordered = sorted(range(len(self.row_keys)), key=lambda index: (self.chunks[index], self.row_keys[index]))
        groups = [np.asarray(list(group)) for _, group in groupby(ordered, key=lambda index: self.chunks[index])]
        return np.concatenate([rng.permutation(groups[number]) for number in rng.permutation(len(groups))])


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of all randomness in one step of one worker: no random state needs to be stored."""
    digest = hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
