"""The filter of the depth completion benchmarks for LiDAR points that the camera cannot see."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import minimum_filter

# The setting of the benchmarks that use it: KITTI and DDAD.
WINDOW_PX, TOLERANCE_M = 7, 1.5


def drop_hidden_points(
    sparse: np.ndarray, window_px: int = WINDOW_PX, tolerance_m: float = TOLERANCE_M
) -> np.ndarray:
    """Drop each point that is much farther than the nearest around it or around its neighbours.

    Each point judges all points of its window: those that lie more than the tolerance behind the
    nearest of the window are dropped. So a point is held against the nearest point of every
    window whose centre is a point and that reaches it, up to twice as far as the window that
    `core.projection.occlusion_filter` looks at. (After Conti et al., "Unsupervised confidence for
    LiDAR depth maps and applications", 2022, arXiv:2210.03118, in the form that VPP4DC and
    Marigold-DC measure with.)

    Args:
        sparse: (H, W) float32, metres, 0 = unknown. It is not modified.
        window_px: side of the square window, odd.
        tolerance_m: how far behind the nearest a point may lie.

    Returns:
        (H, W) float32, metres, 0 = unknown.
    """
    known = sparse > 0
    nearest = _lowest(np.where(known, sparse, np.inf), window_px)
    # Only windows around a point judge.
    nearest = _lowest(np.where(known, nearest, np.inf), window_px)
    kept = known & ~(sparse - nearest > tolerance_m)
    return np.where(kept, sparse, np.float32(0))


def _lowest(depth: np.ndarray, window_px: int) -> np.ndarray:
    return minimum_filter(depth, size=window_px, mode="constant", cval=np.inf)
