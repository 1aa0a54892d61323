"""Runs the scripts and the notebook of examples/ as a reader would."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.doc_pages import ROOT, check
from support.fitted import CATEGORY
from support.ray_head import running_head
from support.scene_images import GivenNormalImages, scene_images
from support.trees import mvtec_tree

from uniad_ray.config.loading import load_config
from uniad_ray.pipelines.cluster.session import local_cpus
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import fit_category
from uniad_ray.scoring.scorer import Verdict

EXAMPLES = ROOT / "examples"
SMALL = (
    "image_size=[64, 64]",
    "map_size=16",
    "batch_size=4",
    "calibration.folds=2",
    "experts.patch.config.memory_size=100",
)


def environment(**more: str) -> dict[str, str]:
    """Returns the environment of a reader with this checkout."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def run(name: str, *arguments: str, folder: Path, **more: str) -> str:
    """Runs a script of examples/ and returns its output."""
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env=environment(**more),
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def commands(name: str) -> list[list[str]]:
    """Returns the commands in the docstring of a script."""
    text = (EXAMPLES / name).read_text("utf-8").split('"""')[1].replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return [shlex.split(line) for line in lines if not line.startswith("export")]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_commands_in_docstrings_are_valid(path: Path) -> None:
    found = commands(path.name)
    assert found
    for words in found:
        check(words)


def test_score_folder_writes_a_row_for_every_image(fitted_folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(fitted_folder / "photos", photos)
    (photos / "cut.png").write_bytes((photos / "good.png").read_bytes()[:1000])
    (photos / "notes.txt").write_text("no image")
    options = ("--bundles", str(fitted_folder / "bundles"), "--category", CATEGORY, "--out", "scores.csv")
    output = run("score_folder.py", "photos", *options, folder=tmp_path)
    assert output == "3 images in scores.csv\n"
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = {Path(row["image"]).name: row for row in csv.DictReader(file)}
    assert {name: row["decision"] for name, row in rows.items()} == {
        "cut.png": "",
        "damaged.png": "anomalous",
        "good.png": "normal",
    }
    assert float(rows["damaged.png"]["score"]) > float(rows["damaged.png"]["threshold"])
    assert "ends early or is corrupt" in rows["cut.png"]["error"]


def test_nightly_prints_alarms(tmp_path: Path) -> None:
    (tmp_path / "nightly.yaml").write_text("work: nights\narchive: archive\nbundles: bundles\n", "utf-8")
    lines = run("nightly.py", "nightly.yaml", "n1", folder=tmp_path).splitlines()
    assert lines[:2] == [
        "n1: 0 images, 0 anomalous, 1 alarms",
        "  no_images: no new images, expected at least 1; check cameras and sources",
    ]
    assert Path(lines[2].removeprefix("all nights: ")).read_text("utf-8").startswith("<!doctype html>")
    with pytest.raises(AssertionError, match=r"usage: python examples/nightly\.py FILE"):
        run("nightly.py", folder=tmp_path)
    assert "night n1 is already there" in run("nightly.py", "nightly.yaml", "n1", folder=tmp_path)


@pytest.fixture
def own_expert(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module `own_expert`, importable during a test."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import own_expert

    yield own_expert
    sys.modules.pop("own_expert", None)


def test_own_expert_is_fitted_stored_and_restored(own_expert: Any, tmp_path: Path) -> None:
    (words,) = commands("own_expert.py")
    given = [value for option, value in pairwise(words) if option == "--set"]
    assert f"experts.colour.class={own_expert.__name__}:MeanColour" in given
    config = load_config("embedded", [*SMALL, *given])
    normal = scene_images(10, 64)
    fitted = fit_category(GivenNormalImages(normal), config)
    store = BundleStore(str(tmp_path))
    manifest = store.write(CATEGORY, fitted.config, fitted.calibration, {"extractors": fitted.extractors}, fitted.files)
    bundle = store.load(CATEGORY, manifest.version)
    scorer = bundle.scorer()
    bundle.check_reference(scorer)
    assert scorer.expert_names == ("patch", "colour")
    red = normal[0].copy()
    red[..., 0] = 255
    plain, reddish = scorer.score(["a", "b"], np.stack([normal[0], red]))
    assert isinstance(plain, Verdict)
    assert isinstance(reddish, Verdict)
    assert reddish.calibrated["colour"] > plain.calibrated["colour"] + 10
    assert any("mean red:" in reason for reason in reddish.reasons)


def demo(fitted_folder: Path, root: Path) -> None:
    """The outputs of `make demo` that the notebook reads."""
    shutil.copytree(fitted_folder / "bundles", root / "demo/bundles")
    for kind, name in (("good", "good.png"), ("structural_anomalies", "damaged.png")):
        folder = root / "demo/source" / CATEGORY / "test" / kind
        folder.mkdir(parents=True)
        shutil.copy(fitted_folder / name, folder / "000.png")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebook_is_committed_without_outputs(path: Path) -> None:
    document = json.loads(path.read_text("utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in document["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in document["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_notebook_runs_from_top_to_bottom(
    fitted_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo(fitted_folder, tmp_path)
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    document = json.loads((EXAMPLES / "inspect_a_model.ipynb").read_text("utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in document["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)  # noqa: S102 - our own notebook
    output = capsys.readouterr().out
    assert [line.split()[-1] for line in output.splitlines()[:2]] == ["normal", "anomalous"]
    assert "threshold" in output.splitlines()[-1]
    assert names["verdicts"][names["worst"]].decision == "anomalous"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_night_run_writes_a_report(tmp_path: Path) -> None:
    mvtec_tree(tmp_path / "bottle", train=6, good=3, bad=2)
    overrides = [word for value in ("expert_set=patch", *SMALL) for word in ("--set", value)]
    with running_head(local_cpus(), environment()) as variables:
        output = run("night_run.py", "bottle", "night", *overrides, folder=tmp_path, **variables)
    assert output.startswith("11 images: ")
    page = Path(output.splitlines()[1].removeprefix("report: "))
    assert page.read_text("utf-8").startswith("<!doctype html>")
