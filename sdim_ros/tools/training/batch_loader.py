"""Batches for each step of each process, made ahead by helper processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sdim_ros.core.supervision import Batch
from sdim_ros.core.types import BadInput, SdimError
from sdim_ros.tools.training.stop import leave_signals_to_the_parent


def share(steps: range, parts: int, rank: int, count: int) -> range:
    """Numbers of the batches that one process takes, in its order.

    A step is ``parts * count`` batches in a row, whoever takes them: so the steps of N processes
    are those of one process that accumulates N times as often.
    """
    size = parts * count
    return range(steps.start * size + rank, steps.stop * size, count)


def batches_of_steps(batches: Dataset, numbers: range, parts: int, workers: int
                     ) -> Iterator[list[Batch]]:
    """The ``parts`` batches of each step.

    Args:
        numbers: of the batches, step after step.
        workers: helper processes; 0 = make them here.

    Raises:
        BadInput: a batch cannot be made; with the message of whoever noticed.
    """
    if workers:
        # A fork does not take OpenCV's threads along, and would wait for them for ever.
        cv2.setNumThreads(1)
    loader = DataLoader(
        _Careful(batches), batch_size=None, sampler=numbers, num_workers=workers,
        prefetch_factor=4 if workers else None, worker_init_fn=_start_worker)
    step: list[Batch] = []
    for batch in loader:
        if isinstance(batch, _Failure):
            raise BadInput("data", batch.message)
        step.append(batch.unpacked())
        if len(step) == parts:
            yield step
            step = []


@dataclass(frozen=True, slots=True)
class _Failure:
    message: str


@dataclass(frozen=True, slots=True)
class _Packed:
    """A batch whose maps are few large tensors, which processes hand over in shared memory.

    As arrays of their own they went through a pipe: 116 ms of the training process for 48 images,
    now 8.

    Attributes:
        rest: the batch without its maps.
        images, sparses, labels: (B, H, W, 3) and (B, H, W).
        fills: of each name (B, H, W), or None.
    """

    rest: Batch
    images: Tensor
    sparses: Tensor
    labels: Tensor
    fills: Mapping[str, Tensor] | None

    @classmethod
    def of(cls, batch: Batch) -> _Packed:
        whole = all(maps is not None for maps in batch.maps)
        fills = {name: _stacked([maps[name] for maps in batch.maps])
                 for name in batch.maps[0]} if whole else None
        rest = replace(batch, images=[], sparses=[], labels=[], maps=[])
        return cls(rest, *map(_stacked, (batch.images, batch.sparses, batch.labels)), fills)

    def unpacked(self) -> Batch:
        images, sparses, labels = (
            list(part.numpy()) for part in (self.images, self.sparses, self.labels))
        maps = [None] * len(images) if self.fills is None else [
            {name: fill[number].numpy() for name, fill in self.fills.items()}
            for number in range(len(images))]
        return replace(self.rest, images=images, sparses=sparses, labels=labels, maps=maps)


def _stacked(maps: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(maps))


class _Careful(Dataset):
    """Our errors as items: helper processes wrap exceptions in tracebacks of their own."""

    def __init__(self, batches: Dataset) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> _Packed | _Failure:
        try:
            return _Packed.of(self._batches[number])
        except SdimError as problem:
            return _Failure(str(problem))


def _start_worker(_: int) -> None:
    """Helpers leave the cores to the training, and Ctrl-C to the main process."""
    leave_signals_to_the_parent()
    torch.set_num_threads(1)
