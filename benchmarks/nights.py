"""Alarms of nights on synthetic products: none on quiet nights, and the right one on changed images.

For each seed the script draws a product once into a cache and fits it with the verbs of the package. Then five nights
arrive, each with fresh normal images, and are run by `uniad-ray nightly`: two quiet ones, one with images that are 1.35
times as bright, one with images of three quarters of the size, and one that is slightly out of focus. `named` says
whether an alarm of the night names the change. Each product has a folder of nights of its own; the quiet nights come
first, so a changed night is compared with the fit and with quiet nights. The result of a product goes into the results
file as soon as it is there, so the same command resumes, and several processes share the products. The script prints
the results as JSON.

    python benchmarks/nights.py 100-119 --results nights.json --cache products-cache
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageFilter
from products import asked_of, draw, measure_missing, product_arguments

from uniad_ray.errors import UniadRayError

BRIGHTER: Final = 1.35
SMALLER: Final = 0.75
BLUR: Final = 0.003
"""Standard deviation, as a share of the longest side."""


def main() -> None:
    """Run the benchmark."""
    parser = product_arguments(__doc__, results="nights.json", train=60, good=120)
    parser.set_defaults(logical=0, structural=0, expert_set="patch")
    print(json.dumps(run(parser.parse_args()), indent=1))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every seed that the results file lacks; failed products are tried again."""
    return measure_missing(options, asked_of(options), measure, summary)


def measure(seed: int, asked: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Draw and fit a product, and run its nights."""
    import uniad_ray as ur
    from uniad_ray.nights.config import NightlyConfig
    from uniad_ray.nights.job import nightly

    category = f"product-{seed}"
    source = draw(seed, asked["images"], cache) / category
    work = cache / "unfinished" / f"nights-{seed}"
    shutil.rmtree(work, ignore_errors=True)
    overrides = [f"expert_set={asked['expert_set']}", *asked["overrides"]]
    try:
        normal = {"split": "train", "label": "normal"}
        ur.ingest(str(source / "train/good"), str(work / "fitted"), category=category, chunk_images=8, **normal)
        fitted = ur.fit(str(work / "fitted"), bundles=str(work / "bundles"), overrides=overrides, accept_unusual=True)
        if fitted.failed:
            return {"failed": fitted.failed[category]}
        config = NightlyConfig.model_validate(
            {
                "work": str(work / "nights"),
                "archive": str(work / "archive"),
                "bundles": str(work / "bundles"),
                "sources": [{"path": str(work / "camera"), "category": category}],
            }
        )
        arriving = sorted((source / "test/good").glob("*.png"))
        per_night = len(arriving) // len(NIGHTS)
        found = {}
        for number, (name, (change, _)) in enumerate(NIGHTS.items()):
            for path in arriving[number * per_night : (number + 1) * per_night]:
                target = work / "camera" / name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                change(Image.open(path)).save(target, compress_level=1)
            report = nightly(config, night=name)
            found[name] = [alarm.text for night in report.nights for alarm in night.alarms]
        return {"images": per_night, "alarms": found, "named": named(found)}
    except UniadRayError as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def brighter(image: Image.Image) -> Image.Image:
    """The image under more light."""
    return Image.fromarray((np.asarray(image) * BRIGHTER).clip(0, 255).astype(np.uint8))


def smaller(image: Image.Image) -> Image.Image:
    """The image of a camera with fewer pixels."""
    return image.resize((round(image.width * SMALLER), round(image.height * SMALLER)))


def blurred(image: Image.Image) -> Image.Image:
    """The image of a lens that is slightly out of focus."""
    return image.filter(ImageFilter.GaussianBlur(BLUR * max(image.size)))


NIGHTS: Final[dict[str, tuple[Callable[[Image.Image], Image.Image], str | None]]] = {
    "1-quiet": (lambda image: image, None),
    "2-quiet": (lambda image: image, None),
    "3-bright": (brighter, "images are brighter than in the images of the fit"),
    "4-smaller": (smaller, "image size changed"),
    "5-blurred": (blurred, "images look different than in the images of the fit"),
}
"""Change of the images of each night, and the words that name it."""


def named(alarms: Mapping[str, list[str]]) -> dict[str, bool]:
    """Whether each night has the alarm that it should have; a quiet night should have none."""
    return {
        name: not alarms[name] if words is None else any(words in text for text in alarms[name])
        for name, (_, words) in NIGHTS.items()
    }


def summary(products: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Number of products on which each night has the alarm that it should have."""
    done = [found["named"] for found in products.values() if "failed" not in found]
    right = {name: sum(each[name] for each in done) for name in NIGHTS}
    return {"products": len(done), "failed": len(products) - len(done), "right": right}


if __name__ == "__main__":
    main()
