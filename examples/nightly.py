"""Run a night from Python and act on its alarms: the same as `uniad-ray nightly`, with your own code at the end.

    python examples/nightly.py nightly.yaml
    python examples/nightly.py nightly.yaml 2026-11-30

docs/nightly.md shows the configuration file.
"""

from __future__ import annotations

import sys

import uniad_ray as ur


def main(config: str, night: str | None = None) -> int:
    """Runs a night and prints what to look at.

    Args:
        config: YAML file of the nights.
        night: Name of the night; default its date.

    Returns:
        Number of categories with an alarm or a finding of drift.
    """
    report = ur.nightly(config=config, night=night)
    concerned: set[str] = set()
    for summary in report.nights:
        print(f"{summary.night}: {summary.images} images, {summary.anomalous} anomalous, {len(summary.alarms)} alarms")
        for alarm in summary.alarms:
            print(f"  {alarm.kind}: {alarm.text}")
            concerned.add(alarm.category or "the whole night")
    if report.skipped:
        print(report.skipped)
    print(f"all nights: {report.overview}")
    return len(concerned)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python examples/nightly.py FILE [NIGHT]; docs/nightly.md shows the file")
    main(*sys.argv[1:])
