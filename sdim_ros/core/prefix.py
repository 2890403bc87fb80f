"""Frames as the network reads them, and what all queries of a frame share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sdim_ros.core.attention import PrefixCache


@dataclass(frozen=True, slots=True)
class ModelInput:
    """B frames of one size as the network reads them.

    Attributes:
        image: (B, 3, h, w) float32, resized and normalised.
        depth: (B, 2 + fills, h, w) float32: log of the depth in the number's unit, the mask,
            and the log of each fill that the fusion is shown.
        points: (B, M, 3) float32: x and y from 0 to 1, and the depth in the number's unit, of
            some of the measured points; 0 = none.
        unit: (B,) float64 on the CPU: metres of one unit of the number format.
    """

    image: Tensor
    depth: Tensor
    points: Tensor
    unit: np.ndarray


@dataclass(frozen=True, slots=True)
class Prefix:
    """All that the queries of B frames share.

    Attributes:
        cache: keys and values of image and fixed text.
        positions: (3, P) float32, of its tokens.
        visual: (B, C, gh, gw), the image tokens in their grid.
        pixels, mixing: of the fusion: its features, and how to mix the fills, as in ``Fused``.
        unit: (B,) metres of one unit.
    """

    cache: PrefixCache
    positions: Tensor
    visual: Tensor
    pixels: Tensor
    mixing: Tensor | None
    unit: np.ndarray

    def image(self, index: int) -> Prefix:
        """That of one of the images, as B = 1."""
        at = slice(index, index + 1)
        return Prefix(self.cache.image(index), self.positions, self.visual[at], self.pixels[at],
                      None if self.mixing is None else self.mixing[at], self.unit[at])

    def tensors(self) -> list[Tensor]:
        """All but the units, in a row; see ``from_tensors``."""
        none = self.pixels.new_zeros(0)
        return [self.positions, self.visual, self.pixels,
                none if self.mixing is None else self.mixing, *self.cache.keys,
                *self.cache.values]

    @classmethod
    def from_tensors(cls, row: Sequence[Tensor], layers: int, unit: np.ndarray | None = None
                     ) -> tuple[Prefix, Sequence[Tensor]]:
        """The reverse of ``tensors``, and what stood behind them.

        Args:
            layers: of the language model.
            unit: where it matters.
        """
        cache, (positions, visual, pixels, mixing) = PrefixCache(), row[:4]
        cache.keys, cache.values = list(row[4:4 + layers]), list(row[4 + layers:4 + 2 * layers])
        unit = np.ones(len(visual)) if unit is None else unit
        prefix = cls(cache, positions, visual, pixels, mixing if mixing.numel() else None, unit)
        return prefix, row[4 + 2 * layers:]
