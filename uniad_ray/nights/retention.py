"""Deletes the runs of old nights. Records, samples and history stay."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Final

from uniad_ray.config.base import StrictModel
from uniad_ray.nights.folder import END, Nights

_logger = logging.getLogger(__name__)

RECORD: Final = "run-deleted"


class RunDeleted(StrictModel):
    """Record of a deleted run.

    Attributes:
        run: URI of the run.
        deleted_at: UTC, ISO 8601.
        reason: Rule of the configuration.
    """

    run: str
    deleted_at: str
    reason: str


def delete_old_runs(nights: Nights, keep: int) -> None:
    """Deletes the runs of all finished nights but the last ones; each gets a record, written before.

    Args:
        nights: The nights; the one that is running is the last.
        keep: Nights whose runs are kept.
    """
    for night in nights.all[:-keep]:
        if not nights.has(night, END) or not night.run.has_children():
            continue
        if night.read(RECORD, RunDeleted) is None:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            night.write(RECORD, RunDeleted(run=night.run.uri, deleted_at=now, reason=f"keep_runs: {keep}"))
        night.run.delete_tree()
        _logger.info("night %s: its run is deleted (keep_runs: %d)", night.name, keep)
