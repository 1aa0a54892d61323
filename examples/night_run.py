"""Ingest, fit, score, evaluate and report in one script; run again after a crash, it resumes.

Run it after `make demo`:

    python examples/night_run.py demo/source night
"""

from __future__ import annotations

import argparse

import uniad_ray as ur


def main() -> None:
    """Runs the verbs in turn, and prints a summary for the morning shift."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="folder of images, for instance in the layout of MVTec, a path or an s3:// URI")
    parser.add_argument("work", help="folder of all outputs, a path or an s3:// URI")
    parser.add_argument("--profile", default="embedded")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    archive, bundles, run = (f"{arguments.work}/{name}" for name in ("archive", "bundles", "run"))

    ur.ingest(arguments.source, archive)
    ur.fit(archive, bundles=bundles, profile=arguments.profile, overrides=arguments.overrides)
    scored = ur.score(archive, bundles=bundles, out=run)
    ur.evaluate(run)
    page = ur.report(run)
    print(f"{scored.images} images: {scored.anomalous} anomalous, {scored.errors} unreadable")
    print(f"report: {page.path}")


if __name__ == "__main__":
    main()
