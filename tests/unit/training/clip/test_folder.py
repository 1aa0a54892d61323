from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.tuning import clip_tuning, tiny_classifier

from uniad_ray.errors import WeightsError
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.training.clip.crop_classifier import CropClassifier
from uniad_ray.training.clip.folder import RECORD_NAME, read_record, write_clip_folder

pytest.importorskip("transformers", reason="the networks of transformers are an extra")


def source(folder: Path) -> ModelFolderSource:
    return ModelFolderSource(uri=f"file:{folder}")


def test_tuned_folder_replaces_the_original(clip: Path, tmp_path: Path) -> None:
    tuning = clip_tuning(clip)
    state = tuning.run()
    folder = tmp_path / "deep/tuned"
    write_clip_folder(folder, resolve_folder(source(clip)), state.arrays, {"a": 1})

    assert {path.name for path in folder.iterdir()} == {path.name for path in clip.iterdir()} | {RECORD_NAME}
    assert [path.name for path in folder.parent.iterdir()] == ["tuned"]
    before, after = load_file(clip / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed <= state.arrays.keys()
    assert "visual_projection.weight" in changed
    assert (folder / "config.json").read_bytes() == (clip / "config.json").read_bytes()
    # It names held-out crops as the tuning recorded.
    restored = clip_tuning(folder)
    look = restored._look()
    assert list(look.right) == state.document["after"]
    assert look.loss == pytest.approx(state.document["loss_after"], rel=1e-6)
    assert resolve_folder(source(folder)).sha256 != resolve_folder(source(clip)).sha256
    assert isinstance(tiny_classifier(folder), CropClassifier)


def test_equal_content_has_equal_bytes(clip: Path, tmp_path: Path) -> None:
    base, arrays = resolve_folder(source(clip)), {"visual_projection.weight": np.zeros((6, 8), dtype=np.float32)}
    for name in ("one", "two"):
        write_clip_folder(tmp_path / name, base, arrays, {"b": [1], "a": None})
    one, two = (resolve_folder(source(tmp_path / name)).sha256 for name in ("one", "two"))
    assert one == two
    assert read_record(tmp_path / "one") == {"a": None, "b": [1]}
    assert read_record(clip) is None
    (tmp_path / "one" / RECORD_NAME).write_text("[]")
    assert read_record(tmp_path / "one") is None
    again = tmp_path / "again"
    write_clip_folder(again, resolve_folder(source(tmp_path / "two")), arrays, {"a": 2})
    assert json.loads((again / RECORD_NAME).read_text()) == {"a": 2}


def test_unknown_parameters_leave_no_folder(clip: Path, tmp_path: Path) -> None:
    base = resolve_folder(source(clip))
    for arrays in ({"other": np.zeros(2)}, {"visual_projection.weight": np.zeros((2, 2), dtype=np.float32)}):
        with pytest.raises(WeightsError, match="uses other parameter names"):
            write_clip_folder(tmp_path / "tuned", base, arrays, {})
    assert not list(tmp_path.iterdir())


def test_folder_with_files_is_untouched(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned/keep").write_text("this")
    with pytest.raises(OSError, match="not empty"):
        write_clip_folder(tmp_path / "tuned", resolve_folder(source(clip)), {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]
    assert (tmp_path / "tuned/keep").read_text() == "this"
