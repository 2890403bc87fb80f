"""Passes of known shapes replayed as CUDA graphs: the host only says go.

A pass has a thousand kernels; a GPU is through with them sooner than Python can launch them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

# Shapes that are remembered; image sizes and budgets rarely change.
MOST_GRAPHS = 16

Tensors = tuple[Tensor, ...]


class Recorder:
    """Runs functions of tensors on a GPU, recorded at the first call with these shapes.

    What a function reads besides its inputs must stay where it is: weights may change in place,
    not be replaced.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        # One for all: recordings share memory where they were made on the same stream.
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._recordings: OrderedDict[Hashable, _Recording] = OrderedDict()
        self._memory = torch.cuda.graph_pool_handle()

    def forget(self) -> None:
        """Give back the memory of all recordings; they are made anew when they are needed."""
        self._recordings.clear()

    @torch.inference_mode()
    def run(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor],
            name: Hashable) -> Tensors:
        """``function(*inputs)``.

        Args:
            name: tells functions, and all that they depend on besides the inputs' shapes, apart.
        """
        key = name, tuple((x.shape, x.dtype) for x in inputs)
        with torch.cuda.device(self._device):  # the streams of a thread are those of its GPU
            if key not in self._recordings:
                while len(self._recordings) >= MOST_GRAPHS:
                    self._recordings.popitem(last=False)
                self._recordings[key] = _Recording(
                    function, inputs, self._memory, self._stream)
            self._recordings.move_to_end(key)
            return self._recordings[key].play(inputs)


class _Recording:
    """One graph with the memory that it reads and writes."""

    def __init__(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor],
                 memory: tuple, stream: torch.cuda.Stream) -> None:
        self._inputs = [x.clone(memory_format=torch.contiguous_format) for x in inputs]
        # Before a recording the libraries have to choose their kernels and take their memory.
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            function(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=memory, stream=stream):
            self._outputs = tuple(function(*self._inputs))

    def play(self, inputs: Sequence[Tensor]) -> Tensors:
        """Put new input where the graph reads, and run it."""
        torch._foreach_copy_(self._inputs, list(inputs))
        self._graph.replay()
        # The other graphs work in the same memory.
        return tuple(x.clone() for x in self._outputs)
