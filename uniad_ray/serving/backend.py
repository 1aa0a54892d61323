"""Calls from a gateway to the scoring replicas, and their failures as problems."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentHandle

from uniad_ray.errors import StoreError, UserError
from uniad_ray.pipelines.cluster.metrics import NoMetrics, Recorder
from uniad_ray.pipelines.cluster.session import unwrap
from uniad_ray.scoring.online_verdict import OnlineVerdict, UnusableImage
from uniad_ray.serving.http.problems import ProblemError

_RETRIES = 2
_PAUSE_SECONDS = 0.05


class ReplicaBackend:
    """An `api.Backend` that calls the scoring deployment.

    If a replica dies, the call is retried on another one; scoring has no side effects.
    """

    def __init__(self, handle: DeploymentHandle, metrics: Recorder | None = None) -> None:
        """Take the handle of the deployment, and where to record retries."""
        self._handle = handle
        self._metrics = metrics or NoMetrics()

    async def score(self, category: str, data: bytes, *, with_map: bool, nearest: int) -> OnlineVerdict | UnusableImage:
        """See `api.Backend`."""
        handle = self._handle.options(multiplexed_model_id=category)
        found: OnlineVerdict | UnusableImage = await self._call(
            handle.score, category, data, with_map=with_map, nearest=nearest
        )
        return found

    async def check(self) -> dict[str, Any]:
        """See `api.Backend`."""
        return dict(await self._call(self._handle.check))

    async def status(self) -> list[dict[str, Any]]:
        """See `api.Backend`."""
        return list(await self._call(self._handle.status))

    async def _call(self, method: Any, *arguments: Any, **named: Any) -> Any:
        for attempt in range(_RETRIES + 1):
            try:
                return await method.remote(*arguments, **named)
            except BackPressureError as error:
                raise ProblemError("overloaded", "all replicas are busy; try again", retry_after=1) from error
            except RayTaskError as error:
                raise _problem(unwrap(error)) from error
            except (DeploymentUnavailableError, RequestCancelledError, RayError) as error:
                if attempt == _RETRIES:
                    raise ProblemError("overloaded", "no replica is responding; try again", retry_after=2) from error
                self._metrics.count("uniad_ray_replica_retries")
                await asyncio.sleep(_PAUSE_SECONDS * 2**attempt)
        raise AssertionError("unreachable")


def _problem(error: BaseException) -> ProblemError:
    if isinstance(error, StoreError):
        return ProblemError("store-unavailable", "the bundle store is unavailable; try again", retry_after=5)
    if isinstance(error, UserError):
        return ProblemError("bundle-unusable", str(error), retry_after=30)
    return ProblemError("internal-error", "the image could not be scored; find the reason in the logs by request id")
