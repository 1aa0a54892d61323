"""Checkpoints of a training: everything needed to resume it exactly."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from uniad_ray.archive.stores.location import Location, ObjectInfo
from uniad_ray.errors import StoreError
from uniad_ray.perception.base import State
from uniad_ray.training.array_file import read_arrays, write_arrays
from uniad_ray.training.group import WorkerGroup

KEPT = 2
"""Number of checkpoints to keep: if one is corrupt, the one before it is used."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """State of a training after a step.

    Attributes:
        step: Number of completed steps.
        arrays: Named arrays.
        document: All other state, as JSON types.
    """

    step: int
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)


class CheckpointStore:
    """Checkpoints of one training in a folder, named by step."""

    def __init__(self, folder: Location, digest: str) -> None:
        """Stores the folder and the digest; reads nothing yet.

        Args:
            folder: Folder of the checkpoints.
            digest: Digest of the training; checkpoints of another training are never resumed.
        """
        self._folder = folder
        self._digest = digest

    def write(self, checkpoint: Checkpoint) -> None:
        """Stores a checkpoint, and deletes all but the newest ones."""
        document = {"step": checkpoint.step, "training": self._digest, "content": dict(checkpoint.document)}
        write_arrays(self._folder / f"step-{checkpoint.step:08d}.safetensors", checkpoint.arrays, document)
        for _, stored in list(self._newest_first())[KEPT:]:
            stored.location.delete()

    def finish(self, location: Location, state: State, group: WorkerGroup) -> None:
        """Replaces the checkpoints by the final state; all workers wait until it is stored."""
        if group.leads:
            write_arrays(location, state.arrays, state.document)
            self.clear()
        group.wait()

    def latest(self) -> Checkpoint | None:
        """The newest valid checkpoint of this training; others are skipped with a warning."""
        for step, _ in self._newest_first():
            try:
                return self.at(step)
            except StoreError as error:
                _logger.warning("skipping a checkpoint: %s", error)
        return None

    def at(self, step: int) -> Checkpoint:
        """The checkpoint after a step.

        Raises:
            StoreError: The checkpoint is missing, corrupt or of another training.
        """
        location = self._folder / f"step-{step:08d}.safetensors"
        arrays, document = read_arrays(location)
        if document.get("training") != self._digest or document.get("step") != step:
            raise StoreError(f"{location}: belongs to another training; delete it")
        return Checkpoint(step, arrays, document["content"])

    def clear(self) -> None:
        """Deletes all checkpoints."""
        for _, stored in list(self._newest_first()):
            stored.location.delete()

    def _newest_first(self) -> Iterator[tuple[int, ObjectInfo]]:
        found = [(re.fullmatch(r"step-(\d{8})\.safetensors", info.relative), info) for info in self._folder.list()]
        yield from sorted(
            ((int(match[1]), info) for match, info in found if match), key=lambda entry: entry[0], reverse=True
        )
