"""The small steps between the matrix products of a pass, as they are or fused by torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Steps:
    """Functions of this file, each of them maybe compiled.

    Attributes:
        rotate, gate, weigh, merge: by name.
    """

    rotate: Callable[[Tensor, Tensor, Tensor], Tensor]
    gate: Callable[[Tensor, Tensor], Tensor]
    weigh: Callable[[Tensor, Tensor, Tensor | None, float], tuple[Tensor, Tensor]]
    merge: Callable[[Tensor, Tensor, Tensor], Tensor]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of (..., L, H, D) by (L, 1, D)."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return torch.addcmul(x * cos, turned, sin).to(x.dtype)


def gate(opened: Tensor, passed: Tensor) -> Tensor:
    """The gated activation of Qwen's feed-forward layers."""
    return functional.silu(opened) * passed


def weigh(scores: Tensor, top: Tensor, hidden: Tensor | None, scale: float
          ) -> tuple[Tensor, Tensor]:
    """One softmax over the prefix and the own tokens.

    Args:
        scores: (..., R, T) of the own tokens, not scaled.
        top: (..., R, 1) float32, log-sum-exp of the scaled scores of the prefix.
        hidden: (R, T), 0 or -inf where a token comes later; None = none does.

    Returns:
        weights of the own tokens (..., R, T), and of all that the prefix gave (..., R, 1), in the
        number type of the scores.
    """
    scaled = scores.float() * scale
    if hidden is not None:
        scaled = scaled + hidden
    total = torch.logaddexp(top, scaled.logsumexp(-1, keepdim=True))
    return (scaled - total).exp().to(scores.dtype), (top - total).exp().to(scores.dtype)


def merge(own: Tensor, seen: Tensor, share: Tensor) -> Tensor:
    """What own tokens and prefix gave together."""
    return torch.addcmul(own, seen, share)


PLAIN = Steps(rotate, gate, weigh, merge)


@cache
def compiled() -> Steps:
    """Each step in one kernel on a GPU: at the first use this takes some ten seconds."""
    return Steps(*(torch.compile(step, dynamic=True) for step in (rotate, gate, weigh, merge)))
