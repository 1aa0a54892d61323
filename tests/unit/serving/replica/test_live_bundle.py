from __future__ import annotations

import io
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bad_bundles import damage, publish_other_scores, unlike_the_fit
from support.endpoint import write_bundle

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.region import RegionMask
from uniad_ray.errors import BundleError, StoreError
from uniad_ray.perception.region import Region
from uniad_ray.scoring.bundles.bundle import BundleManifest
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.serving.replica.live_bundle import LiveBundle

OTHER = "experts.patch.config.memory_size=50"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BundleManifest, BundleManifest]:
    """Two versions of a category, of which the first is published; to be copied."""
    root = tmp_path_factory.mktemp("bundles")
    first, second = write_bundle(root, "lids"), write_bundle(root, "lids", OTHER)
    BundleStore(str(root)).publish("lids", first.version)
    return root, first, second


@pytest.fixture
def root(fitted: tuple[Path, BundleManifest, BundleManifest], tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted[0], tmp_path / "bundles"))


def open_live(root: Path) -> LiveBundle:
    return LiveBundle(
        BundleStore(str(root)), "lids", device="cpu", lock=threading.Lock(), choose_captioner=lambda _: "no engine"
    )


def score(live: LiveBundle) -> float:
    image = np.full((1, 64, 64, 3), 90, dtype=np.uint8)
    (found,) = live.current.scorer.begin(["0"], image)
    return float(found.verdict.score)  # type: ignore[union-attr]


def test_published_version_is_loaded_newer_or_older(
    root: Path, fitted: tuple[Path, BundleManifest, BundleManifest]
) -> None:
    _, first, second = fitted
    live = open_live(root)
    old, score_of_old = live.current, score(live)
    assert (live.version, live.status()["digest"]) == (first.version, first.digest)
    assert not live.refresh()
    assert live.current is old
    BundleStore(str(root)).publish("lids", second.version)
    assert live.refresh()
    assert (live.version, live.status()["digest"]) == (second.version, second.digest)
    assert score(live) != score_of_old
    # Requests that hold the old bundle keep using it.
    assert old.manifest.version == first.version
    BundleStore(str(root)).publish("lids", first.version)
    assert live.refresh()
    assert score(live) == score_of_old


def test_bad_bundle_is_refused_once(
    root: Path, fitted: tuple[Path, BundleManifest, BundleManifest], caplog: pytest.LogCaptureFixture
) -> None:
    _, first, second = fitted
    live = open_live(root)
    before = score(live)
    BundleStore(str(root)).publish("lids", second.version)
    damage(root, second)
    for _ in range(3):
        assert not live.refresh()
    refused = live.status()["refused"]
    assert refused["version"] == second.version
    assert "checksum mismatch" in refused["reason"]
    assert [record.message.count("refused bundle") for record in caplog.records] == [1]
    assert (live.version, score(live)) == (first.version, before)

    other = publish_other_scores_of(root, first)
    assert not live.refresh()
    refused = live.status()["refused"]
    assert refused["version"] == other.version
    assert "gives the reference images" in refused["reason"]
    assert (live.version, score(live)) == (first.version, before)

    BundleStore(str(root)).publish("lids", first.version)
    assert not live.refresh()
    assert live.status()["refused"] is None


def publish_other_scores_of(root: Path, good: BundleManifest) -> BundleManifest:
    BundleStore(str(root)).publish("lids", good.version)
    return publish_other_scores(root, "lids")


def test_bundle_with_other_digest_is_refused(root: Path, fitted: tuple[Path, BundleManifest, BundleManifest]) -> None:
    _, first, second = fitted
    live = open_live(root)
    pointer = Location.parse(root) / "lids/current.json"
    pointer.write_json({"category": "lids", "version": second.version, "digest": "0" * 64})
    assert not live.refresh()
    assert "changed after it was published" in live.status()["refused"]["reason"]
    assert live.version == first.version
    with pytest.raises(BundleError, match="changed after it was published"):
        open_live(root)


def test_loaded_bundle_survives_unavailable_store(
    root: Path, fitted: tuple[Path, BundleManifest, BundleManifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first, second = fitted
    live = open_live(root)
    before = score(live)
    BundleStore(str(root)).publish("lids", second.version)
    with monkeypatch.context() as patch:

        def away(*_: object) -> None:
            raise StoreError("the store does not respond")

        patch.setattr(BundleStore, "pointer", away)
        assert not live.refresh()
    assert live.status()["store_error"] == "the store does not respond"
    with monkeypatch.context() as patch:
        # The store fails between reading the pointer and the files.
        patch.setattr(BundleStore, "load_published", away)
        assert not live.refresh()
    assert live.status()["store_error"] == "the store does not respond"
    assert live.status()["refused"] is None
    assert (live.version, score(live)) == (first.version, before)
    assert live.refresh()
    assert live.status()["store_error"] is None
    assert live.version == second.version


def test_removed_category_stays_loaded(root: Path) -> None:
    live = open_live(root)
    root.rename(root.with_name("moved"))
    assert not live.refresh()
    assert "no longer has a published bundle" in live.status()["store_error"]
    assert score(live) == score(live)
    with pytest.raises(BundleError, match="no published bundle for category 'lids'"):
        open_live(root)


def test_check_scores_reference_images_again(root: Path) -> None:
    live = open_live(root)
    live.check()
    unlike_the_fit(live)
    with pytest.raises(BundleError, match="expert patch gives the reference images"):
        live.check()


def test_line_around_the_region_covers_the_image(root: Path) -> None:
    loaded = open_live(root).current
    assert loaded.region_line is None
    mask = np.ones((300, 2000), dtype=bool)
    mask[:, 1000:] = False
    region = Region(RegionMask.of(mask), loaded.scorer.full.config.decoded_size)
    loaded.scorer.full.pipeline.region = region
    found = replace(loaded).region_line
    assert found is not None
    line = np.asarray(Image.open(io.BytesIO(found)).convert("RGBA"))
    assert line.shape == (96, 640, 4)
    assert np.flatnonzero(line[50, :, 3]).tolist() == [319, 320]
