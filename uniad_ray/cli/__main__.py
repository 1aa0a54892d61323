"""Runs the command line as `python -m uniad_ray.cli`."""

from __future__ import annotations

from uniad_ray.cli import main

if __name__ == "__main__":
    main()
