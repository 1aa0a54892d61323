"""The verb that runs every night."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uniad_ray.nights.model import NightReport


def nightly(*, config: str, night: str | None = None, dry_run: bool = False) -> NightReport:
    """Finishes the nights that were interrupted, then runs the next: ingest, captions, score, drift, report, alarms.

    After a crash at any step, the same call goes on with that step, and ends with the same rows, history and messages.

    Args:
        config: YAML file of the nights.
        night: Name of the next night; default its date. A night that is there is not repeated.
        dry_run: Stop before anything is sent or deleted, and return it; the next call without it does it.

    Returns:
        The nights that this call finished with their alarms, the outcome of each message, and what was deleted.

    Raises:
        ConfigError: The configuration is wrong, or a secret is missing.
        ArchiveError: A source or the archive cannot be read.
        CaptionError: The model cannot be reached, and captions are required.
        RunError: A record of a night is corrupt.
        StoreError: A store cannot be read or written.
    """
    from uniad_ray.nights.config import load_nightly
    from uniad_ray.nights.job import nightly as run

    return run(load_nightly(config), night=night, dry_run=dry_run)
