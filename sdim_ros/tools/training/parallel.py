"""The processes that train together: one, several with a copy each, or several with shards.

Started by ``accelerate launch`` or ``torchrun``; without them there is one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from sdim_ros.tools.training.objective import Objective

# The others wait while the main process renders scenes; the usual ten minutes are too short.
PATIENCE = timedelta(hours=6)


class Parallel:
    """This process among all.

    Args:
        cpu: use no GPU.

    Attributes:
        rank, count: number of this process, and how many there are.
        main: whether this one writes files and talks.
        sharded: whether each holds a part of every weight (FSDP) and not a whole copy.
    """

    def __init__(self, cpu: bool = False) -> None:
        # Sharded below, by layers of our network and in the same way on CPU and GPU; with this
        # variable set, Accelerate would do it by its own settings, on GPUs alone.
        asked = os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() == "true"
        self._accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=PATIENCE)])
        self.rank = self._accelerator.process_index
        self.count = self._accelerator.num_processes
        self.device = self._accelerator.device
        self.main = self._accelerator.is_main_process
        self.sharded = asked and self.count > 1

    def wrap(self, objective: Objective) -> nn.Module:
        """The objective on this process's device, its gradients averaged over all processes."""
        objective.to(self.device)
        if self.count > 1 and self.device.type == "cuda":
            # Each process sees few images: statistics of all of them together.
            objective.model.fusion = nn.SyncBatchNorm.convert_sync_batchnorm(
                objective.model.fusion)
        if not self.sharded:
            return self._accelerator.prepare_model(objective)
        qwen = objective.model.qwen.model
        mesh = init_device_mesh(self.device.type, (self.count,))
        for layer in (*qwen.language_model.layers, *qwen.visual.blocks):
            fully_shard(layer, mesh=mesh)
        return fully_shard(objective, mesh=mesh)

    @contextmanager
    def accumulating(self, objective: nn.Module, last: bool) -> Iterator[None]:
        """Around forward and backward of one part of a step; gradients meet in the last."""
        if self.sharded:
            objective.set_requires_gradient_sync(last)
        if self.sharded or last:
            yield
        else:
            with self._accelerator.no_sync(objective):
                yield

    @contextmanager
    def gathered(self, objective: nn.Module) -> Iterator[None]:
        """Around calls of the model's methods, which pass the forwards of objective and layers by.

        When sharded, every process must make the same calls, and holds all weights meanwhile.
        """
        parts = [part for part in objective.modules() if isinstance(part, FSDPModule)]
        for part in parts:
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.reshard()

    def turns(self, count: int) -> range:
        """Which of ``count`` tasks this process does; with shards all, together."""
        return range(count) if self.sharded else range(self.rank, count, self.count)

    def sum(self, values: Sequence[Tensor | float]) -> list[float]:
        """Each value summed over all processes."""
        own = torch.tensor([float(v) for v in values], dtype=torch.float64, device=self.device)
        return self._accelerator.reduce(own, "sum").tolist()

    def mean(self, values: Sequence[Tensor | float]) -> list[float]:
        """Each value averaged over all processes."""
        return [value / self.count for value in self.sum(values)]

    def wait(self) -> None:
        """Until every process has come here."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Say goodbye to the other processes."""
        self._accelerator.end_training()


def whole(tensor: Tensor) -> Tensor:
    """The tensor of which this process may hold a shard; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, placed and sharded as ``pattern`` is; its number type stays."""
    value = value.to(pattern.device)
    if isinstance(pattern, DTensor):
        return distribute_tensor(value, pattern.device_mesh, pattern.placements)
    return value
