"""The scoring replica: the Serve deployment with the scorer, its bundles and their refresh."""

from __future__ import annotations

import asyncio
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from uniad_ray.archive.stores.s3_client import limit_attempts
from uniad_ray.pipelines.cluster.devices import choose_device
from uniad_ray.pipelines.cluster.metrics import RayMetrics
from uniad_ray.pipelines.cluster.session import usable_cpus
from uniad_ray.scoring.online_verdict import OnlineVerdict, UnusableImage
from uniad_ray.serving.replica.scorer import LoadedCategory, ReplicaScorer
from uniad_ray.serving.replica.vllm import engine_application
from uniad_ray.serving.settings import OF_REPLICAS, STORE_ATTEMPTS, ServeSettings


class ScorerDeployment:
    """Scores images for the gateways; see `scorer_application` for Serve's options."""

    async def __init__(self, settings: dict[str, Any], threads: int, engine: DeploymentHandle | None) -> None:  # type: ignore[misc] # Serve awaits it
        """Load and check the initial bundles.

        Args:
            settings: ServeSettings as JSON types.
            threads: CPU threads of the process.
            engine: Handle of the vLLM deployment, or None.
        """
        limit_attempts(STORE_ATTEMPTS)
        self._settings = ServeSettings.model_validate(settings)
        self._scorer = ReplicaScorer(
            self._settings,
            device=choose_device(self._settings.replicas.device),
            threads=threads,
            deployed=engine,
            metrics=RayMetrics(),
        )
        by_recency = serve.multiplexed(max_num_models_per_replica=self._settings.replicas.categories)

        async def load(category: str) -> LoadedCategory:
            return await self._scorer.load(category)

        self._keep = by_recency(load)
        await self._scorer.start(self._loaded)
        self._upkeep = asyncio.get_running_loop().create_task(self._scorer.refresh_for_ever())

    async def score(self, category: str, data: bytes, *, with_map: bool, nearest: int) -> OnlineVerdict | UnusableImage:
        """Score one image; see `ReplicaScorer.score`."""
        return await self._scorer.score(await self._loaded(category), data, with_map=with_map, nearest=nearest)

    async def check(self) -> dict[str, Any]:
        """Score the reference images; see `ReplicaScorer.check`."""
        return await self._scorer.check()

    async def status(self) -> list[dict[str, Any]]:
        """Return the status of each loaded category."""
        return self._scorer.status()

    def check_health(self) -> None:
        """Raise if the last check of the reference images failed; Serve then replaces the replica."""
        self._scorer.check_health()

    async def _loaded(self, category: str) -> LoadedCategory:
        # Serve evicts a bundle before it loads another one. Load first: a broken bundle must not evict a good one.
        loaded = await self._scorer.load(category)
        await self._keep(category)
        return loaded


def scorer_application(settings: ServeSettings) -> Application:
    """Build the deployment of the scoring replicas, bound to its settings."""
    replicas = settings.replicas
    threads = replicas.threads or max(1, usable_cpus() // replicas.most)
    uses_gpu = replicas.device == "cuda"
    deployment = serve.deployment(
        ScorerDeployment,
        name="Scorer",
        ray_actor_options={"num_cpus": 1, "num_gpus": 1 if uses_gpu else 0, "runtime_env": {"env_vars": OF_REPLICAS}},
        **settings.scorer_options(),
    )
    engine = engine_application(settings.engine) if settings.engine.kind == "deployment" else None
    return deployment.bind(settings.model_dump(mode="json"), threads, engine)
