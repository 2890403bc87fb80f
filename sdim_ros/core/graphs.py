"""Passes of a fixed shape recorded once as CUDA graphs: the host only says go.

A pass of few queries is over sooner than its hundreds of kernels can be launched one by one.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

from sdim_ros.core import engine
from sdim_ros.core.attention import PrefixCache
from sdim_ros.core.engine import Spelled
from sdim_ros.core.model import Prefix, SdimModel

# Larger passes keep a GPU busy by themselves, and a graph holds the memory of its passes.
MOST_QUERIES = 1024
# Shapes that are remembered; image sizes and budgets rarely change.
MOST_GRAPHS = 12
# Queries are padded to a multiple of this, so that few shapes come.
STEP = 64


class RecordedSpelling:
    """``engine.spell`` of one model on a GPU. Weights may change in place, not be replaced."""

    def __init__(self, model: SdimModel) -> None:
        self._model = model
        self._recordings: OrderedDict[tuple, _Recording] = OrderedDict()
        self._memory = torch.cuda.graph_pool_handle()

    @torch.inference_mode()
    def spell(self, prefix: Prefix, suffix: Tensor, readout: str, stop_early: bool) -> Spelled:
        """As ``engine.spell``: replayed where the shape is known, recorded where it is small."""
        b, n = len(prefix.visual), len(suffix)
        if n > MOST_QUERIES:
            return engine.spell(self._model, prefix, suffix, readout, stop_early)
        k = n // b
        padded = -(-k // STEP) * STEP
        rows = suffix.view(b, k, *suffix.shape[1:])
        rows = torch.cat([rows, rows[:, -1:].expand(-1, padded - k, -1, -1)], dim=1)
        key = (rows.shape, prefix.cache.keys[0].shape, readout, stop_early)
        if key not in self._recordings:
            while len(self._recordings) >= MOST_GRAPHS:
                self._recordings.popitem(last=False)
            self._recordings[key] = _Recording(
                self._model, prefix, rows.flatten(0, 1), readout, stop_early, self._memory)
        self._recordings.move_to_end(key)
        return tuple(x.view(b, padded, *x.shape[1:])[:, :k].flatten(0, 1)
                     for x in self._recordings[key].play(prefix, rows.flatten(0, 1)))


class _Recording:
    """One graph with the memory that it reads and writes."""

    def __init__(self, model: SdimModel, prefix: Prefix, suffix: Tensor, readout: str,
                 stop_early: bool, memory: tuple) -> None:
        cache = PrefixCache()
        cache.keys = [key.clone() for key in prefix.cache.keys]
        cache.values = [value.clone() for value in prefix.cache.values]
        self._prefix = Prefix(cache, prefix.positions.clone(), prefix.visual, prefix.pixels,
                              None, prefix.unit)
        self._suffix = suffix.clone()

        def run() -> Spelled:
            return engine.spell(model, self._prefix, self._suffix, readout, stop_early)

        # Before a recording the libraries have to choose their kernels and take their memory.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=memory):
            self._spelled = run()

    def play(self, prefix: Prefix, suffix: Tensor) -> Spelled:
        """Put new input where the graph reads, and run it."""
        mine = self._prefix
        torch._foreach_copy_([*mine.cache.keys, *mine.cache.values],
                             [*prefix.cache.keys, *prefix.cache.values])
        mine.positions.copy_(prefix.positions)
        self._suffix.copy_(suffix)
        self._graph.replay()
        # Other graphs share the memory.
        return tuple(x.clone() for x in self._spelled)
