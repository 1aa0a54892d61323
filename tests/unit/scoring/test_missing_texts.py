"""One image without a text: the fit, the score, the reference check and synthetic anomalies; with a fake server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.captioned import brightness_text, captioned_config, images, write_captioned
from support.chat_server import Asked, ChatServer, chat_server
from support.normal_images import DrawnNormalImages

from uniad_ray.errors import FitError, ImageError
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import fit_category
from uniad_ray.scoring.online_scorer import build_online_scorer
from uniad_ray.scoring.scorer import Scorer, Verdict

KEYS = ("one", "two", "three")


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with chat_server(brightness_text) as server:
        yield server


@pytest.fixture(scope="module")
def store(server: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> BundleStore:
    return write_captioned(tmp_path_factory.mktemp("bundles"), server.url)


def silent_about(image: np.ndarray, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the model return an empty answer to one image."""

    def answer(asked: Asked) -> str:
        return "" if np.array_equal(asked.image, image) else brightness_text(asked)

    monkeypatch.setattr(server, "answer", answer)


def test_expert_without_a_text_is_left_out_of_one_image(
    store: BundleStore, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = store.load("part", None)
    scorer = bundle.scorer()
    complete = scorer.score(KEYS, images())
    silent_about(images()[1], server, monkeypatch)

    first, second, third = scorer.score(KEYS, images())
    assert isinstance(second, Verdict)
    for found, expected in ((first, complete[0]), (third, complete[2])):
        assert isinstance(found, Verdict)
        assert isinstance(expected, Verdict)
        assert (found.score, found.threshold, found.left_out) == (expected.score, expected.threshold, {})
    assert set(second.raw) == {"patch"}
    assert "returned an empty answer" in second.left_out["text"]
    online = build_online_scorer(bundle).begin(KEYS, images())[1].verdict
    assert isinstance(online, Verdict)
    assert (second.score, second.threshold) == (online.score, online.threshold)


@pytest.mark.parametrize("rate", [0.3, 0.0])
def test_experts_that_are_left_are_as_strict_as_a_threshold_set_after_the_fit(store: BundleStore, rate: float) -> None:
    bundle = store.load("part", None)
    later = bundle.manifest.calibration.threshold.model_copy(
        update={"value": 7.0, "method": "set_by_hand", "false_positive_rate": rate}
    )
    changed = store.load("part", store.write_threshold(bundle, later, None, {}).version)
    assert changed.fusion()[1].value == 7.0
    assert changed.fusion(["patch"])[1] == bundle.fusion(["patch"], max(rate, 1e-6))[1]
    assert changed.fusion(["patch"])[1] != bundle.fusion(["patch"])[1]


def test_image_is_an_error_if_no_other_expert_can_score_it(
    store: BundleStore, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = store.load("part", None).scorer(only=["text"])
    silent_about(images()[1], server, monkeypatch)

    good, silent, _ = scorer.score(KEYS, images())
    assert isinstance(good, Verdict)
    assert isinstance(silent, ImageError)
    assert silent.kind == "no_text"


def test_reference_check_asks_no_model(store: BundleStore, server: ChatServer) -> None:
    bundle = store.load("part", None)
    before = len(server.asked)
    bundle.check_reference(bundle.scorer())
    assert len(server.asked) == before
    (texts,) = bundle.reference.scores.texts.values()
    assert all(text is not None and text.startswith("There is a part") for text in texts)


def test_model_sees_the_original_image(store: BundleStore, server: ChatServer) -> None:
    scorer: Scorer = store.load("part", None).scorer()
    wide = np.random.default_rng(1).integers(0, 256, (30, 90, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(wide).save(buffer, "PNG")

    scorer.score_encoded(["wide"], [buffer.getvalue()])
    np.testing.assert_array_equal(server.asked[-1].image, wide)


def test_one_empty_answer_costs_a_fit_one_image(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent_about(DrawnNormalImages(12).image(3), server, monkeypatch)
    manifest = write_captioned(tmp_path, server.url).load("part", None).manifest
    assert (manifest.calibration.held_out_images, manifest.calibration.images_without_text) == (11, 1)


def test_fit_without_most_texts_says_what_to_do(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "answer", lambda asked: "" if int(asked.image[0, 0, 0]) % 3 else "a part")
    with pytest.raises(FitError, match=r"have no text from caption; caption the archive again"):
        fit_category(DrawnNormalImages(12), captioned_config(server.url))


SELECTION = (
    "fusions={captioned: {rule: excess, selection: {surface: {base: [patch]}, arrangement: {candidates: [text]}, "
    "images: 4%s}}}"
)


@pytest.mark.parametrize(("option", "asked"), [("", False), (", captions: true", True)])
def test_synthetic_anomalies_have_no_text_unless_captioned(server: ChatServer, option: str, asked: bool) -> None:
    before = len(server.asked)
    found = fit_category(DrawnNormalImages(12), captioned_config(server.url, SELECTION % option))
    assert (len(server.asked) - before > 12) == asked
    selection = found.calibration.selection
    assert selection is not None
    text = selection.experts["text"]
    assert (text.is_judged, bool(text.auroc)) == (asked, asked)
    if not asked:
        assert text.weight == 0.0
        assert "synthetic anomalies have no text" in selection.reason("text")
