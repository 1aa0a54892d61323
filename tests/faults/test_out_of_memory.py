"""An image that uses up the memory of its worker costs itself alone, not the run."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from support.deadly import FAILS, KILLS
from support.nights import CATEGORY, write_factory
from support.trees import png, write
from support.verbs import verb

from uniad_ray import verbs
from uniad_ray.runs.reader import RunReader


def of_colour(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 48), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.slow
def test_images_without_memory_get_errors_and_the_others_scores(tmp_path: Path, ray_cluster: None) -> None:  # noqa: ARG001
    write_factory(tmp_path, "experts.patch.class=support.deadly:DeadlyPatchMemory", images=12)
    for index in range(16):
        data = {5: of_colour(KILLS), 10: of_colour(FAILS)}.get(index, png(100 + index))
        write(tmp_path / f"source/{index:03d}.png", data)
    verb("ingest", str(tmp_path / "source"), str(tmp_path / "archive"), f"--category={CATEGORY}", "--chunk-images=4")
    # Not as a command: the Ray of the tests reports dead workers on stdout, where `--json` has its document.
    places = {"bundles": str(tmp_path / "bundles"), "out": str(tmp_path / "run")}
    report = verbs.score(str(tmp_path / "archive"), **places, workers=1)
    assert (report.images, report.errors) == (16, 2)
    found = {
        row["source_uri"].rpartition("/")[2]: (row["status"], row["error_kind"], row["score"] is None)
        for row in RunReader(str(tmp_path / "run")).scores().to_pylist()
    }
    assert found.pop("005.png") == ("error", "worker_died", True)
    assert found.pop("010.png") == ("error", "out_of_memory", True)
    assert set(found.values()) == {("ok", None, False)}
    assert len(found) == 14
