"""CLIPs tuned with Ray Train on crops of an archive's objects."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file
from support.tiny_networks import save_clip
from support.trees import write
from support.tuning import COLOURS, colour_fit, coloured_tray, sorted_crops

from uniad_ray.cli import main
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ArchiveError, ConfigError, FitError, RunError, StoreError, WeightsError
from uniad_ray.pipelines.fit.job import fit
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.pipelines.tune_clip.job import TuneReport, tune_clip
from uniad_ray.scoring.factory import build_pipeline

pytest.importorskip("transformers", reason="the networks of transformers are an extra")

IMAGES = 16


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = tmp_path_factory.mktemp("clip")
    save_clip(found)
    return f"file:{found}"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:  # noqa: ARG001
    """Two categories of coloured trays, and one with empty images."""
    root = tmp_path_factory.mktemp("tune")
    for number, name in enumerate(("lids", "trays", "voids")):
        for index in range(IMAGES if name != "voids" else 4):
            image = coloured_tray(100 * number + index)
            buffer = io.BytesIO()
            Image.fromarray(image if name != "voids" else image // 20 + np.uint8(index)).save(buffer, "PNG")
            write(root / f"source/{name}/train/good/{index:03d}.png", buffer.getvalue())
    ingest(str(root / "source"), str(root / "archive"))
    return str(root / "archive")


def profile(config: FitConfig, folder: Path) -> str:
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True)))
    return str(path)


def colour_names(config: FitConfig, seed: int) -> list[tuple[str, str]]:
    """The true colour of each object in an image, and its name from CLIP."""
    pipeline = build_pipeline(config, [("objects/segments", "the test")], device="cpu")
    wanted = frozenset({"objects/segments", "finder/segments"})
    perception = pipeline.extract(["0" * 32], coloured_tray(seed)[None], wanted)
    true, given = (perception.segments[f"{name}/segments"][0].names for name in ("finder", "objects"))
    return list(zip(true, given, strict=True))


def parameters(report: TuneReport) -> dict[str, np.ndarray]:
    return load_file(Path(report.tuned[0].folder) / "model.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tuned_clip_names_objects(archive: str, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = colour_fit(clip, tuning={"epochs": 12})
    out = tmp_path / "clip-tuned"
    command = ["tune-clip", archive, "--out", str(out), "--profile", profile(config, tmp_path)]
    command += ["--category=lids", "--category=trays", "--workers=1"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--json"])
    assert ended.value.code == 0
    report = json.loads(capsys.readouterr().out)
    (tuned,) = report["tuned"]
    assert (tuned["category"], report["labels"], report["failed"]) == (None, "finder/segments", {})
    assert tuned["crops"] + tuned["held_out"] == 2 * IMAGES * 3
    assert tuned["accuracy_before"] < 0.5
    assert tuned["accuracy_after"] > 0.9
    assert tuned["classes"].keys() == COLOURS.keys()

    # With the values of the report: only the weights change.
    better = colour_fit(tuned["uri"])
    assert all(true == given for seed in (900, 901) for true, given in colour_names(better, seed))
    assert any(true != given for seed in (900, 901) for true, given in colour_names(config, seed))
    fitted = fit(archive, str(tmp_path / "bundles"), better, categories=["trays"], accept_unusual=True)
    assert fitted.failed == {}
    assert fitted.fitted[0].published

    # A second call computes nothing, even without the checkpoints.
    shutil.rmtree(f"{out}.checkpoints")
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "CLIP of objects, labels of finder/segments" in text
    assert f"{tuned['uri']}, sha256 {tuned['sha256']}" in text
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert not Path(f"{out}.checkpoints").exists()
    other = colour_fit(clip, tuning={"epochs": 11})
    with pytest.raises(RunError, match="holds a CLIP tuned with other inputs; use a new --out, or delete the folder"):
        tune_clip(archive, str(out), other, categories=["lids", "trays"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_clip_per_category_and_two_workers_per_clip(archive: str, clip: str, tmp_path: Path) -> None:
    config = colour_fit(clip)
    each = tune_clip(archive, str(tmp_path / "clip-{category}"), config, each=True, workers=2)
    assert [(entry.category, Path(entry.folder).name) for entry in each.tuned] == [
        ("lids", "clip-lids"),
        ("trays", "clip-trays"),
    ]
    assert each.failed.keys() == {"voids"}
    assert "there are no object crops to tune CLIP on" in each.failed["voids"]
    assert not (tmp_path / "clip-voids").exists()
    alone = tune_clip(archive, str(tmp_path / "alone"), config, categories=["trays"], workers=1)
    together = tune_clip(archive, str(tmp_path / "together"), config, categories=["trays"], workers=2)
    one, other = (load_file(Path(entry.folder) / "model.safetensors") for entry in (each.tuned[1], alone.tuned[0]))
    for name, array in one.items():
        if name.endswith("k_proj.bias"):
            # Softmax ignores this parameter: its gradient is only rounding, which Adam scales to full steps.
            continue
        # In parallel, each has fewer threads and sums in another order.
        np.testing.assert_allclose(array, other[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert together.tuned[0].accuracy_after == pytest.approx(alone.tuned[0].accuracy_after, abs=0.2)
    # Two workers draw other batches, but train the same parameters.
    before, both = load_file(Path(clip.removeprefix("file:")) / "model.safetensors"), parameters(together)
    trained = {name for name in before if not np.array_equal(other[name], before[name])}
    assert trained
    assert {name for name in before if not np.array_equal(both[name], before[name])} == trained


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sorted_crops_replace_an_archive(
    clip: str,
    tmp_path: Path,
    ray_cluster: None,  # noqa: ARG001
) -> None:
    sorted_crops(tmp_path / "crops")
    config = colour_fit(clip, tuning={"epochs": 12})
    report = tune_clip(None, str(tmp_path / "tuned"), config, crops=str(tmp_path / "crops"))
    assert report.labels == str(tmp_path / "crops")
    assert report.tuned[0].accuracy_after > 0.9 > report.tuned[0].accuracy_before
    shutil.rmtree(tmp_path / "crops/red")
    shutil.rmtree(tmp_path / "crops/blue")
    with pytest.raises(FitError, match=r"all 12 crops to tune CLIP on have one class"):
        tune_clip(None, str(tmp_path / "other"), config, crops=str(tmp_path / "crops"))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"archive": None}, ConfigError, "pass either an archive to segment, or --crops with a folder"),
        ({"crops": "crops"}, ConfigError, "pass either an archive to segment, or --crops with a folder"),
        ({"archive": None, "crops": "crops", "each": True}, ConfigError, "--crops has no categories"),
        ({"each": True}, ConfigError, "--out must contain {category} with --each"),
        ({"out": "clip-{category}"}, ConfigError, "with --each, and must not without it"),
        ({"out": "s3://bucket/clip"}, StoreError, "is not on this machine; use a local path here"),
        ({"categories": ["nuts"]}, ArchiveError, "no category nuts; the archive has lids, trays, voids"),
        ({"out": "taken"}, RunError, "taken: the folder holds other files; use a new --out"),
        ({"namer": "looks"}, ConfigError, "no namer 'looks' that works by CLIP; there are objects"),
    ],
)
def test_invalid_arguments_are_refused_at_once(
    archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], error: type, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "taken/mine.txt", b"mine")
    arguments = {"archive": archive, "out": "out", **options}
    with pytest.raises(error) as caught:
        tune_clip(arguments.pop("archive"), arguments.pop("out"), colour_fit("file:none"), **arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_and_batch_size_are_checked_first(archive: str, clip: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"has no config.json; put the model folder there"):
        tune_clip(archive, str(tmp_path / "out"), colour_fit(f"file:{tmp_path}/none"))
    with pytest.raises(ConfigError, match="batch_size 5 cannot be divided among 2 workers"):
        tune_clip(
            archive,
            str(tmp_path / "out"),
            colour_fit(clip, tuning={"batch_size": 5}),
            categories=["trays"],
            workers=2,
        )
