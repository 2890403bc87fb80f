"""Point addressing: one token names the pixel, a few more tell the measurements around it.

Qwen2.5-VL's rotary embedding gives the image width its slowest frequencies, so position ids
cannot name a column. Instead the query token carries what the model saw at that pixel: a
learned vector for mask 0 or mask 1, the visual features sampled there, and its position. A
missing pixel has no number of its own, so the nearest measurements and the values that the
classical fills suggest stand before it, each as one token with Fourier features of its value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdim_ros.core.fusion import mix_fills
from sdim_ros.core.transfer import constants, send

# One period per decimal place: the phase in a period is the digit.
PERIODS = (100.0, 10.0, 1.0, 0.1, 0.01)
HARMONICS = (1, 2)
VALUE_FEATURES = 2 * len(PERIODS) * len(HARMONICS) + 2
POSITION_FEATURES = 2 * 2 * 4
# Which numbers stand before a pixel's token; see SdimConfig.told.
TOLD = ("tokens", "guess", "both")


@dataclass(frozen=True)
class PixelQueries:
    """K pixels in each of B images, and what was measured around them.

    Depths are in the unit of the number format; positions are (x, y) from 0 to 1, the outer
    borders of the image.

    Attributes:
        position: (B, K, 2).
        measured: (B, K): the own measurement where it is told (mask 1), 0 where not (mask 0).
        near_position, near_value: (B, K, N, 2) and (B, K, N): nearest measurements, nearest
            first; value 0 = there is none.
        hints: (B, K, H): values that the classical fills suggest; 0 = none.
        spacing: (B,): mean distance between measurements, as a share of the image width.
        aspect: (B,): image height over width.
    """

    position: Tensor
    measured: Tensor
    near_position: Tensor
    near_value: Tensor
    hints: Tensor
    spacing: Tensor
    aspect: Tensor

    def __len__(self) -> int:
        return self.position.shape[1]

    def part(self, start: int, stop: int) -> PixelQueries:
        """The queries ``start:stop`` of every image."""
        whole = ("spacing", "aspect")
        return PixelQueries(**{
            f.name: getattr(self, f.name) if f.name in whole
            else getattr(self, f.name)[:, start:stop] for f in fields(self)})

    def image(self, index: int) -> PixelQueries:
        """The queries of one image, as B = 1."""
        return PixelQueries(**{
            f.name: getattr(self, f.name)[index:index + 1] for f in fields(self)})

    def tensors(self) -> list[Tensor]:
        """The attributes in their order."""
        return [getattr(self, f.name) for f in fields(self)]

    def to(self, device: torch.device) -> PixelQueries:
        return PixelQueries(*(send(x, device) for x in self.tensors()))


def value_features(value: Tensor) -> Tensor:
    """(...,) depths in the number's unit -> (..., VALUE_FEATURES); all 0 where there is none."""
    known = (value > 0).to(value.dtype).unsqueeze(-1)
    periods = constants(tuple(p / h for p in PERIODS for h in HARMONICS), value.device)
    phase = 2 * math.pi * torch.remainder(value.unsqueeze(-1), periods) / periods
    log = value.clamp(min=1e-3).log().unsqueeze(-1)
    return torch.cat([phase.sin(), phase.cos(), log, torch.ones_like(log)], dim=-1) * known


def log_ratio(value: Tensor, reference: Tensor) -> Tensor:
    """log(value / reference) at two scales, (..., 2); 0 where either is missing."""
    known = ((value > 0) & (reference > 0)).to(value.dtype)
    ratio = (value.clamp(min=1e-3) / reference.clamp(min=1e-3)).log() * known
    return torch.stack([ratio.clamp(-2, 2), (10 * ratio).clamp(-2, 2)], dim=-1)


def sample(features: Tensor, position: Tensor) -> Tensor:
    """(B, C, h, w) bilinearly at (B, K, 2) positions from 0 to 1 -> (B, K, C)."""
    grid = (2 * position - 1).unsqueeze(2)  # (B, K, 1, 2)
    # In float32: bfloat16 cannot tell one column of a wide image from the next.
    out = functional.grid_sample(
        features.float(), grid.float(), padding_mode="border", align_corners=False)
    return out.squeeze(3).transpose(1, 2).to(features.dtype)


def guess(queries: PixelQueries, mixing: Tensor) -> Tensor:
    """The depth that the fusion expects, (B, K) in the number's unit; 0 where a hint lacks.

    Args:
        mixing: (B, H + 2, h, w), of ``Fused``.
    """
    known = (queries.hints > 0).all(-1)
    fills = queries.hints.clamp(min=1e-3).log().transpose(1, 2)
    at = sample(mixing, queries.position).transpose(1, 2)
    return mix_fills(at, fills).exp() * known


def guess_everywhere(mixing: Tensor, fills: Tensor) -> Tensor:
    """The guess at every pixel of the full image.

    Args:
        mixing: (B, H + 2, h, w), of ``Fused``.
        fills: (B, H, height, width), depths of the hints in any unit; none may lack.

    Returns:
        (B, height, width), in that unit.
    """
    dense = functional.interpolate(mixing.float(), fills.shape[-2:], mode="bilinear",
                                   align_corners=False)
    return mix_fills(dense, fills.log()).exp()


def _waves(position: Tensor) -> Tensor:
    """(..., 2) positions -> (..., POSITION_FEATURES), waves of four lengths."""
    scales = constants(tuple(math.pi * n for n in (1.0, 2.0, 4.0, 8.0)), position.device)
    angle = (position.unsqueeze(-1) * scales).flatten(-2)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class PointTokens(nn.Module):
    """Pixel queries -> the token embeddings that stand for them in the language model."""

    def __init__(self, width: int, pixel_features: int, hints: int, prompt: str = "mask_value",
                 told: str = "tokens", given: bool = False) -> None:
        super().__init__()
        inner, f = min(width, 512), pixel_features
        self.ask = nn.Parameter(0.02 * torch.randn(2, width))
        self.near = nn.Parameter(0.02 * torch.randn(width))
        self.hint = nn.Parameter(0.02 * torch.randn(hints, width))

        def mlp(inside: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(inside, inner), nn.SiLU(), nn.Linear(inner, width))

        self.ask_mlp = mlp(f + POSITION_FEATURES + VALUE_FEATURES + 2)
        self.near_mlp = mlp(VALUE_FEATURES + 2 + 4 + 3 * f + width)
        self.hint_mlp = mlp(VALUE_FEATURES + 2)
        self.guess_mlp = mlp(VALUE_FEATURES + 2) if told in ("guess", "both") else None
        self.around = told in ("tokens", "both")
        self.given_mlp = mlp(VALUE_FEATURES + POSITION_FEATURES + f) if given else None
        self.prompt = prompt

    def forward(self, queries: PixelQueries, visual: Tensor, pixels: Tensor,
                mixing: Tensor | None) -> Tensor:
        """Embed.

        Args:
            queries: K pixels in each of B images.
            visual: (B, C, gh, gw), the image tokens as the language model gets them.
            pixels: (B, f, h, w), a feature per pixel from the fusion.
            mixing: (B, H + 2, h, w), how the fusion mixes the hints, or None.

        Returns:
            (B, K, S, C): S = the nearest measurements, the hints and the guess, as far as they
            are told, then the pixel itself.
        """
        q = queries
        here = sample(pixels, q.position)  # (B, K, f)
        none = torch.zeros_like(q.measured).unsqueeze(-1)
        reference = torch.cat([q.hints, q.near_value, none], dim=-1)[..., :1]
        tokens = []
        if self.around and q.near_value.shape[-1]:
            tokens.append(self._near(q, visual, pixels, here, reference))
        if self.around and q.hints.shape[-1]:
            value = torch.cat([value_features(q.hints), log_ratio(q.hints, reference)], dim=-1)
            tokens.append(self.hint + self.hint_mlp(value.to(here.dtype)))
        if self.guess_mlp is not None:
            # Digits are a jagged function of the guess, which has a loss of its own.
            told = guess(q, mixing.detach()).unsqueeze(-1)
            value = torch.cat([value_features(told), log_ratio(told, reference)], dim=-1)
            tokens.append(self.guess_mlp(value.to(here.dtype)))
        return torch.cat([*tokens, self._ask(q, visual, here).unsqueeze(2)], dim=2)

    def given(self, points: Tensor, visual: Tensor, pixels: Tensor) -> Tensor:
        """Measured points as tokens of the prefix that all queries share.

        Args:
            points: (B, M, 3), x and y as in ``PixelQueries`` and the depth, 0 = none.
            visual, pixels: as in ``forward``.

        Returns:
            (B, M, C)
        """
        place, dtype = points[..., :2], pixels.dtype
        told = torch.cat([value_features(points[..., 2]).to(dtype), _waves(place).to(dtype),
                          sample(pixels, place)], dim=-1)
        return sample(visual, place) + self.given_mlp(told)

    def _ask(self, q: PixelQueries, visual: Tensor, here: Tensor) -> Tensor:
        b, k = q.measured.shape
        frame = torch.stack([q.spacing.log(), q.aspect.log()], dim=-1)
        told = torch.cat([
            here, _waves(q.position).to(here.dtype),
            value_features(q.measured * (self.prompt == "mask_value")).to(here.dtype),
            frame.unsqueeze(1).expand(b, k, 2).to(here.dtype)], dim=-1)
        mask = (q.measured > 0).long() * (self.prompt != "none")
        return self.ask[mask] + sample(visual, q.position) + self.ask_mlp(told)

    def _near(self, q: PixelQueries, visual: Tensor, pixels: Tensor, here: Tensor,
              reference: Tensor) -> Tensor:
        b, k, n = q.near_value.shape
        spacing, aspect = q.spacing.view(b, 1, 1), q.aspect.view(b, 1, 1)
        offset = q.near_position - q.position.unsqueeze(2)
        dx, dy = offset[..., 0] / spacing, offset[..., 1] * aspect / spacing
        length = (dx**2 + dy**2).sqrt()
        place = torch.stack([dx, dy, length, (length + 0.01).log()], dim=-1).clamp(-10, 10)
        there = q.near_position.flatten(1, 2)
        # An edge between the pixel and the measurement shows half way.
        between = (q.near_position + q.position.unsqueeze(2)).flatten(1, 2) / 2
        f_here = here.unsqueeze(2).expand(b, k, n, -1)
        f_there = sample(pixels, there).view(b, k, n, -1)
        f_between = sample(pixels, between).view(b, k, n, -1)
        dtype = here.dtype
        told = torch.cat([
            value_features(q.near_value).to(dtype),
            log_ratio(q.near_value, reference.expand_as(q.near_value)).to(dtype),
            place.to(dtype), f_here, f_there - f_here, f_between - f_here,
            sample(visual, there).view(b, k, n, -1)], dim=-1)
        return self.near + self.near_mlp(told)
