"""Failures of replicas as problems. The handle is a fake that raises the errors of Ray and Serve."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from support.recorded import Recorded

from uniad_ray.errors import BundleError, StoreError, WeightsError
from uniad_ray.scoring.online_verdict import UnusableImage
from uniad_ray.serving.backend import ReplicaBackend
from uniad_ray.serving.http.problems import ProblemError

FOUND = UnusableImage("empty", "no bytes")
DIED, UNAVAILABLE = ActorDiedError(), ActorUnavailableError("away", None)
NO_DEPLOYMENT = DeploymentUnavailableError(DeploymentID("Scorer"))
BUSY = BackPressureError(num_queued_requests=9, max_queued_requests=8)


class FakeHandle:
    """A handle whose calls raise the given failures in turn and then succeed."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls: list[tuple[Any, ...]] = []
        self.category: str | None = None
        self.score = self.check = self.status = self

    def options(self, *, multiplexed_model_id: str) -> FakeHandle:
        self.category = multiplexed_model_id
        return self

    async def remote(self, *arguments: Any, **named: Any) -> UnusableImage:
        self.calls.append((*arguments, named))
        if self.failures:
            raise self.failures.pop(0)
        return FOUND


def in_replica(error: Exception) -> Exception:
    """Wrap an error like one raised in a replica."""
    return RayTaskError("score", "Traceback ...", error).as_instanceof_cause()  # type: ignore[no-any-return]


def score(handle: FakeHandle) -> object:
    return asyncio.run(ReplicaBackend(handle).score("lids", b"data", with_map=True, nearest=2))  # type: ignore[arg-type]


def test_images_are_routed_by_category() -> None:
    handle = FakeHandle()
    assert score(handle) is FOUND
    assert handle.category == "lids"
    assert handle.calls == [("lids", b"data", {"with_map": True, "nearest": 2})]


@pytest.mark.parametrize("failure", [DIED, UNAVAILABLE, NO_DEPLOYMENT])
def test_image_of_dead_replica_is_retried(failure: Exception) -> None:
    handle = FakeHandle(failure, failure)
    assert score(handle) is FOUND
    assert len(handle.calls) == 3
    with pytest.raises(ProblemError) as caught:
        score(FakeHandle(*[failure] * 3))
    assert caught.value.kind == "overloaded"
    assert caught.value.retry_after == 2


@pytest.mark.parametrize(
    ("failure", "kind", "says"),
    [
        (BUSY, "overloaded", "all replicas are busy"),
        (in_replica(BundleError("bundle lids: corrupt")), "bundle-unusable", "bundle lids: corrupt"),
        (in_replica(StoreError("s3://secret: no such host")), "store-unavailable", "bundle store is unavailable"),
        (in_replica(WeightsError("network pyramid: not there")), "bundle-unusable", "network pyramid: not there"),
        (in_replica(ZeroDivisionError("secret")), "internal-error", "could not be scored"),
    ],
)
def test_other_failures_are_not_retried(failure: Exception, kind: str, says: str) -> None:
    handle = FakeHandle(failure)
    with pytest.raises(ProblemError, match=says) as caught:
        score(handle)
    assert caught.value.kind == kind
    assert "secret" not in caught.value.detail
    assert len(handle.calls) == 1
    assert (caught.value.retry_after is not None) == (caught.value.status == 503)


def test_repeated_calls_are_recorded() -> None:
    metrics = Recorded()
    backend = ReplicaBackend(FakeHandle(DIED, UNAVAILABLE), metrics)  # type: ignore[arg-type]
    assert asyncio.run(backend.score("lids", b"data", with_map=False, nearest=0)) == FOUND
    assert metrics.counted("uniad_ray_replica_retries") == {(): 2}
