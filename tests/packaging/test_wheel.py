"""The built wheel runs without the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with only the wheel's files."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, elsewhere: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=elsewhere,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return ended.stdout


def test_schemas_profiles_and_pages_are_packed(installed: Path) -> None:
    packed = {path.name for path in (installed / "uniad_ray/_schemas").iterdir()}
    assert packed == {path.name for path in (ROOT / "schemas").iterdir()}
    assert (installed / "uniad_ray/config/profiles/embedded.yaml").is_file()
    assert (installed / "uniad_ray/py.typed").is_file()
    assert (installed / "uniad_ray/perception/weights/builtin/tray-captioner/model.safetensors").is_file()
    pages = {path.name for path in (installed / "uniad_ray/serving/web").iterdir()}
    assert pages == {path.name for path in (ROOT / "uniad_ray/serving/web").iterdir() if path.is_file()}
    assert not list(installed.glob("tests*"))


@pytest.mark.slow
def test_unpacked_wheel_runs(installed: Path, tmp_path: Path) -> None:
    code = "import uniad_ray, uniad_ray.archive.schemas as s; print(uniad_ray.__file__); print(s.schema_directory())"
    package, schemas = run(installed, tmp_path, "-c", code).split()
    assert package == str(installed / "uniad_ray/__init__.py")
    assert schemas == str(installed / "uniad_ray/_schemas")
    small = ["--train=1", "--test-good=1", "--logical=1", "--structural=1", "--image-size=64"]
    run(installed, tmp_path, "-m", "uniad_ray.cli", "scenes", "source", *small)
    run(installed, tmp_path, "-m", "uniad_ray.cli", "ingest", "source", "archive")
    report = json.loads(run(installed, tmp_path, "-m", "uniad_ray.cli", "inspect", "archive", "--json"))
    assert report["images"] == 4
