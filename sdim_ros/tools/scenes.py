"""Rendered rooms and streets with exact depth, for training, tests and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

from sdim_ros.core.types import Camera
from sdim_ros.tools.procedural.bank import (
    SEEDS_PER_BANK, TextureBank, reserved_bank, training_bank)
from sdim_ros.tools.procedural.picture import Exposure
from sdim_ros.tools.procedural.reserved import RESERVED
from sdim_ros.tools.procedural.rooms import ROOMS
from sdim_ros.tools.procedural.scene import Scene
from sdim_ros.tools.procedural.streets import STREETS

NEAREST_M, FARTHEST_M = 0.25, 120.0
INDOOR_SHARE = 0.65
# Nothing that was drawn for training is drawn again for the scenes that judge it.
_RESERVED_STREAM = 1

Layout = Callable[[np.random.Generator, TextureBank, Camera], Scene]
Frame = tuple[np.ndarray, np.ndarray, Camera]


def render(seed: int, width: int = 320, height: int = 240) -> Frame:
    """One training frame: the same seed and size give the same frame.

    Returns:
        The image (H, W, 3) uint8 RGB; its exact planar depth (H, W) float32 in metres,
        0.25-120 m, 0 where a sensor measures none: sky, window panes, beyond 120 m; camera.
    """
    return _render([seed], training_bank(seed // SEEDS_PER_BANK),
                   ((ROOMS, INDOOR_SHARE), (STREETS, 1 - INDOOR_SHARE)), width, height)


def render_reserved(seed: int, width: int = 320, height: int = 240) -> Frame:
    """One frame to judge a training by: layouts and kinds of texture that it never sees.

    Returns:
        As ``render``.
    """
    return _render([seed, _RESERVED_STREAM], reserved_bank(), ((RESERVED, 1.0),), width, height)


def _render(seed: list[int], bank: TextureBank, groups: Sequence[tuple[Sequence, float]],
            width: int, height: int) -> Frame:
    for attempt in count():
        rng = np.random.default_rng([attempt, *seed])
        camera = _camera(rng, width, height)
        layouts = groups[rng.choice(len(groups), p=[share for _, share in groups])][0]
        layout: Layout = layouts[rng.choice(len(layouts), p=[share for _, share in layouts])][0]
        exposure = Exposure(layout(rng, bank, camera))
        depth = np.where(exposure.known & (exposure.depth <= FARTHEST_M), exposure.depth, 0)
        if _is_worth_seeing(depth, exposure.part):
            return exposure.photograph(), depth.astype(np.float32), camera


def _camera(rng: np.random.Generator, width: int, height: int) -> Camera:
    """Square pixels, 37 to 80 degrees wide, the centre nearly in the middle."""
    focal, shift = width * np.exp(rng.uniform(np.log(0.6), np.log(1.5))), rng.normal(0, 0.01, 2)
    return Camera(focal, focal, (width - 1) / 2 + width * shift[0],
                  (height - 1) / 2 + height * shift[1], width, height)


def _is_worth_seeing(depth: np.ndarray, part: np.ndarray) -> bool:
    """Not too close, not a single surface, not flat, and mostly measured."""
    measured = depth[depth > 0]
    if len(measured) < 0.4 * depth.size or measured.min() < NEAREST_M:
        return False
    shares = np.bincount(part.ravel() + 1)[1:] / part.size
    low, high = np.percentile(measured[::7], [5, 95])
    return bool(shares.max() < 0.7 and (shares > 0.002).sum() >= 8 and high > 1.6 * low)
