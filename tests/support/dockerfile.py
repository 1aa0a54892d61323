"""Runs the build steps of `deploy/Dockerfile` on this machine, where no container engine is.

    python tests/support/dockerfile.py FOLDER [DEVICE=gpu ...]

runs the first stage below FOLDER, which takes the place of the root of the image, with build arguments as
`docker build` takes them. The last stage is not run: it installs system packages and creates a user. `PREFIX`, the
environment that the image holds, is then `FOLDER/opt/uniad-ray`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
_INHERITED = ("PATH", "HOME", "LANG", "PIP_", "UV_", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "http", "HTTP", "no_proxy")
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True)
class Step:
    """One instruction: its line, its word in capitals, and the rest with continued lines joined."""

    line: int
    word: str
    rest: str


def steps(text: str) -> list[Step]:
    """The instructions of a Dockerfile, without comments."""
    found: list[Step] = []
    open_line = ""
    start = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not (line.strip() or open_line):
            continue
        start = start if open_line else number
        open_line += line
        if open_line.endswith("\\"):
            open_line = open_line[:-1]
            continue
        word, _, rest = open_line.strip().partition(" ")
        found.append(Step(start, word.upper(), rest.strip()))
        open_line = ""
    return found


def stages(text: str) -> list[list[Step]]:
    """The instructions of each stage, beginning with its FROM."""
    found: list[list[Step]] = []
    for step in steps(text):
        if step.word == "FROM":
            found.append([])
        if found:
            found[-1].append(step)
    return found


def sent(path: str) -> bool:
    """Whether `Dockerfile.dockerignore` lets a path of the checkout into the context."""
    patterns = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    return any(line.startswith("!") and (path == line[1:] or path.startswith(f"{line[1:]}/")) for line in patterns)


def run_build_stage(folder: Path, arguments: Mapping[str, str]) -> Path:
    """Runs the first stage with its paths below `folder`.

    Args:
        folder: Takes the place of the root.
        arguments: Build arguments.

    Returns:
        The folder of `PREFIX`.

    Raises:
        CalledProcessError: A step failed.
    """
    variables: dict[str, str] = {}
    place = folder
    environment = {name: value for name, value in os.environ.items() if name.startswith(_INHERITED)}
    for step in stages(DOCKERFILE.read_text("utf-8"))[0][1:]:
        print(f"{step.line}: {step.word} {step.rest[:100]}", flush=True)
        rest = _VARIABLE.sub(lambda found: variables.get(found[1] or found[2], ""), step.rest)
        match step.word:
            case "ARG":
                name, _, default = rest.partition("=")
                value = arguments.get(name, default)
                variables[name] = f"{folder}{value}" if value.startswith("/") else value
            case "WORKDIR":
                place = Path(rest) if rest.startswith(str(folder)) else folder / rest.lstrip("/")
                place.mkdir(parents=True, exist_ok=True)
            case "COPY":
                *sources, target = shlex.split(rest)
                for source in sources:
                    _copy(source, place / target, into=target.endswith("/"))
            case "RUN":
                command = ["/bin/sh", "-c", step.rest]
                subprocess.run(command, cwd=place, env={**environment, **variables}, check=True)
            case other:
                raise NotImplementedError(f"line {step.line}: {other}")
    return Path(variables["PREFIX"])


def _copy(source: str, target: Path, *, into: bool) -> None:
    if not sent(source):
        raise FileNotFoundError(f"{source} is not in the context; see Dockerfile.dockerignore")
    if (ROOT / source).is_dir():
        shutil.copytree(ROOT / source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        path = target / Path(source).name if into else target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / source, path)


if __name__ == "__main__":
    place = Path(sys.argv[1]).resolve()
    print(run_build_stage(place, dict(argument.split("=", 1) for argument in sys.argv[2:])))
