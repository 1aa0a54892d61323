"""A group of workers that train one network together, or a single worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from uniad_ray.errors import ConfigError


def check_batch_size(batch_size: int, workers: int) -> None:
    """Checks that the workers divide the batch size, before any of them starts.

    Raises:
        ConfigError: The batch size is not a multiple of the number of workers.
    """
    if batch_size % workers:
        raise ConfigError(
            f"batch_size {batch_size} cannot be divided among {workers} workers; use a multiple of their number"
        )


@dataclass(frozen=True)
class WorkerGroup:
    """This process in a group of workers; more than one worker needs torch's process group.

    Attributes:
        rank: Rank of this worker, from 0.
        world: Number of workers.
    """

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this worker writes for the group."""
        return self.rank == 0

    def distribute(self, network: nn.Module) -> nn.Module:
        """Averages gradients over all workers; all use the running statistics of rank 0."""
        return network if self.world == 1 else nn.parallel.DistributedDataParallel(network)

    def mean(self, values: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """The mean of each scalar over the workers, the same on all of them."""
        stacked = torch.stack([value.detach().double() for value in values.values()])
        return dict(zip(values, (self._sum(stacked) / self.world).tolist(), strict=True))

    def sum(self, value: float, device: torch.device) -> float:
        """The sum of a number over the workers."""
        return float(self._sum(torch.tensor(value, dtype=torch.float64, device=device)))

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sums of float64 numbers over the workers, the same on all of them."""
        return self._sum(values.clone())

    def from_leader(self, value: int, device: torch.device) -> int:
        """The leader's value, on all workers."""
        return int(self.sum(float(value if self.leads else 0), device))

    def share_buffers(self, network: nn.Module) -> None:
        """Copies the leader's running statistics to all workers."""
        if self.world > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Waits for all workers."""
        if self.world > 1:
            dist.barrier()

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        if self.world > 1:
            dist.all_reduce(values)
        return values
