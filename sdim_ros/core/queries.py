"""Which pixels are asked, and what each query is told about its surroundings."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from sdim_ros.core import fill
from sdim_ros.core.config import QuerySettings
from sdim_ros.core.model import SdimConfig
from sdim_ros.core.point_token import PixelQueries

BUDGETS = {"fast": 500, "balanced": 1500}


def budget_of(sparse: np.ndarray, settings: QuerySettings) -> int:
    """How many pixels are asked of a frame: all that are missing for ``exact`` and ``paper``.

    Args:
        sparse: (H, W) metres, 0 = missing.
    """
    missing = int(np.count_nonzero(sparse <= 0))
    return min(missing, settings.budget or BUDGETS.get(settings.preset, missing))


def regular_grid(missing: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A regular grid over the missing pixels, as fine as the count allows.

    Args:
        missing: (H, W) bool.
        count: pixels at most.

    Returns:
        rows, cols: (Q,) int64; every missing pixel where the count allows it.
    """
    if count >= missing.sum():
        return np.nonzero(missing)
    # As if all that is missing lay side by side; made coarser until it keeps the budget.
    step = max(1.0, math.sqrt(missing.sum() / count))
    while True:
        rows, cols = (_centred(n, step) for n in missing.shape)
        grid = np.zeros_like(missing)
        grid[np.ix_(rows, cols)] = True
        grid &= missing
        if grid.sum() <= count:
            return np.nonzero(grid)
        step *= 1.02


def _centred(length: int, step: float) -> np.ndarray:
    """Grid lines about ``step`` apart, half a step from the borders."""
    count = max(1, int(length / step))
    return ((np.arange(count) + 0.5) * length / count).astype(np.int64)


def hint_maps(sparse: np.ndarray, image: np.ndarray, hints: tuple[str, ...]) -> dict:
    """The classical fills that stand in the prompt, (H, W) float32 each, NaN = none."""
    return fill.several(hints, sparse, image)


def positions(rows: np.ndarray, cols: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Pixels (...,) of an image of ``size`` (H, W) -> (1, ..., 2) float32 x and y from 0 to 1."""
    xy = np.stack([cols, rows], axis=-1).astype(np.float32) + 0.5
    return torch.from_numpy(xy / np.array(size[::-1], np.float32))[None]


def _tells_neighbours(config: SdimConfig) -> bool:
    """Whether anything of a query depends on the measurements next to it."""
    return config.addressing == "point" and not (config.told == "guess" and config.hints)


def describe(config: SdimConfig, sparse: np.ndarray, rows: np.ndarray, cols: np.ndarray,
             hints: Mapping[str, np.ndarray], unit: float, told: np.ndarray | None = None
             ) -> PixelQueries:
    """What the point tokens need to know of the pixels of one frame.

    Args:
        sparse: (H, W) metres, 0 = missing: what the model is shown.
        rows, cols: (Q,) pixels to ask.
        hints: by name (Q,) metres, values of the classical fills there, NaN or 0 = none; those
            that the checkpoint was trained with are told.
        unit: metres of one unit of the number format.
        told: (Q,) metres of the own measurement (mask 1), 0 = missing (mask 0); None = all 0.

    Returns:
        queries of B = 1 image, on the CPU.
    """
    height, width = sparse.shape
    n = int((sparse > 0).sum())

    def depth(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.nan_to_num(values / unit).astype(np.float32))[None]

    # Finding them takes time that grows with the points.
    k = config.neighbours if _tells_neighbours(config) else 0
    if n and k:
        near_rows, near_cols = fill.nearest_points(sparse, rows, cols, k)
        near_value = sparse[near_rows, near_cols]
    else:
        near_rows, near_cols = (np.repeat(x[:, None], k, 1) for x in (rows, cols))
        near_value = np.zeros((len(rows), k), np.float32)
    spacing = math.sqrt(height * width / max(n, 1)) / width
    suggested = [hints[name] for name in config.hints] or [np.zeros((0, len(rows)))]
    return PixelQueries(
        position=positions(rows, cols, sparse.shape),
        measured=depth(np.zeros(len(rows)) if told is None else told),
        near_position=positions(near_rows, near_cols, sparse.shape), near_value=depth(near_value),
        hints=depth(np.vstack(suggested).T), spacing=torch.tensor([spacing]),
        aspect=torch.tensor([height / width]))


def stack(parts: list[PixelQueries]) -> PixelQueries:
    """Queries of several images, the same number in each, as one batch."""
    return PixelQueries(**{
        name: torch.cat([getattr(p, name) for p in parts])
        for name in PixelQueries.__dataclass_fields__})
