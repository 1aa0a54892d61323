"""Trains the demonstration captioner on drawn trays: `python jobs/train_captioner.py FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniad_ray.config.loading import validate
from uniad_ray.errors import ConfigError
from uniad_ray.training.captioner.loop import CaptionerTrainingConfig, train_captioner


def main() -> None:
    """Parse the options and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = CaptionerTrainingConfig()
    parser.add_argument("folder", type=Path, help="folder of the model")
    for name in ("trays", "steps", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    options = vars(parser.parse_args())
    folder = options.pop("folder")
    try:
        config = validate(CaptionerTrainingConfig, options, where="options")
        report = train_captioner(folder, config, lambda line: print(line, flush=True))
    except ConfigError as error:
        parser.error(str(error))
    print(report.model_dump_json(indent=1))


if __name__ == "__main__":
    main()
