"""Classical fills: from measured points to a depth at every pixel.

Throughout, ``sparse`` is (H, W) float32 in metres with 0 = not measured, ``image`` is
(H, W, 3) uint8 RGB, and a dense map is (H, W) float32 in metres, NaN = unknown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

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
_limiting = Lock()  # of _one_openblas_thread


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


def several(methods: Iterable[str], sparse: np.ndarray, image: np.ndarray
            ) -> dict[str, np.ndarray]:
    """``classical`` of several methods, side by side on the cores: NumPy, SciPy and OpenCV let
    go of the interpreter meanwhile."""
    methods = list(methods)
    return dict(zip(methods, side_by_side(
        lambda method: classical(method, sparse, image), methods)))


def side_by_side(task: Callable[[Any], Any], inputs: Iterable[Any]) -> list[Any]:
    """``task`` of each input, in threads; the results in the order of the inputs."""
    with _one_openblas_thread():
        return list(_threads().map(task, inputs))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0))), "fill")


# A forked process has the pool, but not its threads.
os.register_at_fork(after_in_child=_threads.cache_clear)


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
    depth, triangles = nearest(sparse), _triangles(sparse)
    if triangles is None:
        return depth
    places, plane = _scan(triangles, sparse)
    depth.ravel()[places] = plane
    np.copyto(depth, sparse, where=sparse > 0)
    return depth


def linear_at(sparse: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """``linear(sparse)[rows, cols]``, float32 in metres, computed at these pixels only."""
    depth, triangles = nearest(sparse)[rows, cols], _triangles(sparse)
    if triangles is None:
        return depth
    corners = triangles.points.astype(int)
    plane = LinearNDInterpolator(triangles, sparse[tuple(corners.T)])(rows, cols)
    inside = np.isfinite(plane) & (sparse[rows, cols] <= 0)
    depth[inside] = plane[inside]
    return depth


def _triangles(sparse: np.ndarray) -> Delaunay | None:
    """Triangles of the measured pixels, (row, column); None where they span none."""
    measured = (sparse > 0).astype(np.uint8)
    # A point with all its neighbours measured has triangles only towards those: without it,
    # every triangle over an unmeasured pixel stays. It saves seconds on near-dense input.
    corners = np.argwhere(measured & ~cv2.erode(measured, np.ones((3, 3), np.uint8)))
    if len(corners) < 4:
        return None
    try:
        # scipy solves a tiny system per triangle. OpenBLAS wakes a thread per core for each of
        # them; where the cores are busy, waiting for those took ten times as long.
        with _one_openblas_thread():
            return Delaunay(corners)
    except QhullError:  # All points on one line.
        return None


def _scan(triangles: Delaunay, sparse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The planes of all triangles, row by row: what a graphics card does.

    SciPy looks for the triangle of each pixel, which took a whole map half as long again (500
    points, 640 x 480 pixels).

    Returns:
        places in the flat map, (N,) int64, and the depth there, (N,) float32 metres; on a side
        of two triangles twice.
    """
    corners = triangles.points[triangles.simplices]  # (T, 3, 2): row and column
    order = np.argsort(corners[..., 0], axis=1)
    corners = np.take_along_axis(corners, order[..., None], axis=1)
    (top, left), (middle, turn), (bottom, right) = np.moveaxis(corners, 0, 2)
    depth = np.take_along_axis(
        sparse[tuple(triangles.points.astype(int).T)].astype(np.float64)[triangles.simplices],
        order, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # triangles without an area have none
        area = (middle - top) * (right - left) - (bottom - top) * (turn - left)
        second, third = depth[:, 1] - depth[:, 0], depth[:, 2] - depth[:, 0]
        by_row = (second * (right - left) - third * (turn - left)) / area
        by_col = (third * (middle - top) - second * (bottom - top)) / area
    heights = np.where(area == 0, 0, bottom - top + 1).astype(np.int64)
    # One entry for each row of each triangle.
    t = np.repeat(np.arange(len(heights)), heights)
    row = np.arange(len(t)) - np.repeat(np.cumsum(heights) - heights - top.astype(int), heights)
    # The long side, and of the two others the one in this row.
    down = row - top[t]
    upper = (row <= middle[t]) & (middle > top)[t]
    long = left[t] + ((right - left) / np.maximum(bottom - top, 1))[t] * down
    short = np.where(
        upper, left[t] + ((turn - left) / np.maximum(middle - top, 1))[t] * down,
        turn[t] + ((right - turn) / np.maximum(bottom - middle, 1))[t] * (row - middle[t]))
    first = np.ceil(np.minimum(long, short) - 1e-9)
    length = (np.floor(np.maximum(long, short) + 1e-9) - first + 1).astype(np.int64)
    length = np.maximum(length, 0)
    slope = by_col[t]
    start = depth[t, 0] + by_row[t] * down + slope * (first - left[t])
    before = np.cumsum(length) - length
    count = np.arange(length.sum())
    places = count + np.repeat(row * sparse.shape[1] + first.astype(np.int64) - before, length)
    plane = np.repeat(slope, length) * count + np.repeat(start - slope * before, length)
    return places, plane.astype(np.float32)


@contextmanager
def _one_openblas_thread() -> Iterator[None]:
    """For whoever comes first; the others go along with it.

    The number belongs to the process, and only the thread that set it can take it back.
    """
    if not _limiting.acquire(blocking=False):
        yield
        return
    try:
        with _openblas().limit(limits=1):
            yield
    finally:
        _limiting.release()


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
