"""Draw the picture of docs/products.md: normal images of products, and below each an image with a broken rule.

`python docs/products.py OUT.png SEED ...` draws one column per seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from uniad_ray.archive.scenes.products.product import draw_image, draw_product

SIDE = 160
GAP = 6


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.png", help="File to write.")
    parser.add_argument("seeds", nargs="+", type=int, metavar="SEED", help="Seeds of products.")
    options = parser.parse_args()
    columns = [column(seed) for seed in options.seeds]
    picture = Image.new("RGB", (len(columns) * (SIDE + GAP) - GAP, 2 * SIDE + GAP), "white")
    for number, images in enumerate(columns):
        for row, image in enumerate(images):
            picture.paste(image, (number * (SIDE + GAP), row * (SIDE + GAP)))
    picture.quantize(256, dither=Image.Dither.NONE).save(options.out, optimize=True)


def column(seed: int) -> list[Image.Image]:
    """A normal image of a product and one with a broken rule, each on a white square."""
    product = draw_product(seed)
    squares = []
    for drawn in (draw_image(product, "test", "good", 0), draw_image(product, "test", "logical_anomalies", 0)):
        image = Image.fromarray(drawn.image)
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        square = Image.new("RGB", (SIDE, SIDE), "white")
        square.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
        squares.append(square)
    return squares


if __name__ == "__main__":
    main()
