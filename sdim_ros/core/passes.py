"""The two transformer passes as inference runs them: nothing twice, nothing waits for the host.

transformers' forwards serve training and are the reference. Per layer these do the same
arithmetic, but the angles of all positions are computed once, windows of the vision model are a
mask that a grid of patches keeps, own keys are written into place, and the queries meet the
shared prefix in one fused kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdim_ros.core.attention import PrefixCache, merged_attention
from sdim_ros.core.steps import Steps


class OwnKeys:
    """Keys and values of each query's own tokens, in memory that is taken once for all digits.

    Args:
        layers: of the language model.
        tokens: the most that a query has.
    """

    def __init__(self, layers: int, tokens: int) -> None:
        self._layers, self._tokens = layers, tokens
        self._memory: Tensor | None = None
        self.length = 0

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add (B, Hkv, K, S, D) of one layer; returns all of that layer so far."""
        if self._memory is None:
            b, heads, k, _, width = key.shape
            self._memory = key.new_empty((2, self._layers, b, heads, k, self._tokens, width))
        end = self.length + key.shape[3]
        for memory, new in zip(self._memory[:, layer], (key, value)):
            memory[..., self.length:end, :] = new
        keys, values = self._memory[:, layer, ..., :end, :]
        return keys, values


def prefix_pass(text: nn.Module, embeds: Tensor, positions: Tensor, steps: Steps
                ) -> PrefixCache:
    """Keys and values of what all queries share.

    Args:
        text: Qwen2.5-VL's language model.
        embeds: (B, P, C), at positions (3, P) float32.
        steps: plain or compiled.
    """
    angles = _text_angles(text, positions, embeds.dtype)
    cache, hidden = PrefixCache(), embeds
    last = len(text.layers) - 1
    for index, layer in enumerate(text.layers):
        query, key, value = _project(layer, hidden, angles, steps)
        key, value = key.transpose(1, 2), value.transpose(1, 2)
        cache.update(key, value, index)
        if index == last:  # its output is never read
            break
        out = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key, value, is_causal=True, enable_gqa=True)
        hidden = _behind_attention(layer, hidden, out.transpose(1, 2), steps)
    return cache


def query_pass(text: nn.Module, embeds: Tensor, positions: Tensor, own: OwnKeys,
               shared: PrefixCache, steps: Steps) -> Tensor:
    """The next tokens of every query.

    Args:
        text: Qwen2.5-VL's language model.
        embeds: (B * K, S, C), at positions (3, S) float32.
        own: of the tokens of these queries that came before; these are added.
        shared: of the B images.
        steps: plain or compiled.

    Returns:
        (B * K, C): the last hidden state of each query.
    """
    b, n, s = len(shared.keys[0]), len(embeds), embeds.shape[1]
    angles = _text_angles(text, positions, embeds.dtype)
    hidden, later = embeds, _later(s, own.length + s, text, embeds.device)
    for index, layer in enumerate(text.layers):
        query, key, value = _project(layer, hidden, angles, steps)
        heads = key.shape[2]
        # (B, Hkv, K, S, [G,] D): the queries of one head lie together.
        query = query.view(b, n // b, s, heads, -1, query.shape[-1]).permute(0, 3, 1, 2, 4, 5)
        key, value = (x.view(b, n // b, s, heads, -1).permute(0, 3, 1, 2, 4)
                      for x in (key, value))
        keys, values = own.write(index, key, value)
        out = merged_attention(query, keys, values, shared.keys[index], shared.values[index],
                               later, steps)
        out = out.permute(0, 2, 3, 1, 4, 5).reshape(n, s, -1)
        if index == len(text.layers) - 1:  # only the last token is read
            hidden, out = hidden[:, -1:], out[:, -1:]
        hidden = _behind_attention(layer, hidden, out, steps)
    own.length += s
    return _norm(text.norm, hidden)[:, -1]


def vision_pass(visual: nn.Module, patches: Tensor, plan: VisionPlan, steps: Steps) -> Tensor:
    """Image tokens.

    Args:
        visual: Qwen2.5-VL's vision model.
        patches: (B * L, D), merge blocks first, as ``fusion.patchify`` cuts them.
        plan: of their grid.
        steps: plain or compiled.

    Returns:
        (B * L / merge**2, C)
    """
    length = len(plan.cos)
    hidden = visual.patch_embed(patches)
    hidden = hidden.view(len(hidden) // length, length, -1)
    for index, block in enumerate(visual.blocks):
        mask = None if index in visual.fullatt_block_indexes else plan.windows
        attn, x = block.attn, _norm(block.norm1, hidden)
        query, key, value = attn.qkv(x).view(*x.shape[:2], 3, attn.num_heads, -1).unbind(2)
        query, key = (steps.rotate(h.float(), plan.cos, plan.sin).to(value.dtype)
                      for h in (query, key))
        out = functional.scaled_dot_product_attention(
            *(h.transpose(1, 2) for h in (query, key, value)), attn_mask=mask)
        hidden = hidden + attn.proj(out.transpose(1, 2).flatten(2))
        hidden = hidden + _feed_forward(block.mlp, _norm(block.norm2, hidden), steps)
    return visual.merger(hidden)


def _project(layer: nn.Module, hidden: Tensor, angles: tuple[Tensor, Tensor], steps: Steps
             ) -> tuple[Tensor, Tensor, Tensor]:
    """Query (N, L, Hq, D), key and value (N, L, Hkv, D) of a layer of the language model."""
    attn, x = layer.self_attn, _norm(layer.input_layernorm, hidden)
    query, key, value = (
        project(x).view(*x.shape[:2], -1, attn.head_dim)
        for project in (attn.q_proj, attn.k_proj, attn.v_proj))
    return steps.rotate(query, *angles), steps.rotate(key, *angles), value


def _behind_attention(layer: nn.Module, hidden: Tensor, out: Tensor, steps: Steps) -> Tensor:
    """The rest of a layer, from what its attention found."""
    hidden = hidden + layer.self_attn.o_proj(out.flatten(2))
    return hidden + _feed_forward(
        layer.mlp, _norm(layer.post_attention_layernorm, hidden), steps)


def _feed_forward(mlp: nn.Module, x: Tensor, steps: Steps) -> Tensor:
    return mlp.down_proj(steps.gate(mlp.gate_proj(x), mlp.up_proj(x)))


def _later(new: int, length: int, text: nn.Module, device: torch.device) -> Tensor | None:
    """(new * groups, length): -inf at own tokens behind a new one, else 0; None = there are none.
    """
    if new == 1:
        return None
    behind = torch.full((new, length), float("-inf"), device=device).triu(length - new + 1)
    config = text.config
    return behind.repeat_interleave(config.num_attention_heads // config.num_key_value_heads, 0)


def _norm(norm: nn.Module, hidden: Tensor) -> Tensor:
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight.to(hidden.dtype),
                               norm.variance_epsilon)


def _text_angles(text: nn.Module, positions: Tensor, dtype: torch.dtype
                 ) -> tuple[Tensor, Tensor]:
    """Cosine and sine (L, 1, D): each section of the frequencies follows its own axis."""
    rotary = text.rotary_emb
    angles = positions.unsqueeze(-1) * rotary.inv_freq.float()
    parts = angles.split(rotary.mrope_section, dim=-1)
    angles = torch.cat([part[i % 3] for i, part in enumerate(parts)], dim=-1)
    angles = torch.cat([angles, angles], dim=-1).unsqueeze(1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


class VisionPlan:
    """What only depends on the grid of patches.

    Args:
        visual: Qwen2.5-VL's vision model.
        grid: gh and gw, in patches.

    Attributes:
        cos, sin: (L, 1, D) float32, L = gh * gw.
        windows: (L, L) bool, which patches see each other where the attention has windows; None
            = all of them.
    """

    def __init__(self, visual: nn.Module, grid: tuple[int, int], device: torch.device) -> None:
        merge = visual.spatial_merge_size
        at = torch.stack(torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
        # Merge blocks first, as patchify orders them.
        at = at.view(2, grid[0] // merge, merge, grid[1] // merge, merge)
        at = at.permute(0, 1, 3, 2, 4).flatten(1)  # (2, L) row and column
        head = visual.blocks[0].attn.head_dim // 2
        frequencies = 1e4 ** -(torch.arange(0, head, 2).float() / head)
        angles = (at.unsqueeze(-1) * frequencies).transpose(0, 1).flatten(1)
        angles = torch.cat([angles, angles], dim=-1).unsqueeze(1).to(device)
        self.cos, self.sin = angles.cos(), angles.sin()
        window = at // (visual.window_size // merge // visual.patch_size * merge)
        number = window[0] * grid[1] + window[1]
        same = number.unsqueeze(0) == number.unsqueeze(1)
        self.windows = None if same.all() else same.to(device)
