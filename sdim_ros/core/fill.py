"""Classical fills: from measured points to a depth at every pixel.

Throughout, ``sparse`` is (H, W) float32 in metres with 0 = not measured, ``image`` is
(H, W, 3) uint8 RGB, and a dense map is (H, W) float32 in metres, NaN = unknown.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import Delaunay, QhullError, cKDTree
from threadpoolctl import ThreadpoolController

# What every report compares with; edge_aware has one reach for all images and counts of points.
CLASSICAL = ("nearest", "linear", "edge_aware")
# Edge-aware fills whose reach follows the gaps between the points: reach over the area of the
# image for each point, and the tolerance of colour differences.
GUIDED = {"guided_loose": (0.05, 20.0), "guided": (0.15, 8.0), "guided_strict": (0.5, 3.0)}
FILLS = (*CLASSICAL, *GUIDED)
FARTHEST = 300.0


def classical(method: str, sparse: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The dense map of that classical fill, one of ``FILLS``; NaN when nothing is measured.

    Raises:
        ValueError: for any other name.
    """
    if method == "nearest":
        return nearest(sparse)
    if method == "linear":
        return linear(sparse)
    if method == "edge_aware":
        return edge_aware(sparse, image)
    if method in GUIDED:
        areas, tolerance = GUIDED[method]
        return edge_aware(sparse, image, reach=reach_over_gaps(sparse, areas),
                          tolerance=tolerance)
    raise ValueError(f"fill method {method!r}: expected one of {', '.join(FILLS)}")


def classical_at(method: str, sparse: np.ndarray, image: np.ndarray, rows: np.ndarray,
                 cols: np.ndarray) -> np.ndarray:
    """``classical(method, sparse, image)[rows, cols]``, cheaper where it can be."""
    if method == "linear":
        return linear_at(sparse, rows, cols)
    return classical(method, sparse, image)[rows, cols]


def reach_over_gaps(sparse: np.ndarray, areas: float) -> float:
    """Strength of a smoother that carries values about as far as the next known pixel.

    Args:
        areas: strength over the area of the image for each known pixel.
    """
    return min(FARTHEST, areas * sparse.size / max(np.count_nonzero(sparse), 1))


def nearest(sparse: np.ndarray) -> np.ndarray:
    """Each pixel takes the depth of the measured pixel nearest to it in the image.

    Returns:
        Dense map; NaN everywhere when nothing is measured.
    """
    measured = sparse > 0
    if not measured.any():
        return np.full(sparse.shape, np.nan, np.float32)
    # OpenCV labels each pixel with its nearest zero pixel. The 5x5 mask errs by 4 % of the
    # distance at most, which only matters between near ties.
    _, labels = cv2.distanceTransformWithLabels(
        (~measured).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5,
        labelType=cv2.DIST_LABEL_PIXEL)
    depth_of_label = np.zeros(labels.max() + 1, np.float32)
    depth_of_label[labels[measured]] = sparse[measured]
    return depth_of_label[labels]


def linear(sparse: np.ndarray) -> np.ndarray:
    """Linear interpolation in the Delaunay triangles of the points, nearest outside of them.

    Returns:
        Dense map; NaN everywhere when nothing is measured. Fewer than 4 points, or points on
        one line, span no useful triangles: ``nearest`` everywhere.
    """
    return linear_at(sparse, *np.indices(sparse.shape))


def linear_at(sparse: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """``linear(sparse)[rows, cols]``, float32 in metres, computed at these pixels only."""
    depth = nearest(sparse)[rows, cols]
    measured = (sparse > 0).astype(np.uint8)
    # A point with all its neighbours measured has triangles only towards those: without it,
    # every triangle over an unmeasured pixel stays. It saves seconds on near-dense input.
    corners = np.argwhere(measured & ~cv2.erode(measured, np.ones((3, 3), np.uint8)))
    if len(corners) < 4:
        return depth
    try:
        # scipy solves a tiny system per triangle. OpenBLAS wakes a thread per core for each of
        # them; where the cores are busy, waiting for those took ten times as long.
        with _openblas().limit(limits=1):
            interpolate = LinearNDInterpolator(Delaunay(corners), sparse[tuple(corners.T)])
            plane = interpolate(rows, cols)
    except QhullError:  # All points on one line.
        return depth
    inside = np.isfinite(plane) & (measured[rows, cols] == 0)
    depth[inside] = plane[inside]
    return depth


@cache
def _openblas() -> ThreadpoolController:
    """Sets the threads of the OpenBLAS libraries; made at first use, when all are loaded."""
    return ThreadpoolController().select(internal_api="openblas")


def edge_aware(sparse: np.ndarray, image: np.ndarray, weights: np.ndarray | None = None,
               reach: float = FARTHEST, tolerance: float = 8.0) -> np.ndarray:
    """Inverse depth of the points, spread over the image up to its edges.

    Args:
        weights: (H, W) float32, how much each point counts; None = all the same.
        reach, tolerance: as for ``spread_values``.

    Returns:
        Dense map; NaN everywhere when nothing is measured.
    """
    measured = sparse > 0
    if not measured.any():
        return np.full(sparse.shape, np.nan, np.float32)
    inverse = np.divide(1, sparse, out=np.zeros(sparse.shape, np.float32), where=measured)
    weights = measured.astype(np.float32) if weights is None else weights * measured
    dense = 1 / spread_values(image, inverse, weights, reach, tolerance)
    unreached = np.isnan(dense)
    if unreached.any():
        dense[unreached] = nearest(sparse)[unreached]
    return np.clip(dense, sparse[measured].min(), sparse[measured].max())


def spread_values(
    image: np.ndarray, values: np.ndarray, weights: np.ndarray, reach: float = FARTHEST,
    tolerance: float = 8.0,
) -> np.ndarray:
    """Values known at some pixels, spread over the image up to its edges.

    Normalised convolution (Knutsson and Westin, CVPR 1993) with the fast global smoother (Min
    et al., "Fast Global Image Smoothing Based on Weighted Least Squares", IEEE TIP 2014):
    weighted values and weights are smoothed alike, then divided.

    Args:
        values: (H, W) float32, any number where the weight is 0.
        weights: (H, W) float32, 0 = value unknown.
        reach: strength of the smoother; a value reaches about its square root in pixels.
        tolerance: difference of colours, 0 to 255, that starts to be an edge.

    Returns:
        (H, W) float32; NaN where no value arrives.
    """
    smoother = cv2.ximgproc.createFastGlobalSmootherFilter(
        image, reach, tolerance, 0.25, 3)
    value, weight = smoother.filter(values * weights), smoother.filter(weights)
    # Far from every value float32 underflows: nothing has arrived.
    return np.divide(value, weight, out=np.full_like(value, np.nan), where=weight > 1e-20)


def nearest_points(
    sparse: np.ndarray, rows: np.ndarray, cols: np.ndarray, k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The k measured pixels nearest to each pixel asked, nearest first.

    Args:
        rows, cols: (Q,) int.

    Returns:
        Rows and columns of the measured pixels, each (Q, k) int64. Where fewer than k exist the
        farthest repeats.

    Raises:
        ValueError: nothing is measured.
    """
    points = np.argwhere(sparse > 0)
    if len(points) == 0:
        raise ValueError("nothing measured: expected at least one point")
    found = min(k, len(points))
    _, index = cKDTree(points).query(np.stack([rows, cols], axis=1), k=np.arange(1, found + 1))
    nearby = points[np.pad(index, ((0, 0), (0, k - found)), mode="edge")]
    return nearby[..., 0], nearby[..., 1]


def distance_to_measured(sparse: np.ndarray) -> np.ndarray:
    """Distance to the nearest measured pixel, (H, W) float32, in mean spacings of those pixels.

    It is inf everywhere when nothing is measured.
    """
    measured = sparse > 0
    if not measured.any():
        return np.full(sparse.shape, np.inf, np.float32)
    pixels = cv2.distanceTransform(
        (~measured).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return pixels * np.float32(np.sqrt(measured.mean()))
