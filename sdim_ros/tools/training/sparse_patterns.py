"""Sparse depth as sensors give it: where they measure, and how they err.

A pattern says which pixels a sensor measures. The errors are those of its mounting (registration,
parallax), of its ranging (noise) and of its matching (outliers).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from sdim_ros.tools.training.data_recipe import PatternRecipe

NEAREST_M = 0.05  # no sensor of ours reports less, whatever its noise does

Pixels = tuple[np.ndarray, np.ndarray]


def measure(depth: np.ndarray, image: np.ndarray, rng: np.random.Generator,
            patterns: PatternRecipe) -> np.ndarray:
    """Sparse depth that a sensor of the recipe might give of this scene.

    Args:
        depth: (H, W) float32 metres, 0 = unknown; not changed.
        image: (H, W, 3) uint8 RGB: corners and texture are found in it.
        rng: every random choice comes from it.

    Returns:
        (H, W) float32 metres, 0 = not measured. Points come from known depth only, which errors
        of registration may carry beside it; there is at least one unless all of it is unknown.
    """
    sparse = np.zeros(depth.shape, np.float32)
    if not depth.any():
        return sparse
    shares = np.array([patterns.shares.get(name, 0.0) for name in _PATTERNS])
    name = list(_PATTERNS)[rng.choice(len(shares), p=shares / shares.sum())]
    rows, cols = _known(depth, *_PATTERNS[name](depth, image, rng, patterns.points))
    if not len(rows):
        rows, cols = _random(depth, image, rng, (1, patterns.points[1]))
    values = depth[rows, cols]
    if rng.random() < patterns.noise:
        rows, cols, values = _with_errors(name, depth, rows, cols, rng, patterns.outliers)
    # Where points share a pixel the nearest is written last, and stays.
    order = np.argsort(-values)
    sparse[rows[order], cols[order]] = np.maximum(values[order], NEAREST_M)
    return sparse


# --- Patterns: pixels that are measured, (N,) int each ---------------------------------------


def _random(depth: np.ndarray, image: np.ndarray, rng: np.random.Generator,
            points: tuple[int, int]) -> Pixels:
    """A count of known pixels, drawn log-uniformly."""
    known = np.flatnonzero(depth > 0)
    drawn = rng.choice(known, min(_log_uniform(rng, *points), len(known)), replace=False,
                       shuffle=False)
    return np.unravel_index(drawn, depth.shape)


def _lines(depth: np.ndarray, image: np.ndarray, rng: np.random.Generator,
           points: tuple[int, int]) -> Pixels:
    """The scan lines of a spinning LiDAR: 8 to 64 beams at equal steps of elevation.

    A beam at elevation e draws a cone, which a camera of focal length f sees as the curve
    y = f tan(e) sqrt(1 + (x / f)^2).
    """
    height, width = depth.shape
    beams = _log_uniform(rng, 8, 64)
    focal = width * rng.uniform(0.5, 1.2)
    # The beams may end short of the top of the image, as on cars, or of its bottom.
    top = height * (rng.uniform(0, 0.5) if rng.random() < 0.6 else 0)
    bottom = height * (rng.uniform(0.8, 1) if rng.random() < 0.3 else 1)
    horizon = height * rng.uniform(0.35, 0.65)
    elevation = np.linspace(*np.arctan((np.array([top, bottom]) - horizon) / focal), beams + 1)
    elevation = elevation[:-1] + rng.random() * np.diff(elevation)
    spacing = max(2.0, (bottom - top) / beams * rng.uniform(0.3, 1.2))
    reach = np.arctan(width / 2 / focal) * 1.1
    azimuth = np.arange(-reach, reach, spacing / focal)
    # Each beam fires at its own phase.
    azimuth = azimuth + rng.uniform(0, spacing / focal, (beams, 1))
    x = focal * np.tan(azimuth)
    y = focal * np.tan(elevation)[:, None] * np.hypot(1, x / focal)
    roll, pitch = rng.normal(0, [0.02, 0.01])
    cols = np.rint(x + width / 2 - roll * y).astype(int)
    rows = np.rint(y + horizon + roll * x + pitch * focal).astype(int)
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    rows, cols = rows[inside], cols[inside]
    # Dark surfaces and far ones send back too little light.
    dark = 1 - image[rows, cols].max(axis=-1) / 255.0
    lost = rng.uniform(0, 0.15) + rng.uniform(0, 0.5) * dark**2
    farthest = rng.uniform(30, 120)
    heard = (rng.random(len(rows)) >= lost) & (depth[rows, cols] < farthest)
    return rows[heard], cols[heard]


def _corners(depth: np.ndarray, image: np.ndarray, rng: np.random.Generator,
             points: tuple[int, int]) -> Pixels:
    """What visual odometry tracks: strong corners, apart from each other or in clusters."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    wanted = _log_uniform(rng, max(20, points[0]), max(20, min(points[1], 1500)))
    detector = rng.choice(["apart", "fast", "orb"])
    if detector == "apart":
        found = cv2.goodFeaturesToTrack(grey, wanted, 0.005, rng.uniform(2, 8))
        xy = np.zeros((0, 2)) if found is None else found[:, 0]
    else:
        # Its descriptors are not used, so ORB needs no wide border.
        finder = cv2.ORB_create(wanted, edgeThreshold=8, fastThreshold=8) if (
            detector == "orb") else cv2.FastFeatureDetector_create(int(rng.integers(8, 25)))
        found = finder.detect(grey)
        strongest = sorted(found, key=lambda corner: -corner.response)[:wanted]
        xy = cv2.KeyPoint_convert(strongest) if strongest else np.zeros((0, 2))
    cols, rows = np.rint(xy).astype(int).T
    return rows, cols


def _stereo(depth: np.ndarray, image: np.ndarray, rng: np.random.Generator,
            points: tuple[int, int]) -> Pixels:
    """Semi-dense stereo: holes without texture and where the right camera sees something else."""
    known = depth > 0
    disparity = np.divide(_parallax(depth, rng), depth, out=np.zeros_like(depth), where=known)
    seen = known & _seen_from_the_right(disparity)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    texture = cv2.boxFilter(np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0)), -1, (9, 9))
    seen &= texture > np.quantile(texture[::4, ::4], rng.uniform(0.05, 0.6))
    found = np.flatnonzero(seen)
    if rng.random() < 0.8:  # a matcher's reliable part, or a thinned cloud
        wanted = _log_uniform(rng, max(100, points[0]), max(5000, points[1]))
        found = rng.choice(found, min(wanted, len(found)), replace=False, shuffle=False)
    return np.unravel_index(found, depth.shape)


def _tiles(depth: np.ndarray, image: np.ndarray, rng: np.random.Generator,
           points: tuple[int, int]) -> Pixels:
    """Random pixels, with whole blocks that hold none."""
    rows, cols = _random(depth, image, rng, points)
    height, width = depth.shape
    grid = rng.integers(2, 7, 2)
    full = rng.random(grid) >= rng.uniform(0.2, 0.7)
    full[tuple(rng.integers(grid))] = True
    shift = rng.random(2)
    tile = [np.minimum((at / size + s) % 1 * n, n - 1).astype(int)
            for at, size, s, n in zip((rows, cols), (height, width), shift, grid)]
    kept = full[tuple(tile)]
    return rows[kept], cols[kept]


_PATTERNS: dict[str, Callable[..., Pixels]] = {
    "random": _random, "lines": _lines, "corners": _corners, "stereo": _stereo, "tiles": _tiles}


# --- Errors ----------------------------------------------------------------------------------


def _with_errors(name: str, depth: np.ndarray, rows: np.ndarray, cols: np.ndarray,
                 rng: np.random.Generator, outliers: float
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places and values as a faulty sensor reports them, (N,) each."""
    values = depth[rows, cols]
    if name != "stereo" and rng.random() < 0.5:
        values = _seen_through(depth, rows, cols, rng)
    if rng.random() < 0.5:  # the error of a range, or that of a disparity
        factor = 1 + rng.normal(0, rng.uniform(0, 0.02), len(values))
    else:
        error = rng.normal(0, rng.uniform(0, 0.015), len(values))
        factor = 1 / np.maximum(1 + error * values / np.median(values), 0.5)
    wrong = rng.random(len(values)) < rng.uniform(0, outliers)
    factor = np.where(wrong, np.exp(rng.normal(0, 0.5, len(values))), factor)
    rows, cols = _misplaced(rows, cols, depth.shape, rng)
    return rows, cols, (values * factor).astype(np.float32)


def _misplaced(rows: np.ndarray, cols: np.ndarray, size: tuple[int, int],
               rng: np.random.Generator) -> Pixels:
    """Extrinsics that are a little off, and jitter: all within a few pixels."""
    height, width = size
    turn, zoom = rng.normal(0, 0.003, 2)
    y, x = rows - height / 2, cols - width / 2
    jitter = rng.normal(0, rng.uniform(0, 0.7), (2, len(rows)))
    shift = rng.normal(0, 0.5, (2, 1))
    moved = np.rint(np.stack([rows + zoom * y + turn * x, cols + zoom * x - turn * y])
                    + jitter + shift).astype(int)
    return np.clip(moved[0], 0, height - 1), np.clip(moved[1], 0, width - 1)


def _seen_through(depth: np.ndarray, rows: np.ndarray, cols: np.ndarray,
                  rng: np.random.Generator) -> np.ndarray:
    """Depths from a sensor beside the camera, which sees behind the edges of what is near.

    A point behind an object lands on the object: up to as many pixels inside of its edge as the
    parallax between both depths.
    """
    height, width = depth.shape
    parallax = _parallax(depth, rng)
    side = ((-1, 0), (0, -1), (0, 1))[rng.integers(3)]  # above, left or right of the camera
    nearest, farthest = np.percentile(depth[rows, cols], (5, 95))
    widest = min(parallax * (1 / nearest - 1 / farthest), width / 8)
    step = rng.uniform(0, widest, len(rows))
    behind_rows = np.clip(np.rint(rows + side[0] * step), 0, height - 1).astype(int)
    behind_cols = np.clip(np.rint(cols + side[1] * step), 0, width - 1).astype(int)
    near, far = depth[rows, cols], depth[behind_rows, behind_cols]
    band = parallax * (1 / near - 1 / np.maximum(far, near))
    through = (far > 1.1 * near) & (step < band) & (rng.random(len(rows)) < 0.8)
    return np.where(through, far, near)


# --- Helpers ---------------------------------------------------------------------------------


def _log_uniform(rng: np.random.Generator, low: int, high: int) -> int:
    """A count from low to high, both possible."""
    return min(high, int(np.exp(rng.uniform(np.log(low), np.log(high + 1)))))


def _known(depth: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> Pixels:
    known = depth[rows, cols] > 0
    return rows[known], cols[known]


def _parallax(depth: np.ndarray, rng: np.random.Generator) -> float:
    """Focal length times baseline in pixel metres: 0.05 to 0.3 m, what sensor rigs have."""
    return depth.shape[1] * rng.uniform(0.5, 1.2) * np.exp(rng.uniform(*np.log([0.05, 0.3])))


def _seen_from_the_right(disparity: np.ndarray) -> np.ndarray:
    """(H, W) bool: whether nothing nearer covers the pixel in the right image of a stereo pair.

    A pixel's place there is its column minus its disparity; what stood to its right and lands
    at its place or left of it hides it.
    """
    place = np.arange(disparity.shape[1]) - disparity
    leftmost = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]
    free = np.ones(disparity.shape, bool)
    free[:, :-1] = place[:, :-1] < leftmost[:, 1:]
    return free & (place >= 0)
