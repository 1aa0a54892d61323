"""Score the images of a folder with a fitted model and write a CSV. Needs no Ray.

Run it after `make demo`:

    python examples/score_folder.py demo/source/trays/test --bundles demo/bundles --category trays --out scores.csv
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import uniad_ray as ur

SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"}


def main() -> None:
    """Scores the images in order of their paths."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bundles", required=True, help="root of the bundles, a path or an s3:// URI")
    parser.add_argument("--category", required=True)
    parser.add_argument("--out", type=Path, default=Path("scores.csv"))
    arguments = parser.parse_args()

    model = ur.load_model(arguments.bundles, arguments.category)
    paths = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "decision", "score", "threshold", "reasons", "error"])
        # An unreadable image becomes a row with its error, and the others are scored.
        for path, found in zip(paths, model.score_many(paths, errors="return"), strict=True):
            if isinstance(found, ur.Verdict):
                reasons = "; ".join(found.reasons)
                table.writerow([path, found.decision, f"{found.score:.3f}", f"{found.threshold:.3f}", reasons, ""])
            else:
                table.writerow([path, "", "", "", "", found])
    print(f"{len(paths)} images in {arguments.out}")


if __name__ == "__main__":
    main()
