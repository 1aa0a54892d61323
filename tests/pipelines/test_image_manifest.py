"""A manifest of Lookout for Vision goes in, and comes out as labels, masks and metadata in the score rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.fitted import CATEGORY, write_fitted
from support.lookout import color_mask, lookout_line

from uniad_ray.evaluation.run import evaluate
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.pipelines.score.job import score
from uniad_ray.reporting.build import report
from uniad_ray.runs.reader import RunReader


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_lookout_manifest_comes_out_in_the_score_rows(tmp_path: Path) -> None:
    write_fitted(tmp_path)
    size = Image.open(tmp_path / "good.png").width
    (tmp_path / "mask.png").write_bytes(color_mask(size, scratch=(20, 30, 60, 70), dent=(0, 0, 2, 2)))
    (tmp_path / "other.png").write_bytes((tmp_path / "good.png").read_bytes() + b"\0")
    (tmp_path / "test.manifest").write_text(
        "\n".join(
            (
                lookout_line("good.png", "normal", serial="A-1", camera="top", lot=7),
                lookout_line("damaged.png", "anomaly", "mask.png", serial="A-2", camera="top", lot=7),
                lookout_line("other.png", "normal", serial="A-2", camera="side", lot=7),
                '{"source-ref": ',
            )
        )
    )
    archive, run = str(tmp_path / "archive"), str(tmp_path / "run")
    taken = ingest(str(tmp_path), archive, manifest=str(tmp_path / "test.manifest"), category=CATEGORY, split="test")
    assert (taken.new_images, len(taken.rejected)) == (3, 1)
    result = score(archive, str(tmp_path / "bundles"), run)
    assert (result.images, result.parts, result.anomalous_parts, result.undecided_parts) == (3, 2, 1, 0)

    reader = RunReader(run)
    rows = {Path(row["source_uri"]).name: row for row in reader.scores().to_pylist()}
    damaged = rows["damaged.png"]
    assert (damaged["label"], damaged["defect_kind"], damaged["decision"]) == ("anomalous", "dent+scratch", "anomalous")
    assert (rows["good.png"]["label"], rows["good.png"]["defect_kind"]) == ("normal", None)
    assert {entry["name"]: entry["value"] for entry in damaged["metadata"]} == {
        "serial": "A-2",
        "camera": "top",
        "lot": "7",
    }
    assert [(part.serial, part.decision, part.views) for part in reader.parts()] == [
        ("A-1", "normal", 1),
        ("A-2", "anomalous", 2),
    ]
    metrics = {entry.metric for entry in evaluate(run, resamples=0).metrics}
    assert {"image_auroc", "pixel_auroc"} <= metrics
    written = json.loads(Path(report(run, format="json", resamples=0).path).read_text())
    assert written["parts"]["anomalous"] == 1
    shown = {image["source_uri"]: image for image in written["details"][0]["gallery"][0]["images"]}
    assert shown[damaged["source_uri"]]["metadata"]["serial"] == "A-2"
    (mask,) = reader.images(CATEGORY, [damaged["row_key"]])[damaged["row_key"]].masks
    (tmp_path / "stored.png").write_bytes(mask.data)
    assert int((np.asarray(Image.open(tmp_path / "stored.png")) == 1).sum()) == 40 * 40
