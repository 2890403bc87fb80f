"""What makes an input harder, one thing at a time: the axes of ``sdim evaluate --axis``.

Every draw starts a new generator from its seed, as in `sampling`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from sdim_ros.core.types import BadInput, Camera, Frame
from sdim_ros.tools import sampling

DENSE_SHARE = 0.25        # maps with more known pixels are measured anew, others thinned
LIDAR_BEAMS = 64          # of the sensor that a sparse map is taken to be from
LIDAR_STEP_RAD = np.deg2rad(0.2)
WHITE_PHOTONS = 1000.0    # a white pixel in full light; their noise is what low light adds
GAMMA = 2.2


@dataclass(frozen=True, slots=True)
class Axis:
    """One way to make frames harder.

    Attributes:
        label: for people, with the unit of the levels.
        kind: what a level is: ``count``, ``share`` (in %) or ``number``.
        draws: whether it chooses the points itself, instead of changing those that were drawn.
        apply: takes a frame, a level and a seed. The frame holds all that was measured where the
            axis draws, else the points given.
    """

    label: str
    kind: str
    draws: bool
    apply: Callable[[Frame, float, int], Frame]


@dataclass(frozen=True, slots=True)
class Level:
    """One value on an axis.

    Attributes:
        axis: name in `AXES`.
        text: as the user wrote it.
        value: a count, a share of 1, or a number.
    """

    axis: str
    text: str
    value: float

    def apply(self, frame: Frame, seed: int) -> Frame:
        """The frame as it is at this level."""
        return AXES[self.axis].apply(frame, self.value, seed)


def parse_axis(text: str) -> list[Level]:
    """``"lines=8,16"`` as levels.

    Raises:
        BadInput: an unknown axis, or a value that it cannot have.
    """
    name, equals, values = text.partition("=")
    if name not in AXES or not equals:
        raise BadInput(
            "axis", f"--axis {text}: expected NAME=LEVEL,LEVEL,... with a name of "
            f"{', '.join(AXES)}")
    return [Level(name, value.strip(), _value(name, value.strip())) for value in values.split(",")]


def _value(name: str, text: str) -> float:
    kind = AXES[name].kind
    expected = {"count": "a whole number such as 16", "share": "a share such as 5%",
                "number": "a number such as 1.5"}[kind]
    try:
        if kind == "share" and text != "0" and not text.endswith("%"):
            raise ValueError
        value = int(text) if kind == "count" else float(text.removesuffix("%"))
    except ValueError:
        raise BadInput("axis", f"--axis {name}={text}: expected {expected}") from None
    if not 0 <= value < float("inf"):
        raise BadInput("axis", f"--axis {name}={text}: expected {expected}, not below 0")
    if name == "lines" and not 1 <= value <= LIDAR_BEAMS:
        raise BadInput("axis", f"--axis lines={text}: expected 1 to {LIDAR_BEAMS} beams")
    if name == "outliers" and value > 100:
        raise BadInput("axis", f"--axis outliers={text}: expected at most 100% of the points")
    return value / 100 if kind == "share" else value


# --- Which pixels are measured ---------------------------------------------------------------


def draw_points(frame: Frame, count: float, seed: int) -> Frame:
    """Keep a number of random points, or none."""
    if count == 0:
        return _with_sparse(frame, np.zeros_like(frame.sparse))
    return _with_sparse(frame, sampling.sample_points(frame.sparse, str(int(count)), seed))


def draw_lines(frame: Frame, beams: float, seed: int) -> Frame:
    """What a LiDAR of so many beams measures.

    Dense depth is measured along the curves of the beams: a beam at elevation e is a cone, seen
    as y = f tan(e) sqrt(1 + (x / f)^2), sampled every 0.2 degrees. A sparse map counts as that of
    a LiDAR with 64 beams, evenly spaced over the map's elevations, and every (64 / beams)-th stays.
    """
    known = frame.sparse > 0
    camera = frame.camera or _usual_camera(frame)
    if np.count_nonzero(known) > DENSE_SHARE * known.size:
        hit = _scanned(camera, known.shape, int(beams), seed)
    else:
        hit = _every_nth_beam(camera, known, int(beams), seed)
    return _with_sparse(frame, np.where(known & hit, frame.sparse, np.float32(0)))


def _usual_camera(frame: Frame) -> Camera:
    """Intrinsics for frames without: as wide as it is far, centred."""
    height, width = frame.sparse.shape
    return Camera(width, width, (width - 1) / 2, (height - 1) / 2, width, height)


def _scanned(camera: Camera, shape: tuple[int, int], beams: int, seed: int) -> np.ndarray:
    """(H, W) bool: pixels on the curves of the beams."""
    height, width = shape
    top, bottom = np.arctan((np.array([0, height - 1]) - camera.cy) / camera.fy)
    step = (bottom - top) / beams
    elevation = top + step * (np.arange(beams) + np.random.default_rng(seed).random())
    left, right = np.arctan((np.array([0, width - 1]) - camera.cx) / camera.fx)
    azimuth = np.arange(left, right, LIDAR_STEP_RAD)
    rows = np.tan(elevation)[:, None] / np.cos(azimuth) * camera.fy + camera.cy
    cols = np.broadcast_to(np.tan(azimuth) * camera.fx + camera.cx, rows.shape)
    rows, cols = np.rint(rows).astype(int), np.rint(cols).astype(int)
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    hit = np.zeros(shape, bool)
    hit[rows[inside], cols[inside]] = True
    return hit


def _every_nth_beam(camera: Camera, known: np.ndarray, beams: int, seed: int) -> np.ndarray:
    """(H, W) bool: pixels of the beams that stay of those of a LiDAR that measured ``known``."""
    hit = np.zeros(known.shape, bool)
    rows, cols = np.nonzero(known)
    if not len(rows):
        return hit
    x, y = (cols - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
    elevation = np.arctan2(y, np.hypot(1, x))
    low, high = elevation.min(), elevation.max()
    beam = np.minimum((elevation - low) / max(high - low, 1e-9) * LIDAR_BEAMS, LIDAR_BEAMS - 1)
    stays = np.floor(np.arange(beams) * LIDAR_BEAMS / beams).astype(int)
    stays = (stays + np.random.default_rng(seed).integers(LIDAR_BEAMS)) % LIDAR_BEAMS
    hit[rows, cols] = np.isin(beam.astype(int), stays)
    return hit


def draw_corners(frame: Frame, count: float, seed: int) -> Frame:
    """Depth at the strongest corners, as visual odometry has it (Shi and Tomasi, 1994)."""
    known = frame.sparse > 0
    grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
    sparse = np.zeros_like(frame.sparse)
    found = None if count == 0 else cv2.goodFeaturesToTrack(
        grey, int(count), 1e-4, 3, mask=known.astype(np.uint8))
    if found is not None:
        cols, rows = np.rint(found[:, 0]).astype(int).T
        sparse[rows, cols] = frame.sparse[rows, cols]
    return _with_sparse(frame, sparse)


# --- How they err ----------------------------------------------------------------------------


def add_noise(frame: Frame, share: float, seed: int) -> Frame:
    """Gaussian error of every point, its standard deviation a share of its depth."""
    factor = np.random.default_rng((seed, 2)).normal(1, share, frame.sparse.shape)
    return _with_sparse(frame, frame.sparse * np.maximum(factor, 0.01).astype(np.float32))


def add_outliers(frame: Frame, share: float, seed: int) -> Frame:
    """Replace a share of the points by noise, as ``--outliers`` does."""
    if share == 0:
        return frame
    return _with_sparse(frame, sampling.add_outliers(frame.sparse, f"{100 * share:.9g}%", seed))


def shift(frame: Frame, pixels: float, seed: int) -> Frame:
    """Move all points to the right: what wrong extrinsics or a late cloud do."""
    by = min(round(pixels), frame.sparse.shape[1])
    moved = np.zeros_like(frame.sparse)
    moved[:, by:] = frame.sparse[:, :frame.sparse.shape[1] - by]
    return _with_sparse(frame, moved)


# --- What the camera does --------------------------------------------------------------------


def blur(frame: Frame, sigma_px: float, seed: int) -> Frame:
    """Gaussian blur of the image."""
    image = cv2.GaussianBlur(frame.image, (0, 0), sigma_px) if sigma_px else frame.image
    return replace(frame, image=image)


def dim(frame: Frame, light: float, seed: int) -> Frame:
    """Less light, without a longer exposure: dark, and noisy as photons are counted."""
    if light == 1:
        return frame
    linear = (frame.image / 255.0) ** GAMMA * light
    counted = np.random.default_rng((seed, 3)).poisson(linear * WHITE_PHOTONS) / WHITE_PHOTONS
    image = np.rint(255 * np.minimum(counted, 1) ** (1 / GAMMA)).astype(np.uint8)
    return replace(frame, image=image)


def _with_sparse(frame: Frame, sparse: np.ndarray) -> Frame:
    return replace(frame, sparse=sparse)


AXES = {
    "points": Axis("points", "count", True, draw_points),
    "lines": Axis("LiDAR beams", "count", True, draw_lines),
    "corners": Axis("corners of the image", "count", True, draw_corners),
    "noise": Axis("noise of the points, % of their depth", "share", False, add_noise),
    "outliers": Axis("wrong points, %", "share", False, add_outliers),
    "offset": Axis("points off by, px", "count", False, shift),
    "blur": Axis("blur of the image, sigma px", "number", False, blur),
    "light": Axis("light, 1 = as it is", "number", False, dim),
}
