from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.captioned import brightness_text, images, write_captioned
from support.chat_server import ChatServer, chat_server
from support.normal_images import DrawnNormalImages
from support.profiles import small_config

from uniad_ray.errors import CaptionError
from uniad_ray.scoring.bundles.bundle import Bundle
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import fit_category
from uniad_ray.scoring.online_scorer import build_online_scorer
from uniad_ray.scoring.scorer import Verdict

KEYS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with chat_server(brightness_text) as running:
        yield running


@pytest.fixture(scope="module")
def bundle(server: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_captioned(tmp_path_factory.mktemp("captioned"), server.url).load("part")


def verdict_of(found: object) -> Verdict:
    assert isinstance(found, Verdict)
    return found


def same(first: Verdict, second: Verdict) -> bool:
    assert first.anomaly_map is not None
    assert second.anomaly_map is not None
    return (
        np.allclose(first.anomaly_map, second.anomaly_map, atol=1e-5)
        and first.score == pytest.approx(second.score, abs=1e-5)
        and (first.threshold, first.is_anomalous, first.reasons)
        == (second.threshold, second.is_anomalous, second.reasons)
        and dict(first.raw) == pytest.approx(dict(second.raw), abs=1e-5)
    )


def test_first_verdict_is_final_without_texts(tmp_path: Path) -> None:
    fitted = fit_category(DrawnNormalImages(8), small_config())
    store = BundleStore(str(tmp_path))
    manifest = store.write("part", fitted.config, fitted.calibration, {"extractors": fitted.extractors}, fitted.files)
    bundle = store.load("part", manifest.version)
    online = build_online_scorer(bundle)
    assert online.awaiting == ()
    assert online.first is online.full
    for first, whole in zip(online.begin(KEYS, images()), bundle.scorer().score(KEYS, images()), strict=True):
        assert first.awaited is None
        assert same(verdict_of(first.verdict), verdict_of(whole))


def test_final_verdict_equals_that_of_scorer(bundle: Bundle) -> None:
    online = build_online_scorer(bundle)
    assert online.awaiting == ("text",)
    for first, whole in zip(online.begin(KEYS, images()), bundle.scorer().score(KEYS, images()), strict=True):
        assert first.awaited is not None
        final = online.finish(first.awaited, online.ask(first.awaited))
        assert same(verdict_of(final), verdict_of(whole))
        assert set(verdict_of(final).raw) == {"patch", "text"}


def test_first_verdict_makes_no_request(bundle: Bundle, server: ChatServer) -> None:
    online = build_online_scorer(bundle)
    before = len(server.asked)
    found = online.begin(KEYS, images())
    assert len(server.asked) == before
    for first, patch in zip(found, bundle.scorer(only=["patch"]).score(KEYS, images()), strict=True):
        assert same(verdict_of(first.verdict), verdict_of(patch))
        # The threshold differs from that of all experts: the scores are on another scale.
        assert verdict_of(first.verdict).threshold != bundle.manifest.calibration.threshold.value


def test_networks_run_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    online = build_online_scorer(bundle)
    (first, *_) = online.begin(KEYS, images())
    assert first.awaited is not None
    ran: list[str] = []
    for extractor in online.full.pipeline.extractors:
        extract = extractor.extract
        monkeypatch.setattr(
            extractor, "extract", lambda batch, n=extractor.name, p=extract: (ran.append(n), p(batch))[1]
        )
    online.finish(first.awaited, online.ask(first.awaited))
    assert ran == ["caption", "text_embedding"]


def test_caption_failure_does_not_affect_first_verdict(bundle: Bundle, server: ChatServer) -> None:
    online = build_online_scorer(bundle)
    (first, *_) = online.begin(KEYS, images())
    assert first.awaited is not None
    normal, server.answer = server.answer, lambda _: (400, b"{}")
    try:
        with pytest.raises(CaptionError):
            online.ask(first.awaited)
    finally:
        server.answer = normal
    final = online.finish(first.awaited, online.ask(first.awaited))
    assert set(verdict_of(final).raw) == {"patch", "text"}


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["expert_sets.captioned=[text]"], id="no other expert"),
        pytest.param(
            ["fusions.captioned={rule: maps, weights: {patch: 1.0, text: 0.0}}"], id="scores follow from all maps"
        ),
    ],
)
def test_no_first_verdict_if_fusion_needs_all_experts(server: ChatServer, tmp_path: Path, overrides: list[str]) -> None:
    online = build_online_scorer(write_captioned(tmp_path, server.url, *overrides).load("part"))
    assert online.first is None
    (first, *_) = online.begin(KEYS, images())
    assert first.verdict is None
    assert first.awaited is not None
    assert verdict_of(online.finish(first.awaited, online.ask(first.awaited))).raw


def test_nearest_normal_images_are_found(bundle: Bundle) -> None:
    online = build_online_scorer(bundle)
    (first,) = online.begin(["x"], DrawnNormalImages(12).image(4)[None])
    nearest = online.nearest(first.descriptor, 3)
    assert len(nearest) == 3
    assert nearest[0].distance == min(entry.distance for entry in nearest) < 0.01
