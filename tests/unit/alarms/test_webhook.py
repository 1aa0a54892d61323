from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from support.nights import SECRET, receiver
from support.s3_server import free_ports

from uniad_ray.alarms import webhook as webhook_module
from uniad_ray.alarms.message import night_message
from uniad_ray.alarms.rules import Alarm
from uniad_ray.alarms.webhook import Webhook, send, signature
from uniad_ray.errors import ConfigError, DeliveryError

ALARM = Alarm(kind="no_images", text="no new images")
MESSAGE = night_message("0b5e", night="n1", alarms=[ALARM], facts={"images": 0}, report=None, overview="/w/nights.html")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_KEY", SECRET)


def hook(**options: Any) -> Webhook:
    given = {"url": "http://a", "secret": {"env": "HOOK_KEY"}, "backoff_seconds": 0, "attempts": 3, **options}
    return Webhook.model_validate(given)


def test_signature_is_that_of_the_specification() -> None:
    """The example of standardwebhooks.com."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    found = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_receiver_can_verify_and_read_the_message() -> None:
    with receiver() as found:
        send(hook(url=found.url), MESSAGE, where="notify.webhooks.a")
    ((headers, body),) = found.received
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert headers["content-type"] == "application/json"
    document = json.loads(body)
    assert document["id"] == headers["webhook-id"] == MESSAGE.id
    assert document["alarms"] == [
        {"kind": "no_images", "category": None, "value": None, "limit": None, "text": "no new images"}
    ]


@pytest.mark.parametrize(("statuses", "requests"), [([503, 429], 3), ([500], 2), ([204], 1)])
def test_passing_failures_are_retried_with_the_same_id(statuses: list[int], requests: int) -> None:
    with receiver(statuses) as found:
        send(hook(url=found.url), MESSAGE, where="a")
    assert len(found.ids) == requests
    assert set(found.ids) == {MESSAGE.id}


def test_each_attempt_is_signed_with_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receivers refuse timestamps that are minutes old."""
    times = itertools.count(1_700_000_000, 60)
    monkeypatch.setattr(webhook_module, "time", SimpleNamespace(time=lambda: next(times)))
    with receiver([503, 503]) as found:
        send(hook(url=found.url), MESSAGE, where="a")
    stamps = [int(headers["webhook-timestamp"]) for headers, _ in found.received]
    assert stamps == [1_700_000_000, 1_700_000_060, 1_700_000_120]
    for headers, body in found.received:
        own = signature(SECRET.encode(), MESSAGE.id, int(headers["webhook-timestamp"]), body)
        assert headers["webhook-signature"] == own
    assert len({headers["webhook-signature"] for headers, _ in found.received}) == 3


def test_pause_follows_the_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", pauses.append)
    with receiver([503, 503, 503]) as found:
        send(hook(url=found.url, attempts=4, backoff_seconds=2), MESSAGE, where="a")
    assert pauses == [4, 8]


@pytest.mark.parametrize(("statuses", "requests"), [([400], 1), ([302], 1), ([503] * 3, 3)])
def test_lasting_failures_are_errors(statuses: list[int], requests: int) -> None:
    with receiver(statuses) as found, pytest.raises(DeliveryError, match=rf"127.0.0.1 .*status {statuses[-1]}"):
        send(hook(url=found.url), MESSAGE, where="a")
    assert len(found.ids) == requests


def test_address_with_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("HOOK_URL", f"http://127.0.0.1:{port}/hidden-key")
    with pytest.raises(DeliveryError) as raised:
        send(hook(url=None, url_from={"env": "HOOK_URL"}), MESSAGE, where="notify.webhooks.a")
    assert str(raised.value) == "notify.webhooks.a: 127.0.0.1 cannot be reached in 3 attempts (NewConnectionError)"
    assert "hidden-key" not in caplog.text


@pytest.mark.parametrize("address", ["hooks.example.org/hidden-key", "http://[hidden-key"])
def test_wrong_address_is_named_but_not_shown(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_URL", address)
    with pytest.raises(ConfigError, match="url_from: the text is no address") as raised:
        hook(url=None, url_from={"env": "HOOK_URL"}).address("notify.webhooks.a")
    assert "hidden-key" not in str(raised.value)


@pytest.mark.parametrize(
    ("secret", "said"),
    [("a-few-bytes", "shorter than 16 bytes"), ("whsec_***", "not base64 after whsec_"), ("", "HOOK_KEY is not set")],
)
def test_wrong_secrets_are_named_but_not_shown(secret: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_KEY", secret)
    with pytest.raises(ConfigError, match=said) as raised:
        hook().key("notify.webhooks.a")
    assert str(raised.value).startswith("notify.webhooks.a.secret: ")
    assert not secret or secret not in str(raised.value)


def test_encoded_secret_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_KEY", f"whsec_{base64.b64encode(b'k' * 24).decode()}")
    assert hook().key("a") == b"k" * 24


@pytest.mark.parametrize(
    "wrong",
    [{"url": "ftp://a"}, {"url": "http://user:word@a"}, {"url": None}, {"secret": {}}, {"secret": "a key in the file"}],
)
def test_wrong_configuration_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        hook(**wrong)
