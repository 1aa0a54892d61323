from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from uniad_ray.pipelines.cluster.devices import limit_threads


def test_thread_limit_is_per_thread() -> None:
    with (
        ThreadPoolExecutor(1, initializer=limit_threads, initargs=(2,)) as two,
        ThreadPoolExecutor(1, initializer=limit_threads, initargs=(1,)) as one,
    ):
        assert two.submit(torch.get_num_threads).result() == 2
        assert one.submit(torch.get_num_threads).result() == 1
        assert two.submit(torch.get_num_threads).result() == 2
