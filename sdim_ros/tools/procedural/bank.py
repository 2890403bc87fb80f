"""A store of texture tiles with their smaller copies, and the look-up of many texels at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from sdim_ros.tools.procedural import patterns, reserved_patterns
from sdim_ros.tools.procedural.noise import TEXELS, clouds

LEVELS = 8  # 256 texels a side down to 2
_SIDES = np.array([TEXELS >> level for level in range(LEVELS)])
# All tiles lie in one picture, side by side, level below level, with a border that repeats them.
_COLUMNS = 16
TILES_PER_KIND = 10
# Frames of so many seeds share their tiles: a tile takes 10 ms to make.
SEEDS_PER_BANK = 2000

Pattern = Callable[[np.random.Generator], Any]


class TextureBank:
    """Tiles that depend on the block, their kind and their number alone; made when first used.

    Args:
        block: another block has other tiles.
        mixed, coloured: patterns by name; those that mix a material's colours, and pictures.
    """

    def __init__(self, block: int, mixed: Mapping[str, Pattern], coloured: Mapping[str, Pattern]
                 ) -> None:
        self.block, self.coloured = block, set(coloured)
        self.names = [*mixed, *coloured]
        # The sky is no surface: every bank has it.
        self.kinds = {**mixed, **coloured, "clouds": clouds}
        tiles = len(self.kinds) * TILES_PER_KIND
        heights = (_SIDES + 2) * -(-tiles // _COLUMNS)
        self._tops = np.cumsum(heights) - heights
        self._atlas = np.zeros((heights.sum(), _COLUMNS * (TEXELS + 2), 3), np.uint8)
        self._made = np.zeros(tiles, bool)

    def tile(self, kind: str, number: int) -> int:
        """The place of a tile in the bank."""
        order = list(self.kinds).index(kind)
        place = order * TILES_PER_KIND + number % TILES_PER_KIND
        if not self._made[place]:
            rng = np.random.default_rng([self.block, order, number % TILES_PER_KIND])
            self._store(place, np.asarray(self.kinds[kind](rng), np.float32))
        return place

    def _store(self, place: int, values: np.ndarray) -> None:
        image = np.zeros((TEXELS, TEXELS, 3), np.float32)
        image[..., :values.shape[-1]] = np.clip(values, 0, 1) * 255
        row, column = divmod(place, _COLUMNS)
        for top, side in zip(self._tops, _SIDES):
            tile = cv2.copyMakeBorder(np.round(image).astype(np.uint8), 1, 1, 1, 1,
                                      cv2.BORDER_WRAP)
            y, x = top + row * (side + 2), column * (side + 2)
            self._atlas[y:y + side + 2, x:x + side + 2] = tile
            image = cv2.resize(image, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
        self._made[place] = True

    def sample(self, place: np.ndarray, u: np.ndarray, v: np.ndarray, level: np.ndarray
               ) -> np.ndarray:
        """Bilinear look-up.

        Args:
            place: (N,) tiles, as ``tile`` gave them.
            u, v: (N,) float32, in tiles; v grows upwards. Tiles repeat.
            level: (N,) int, 0 = full size; limited to what there is.

        Returns:
            (N, 3) float32, 0-1.
        """
        if len(place) == 0:
            return np.zeros((0, 3), np.float32)
        level = np.clip(level, 0, LEVELS - 1)
        side = _SIDES[level]
        row, column = np.divmod(place, _COLUMNS)
        x = (u - np.floor(u)) * side + (column * (side + 2) + 0.5)
        y = (1 - v + np.floor(v)) * side + (self._tops[level] + row * (side + 2) + 0.5)
        # OpenCV limits the length of a row: hence rows of 256.
        shape = (-(-len(x) // 256), 256)
        x, y = (np.resize(value.astype(np.float32), shape) for value in (x, y))
        texels = cv2.remap(self._atlas, x, y, cv2.INTER_LINEAR).reshape(-1, 3)[:len(place)]
        return texels * np.float32(1 / 255)


@lru_cache(maxsize=1)
def training_bank(block: int) -> TextureBank:
    """The tiles of a block of training seeds."""
    return TextureBank(block, patterns.MIXED, patterns.COLOURED)


@lru_cache(maxsize=1)
def reserved_bank() -> TextureBank:
    """The tiles of the scenes kept for evaluation, of kinds that no training scene has."""
    return TextureBank(0, reserved_patterns.MIXED, reserved_patterns.COLOURED)
