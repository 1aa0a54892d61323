"""A Python loop, Ray Data and HTTP give the same verdict for the same bytes."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.endpoint import endpoint
from support.profiles import small_config
from support.trees import mvtec_tree

from uniad_ray.archive.manifest import chunks, read_manifest
from uniad_ray.archive.shards import ShardLimits, read_chunk
from uniad_ray.archive.stores.location import Location
from uniad_ray.pipelines.cluster.sizing import Workers
from uniad_ray.pipelines.fit.job import fit
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.pipelines.score.job import score
from uniad_ray.runs.maps import decode_map
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.scorer import Verdict

TOLERANCE = 1e-5


@pytest.mark.slow
def test_plain_loop_ray_data_and_http_agree(serve_port: int, tmp_path: Path) -> None:
    archive, bundles, run = (str(tmp_path / name) for name in ("archive", "bundles", "run"))
    tree = mvtec_tree(tmp_path / "bottle", train=6, good=5, bad=4, size=48, width=80)
    ingest(str(tree), archive, limits=ShardLimits(rows=8, row_group_rows=5))
    fit(archive, bundles, small_config("image_size=null", "longest_side=70"))
    score(archive, bundles, run, workers=Workers(count=1))
    stored: dict[str, dict[str, Any]] = {}
    maps: dict[str, np.ndarray] = {}
    for info in Location.parse(run).list(suffix=".parquet"):
        if info.relative.startswith("scores/"):
            rows = pq.read_table(io.BytesIO(info.location.read_bytes())).to_pylist()
            stored.update({row["row_key"]: row for row in rows})
        if info.relative.startswith("maps/"):
            for row in pq.read_table(io.BytesIO(info.location.read_bytes())).to_pylist():
                maps[row["row_key"]] = decode_map(row["map"], row["height"], row["width"])
    scorer = BundleStore(bundles).load("bottle").scorer()
    assert scorer.config.image_size == (42, 70)
    root = Location.parse(archive)
    compared = 0
    with endpoint(serve_port, {"bundles": bundles, "replicas": {"device": "cpu"}}) as client:
        for chunk in chunks(read_manifest(root)):
            for row in read_chunk(root, chunk).to_pylist():
                (verdict,) = scorer.score_encoded([row["row_key"]], [row["image"]])
                assert isinstance(verdict, Verdict)
                night = stored[row["row_key"]]
                online = client.score("bottle", row["image"], "?map=float16").image
                for found in (night, online):
                    assert found["decision"] == verdict.decision
                    assert found["score"] == pytest.approx(verdict.score, abs=TOLERANCE * max(1.0, abs(verdict.score)))
                    assert found["threshold"] == verdict.threshold
                    assert found["reasons"] == list(verdict.reasons)
                    raw = {entry["expert"]: entry["raw"] for entry in found["experts"]}
                    assert raw == pytest.approx(dict(verdict.raw), rel=TOLERANCE, abs=TOLERANCE)
                assert verdict.anomaly_map is not None
                form = online["map"]
                numbers = np.frombuffer(zlib.decompress(base64.b64decode(form["data"])), "<f2")
                for anomaly_map in (maps[row["row_key"]], numbers.reshape(form["height"], form["width"])):
                    np.testing.assert_allclose(anomaly_map, verdict.anomaly_map, rtol=2e-3, atol=2e-3)
                compared += 1
    assert compared == len(stored) == 15
