"""SDIM's visual tokenization: sparse depth enters the image tokens by zero-initialised fusion.

Paper, equations 1 and 2: ``F_hat = conv-BN-LeakyReLU(I)``, ``S_hat = zeroconv-BN-LeakyReLU(S)``;
concatenated, two convolutions, a last zero-initialised convolution gives ``O``; the image tokens
are ``E = F_e1(I) + F_e2(O)``. At the start O is 0, so the model is exactly the plain one.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FusionConfig:
    """Sizes of the fusion network.

    Attributes:
        rgb_channels, depth_channels: of ``F_hat`` and ``S_hat`` (the paper gives 32 for S_hat).
        high_channels, low_channels: of the two convolutions after the concatenation.
        norm: ``batch`` (the paper; statistics frozen in inference) or ``group``.
    """

    rgb_channels: int = 32
    depth_channels: int = 32
    high_channels: int = 64
    low_channels: int = 32
    norm: str = "batch"


def _zero_conv(inside: int, outside: int) -> nn.Conv2d:
    conv = nn.Conv2d(inside, outside, 3, padding=1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def _block(conv: nn.Conv2d, norm: str) -> nn.Sequential:
    channels = conv.out_channels
    layer = nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(4, channels)
    return nn.Sequential(conv, layer, nn.LeakyReLU(0.1))


class SoftFusion(nn.Module):
    """Image and sparse depth -> ``O``, an image-shaped residual, and a feature per pixel."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        c = config
        self.rgb = _block(nn.Conv2d(3, c.rgb_channels, 3, padding=1), c.norm)
        self.depth = _block(_zero_conv(2, c.depth_channels), c.norm)
        mixed = c.rgb_channels + c.depth_channels
        self.high = _block(nn.Conv2d(mixed, c.high_channels, 3, padding=1), c.norm)
        self.low = _block(
            nn.Conv2d(c.high_channels, c.low_channels, 3, padding=2, dilation=2), c.norm)
        self.out = _zero_conv(c.low_channels, 3)

    def forward(self, image: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse.

        Args:
            image: (B, 3, h, w), normalised as the vision model expects it.
            depth: (B, 2, h, w): log of the depth in units of the frame's median, and the mask;
                both 0 where nothing was measured.

        Returns:
            O: (B, 3, h, w), all 0 before training.
            features: (B, low_channels, h, w), sampled by the point tokens.
        """
        # Channels last: convolutions of few channels run up to twice as fast on a CPU.
        image, depth = (x.contiguous(memory_format=torch.channels_last) for x in (image, depth))
        mixed = torch.cat([self.rgb(image), self.depth(depth)], dim=1)
        features = self.low(self.high(mixed))
        return self.out(features), features


class FusedPatchEmbed(nn.Module):
    """``E = F_e1(I) + F_e2(O)``: takes the place of the vision model's patch embedding.

    It reads patches of I and of O side by side, (N, 2 * D); of plain patches (N, D) it makes
    what the plain model makes. F_e2 starts as a *copy* of F_e1: a second zero layer behind the
    zero convolution would have no gradient for ever.
    """

    def __init__(self, patch_embed: nn.Module) -> None:
        super().__init__()
        self.rgb = patch_embed
        self.depth = copy.deepcopy(patch_embed)

    @property
    def proj(self) -> nn.Module:
        """The plain projection: transformers reads the number type from it."""
        return self.rgb.proj

    def forward(self, patches: Tensor) -> Tensor:
        width = self.rgb.proj.weight[0].numel()
        if patches.shape[-1] == width:
            return self.rgb(patches)
        return self.rgb(patches[:, :width]) + self.depth(patches[:, width:])


def patchify(image: Tensor, patch: int, merge: int, temporal: int) -> tuple[Tensor, tuple]:
    """Cut images into the patch order of Qwen2-VL.

    Args:
        image: (B, C, h, w), h and w multiples of ``patch * merge``.
        patch, merge, temporal: patch size, spatial merge size and temporal patch size.

    Returns:
        (B * gh * gw, C * temporal * patch * patch): merge blocks first, a still image repeated
        over the temporal taps; and the grid (gh, gw) in patches.
    """
    b, c, h, w = image.shape
    gh, gw = h // patch, w // patch
    x = image.reshape(b, c, gh // merge, merge, patch, gw // merge, merge, patch)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (B, gh/m, gw/m, m, m, C, p, p)
    x = x.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, temporal, -1, -1)
    return x.reshape(b * gh * gw, c * temporal * patch * patch), (gh, gw)
