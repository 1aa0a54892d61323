from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.chat_server import Asked, ChatServer, chat_server, completion, refusal

from uniad_ray.config.loading import validate
from uniad_ray.errors import CaptionError, ConfigError
from uniad_ray.perception.captions.base import MAX_CHARACTERS, Captions
from uniad_ray.perception.captions.server import CaptionServer, CaptionServerConfig
from uniad_ray.perception.missing import Missing

KEY = "sk-not-to-be-seen"
VARIABLE = "TEST_VLM_KEY"


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(count, 9, 7, 3), dtype=np.uint8)


def keys(count: int) -> list[str]:
    return [f"image-{number}" for number in range(count)]


@pytest.fixture
def fake() -> Iterator[ChatServer]:
    with chat_server(lambda asked: f"sum {asked.image.sum()}") as server:
        yield server


def captioner(url: str, **options: Any) -> CaptionServer:
    document = {"kind": "server", "url": url, "model": "org/model", "backoff": 0, "retries": 2, **options}
    return CaptionServer("caption", validate(CaptionServerConfig, document, where="profile p"))


def ask(fake: ChatServer, count: int = 1, **options: Any) -> Captions:
    return captioner(fake.url, **options).captions(keys(count), images(count), "What is it?")


def test_request_has_model_prompt_and_exact_pixels(fake: ChatServer) -> None:
    ask(fake, max_tokens=77, seed=5)

    (asked,) = fake.asked
    assert asked.path == "/v1/chat/completions"
    assert {name: value for name, value in asked.document.items() if name != "messages"} == {
        "model": "org/model",
        "max_tokens": 77,
        "temperature": 0,
        "seed": 5,
    }
    assert asked.prompt == "What is it?"
    np.testing.assert_array_equal(asked.image, images(1)[0])
    assert "Authorization" not in asked.headers


def test_texts_keep_the_order_of_the_images(fake: ChatServer) -> None:
    slow = images(12)[0].sum()

    def answer(asked: Asked) -> str:
        time.sleep(0.2 if asked.image.sum() == slow else 0.0)
        return f"sum {asked.image.sum()}"

    fake.answer = answer
    assert ask(fake, 12, concurrency=4) == [f"sum {image.sum()}" for image in images(12)]


def test_concurrency_is_limited(fake: ChatServer) -> None:
    def answer(asked: Asked) -> str:  # noqa: ARG001
        time.sleep(0.02)
        return "a text"

    fake.answer = answer
    ask(fake, 12, concurrency=3)
    assert 1 <= fake.most_at_once <= 3


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_busy_or_failing_server_is_retried(fake: ChatServer, status: int) -> None:
    fake.answer = lambda asked: (status, b"busy") if len(fake.asked) < 3 else "at last"  # noqa: ARG005

    assert ask(fake) == ["at last"]
    assert len(fake.asked) == 3


def test_pauses_grow(fake: ChatServer) -> None:
    fake.answer = lambda asked: (503, b"busy") if len(fake.asked) < 4 else "at last"  # noqa: ARG005

    started = time.monotonic()
    assert ask(fake, retries=3, backoff=0.1) == ["at last"]
    assert time.monotonic() - started >= 0.3  # none, 0.1 and 0.2 seconds


def test_busy_server_error_is_one_line(fake: ChatServer) -> None:
    fake.answer = lambda asked: (503, refusal("loading\nthe model"))  # noqa: ARG005

    with pytest.raises(CaptionError) as raised:
        ask(fake)
    assert len(fake.asked) == 3
    assert str(raised.value) == (
        f"caption: {fake.url} is busy or failing (HTTP 503 after 2 retries: loading the model); check its log, or "
        "lower concurrency"
    )


def test_the_first_error_ends_a_batch(fake: ChatServer) -> None:
    fake.answer = lambda asked: (400, refusal("too long"))  # noqa: ARG005

    with pytest.raises(CaptionError, match=r"HTTP 400: too long\); check url, model and max_tokens"):
        ask(fake, 50, concurrency=2)
    assert len(fake.asked) < 50


def test_an_unreachable_server_is_one_line() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(CaptionError) as raised:
            captioner(url).captions(["a"], images(1), "?")
    assert str(raised.value) == (
        f"caption: cannot reach {url} (ConnectionError, 2 retries); check that the server runs and that every "
        "worker can reach it"
    )


def test_silent_server_times_out(fake: ChatServer) -> None:
    end = threading.Event()

    def answer(asked: Asked) -> str:  # noqa: ARG001
        end.wait(10)
        return "late"

    fake.answer = answer
    with pytest.raises(CaptionError, match=r"cannot reach .* \(\w+, 0 retries\)"):
        ask(fake, timeout=0.1, retries=0)
    end.set()


def test_unknown_model_is_one_line(fake: ChatServer) -> None:
    fake.answer = lambda asked: (404, refusal("The model `org/model` does not exist."))  # noqa: ARG005

    with pytest.raises(CaptionError) as raised:
        ask(fake)
    assert str(raised.value) == (
        f"caption: {fake.url} has no model org/model or no chat API (HTTP 404: The model `org/model` does not "
        f"exist.); see {fake.url}/models for its models, and check that the url ends in /v1"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>hello</html>", "is not an OpenAI chat completion; check the url"),
        (b'{"choices": []}', "is not an OpenAI chat completion"),
        (b"[1]", "is not an OpenAI chat completion"),
    ],
)
def test_wrong_response_is_one_line(fake: ChatServer, body: bytes, message: str) -> None:
    fake.answer = lambda asked: (200, body)  # noqa: ARG005

    with pytest.raises(CaptionError, match=message) as raised:
        ask(fake)
    assert "\n" not in str(raised.value)


def test_one_empty_or_cut_answer_costs_one_image(fake: ChatServer) -> None:
    bodies = {0: completion(None), 1: completion("  \n"), 2: completion("a pin"), 3: completion("a p", "length")}
    order = [int(image.sum()) for image in images(4)]
    fake.answer = lambda asked: (200, bodies[order.index(int(asked.image.sum()))])

    found = ask(fake, 4)
    assert found[2] == "a pin"
    reasons = [text.reason for text in found if isinstance(text, Missing)]
    assert reasons == [
        *["caption: org/model returned an empty answer; raise max_tokens, or use a vision-language chat model"] * 2,
        "caption: org/model did not finish its answer; raise max_tokens",
    ]


def test_answers_of_a_schema_have_tokens_and_single_rejections(fake: ChatServer) -> None:
    schema = {"type": "object"}
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    first = int(images(2)[0].sum())
    fake.answer = lambda asked: (
        (200, completion("{}", usage=usage)) if int(asked.image.sum()) == first else (400, refusal("too long"))
    )

    good, bad = captioner(fake.url).answers(list(images(2)), "?", schema)
    assert (good.text, good.error_kind, good.prompt_tokens, good.tokens) == ("{}", None, 7, 3)
    assert (bad.text, bad.error_kind) == ("", "rejected")
    structure = {"name": "caption", "schema": schema, "strict": True}
    assert fake.asked[0].document["response_format"] == {"type": "json_schema", "json_schema": structure}


def test_long_answers_are_truncated_or_rejected(fake: ChatServer) -> None:
    fake.answer = lambda asked: "word " * 10_000  # noqa: ARG005
    (text,) = ask(fake)
    assert isinstance(text, str)
    assert len(text) == MAX_CHARACTERS

    fake.answer = lambda asked: "word " * 1_000_000  # noqa: ARG005
    with pytest.raises(CaptionError, match="is not an OpenAI chat completion"):
        ask(fake)


def test_a_redirect_is_not_followed(fake: ChatServer) -> None:
    with chat_server(lambda asked: "stolen") as other:  # noqa: ARG005
        fake.answer = lambda asked: (307, f"{other.url}/chat/completions".encode())  # noqa: ARG005
        with pytest.raises(CaptionError, match="HTTP 307"):
            ask(fake)
        assert other.asked == []


class TestKey:
    def test_key_is_sent_and_stored_nowhere(
        self, fake: ChatServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv(VARIABLE, f"{KEY}\n")
        asking = captioner(fake.url, api_key_variable=VARIABLE)
        asking.captions(["a"], images(1), "?")

        assert fake.asked[0].headers["Authorization"] == f"Bearer {KEY}"
        assert KEY not in f"{asking.lineage()} {vars(asking)} {vars(asking._session)} {caplog.text}"

    def test_without_a_key_no_file_gives_one(
        self, fake: ChatServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password secret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        ask(fake)
        assert "Authorization" not in fake.asked[0].headers

    @pytest.mark.parametrize("value", [None, "", "two words", "sk-ü", "sk-a\nX-Other: b"])
    def test_invalid_key_sends_nothing(
        self, fake: ChatServer, monkeypatch: pytest.MonkeyPatch, value: str | None
    ) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        if value is not None:
            monkeypatch.setenv(VARIABLE, value)
        with pytest.raises(ConfigError) as raised:
            ask(fake, api_key_variable=VARIABLE)
        assert str(raised.value) == (
            "caption: TEST_VLM_KEY holds no valid key; set it on every worker, in ASCII without spaces"
        )
        assert fake.asked == []

    @pytest.mark.parametrize("status", [400, 401, 403, 503])
    def test_key_is_never_in_a_message(self, fake: ChatServer, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
        monkeypatch.setenv(VARIABLE, KEY)
        fake.answer = lambda asked: (status, refusal(f"wrong key {KEY}"))  # noqa: ARG005
        with pytest.raises(CaptionError) as raised:
            ask(fake, api_key_variable=VARIABLE)
        assert KEY not in str(raised.value)
        if status in (401, 403):
            assert "check the key in TEST_VLM_KEY" in str(raised.value)

    def test_required_key_names_the_option(self, fake: ChatServer) -> None:
        fake.answer = lambda asked: (401, b"")  # noqa: ARG005
        with pytest.raises(CaptionError, match=r"HTTP 401\); no key was sent; name its variable in api_key_variable"):
            ask(fake)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "gpu-1:8000"}, "url: is not a URL; use the form http://HOST:PORT/v1"),
        ({"url": "file:///etc/passwd"}, "url: is not a URL"),
        ({"url": "http://gpu-1:port/v1"}, "url: is not a URL"),
        ({"url": f"http://me:{KEY}@gpu-1/v1"}, "url: must not contain a user, password, query or fragment"),
        ({"url": f"http://gpu-1/v1?key={KEY}"}, "url: must not contain a user, password, query or fragment"),
        ({"api_key_variable": KEY}, "api_key_variable: is not the name of an environment variable"),
        ({"api_key": KEY}, "api_key: unknown key; allowed: api_key_variable, backoff, concurrency, kind, longest_side"),
        ({"max_tokens": 0}, "max_tokens: input should be greater than or equal to 1"),
        ({"temperature": 1}, "temperature: unknown key"),
    ],
)
def test_wrong_option_is_one_line_without_secrets(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        captioner(**{"url": "http://gpu-1:8000/v1", **changes})
    assert KEY not in str(raised.value)


def test_lineage_has_only_what_affects_texts() -> None:
    url = "http://gpu-1:8000/v1"
    base = captioner(f"{url}/").lineage()

    assert base == {
        "kind": "server",
        "url": url,
        "model": "org/model",
        "max_tokens": 512,
        "seed": 0,
        "longest_side": 1280,
    }
    quick = {"timeout": 1, "retries": 0, "concurrency": 1, "backoff": 3, "api_key_variable": "KEY"}
    assert captioner(url, **quick).lineage() == base
    for change in ({"model": "other"}, {"max_tokens": 5}, {"seed": 1}):
        assert captioner(url, **change).lineage() != base
