"""Requests to a store that is away for a while."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from uniad_ray.archive.stores import patience
from uniad_ray.archive.stores.patience import patient
from uniad_ray.archive.stores.s3_client import store_errors
from uniad_ray.errors import ObjectDeniedError, StoreError


class Away:
    """A request that fails some times, then succeeds."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.left, self.calls = error, times, 0

    def request(self) -> str:
        self.calls += 1
        with store_errors("s3://b/k"):
            if self.left:
                self.left -= 1
                raise self.error
        return "done"


def refusal(status: int, code: str) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "GetObject")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only passes by sleeping."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.delenv("AWS_MAX_ATTEMPTS", raising=False)
    monkeypatch.setattr("uniad_ray.archive.stores.patience.time.monotonic", lambda: now[0])
    monkeypatch.setattr("uniad_ray.archive.stores.patience.time.sleep", sleep)
    monkeypatch.setattr(patience, "note_retry", lambda: None)
    return now


@pytest.mark.parametrize(
    "error", [EndpointConnectionError(endpoint_url="http://s"), refusal(503, "SlowDown"), refusal(500, "InternalError")]
)
def test_store_that_is_away_for_a_while_is_waited_for(error: Exception) -> None:
    away = Away(error, 10)
    assert patient(away.request)() == "done"
    assert away.calls == 11


def test_store_that_stays_away_is_an_error(clock: list[float]) -> None:
    away = Away(EndpointConnectionError(endpoint_url="http://s"), 1000)
    with pytest.raises(StoreError, match="cannot be reached"):
        patient(away.request)()
    assert patience.PATIENCE_SECONDS < clock[0] < patience.PATIENCE_SECONDS + 5


def test_other_errors_and_processes_that_cannot_wait_fail_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    denied = Away(refusal(403, "AccessDenied"), 1)
    with pytest.raises(ObjectDeniedError):
        patient(denied.request)()
    assert denied.calls == 1
    lacking = Away(refusal(501, "NotImplemented"), 1)
    with pytest.raises(StoreError, match=r"does not support this request .* conditional writes"):
        patient(lacking.request)()
    assert lacking.calls == 1
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    away = Away(EndpointConnectionError(endpoint_url="http://s"), 1)
    with pytest.raises(StoreError):
        patient(away.request)()
    assert away.calls == 1
