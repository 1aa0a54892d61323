"""Judges rounds of a fit in parallel Ray tasks, on the node that has the perceptions of its images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from uniad_ray.errors import UserError
from uniad_ray.pipelines.cluster.session import unwrap
from uniad_ray.pipelines.fit.opening import CountedImages, FitTask, open_category

if TYPE_CHECKING:
    from uniad_ray.pipelines.cluster.sizing import WorkerPlan
    from uniad_ray.scoring.fitting.category import JudgeElsewhere
    from uniad_ray.scoring.fitting.judged import Judged
    from uniad_ray.scoring.fitting.rounds import SharedWork

_logger = logging.getLogger(__name__)

MEMORY_OF_A_TASK: Final = 3 << 30
"""Memory that a task may need, bytes: networks, banks and a batch of images."""


def rounds_in_tasks(category: str, task: FitTask, plan: WorkerPlan, progress: CountedImages) -> JudgeElsewhere:
    """Returns a function that judges rounds in parallel tasks.

    Ray frees the CPUs of the calling task while it waits, so the tasks together use as many threads as it has.

    Args:
        category: Category.
        task: Settings of the fit.
        plan: Threads and CPUs of the calling task.
        progress: Counts the images of the category.
    """

    def judge(names: Sequence[str], numbers: Sequence[int], shared: SharedWork, seconds: float) -> list[Judged] | None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = ray.get_runtime_context().get_node_id()
        tasks = min(plan.threads, len(numbers), tasks_in_memory(node))
        if tasks < 2 or seconds * len(numbers) < task.parallel_from:
            return None
        threads = plan.threads // tasks
        run = ray.remote(_judge_rounds).options(
            num_cpus=plan.cpus * threads / plan.threads,
            # Other categories may be fitted on the node at the same time.
            memory=MEMORY_OF_A_TASK,
            max_retries=1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        work = ray.put(shared)
        each = progress.left // len(numbers)
        pending = []
        for first in range(tasks):
            own = list(numbers[first::tasks])
            counted = progress.handed_over(each * len(own))
            pending.append(run.remote(category, task, list(names), own, work, threads, counted))
        try:
            found: list[list[Judged]] = ray.get(pending)
        except Exception as error:
            for reference in pending:
                ray.cancel(reference)
            cause = unwrap(error)
            if isinstance(cause, UserError):
                raise cause from None
            if not isinstance(cause, ray.exceptions.RayError):
                raise
            # One process needs less memory.
            _logger.warning("%s: parallel rounds failed; continuing one by one: %s", category, cause)
            return None
        return [found[position % tasks][position // tasks] for position in range(len(numbers))]

    return judge


def _judge_rounds(
    category: str,
    task: FitTask,
    names: Sequence[str],
    numbers: Sequence[int],
    shared: SharedWork,
    threads: int,
    progress: CountedImages,
) -> list[Judged]:
    from uniad_ray.pipelines.cluster.devices import limit_threads

    limit_threads(threads)
    with open_category(category, task, "cpu", progress, shared=shared) as opened:
        judged = [opened.fit.judge_round(number, names) for number in numbers]
    progress.finish()
    return judged


def tasks_in_memory(node: str | None = None) -> int:
    """Number of tasks that fit into the memory of a node, which is what Ray has for tasks and actors; None: of all."""
    import ray

    memory = [each["Resources"].get("memory", 0.0) for each in ray.nodes() if node in (None, each["NodeID"])]
    return sum(int(found // MEMORY_OF_A_TASK) for found in memory)
