"""What crosses a border: camera, frame, answers, dense depth, and the errors of the package."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

GREY = 127  # of an image that tells nothing: what the model sees when it is judged without one


class SdimError(Exception):
    """Base of every error that this package raises on purpose."""


class BadInput(SdimError):
    """One input cannot be used; the next one may be.

    Args:
        reason: a short slug to count by, e.g. ``"encoding"``.
        message: one sentence with the value seen, the value expected and the remedy.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BadSetting(SdimError):
    """One or more settings are out of range, of the wrong type or unknown."""


class ModelUnavailable(SdimError):
    """The checkpoint cannot be loaded; the message names the path and the reason."""


class ModelFailed(SdimError):
    """The model ran but what it gave cannot be used (not finite, out of memory)."""


class OutOfMemory(ModelFailed):
    """Not enough memory even for the smallest passes."""


class ModelLost(SdimError):
    """The accelerator is gone: no frame can work any more in this process.

    No ``ModelFailed``: who goes on with the next frame after that must not after this.
    """


@dataclass(frozen=True, slots=True)
class Camera:
    """Pinhole intrinsics of a rectified image, in pixels.

    Pixel centres lie at integer coordinates (the ROS and OpenCV convention).
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        values = (self.fx, self.fy, self.cx, self.cy)
        if not np.isfinite(values).all() or self.fx <= 0 or self.fy <= 0:
            raise BadInput(
                "uncalibrated",
                f"intrinsics fx={self.fx} fy={self.fy} cx={self.cx} cy={self.cy} are not those of "
                "a calibrated camera: expected finite values with fx, fy > 0; calibrate it first",
            )
        if self.width <= 0 or self.height <= 0:
            raise BadInput(
                "camera_size",
                f"camera size {self.width}x{self.height}: expected a positive width and height",
            )

    def matrix(self) -> np.ndarray:
        """The intrinsic matrix K, (3, 3) float64."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])


@dataclass(frozen=True, slots=True)
class Frame:
    """One moment: an image and what a sensor measured in it.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        sparse: (H, W) float32, planar depth (z) in metres; 0, negative, NaN and inf = unknown.
        camera: intrinsics of the image, where known; only point clouds need them.
        stamp_ns: time of the image in nanoseconds, also the seed of every random draw.
        name: for reports.
    """

    image: np.ndarray
    sparse: np.ndarray
    camera: Camera | None = None
    stamp_ns: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise BadInput(
                "image_shape",
                f"image of shape {self.image.shape} and type {self.image.dtype}: "
                "expected (H, W, 3) uint8 RGB; convert it to three channels of 0 to 255",
            )
        if self.sparse.shape != self.image.shape[:2]:
            raise BadInput(
                "size_mismatch",
                f"sparse depth of shape {self.sparse.shape} for an image of "
                f"{self.image.shape[:2]}: expected the same height and width; register the depth "
                "to the image, or publish it as points",
            )


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model said, pixel by pixel, before any fill.

    Attributes:
        rows, cols: (Q,) int64, the pixels asked.
        depth: (Q,) float32, metres.
        spread: (Q,) float32, metres: half width of the interval that holds about 80 % of the
            model's own probability; large = unsure.
    """

    rows: np.ndarray
    cols: np.ndarray
    depth: np.ndarray
    spread: np.ndarray

    def __len__(self) -> int:
        return len(self.depth)


@dataclass(frozen=True, slots=True)
class Stats:
    """How one dense depth map came to be.

    Attributes:
        points: measured pixels used.
        cleaned: pixels removed at the door, by reason (``not_finite``, ``negative``, ``range``,
            and ``doubted`` where any were rejected).
        doubted: measured pixels that their neighbours and the model contradict.
        queries, calibration_queries: pixels asked of the model, and of those the ones asked to
            calibrate the fill.
        first_queries: answers of the first round, which come before the others: spread evenly
            over the image they are a fair sample of it, as those asked where it is hard are not.
        fill: name and weight of each classical fill, e.g. ``"0.7 edge_aware + 0.3 linear"``.
        trust: weight of the model's answers in the map, 0 = the fill alone.
        out_of_range: measured depths that the checkpoint's numbers cannot spell.
        gpu_mb: most memory that PyTorch held on the GPU meanwhile, weights included; 0 = no GPU.
        ms: milliseconds by stage.
    """

    points: int = 0
    cleaned: dict[str, int] = field(default_factory=dict)
    doubted: int = 0
    queries: int = 0
    calibration_queries: int = 0
    first_queries: int = 0
    fill: str = ""
    trust: float = 0.0
    out_of_range: int = 0
    gpu_mb: float = 0.0
    ms: dict[str, float] = field(default_factory=dict)

    @property
    def doubted_share(self) -> float:
        """Of the measured pixels that could have been used, 0 to 1."""
        return self.doubted / max(self.points + self.cleaned.get("doubted", 0), 1)


@dataclass(frozen=True, slots=True)
class DenseDepth:
    """The completed map.

    Attributes:
        depth: (H, W) float32, metres, NaN = unknown.
        confidence: (H, W) float32, 0-1: the probability that the depth is within 5 % of the
            truth; 1 where measured and kept, 0 where unknown.
        fill_only: (H, W) float32, the same fill without the model; NaN = unknown.
        answers: what the model said at the pixels asked.
        stats: counts and timings.
        doubted: rows and columns of the measured points that their neighbours and the model
            contradict. Where they are rejected the map has other depths there.
        interval: (H, W) float32, metres: the truth is within so much of the depth with 80 %; 0
            where measured and kept, NaN where unknown, inf where nothing at all is measured;
            None = it was not worked out.
    """

    depth: np.ndarray
    confidence: np.ndarray
    fill_only: np.ndarray
    answers: Answers
    stats: Stats
    doubted: tuple[np.ndarray, np.ndarray] = field(
        default_factory=lambda: (np.zeros(0, np.int64), np.zeros(0, np.int64)))
    interval: np.ndarray | None = None

    def confident(self, minimum: float) -> np.ndarray:
        """The depth, unknown where the confidence is under ``minimum``; (H, W) float32."""
        if minimum <= 0:
            return self.depth
        return np.where(self.confidence >= minimum, self.depth, np.float32(np.nan))


@dataclass(slots=True)
class AdaptationStatus:
    """How learning goes.

    Attributes:
        state: ``learning``, or why it paused.
        steps: optimiser steps that count: those rolled back do not.
        error_before, error_now: error as a share of the depth, at the judging points of the last
            judgement, of the weights that were loaded and of those in use; NaN before the first.
        rollbacks: judgements after which weights were thrown away.
        dropped_steps: steps whose loss or gradient was not finite.
        frames: frames kept to learn from.
        refused: frames that were not learnt from, by reason.
    """

    state: str = "learning"
    steps: int = 0
    error_before: float = math.nan
    error_now: float = math.nan
    rollbacks: int = 0
    dropped_steps: int = 0
    frames: int = 0
    refused: Counter[str] = field(default_factory=Counter)
