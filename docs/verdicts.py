"""Draw images of a run in a row, with their masks and maps, and print the verdict of each.

Usage: python docs/verdicts.py RUN OUT.png FILE [FILE ...]; a FILE is the end of a source URI.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from PIL import Image

from uniad_ray.reporting.drawing.pictures import Picture, map_scale
from uniad_ray.reporting.drawing.run_pictures import draw_rows
from uniad_ray.runs.reader import RunReader

GAP = 8


def layer(data: bytes | None, size: tuple[int, int]) -> Image.Image:
    """A layer as RGBA; transparent if it is None."""
    if data is None:
        return Image.new("RGBA", size)
    return Image.open(io.BytesIO(data)).convert("RGBA").resize(size, Image.Resampling.BILINEAR)


def column(picture: Picture) -> Image.Image:
    """The image with the outlines of its masks, above the image with its map."""
    size = (picture.width, picture.height)
    image = layer(picture.thumbnail, size)
    drawn = Image.new("RGB", (size[0], 2 * size[1] + GAP), "white")
    for place, over in ((0, picture.outline), (size[1] + GAP, picture.heat_map)):
        drawn.paste(Image.alpha_composite(image, layer(over, size)).convert("RGB"), (0, place))
    return drawn


def main(run: str, out: str, files: list[str]) -> None:
    """Write the picture, and print one line per image."""
    reader = RunReader(run)
    rows = ds.dataset(f"{run}/scores").to_table().to_pylist()
    columns = []
    for file in files:
        (row,) = (row for row in rows if row["source_uri"].endswith(file))
        same = [other["score"] for other in rows if other["category"] == row["category"] and other["score"] is not None]
        scale = map_scale(np.array(same), row["threshold"])
        columns.append(column(draw_rows(reader, row["category"], [row["row_key"]], scale)[row["row_key"]]))
        print(f"{file}: {row['score']:.1f}, threshold {row['threshold']:.1f}: {'; '.join(row['reasons'])}")
    width = sum(each.width for each in columns) + GAP * (len(columns) - 1)
    joined = Image.new("RGB", (width, max(each.height for each in columns)), "white")
    left = 0
    for each in columns:
        joined.paste(each, (left, 0))
        left += each.width + GAP
    joined.quantize(128).save(Path(out), optimize=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
