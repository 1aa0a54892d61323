from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import shutil
import weakref
from collections.abc import Awaitable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image
from support.bad_bundles import damage, publish_other_scores, unlike_the_fit
from support.endpoint import png, same_verdict, verdicts, write_bundle
from support.recorded import Recorded

from uniad_ray.errors import BundleError
from uniad_ray.scoring.bundles.bundle import BundleManifest
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.online_verdict import OnlineVerdict, UnusableImage
from uniad_ray.serving.replica.live_bundle import DecodedImage
from uniad_ray.serving.replica.scorer import LoadedCategory, Outcome, ReplicaScorer
from uniad_ray.serving.settings import BatchSettings, ServeSettings

Result = TypeVar("Result")
Found = OnlineVerdict | UnusableImage
IMAGES = [png(number) for number in range(8)]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, BundleManifest]]:
    """Bundles of two categories, one of them with a second version; tests copy them."""
    root = tmp_path_factory.mktemp("bundles")
    manifests = {
        "lids": write_bundle(root, "lids"),
        "other lids": write_bundle(root, "lids", "experts.patch.config.memory_size=50"),
        "trays": write_bundle(root, "trays", "experts.patch.config.memory_size=90"),
    }
    BundleStore(str(root)).publish("lids", manifests["lids"].version)
    return root, manifests


@pytest.fixture
def root(fitted: tuple[Path, dict[str, BundleManifest]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted[0], tmp_path / "bundles"))


def scorer(root: Path, *, most: int = 8, wait_seconds: float = 0.0, threads: int = 1, **changes: Any) -> ReplicaScorer:
    settings = ServeSettings.model_validate({"bundles": str(root), **changes})
    # Longer than settings allow: no test depends on how fast images arrive.
    batch = BatchSettings.model_construct(images=most, wait_seconds=wait_seconds)
    return ReplicaScorer(settings.model_copy(update={"batch": batch}), device="cpu", threads=threads)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def ask(replica: ReplicaScorer, category: LoadedCategory, image: bytes) -> Awaitable[Found]:
    return replica.score(category, image, with_map=False, nearest=0)


def check_verdict(root: Path, manifest: BundleManifest, image: bytes, found: Found) -> None:
    """Check that a verdict comes from one version and is correct."""
    (verdict,) = verdicts(root, manifest.category, manifest.version, [image])
    assert isinstance(found, OnlineVerdict)
    assert same_verdict(found, verdict)
    assert found.bundle_version == manifest.version
    assert found.bundle_digest == manifest.digest
    assert found.image_sha256 == hashlib.sha256(image).hexdigest()


@pytest.mark.parametrize("threads", [1, 3])
def test_batched_scores_equal_single_scores(
    root: Path, fitted: tuple[Path, dict[str, BundleManifest]], monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    sizes: list[int] = []
    plain = ReplicaScorer._score_batch

    def counted(self: ReplicaScorer, images: list[DecodedImage]) -> list[Outcome]:
        sizes.append(len(images))
        return plain(self, images)

    monkeypatch.setattr(ReplicaScorer, "_score_batch", counted)

    async def together() -> list[Found]:
        replica = scorer(root, wait_seconds=0.5, threads=threads)
        category = await replica.load("lids")
        return await asyncio.gather(*(ask(replica, category, image) for image in IMAGES))

    scored = run(together())
    assert max(sizes) > 1
    decisions = [found.verdict.decision for found in scored if isinstance(found, OnlineVerdict)]
    assert set(decisions) == {"normal", "anomalous"}
    for found, image in zip(scored, IMAGES, strict=True):
        check_verdict(root, fitted[1]["lids"], image, found)


def test_images_are_decoded_to_the_size_of_the_bundle(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path, "boards", "image_size=[64, 128]")
    square, sink = IMAGES[1], io.BytesIO()
    with Image.open(io.BytesIO(square)) as image:
        image.crop((0, 16, 64, 48)).save(sink, "PNG")
    images = [square, sink.getvalue()]

    async def together() -> list[Found]:
        replica = scorer(tmp_path, wait_seconds=0.5)
        category = await replica.load("boards")
        decoded = replica._decode(category.live.current, "x", images[1])
        assert decoded.pixels.shape == (64, 128, 3)
        return await asyncio.gather(*(ask(replica, category, image) for image in images))

    for found, image in zip(run(together()), images, strict=True):
        check_verdict(tmp_path, manifest, image, found)


def test_batch_may_mix_old_and_new_bundle(root: Path, fitted: tuple[Path, dict[str, BundleManifest]]) -> None:
    async def change_between() -> list[Found]:
        replica = scorer(root, most=2, wait_seconds=60)
        category = await replica.load("lids")
        first = asyncio.create_task(ask(replica, category, IMAGES[1]))
        await asyncio.sleep(0.3)
        BundleStore(str(root)).publish("lids", fitted[1]["other lids"].version)
        assert category.live.refresh()
        return await asyncio.gather(first, ask(replica, category, IMAGES[1]))

    old, new = run(change_between())
    assert isinstance(old, OnlineVerdict)
    assert isinstance(new, OnlineVerdict)
    assert old.verdict.score != new.verdict.score
    for found, name in ((old, "lids"), (new, "other lids")):
        check_verdict(root, fitted[1][name], IMAGES[1], found)


def test_bad_image_does_not_affect_others(root: Path, fitted: tuple[Path, dict[str, BundleManifest]]) -> None:
    bad = {b"nonsense": "not_an_image", IMAGES[1][:300]: "truncated", b"": "empty"}

    async def mixed() -> list[Found]:
        replica = scorer(root)
        category = await replica.load("lids")
        return await asyncio.gather(*(ask(replica, category, image) for image in (*bad, IMAGES[0])))

    *errors, good = run(mixed())
    assert [error.kind for error in errors if isinstance(error, UnusableImage)] == list(bad.values())
    check_verdict(root, fitted[1]["lids"], IMAGES[0], good)


def test_image_limits_apply_before_decoding(root: Path) -> None:
    async def too_large() -> Found:
        replica = scorer(root, limits={"image_pixels": 64 * 64 - 1})
        return await ask(replica, await replica.load("lids"), IMAGES[0])

    found = run(too_large())
    assert isinstance(found, UnusableImage)
    assert found.kind == "too_large"


def test_map_and_nearest_images_on_request(root: Path, fitted: tuple[Path, dict[str, BundleManifest]]) -> None:
    async def both() -> list[Found]:
        replica = scorer(root)
        category = await replica.load("lids")
        return [
            await replica.score(category, IMAGES[1], with_map=asked, nearest=2 if asked else 0)
            for asked in (False, True)
        ]

    plain, whole = run(both())
    (wanted,) = verdicts(root, "lids", fitted[1]["lids"].version, [IMAGES[1]])
    assert isinstance(plain, OnlineVerdict)
    assert isinstance(whole, OnlineVerdict)
    assert (plain.verdict.anomaly_map, plain.nearest) == (None, ())
    np.testing.assert_allclose(whole.verdict.anomaly_map, wanted.anomaly_map, rtol=1e-5, atol=1e-5)
    assert [entry.distance for entry in whole.nearest] == sorted(entry.distance for entry in whole.nearest)
    assert len(whole.nearest) == 2


def test_changed_reference_scores_make_replica_unhealthy(root: Path) -> None:
    async def changed() -> None:
        replica = scorer(root)
        held = [await replica.load("lids"), await replica.load("trays")]
        unlike_the_fit(held[1].live)
        replica.check_health()
        found = await replica.check()
        assert found["checked"] == ["lids", "trays"]
        assert "bundle trays" in found["error"]
        with pytest.raises(BundleError, match="expert patch gives the reference images"):
            replica.check_health()

    run(changed())


def test_unused_category_is_released(root: Path) -> None:
    async def forgotten() -> None:
        replica = scorer(root)
        kept, dropped = await replica.load("lids"), await replica.load("trays")
        assert await replica.load("trays") is dropped
        for category in (kept, dropped):
            await ask(replica, category, IMAGES[0])
        gone = weakref.ref(dropped.live.current.scorer)
        del dropped, category
        await asyncio.sleep(0.05)
        gc.collect()
        assert gone() is None
        assert [entry["category"] for entry in replica.status()] == ["lids"]
        again = await replica.load("trays")
        assert isinstance(await ask(replica, again, IMAGES[0]), OnlineVerdict)

    run(forgotten())


def test_failed_load_is_cached(
    root: Path, fitted: tuple[Path, dict[str, BundleManifest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(root, fitted[1]["lids"])
    reads = 0
    plain = BundleStore.load_published

    def counted(self: BundleStore, *arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return plain(self, *arguments)

    monkeypatch.setattr(BundleStore, "load_published", counted)

    async def asked_for() -> None:
        replica = scorer(root, refresh_seconds=3600)
        found = await asyncio.gather(*(replica.load("lids") for _ in range(20)), return_exceptions=True)
        assert {type(entry) for entry in found} == {BundleError}
        assert reads == 1
        BundleStore(str(root)).publish("lids", fitted[1]["other lids"].version)
        replica.settings = replica.settings.model_copy(update={"refresh_seconds": 0.0})
        loaded = await replica.load("lids")
        assert loaded.live.version == fitted[1]["other lids"].version

    run(asked_for())


def test_refresh_loads_new_bundles_and_survives_errors(
    root: Path, fitted: tuple[Path, dict[str, BundleManifest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def upkeep() -> None:
        replica = scorer(root, refresh_seconds=0.1)
        held = [await replica.load("lids"), await replica.load("trays")]
        monkeypatch.setattr(held[1].live, "refresh", lambda: 1 / 0)
        task = asyncio.create_task(replica.refresh_for_ever())
        await asyncio.sleep(0.3)
        BundleStore(str(root)).publish("lids", fitted[1]["other lids"].version)
        for _ in range(1000):
            if held[0].live.version == fitted[1]["other lids"].version:
                break
            await asyncio.sleep(0.1)
        assert held[0].live.version == fitted[1]["other lids"].version
        assert not task.done()
        task.cancel()

    run(upkeep())


def test_replica_starts_without_broken_bundles(root: Path, fitted: tuple[Path, dict[str, BundleManifest]]) -> None:
    publish_other_scores(root, "lids")

    async def start(**replicas: Any) -> list[str]:
        replica = scorer(root, replicas=replicas)
        held = []

        async def hold(category: str) -> None:
            held.append(await replica.load(category))

        await replica.start(hold)
        return [entry["category"] for entry in replica.status()]

    assert run(start()) == ["trays"]
    assert run(start(loaded_at_start=[])) == []
    with pytest.raises(BundleError, match=r"bundle lids .* expert patch gives the reference images"):
        run(start(categories=1))
    damage(root, fitted[1]["trays"])
    with pytest.raises(BundleError):
        run(start())


def test_stages_and_batches_are_recorded(root: Path) -> None:
    metrics = Recorded()
    replica = ReplicaScorer(ServeSettings(bundles=str(root)), device="cpu", metrics=metrics)

    async def work() -> None:
        category = await replica.load("lids")
        scores = [replica.score(category, data, with_map=False, nearest=0) for data in (*IMAGES[:3], b"no image")]
        await asyncio.gather(*scores)

    run(work())
    stages = {key[1][0][1]: values for key, values in metrics.observed.items() if key[1]}
    (batches,) = (values for key, values in metrics.observed.items() if not key[1])
    assert len(stages["decode"]) == 3
    assert len(stages["score"]) == len(batches)
    assert sum(batches) == 3
