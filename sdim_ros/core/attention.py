"""Attention of many short queries over one shared prefix, and the two small caches it needs.

Every pixel query sees the same image and text. Their keys and values are computed once a frame
and attended to by all queries in one dense product; each query adds its own few tokens. The
prefix is never copied, and no query sees another.

Training takes one softmax in two pieces, in plain operations: the log-sum-exp of a fused kernel
has no gradient, so merging by it would give the right loss and wrong gradients. Inference merges
by it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from sdim_ros.core.steps import Steps


class PrefixCache:
    """Keys and values of the shared prefix, layer by layer, still attached to the graph."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []    # each (B, Hkv, P, D)
        self.values: list[Tensor] = []

    def update(self, key: Tensor, value: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        """Store what the layer computed; the interface is that of transformers' caches."""
        self.keys.append(key)
        self.values.append(value)
        return key, value

    def get_seq_length(self, *_: object) -> int:
        return 0

    def image(self, index: int) -> PrefixCache:
        """That of one of the B images, as B = 1."""
        one = PrefixCache()
        one.keys = [key[index:index + 1] for key in self.keys]
        one.values = [value[index:index + 1] for value in self.values]
        return one


class OwnCache:
    """Keys and values of each query's own tokens, which grow with every digit."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, key: Tensor, value: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        """Append and return all own keys and values, (N, Hkv, T, D)."""
        if layer in self._layers:
            old_key, old_value = self._layers[layer]
            key, value = torch.cat([old_key, key], dim=2), torch.cat([old_value, value], dim=2)
        self._layers[layer] = key, value
        return key, value

    def get_seq_length(self, *_: object) -> int:
        return self._layers[0][0].shape[2] if self._layers else 0


def with_shared_prefix(plain: Callable[..., tuple]) -> Callable[..., tuple]:
    """An attention function for transformers: ``plain``, unless a shared prefix is given."""

    def attention(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor,
        attention_mask: Tensor | None, scaling: float | None = None,
        shared_prefix: PrefixCache | None = None, **rest: object,
    ) -> tuple[Tensor, None]:
        if shared_prefix is None:
            return plain(module, query, key, value, attention_mask, scaling=scaling, **rest)
        layer = module.layer_idx
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        return _attend(query * scale, key, value, shared_prefix.keys[layer],
                       shared_prefix.values[layer]), None

    return attention


def _attend(query: Tensor, key: Tensor, value: Tensor, prefix_key: Tensor,
            prefix_value: Tensor) -> Tensor:
    """One softmax over the prefix and the own tokens, in two pieces.

    The pieces share one maximum and one denominator, so value and gradient are those of the
    softmax over all keys side by side.

    Args:
        query: (B * K, Hq, S, D), scaled; K queries of each of B images.
        key, value: (B * K, Hkv, T, D): own tokens; the last S of the T are the query's.
        prefix_key, prefix_value: (B, Hkv, P, D).

    Returns:
        (B * K, S, Hq, D)
    """
    n, hq, s, d = query.shape
    b, hkv = prefix_key.shape[:2]
    k, g, t = n // b, hq // hkv, key.shape[2]
    own = query.reshape(n, hkv, g * s, d)
    # Grouped heads fold into rows: the keys of a group are never repeated.
    rows = own.view(b, k, hkv, g * s, d).transpose(1, 2).reshape(b, hkv, k * g * s, d)
    prefix_scores = (rows @ prefix_key.transpose(2, 3)).float()  # (B, Hkv, K*G*S, P)
    own_scores = (own @ key.transpose(2, 3)).float()  # (N, Hkv, G*S, T)
    if s > 1:
        later = torch.ones(s, t, dtype=torch.bool, device=query.device).triu(t - s + 1)
        own_scores = own_scores.masked_fill(later.repeat(g, 1), float("-inf"))

    def to_own(x: Tensor) -> Tensor:  # (B, Hkv, K*G*S, X) -> (N, Hkv, G*S, X)
        return x.view(b, hkv, k, g * s, -1).transpose(1, 2).reshape(n, hkv, g * s, -1)

    def to_rows(x: Tensor) -> Tensor:
        return x.view(b, k, hkv, g * s, -1).transpose(1, 2).reshape(b, hkv, k * g * s, -1)

    with torch.no_grad():  # any common shift gives the same softmax
        top = torch.maximum(to_own(prefix_scores.amax(-1, keepdim=True)),
                            own_scores.amax(-1, keepdim=True))
    prefix_weights = (prefix_scores - to_rows(top)).exp()
    own_weights = (own_scores - top).exp()
    total = to_own(prefix_weights.sum(-1, keepdim=True)) + own_weights.sum(-1, keepdim=True)
    out = to_own(prefix_weights.to(query.dtype) @ prefix_value).float()
    out = (out + (own_weights.to(query.dtype) @ value).float()) / total
    return out.to(query.dtype).reshape(n, hq, s, d).transpose(1, 2)


def merged_attention(query: Tensor, key: Tensor, value: Tensor, prefix_key: Tensor,
                     prefix_value: Tensor, later: Tensor | None, steps: Steps) -> Tensor:
    """As ``_attend``, without gradients: the prefix in a fused kernel, merged by log-sum-exp.

    Args:
        query: (B, Hkv, K, S, G, D), not scaled: K queries of S tokens in each of B images, G
            heads for each head of the keys.
        key, value: (B, Hkv, K, T, D): own tokens; the last S of the T are the query's.
        prefix_key, prefix_value: (B, Hkv, P, D).
        later: (S * G, T), -inf where a token may not look, else 0; None = it may look anywhere.
        steps: plain or compiled.

    Returns:
        (B, Hkv, K, S, G, D)
    """
    b, hkv, k, s, g, d = query.shape
    rows = query.reshape(b, hkv, k * s * g, d)
    seen, top = _fused_attention(rows, prefix_key, prefix_value, d**-0.5)
    scores = rows.view(b, hkv, k, s * g, d) @ key.transpose(3, 4)
    weights, share = steps.weigh(scores, top.view(b, hkv, k, s * g, 1), later, d**-0.5)
    return steps.merge(weights @ value, seen.view(scores.shape[:-1] + (d,)), share).view(
        query.shape)


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, scale: float
                     ) -> tuple[Tensor, Tensor]:
    """Attention without a mask, (B, H, Q, D), and the log-sum-exp of its scores, (B, H, Q)."""
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        out, top, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, scale=scale)
        return out, top
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, scale=scale)
    scores = (query @ key.transpose(2, 3)).float() * scale
    return functional.softmax(scores, -1).to(value.dtype) @ value, scores.logsumexp(-1)
