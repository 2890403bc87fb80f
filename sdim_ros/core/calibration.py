"""What a CameraInfo says of an image: intrinsics, region, binning and distortion.

A message is anything with the fields of ``sensor_msgs/CameraInfo``; those of ROS 1 have capital
letters. K, D, R and P describe the full image of the calibration, and region and binning say
which of its pixels arrive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from sdim_ros.core.projection import project_points
from sdim_ros.core.types import BadInput, Camera

PINHOLE_MODELS = ("plumb_bob", "rational_polynomial")
FISHEYE_MODELS = ("equidistant", "fisheye")
# When the inverse of a lens is found: iterations, and the error that ends them, pixels.
CONVERGED = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-6)


def read_camera(info: Any, width: int, height: int) -> Camera:
    """Intrinsics of the rectified image: from P where it is filled, else from K.

    Args:
        width, height: size of the image that arrived, pixels.

    Raises:
        BadInput: ``uncalibrated``, ``camera_size`` or ``right_camera``.
    """
    k, p = _matrix(info, "k"), _matrix(info, "p")
    window = _Window.of(info, width, height)
    if not k.any():
        raise BadInput(
            "uncalibrated", "camera_info with K all zero: expected the matrix of a calibrated "
            "camera; calibrate it and have the driver publish the result")
    if p[:, 3].any():
        raise BadInput(
            "right_camera", f"camera_info of the second camera of a stereo pair (its P shifts by "
            f"{p[:, 3].tolist()}): expected the first one, whose frame both have; use the image "
            "and camera_info of the left camera")
    return window.camera(p[:, :3] if p[0, 0] > 0 else k)


def is_rescaled(info: Any, width: int, height: int) -> bool:
    """Whether the image has another size than its CameraInfo, binning and region say.

    Raises:
        BadInput: ``camera_size``.
    """
    return _Window.of(info, width, height).rescaled


def _matrix(info: Any, name: str) -> np.ndarray:
    """``k``, ``r`` (3, 3) or ``p`` (3, 4) of a CameraInfo, float64."""
    return numbers(info, name).reshape(3, -1)


def numbers(info: Any, name: str) -> np.ndarray:
    """``d``, ``k``, ``r`` or ``p`` of a CameraInfo, (N,) float64; ROS 1 has them in capitals."""
    return np.asarray(getattr(info, name if hasattr(info, name) else name.upper()), np.float64)


def is_distorted(info: Any) -> bool:
    """Whether the lens bends straight lines, so that a raw image is no pinhole image."""
    bent = numbers(info, "d")
    return bool(bent.any()) or (info.distortion_model in FISHEYE_MODELS and len(bent) == 4)


class Rectifier:
    """Makes a raw image and the depth registered to it those of an ideal pinhole camera.

    Args:
        info: CameraInfo of the raw image.
        width, height: size of the image that arrived, pixels.

    Attributes:
        camera: intrinsics of the rectified image.

    Raises:
        BadInput: as of ``read_camera``, or ``distortion_model``.
    """

    def __init__(self, info: Any, width: int, height: int) -> None:
        self.camera = read_camera(info, width, height)
        raw = _Window.of(info, width, height).camera(_matrix(info, "k"))
        turn = _matrix(info, "r")
        self._turn = turn if turn.any() else np.eye(3)  # never filled in: not turned
        bent = numbers(info, "d")
        self._lens = _lens(info.distortion_model, bent)
        self._raw, self._bent = raw.matrix(), bent if bent.any() else np.zeros(4)
        self._maps = self._lens.initUndistortRectifyMap(
            self._raw, self._bent, self._turn, self.camera.matrix(), (width, height),
            cv2.CV_16SC2)

    def image(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 rectified, black where the raw image shows nothing."""
        return cv2.remap(image, *self._maps, cv2.INTER_LINEAR)

    def sparse(self, sparse: np.ndarray) -> np.ndarray:
        """(H, W) float32 metres, 0 = unknown: every point moved to its place, none mixed."""
        measured = np.isfinite(sparse) & (sparse > 0)
        rows, cols = np.nonzero(measured)
        if not len(rows):
            return np.zeros_like(sparse)
        pixels = np.stack([cols, rows], axis=1).astype(np.float64)[:, None]
        # Where a lens bends much, the usual number of iterations is several pixels short.
        x, y = self._lens.undistortPoints(
            pixels, self._raw, self._bent, criteria=CONVERGED)[:, 0].T
        points = sparse[measured, None] * np.stack([x, y, np.ones_like(x)], axis=1)
        return project_points(points @ self._turn.T, self.camera, None, 0.0, np.inf)


@dataclass(frozen=True, slots=True)
class _Window:
    """Which pixels of the calibrated image an image holds.

    Attributes:
        left, top: its first pixel.
        step_x, step_y: pixels of the calibration for one of the image.
        width, height: size of the image.
        rescaled: the driver scaled it without a word.
    """

    left: int
    top: int
    step_x: float
    step_y: float
    width: int
    height: int
    rescaled: bool = False

    @classmethod
    def of(cls, info: Any, width: int, height: int) -> _Window:
        """The window of a CameraInfo, for an image of this size.

        Raises:
            BadInput: ``camera_size``.
        """
        roi = info.roi
        full = (roi.width or info.width, roi.height or info.height)
        binning = (max(info.binning_x, 1), max(info.binning_y, 1))
        if (full[0] // binning[0], full[1] // binning[1]) == (width, height):
            return cls(roi.x_offset, roi.y_offset, *binning, width, height)
        # Drivers that scale the image and forget the binning: by a whole number, up or down.
        ratio = full[0] / width
        if binning == (1, 1) and full[1] / height == ratio > 0 and (
                ratio.is_integer() or (1 / ratio).is_integer()):
            return cls(roi.x_offset, roi.y_offset, ratio, ratio, width, height, rescaled=True)
        seen = f"{info.width}x{info.height}"
        if roi.width or max(binning) > 1:
            seen += f" (region {full[0]}x{full[1]}, binning {binning[0]}x{binning[1]})"
        raise BadInput(
            "camera_size", f"camera_info of {seen} for an image of {width}x{height}: expected "
            "the same size or a whole multiple; publish the camera_info of this image")

    def camera(self, full: np.ndarray) -> Camera:
        """Intrinsics of the window's pixels, from the (3, 3) matrix of the full image."""
        # Pixel centres are whole numbers, so a pixel's edge lies half a pixel before it.
        return Camera(
            fx=full[0, 0] / self.step_x, fy=full[1, 1] / self.step_y,
            cx=(full[0, 2] - self.left + 0.5) / self.step_x - 0.5,
            cy=(full[1, 2] - self.top + 0.5) / self.step_y - 0.5,
            width=self.width, height=self.height)


def _lens(model: str, distortion: np.ndarray) -> Any:
    """The module of OpenCV that knows this lens.

    Raises:
        BadInput: ``distortion_model``.
    """
    if model in FISHEYE_MODELS and len(distortion) == 4:  # all 0: it bends as the angle does
        return cv2.fisheye
    if not distortion.any() or (model in PINHOLE_MODELS and len(distortion) in (4, 5, 8, 12, 14)):
        return cv2
    raise BadInput(
        "distortion_model", f"distortion model '{model}' with {len(distortion)} numbers: expected "
        f"{', '.join(PINHOLE_MODELS)} (4, 5, 8, 12 or 14 numbers) or {', '.join(FISHEYE_MODELS)} "
        "(4); rectify the image before, or calibrate with one of these")
