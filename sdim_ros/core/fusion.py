"""SDIM's visual tokenization: sparse depth enters the image tokens by zero-initialised fusion.

Paper, equations 1 and 2: ``F_hat = conv-BN-LeakyReLU(I)``, ``S_hat = zeroconv-BN-LeakyReLU(S)``;
concatenated, two convolutions, a last zero-initialised convolution gives ``O``; the image tokens
are ``E = F_e1(I) + F_e2(O)``. At the start O is 0, so the model is exactly the plain one.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


STYLES = ("soft", "he", "hard", "none")


@dataclass(frozen=True)
class FusionConfig:
    """Sizes of the fusion network.

    Attributes:
        rgb_channels, depth_channels: of ``F_hat`` and ``S_hat`` (the paper gives 32 for S_hat).
        high_channels, low_channels: of the two convolutions after the concatenation.
        norm: ``batch`` (the paper; statistics frozen in inference) or ``group``.
        style: of ``STYLES``: ``soft`` (the paper), or what it is compared with: ``he``, the same
            network without zero initialisation; ``hard``, image and depth concatenated as they
            are; ``none``, the image tokens do not know of the depth.
        stride: so many pixels in each direction are read as one with more channels; 1 in the
            paper, 2 is nearly four times faster.
        pyramid: channels of coarser and coarser levels behind the first of the two convolutions;
            none in the paper. A large vision model sees far; a tiny one sees far through this.
        fills: classical fills that stand beside the sparse depth as further channels; none in
            the paper. The fusion says at every pixel how to mix them: its guess.
    """

    rgb_channels: int = 32
    depth_channels: int = 32
    high_channels: int = 64
    low_channels: int = 32
    norm: str = "batch"
    style: str = "soft"
    pyramid: tuple[int, ...] = ()
    fills: tuple[str, ...] = ()
    stride: int = 1

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FusionConfig:
        """The reverse of ``dataclasses.asdict``, after JSON or YAML; TypeError on unknown keys."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value
                      for name, value in values.items()})

    @property
    def depth_inputs(self) -> int:
        """Channels of the depth: its log, the mask, and the log of each fill."""
        return 2 + len(self.fills)


def _conv(inside: int, outside: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """3 x 3, initialised as He et al. (ICCV 2015) do for rectifiers."""
    conv = nn.Conv2d(inside, outside, 3, stride, padding=dilation, dilation=dilation)
    nn.init.kaiming_normal_(conv.weight, 0.1)
    nn.init.zeros_(conv.bias)
    return conv


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def _block(conv: nn.Conv2d, norm: str) -> nn.Sequential:
    channels = conv.out_channels
    layer = nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(4, channels)
    return nn.Sequential(conv, layer, nn.LeakyReLU(0.1))


class Pyramid(nn.Module):
    """Features of a pixel that know what lies around it: coarser and coarser, and back.

    As in a U-Net (Ronneberger et al., MICCAI 2015); with one width alone it changes nothing.
    """

    def __init__(self, widths: tuple[int, ...], norm: str) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _pair(fine, coarse, norm, stride=2) for fine, coarse in zip(widths, widths[1:]))
        self.up = nn.ModuleList(
            _pair(fine + coarse, fine, norm) for fine, coarse in zip(widths, widths[1:]))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)"""
        finer = []
        for down in self.down:
            finer.append(features)
            features = down(features)
        for up in reversed(self.up):
            skip = finer.pop()
            features = functional.interpolate(features, size=skip.shape[-2:])
            features = up(torch.cat([skip, features], dim=1))
        return features


def _pair(inside: int, outside: int, norm: str, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        _block(_conv(inside, outside, stride), norm), _block(_conv(outside, outside), norm))


@dataclass(frozen=True, slots=True)
class Fused:
    """What the fusion makes of B images.

    Attributes:
        residual: (B, 3, h, w), the paper's O; all 0 before training.
        features: (B, low_channels, h / stride, w / stride), sampled by the point tokens.
        mixing: (B, fills + 2, h / stride, w / stride), for ``mix_fills``, or None without fills.
    """

    residual: Tensor
    features: Tensor
    mixing: Tensor | None


def mix_fills(mixing: Tensor, fills: Tensor) -> Tensor:
    """The fusion's guess: the fills weighted, and corrected.

    The mixing changes slowly and is known at a coarse grid; the fills hold the detail, so a
    guess of any pixel of the full image takes the fills of that pixel.

    Args:
        mixing: (B, F + 2, ...), of ``Fused``, at the same places: a score of each fill, and two
            corrections, one plain and one in units of how much the fills disagree.
        fills: (B, F, ...), their log of the depth.

    Returns:
        (B, ...), log of the depth; at first the mean of the fills.
    """
    mixing = mixing.float()
    scores, plain, relative = mixing[:, :-2], mixing[:, -2], mixing[:, -1]
    disagreement = fills.amax(1) - fills.amin(1)
    return (scores.softmax(1) * fills).sum(1) + 0.3 * plain + disagreement * relative


class SoftFusion(nn.Module):
    """Image and sparse depth -> ``O``, an image-shaped residual, and features of each pixel."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        c, area = config, config.stride**2
        if c.style == "hard":
            self.rgb = self.depth = nn.Identity()
            mixed = (3 + c.depth_inputs) * area
        else:
            self.rgb = _block(_conv(3 * area, c.rgb_channels), c.norm)
            self.depth = _block(_conv(c.depth_inputs * area, c.depth_channels), c.norm)
            mixed = c.rgb_channels + c.depth_channels
        self.high = _block(_conv(mixed, c.high_channels), c.norm)
        self.pyramid = Pyramid((c.high_channels, *c.pyramid), c.norm)
        self.low = _block(_conv(c.high_channels, c.low_channels, dilation=2), c.norm)
        self.out = _conv(c.low_channels, 3 * area)
        self.mixing = _zero(_conv(c.low_channels, len(c.fills) + 2)) if c.fills else None
        self.style, self.stride = c.style, c.stride
        if c.style == "soft":
            _zero(self.depth[0])
            _zero(self.out)

    def forward(self, image: Tensor, depth: Tensor) -> Fused:
        """Fuse.

        Args:
            image: (B, 3, h, w), normalised as the vision model expects it.
            depth: (B, 2 + fills, h, w): log of the depth in units of the frame's median, and the
                mask, both 0 where nothing was measured; the log of each fill.
        """
        # Channels last: convolutions of few channels run up to twice as fast on a CPU.
        seen = (torch.zeros_like(depth) if self.style == "none" else _relative(depth)).to(image)
        rgb, seen = (functional.pixel_unshuffle(x, self.stride).contiguous(
            memory_format=torch.channels_last) for x in (image, seen))
        mixed = torch.cat([self.rgb(rgb), self.depth(seen)], dim=1)
        features = self.low(self.pyramid(self.high(mixed)))
        residual = torch.zeros_like(image) if self.style == "none" else (
            functional.pixel_shuffle(self.out(features), self.stride))
        return Fused(residual, features, None if self.mixing is None else self.mixing(features))


def _relative(depth: Tensor) -> Tensor:
    """What differs between the fills, made large: they are nearly the same depth.

    Args:
        depth: (B, 2 + fills, h, w), as ``SoftFusion.forward`` gets it; as it is without fills.

    Returns:
        the same channels: the measurement against the mean of the fills, the mask, that mean, and
        against it every fill but the first, which follows from the others.
    """
    if depth.shape[1] == 2:
        return depth
    log, mask, fills = depth[:, :1], depth[:, 1:2], depth[:, 2:]
    mean = fills.mean(1, keepdim=True)
    return torch.cat([5 * (log - mean) * mask, mask, mean, 5 * (fills - mean)[:, 1:]], dim=1)


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
        plain, residual = patches[:, :width], patches[:, width:]
        # A convolution over patches is slow on the way back. Outside of training the plain model
        # has to be met to the bit.
        seen = _patch_product(self.rgb, plain) if self.training else self.rgb(plain)
        return seen + _patch_product(self.depth, residual)


def _patch_product(embed: nn.Module, patches: Tensor) -> Tensor:
    """What a patch embedding gives: a convolution over whole patches is a matrix product."""
    return functional.linear(patches, embed.proj.weight.flatten(1), embed.proj.bias)


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
