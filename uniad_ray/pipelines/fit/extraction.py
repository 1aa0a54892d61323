"""Extracts the fields of one category's normal images in several Ray actors, on any node."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from uniad_ray.errors import UserError
from uniad_ray.pipelines.cluster.session import unwrap
from uniad_ray.pipelines.fit.opening import FitTask, read_images
from uniad_ray.pipelines.fit.rounds import MEMORY_OF_A_TASK, tasks_in_memory

if TYPE_CHECKING:
    from uniad_ray.perception.base import Perception
    from uniad_ray.pipelines.cluster.sizing import WorkerPlan
    from uniad_ray.scoring.fitting.perceptions import ExtractElsewhere

_logger = logging.getLogger(__name__)

_MOST_ACTORS: Final = 32
"""A single process can hardly take in the fields of more."""
_BATCHES_AHEAD: Final = 3
"""Batches per actor that may be computed before they are asked for; they are held in memory."""
_LONGEST_START: Final = 60.0
"""Seconds to wait for a first actor, while other categories use the cluster."""


def extraction_in_actors(category: str, task: FitTask, plan: WorkerPlan, workers: int) -> ExtractElsewhere:
    """Returns a function that extracts batches of images in parallel actors with one thread each.

    Ray frees the CPUs of the calling task while it waits for them.

    Args:
        category: Category.
        task: Settings of the fit.
        plan: Threads and CPUs of the calling task.
        workers: Most actors.
    """

    def extract(
        batches: Sequence[Sequence[int]], fields: frozenset[str], seconds: float
    ) -> Iterator[Perception | None] | None:
        import ray

        count = min(workers, _MOST_ACTORS, len(batches), tasks_in_memory())
        if count < 2 or seconds < task.parallel_from:
            return None
        actor_of = ray.remote(_Extraction).options(num_cpus=plan.cpus / plan.threads, memory=MEMORY_OF_A_TASK)
        return _in_order([actor_of.remote(category, task, fields) for _ in range(count)], batches)

    return extract


class _Extraction:
    """Actor that extracts batches of a category's normal images."""

    def __init__(self, category: str, task: FitTask, fields: frozenset[str]) -> None:
        from uniad_ray.pipelines.cluster.devices import limit_threads
        from uniad_ray.scoring.factory import build_experts, build_pipeline
        from uniad_ray.scoring.fitting.perceptions import ImagePerceptions
        from uniad_ray.scoring.fitting.rounds import asked_fields

        limit_threads(1)
        opened = read_images(category, task)
        config, images = opened.config, opened.images
        pipeline = build_pipeline(config, asked_fields(config, build_experts(config)), device="cpu")
        stored = None
        if task.sidecar is not None and not images.has_copies:
            stored = opened.stored_fields(category, task.sidecar, pipeline)
        self._fields = fields
        self._source = ImagePerceptions(
            images, pipeline, fields, batch_size=config.batch_size, spill=None, stored=stored
        )

    def ready(self) -> None:
        """Returns once the networks are loaded."""

    def extract(self, batch: Sequence[int]) -> Perception | None:
        """The fields of a batch without originals; None if no image can be decoded."""
        found = next(iter(self._source.extract(batch, self._fields)), None)
        return None if found is None else replace(found, originals={})


def _in_order(actors: Sequence[Any], batches: Sequence[Sequence[int]]) -> Iterator[Perception | None]:
    """Yields the results of all batches in order; ends early, with a warning, if there is no actor left.

    Actors that have not started yet get no batch, so none has to be waited for.
    """
    import ray

    starting = {actor.ready.remote(): actor for actor in actors}
    idle: list[Any] = []
    running: dict[Any, tuple[int, Any]] = {}
    waiting = list(range(len(batches)))
    found: dict[int, Perception | None] = {}
    try:
        for number in range(len(batches)):
            while number not in found:
                while idle and waiting and waiting[0] < number + _BATCHES_AHEAD * len(actors):
                    actor, given = idle.pop(), waiting.pop(0)
                    running[actor.extract.remote(batches[given])] = (given, actor)
                pending = [*running, *starting]
                ready, _ = ray.wait(pending, timeout=None if running else _LONGEST_START) if pending else ([], [])
                if not ready:
                    _logger.warning("no process for extraction is left; continuing in one")
                    return
                (reference,) = ready
                given, actor = running.pop(reference, (-1, None))
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    cause = unwrap(error)
                    raise cause if isinstance(cause, UserError) else error from None
                except ray.exceptions.RayError as error:
                    _logger.warning("a process for extraction died; continuing without it: %s", error)
                    starting.pop(reference, None)
                    if actor is not None:
                        waiting.insert(0, given)
                    continue
                if actor is None:
                    idle.append(starting.pop(reference))
                else:
                    found[given] = result
                    idle.append(actor)
            yield found.pop(number)
    finally:
        for actor in actors:
            ray.kill(actor)
