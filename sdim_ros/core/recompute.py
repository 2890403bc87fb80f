"""Gradient checkpointing: a layer's activations are computed again in the backward pass.

transformers' own takes the caches away from the layers it checkpoints; the queries need those.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sdim_ros.core.model import SdimModel


def recompute_layers(model: SdimModel) -> None:
    """Keep only the inputs of each layer of language and vision model, in place.

    Gradients are the same; memory falls to about one layer's activations, time grows by a
    forward pass.
    """
    qwen = model.qwen.model
    for layer in (*qwen.language_model.layers, *qwen.visual.blocks):
        # Around forward and not around the call: FSDP's hooks must not run a second time.
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Callable[..., Tensor], *args: Any, past_key_values: Any = None,
                **rest: Any) -> Tensor:
    if past_key_values is not None:
        rest["past_key_values"] = past_key_values
    if not torch.is_grad_enabled():
        return forward(*args, **rest)
    if past_key_values is not None:
        rest["past_key_values"] = _FirstRun(past_key_values)
    return checkpoint(forward, *args, use_reentrant=False, **rest)


class _FirstRun:
    """A layer's view of a cache that is written in its first run alone.

    What the first run stored is attached to the graph and serves the backward pass as well.
    """

    def __init__(self, cache: Any) -> None:
        self._cache, self._stored = cache, False

    def update(self, key: Tensor, value: Tensor, layer: int, *rest: object
               ) -> tuple[Tensor, Tensor]:
        if self._stored:
            return key, value
        self._stored = True
        keys, values = self._cache.update(key, value, layer, *rest)
        if keys is not key:
            raise ValueError("gradient checkpointing: the cache holds earlier tokens already; "
                             "expected the first tokens of each sequence")
        return keys, values

    def get_seq_length(self, *rest: object) -> int:
        return self._cache.get_seq_length(*rest)
