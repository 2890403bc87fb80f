"""The recent frames that a model may learn from, and the points that only judge it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import cv2
import numpy as np

from sdim_ros.core.types import BadInput, Frame

JUDGE_SHARE = 0.2         # of the points of every frame: they never train
LEAST_POINTS = 20
LEAST_CONTRAST = 10       # grey values; a lens cap and a broken camera have less
LEAST_CHANGE = 1.0        # mean grey values between frames; a robot that stands still has less
LARGEST_JUMP = 2.5        # of the median depth, up or down
LEAST_KEPT_POINTS = 0.25  # of the usual number
USUAL_OVER = 50           # frames that say what is usual; after as many refusals it is this
THUMBNAIL = (32, 24)


@dataclass(eq=False)
class MemoryFrame:
    """A frame with its points divided for good.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        train, judge: pixels, (N,) int64 into the flattened image; those that judge in random
            order, so that any first part of them is a fair sample.
        train_m, judge_m: (N,) float32 metres.
        error: of the judging points, by the version of the weights that was judged.
        lessons: how often it was learnt from.
    """

    image: np.ndarray
    train: np.ndarray
    train_m: np.ndarray
    judge: np.ndarray
    judge_m: np.ndarray
    error: dict[int, float] = field(default_factory=dict)
    lessons: int = 0

    @property
    def size_bytes(self) -> int:
        arrays = (self.image, self.train, self.train_m, self.judge, self.judge_m)
        return sum(array.nbytes for array in arrays)

    def sparse(self) -> np.ndarray:
        """(H, W) float32 metres: the points that may be learnt from, 0 = none."""
        depth = np.zeros(self.image.shape[:2], np.float32)
        depth.flat[self.train] = self.train_m
        return depth


def divided(frame: Frame, sparse: np.ndarray) -> MemoryFrame:
    """The frame with its points divided by a fixed hash of pixel and stamp.

    Args:
        sparse: (H, W) metres, cleaned, 0 = not measured.
    """
    at = np.flatnonzero(sparse)
    drawn = _hash(at, frame.stamp_ns)
    judges, train = at[np.argsort(drawn)][:np.count_nonzero(drawn < JUDGE_SHARE)], at[
        drawn >= JUDGE_SHARE]
    train_m, judge_m = (sparse.flat[pixels].astype(np.float32) for pixels in (train, judges))
    return MemoryFrame(frame.image, train, train_m, judges, judge_m)


def _hash(pixels: np.ndarray, stamp_ns: int) -> np.ndarray:
    """(N,) numbers from 0 to 1 that look random: the finaliser of MurmurHash3."""
    x = pixels.astype(np.uint64) ^ np.uint64(stamp_ns * 0x9E3779B97F4A7C15 % 2**64)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x ^= x >> np.uint64(33)
        x *= np.uint64(factor)
    return (x ^ (x >> np.uint64(33))) / 2.0**64


class FrameMemory:
    """Frames to learn from, newest last, in a bounded number of bytes.

    When it is full, a frame from its older half makes room, so that it keeps some of what was
    long ago beside what is now.

    Args:
        limit_bytes: of the frames kept; the newest is always kept.
        seed: of the choice of what makes room.
    """

    def __init__(self, limit_bytes: int, seed: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self.clear(seed)

    def clear(self, seed: int = 0) -> None:
        """Forget all frames, and what is usual."""
        self.frames: list[MemoryFrame] = []
        self._rng = np.random.default_rng(seed)
        self._usual: deque[tuple[float, int]] = deque(maxlen=USUAL_OVER)
        self._unusual: deque[tuple[float, int]] = deque(maxlen=USUAL_OVER)
        self._last: np.ndarray | None = None

    def check(self, frame: Frame, sparse: np.ndarray) -> None:
        """Refuse what nothing can be learnt from, or what should not be believed.

        Raises:
            BadInput: ``too_few_points``, ``no_contrast``, ``static``, ``scale`` or
                ``points_lost``.
        """
        points = int(np.count_nonzero(sparse))
        if points < LEAST_POINTS:
            raise BadInput("too_few_points", f"{points} points: expected at least {LEAST_POINTS}")
        small = cv2.resize(frame.image, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        if np.ptp(small) < LEAST_CONTRAST:
            raise BadInput("no_contrast", "the image shows nothing: is the lens covered?")
        if self._last is not None and np.abs(small - self._last).mean() < LEAST_CHANGE:
            raise BadInput("static", "the image has not changed: there is nothing new to learn")
        self._check_usual(float(np.median(sparse[sparse > 0])), points)
        self._last = small

    def _check_usual(self, median_m: float, points: int) -> None:
        """Compare with the frames before; where all have changed, that is how it is now."""
        if self._usual:
            usual_m, usual_points = np.median(np.array(self._usual), axis=0)
            jump = max(median_m / usual_m, usual_m / median_m)
            if jump > LARGEST_JUMP or points < LEAST_KEPT_POINTS * usual_points:
                self._unusual.append((median_m, points))
                if len(self._unusual) < USUAL_OVER:
                    if jump > LARGEST_JUMP:
                        raise BadInput("scale", f"median depth {median_m:.2f} m: expected about "
                                       f"{usual_m:.2f} m as before; has the unit changed?")
                    raise BadInput("points_lost", f"{points} points: expected about "
                                   f"{usual_points:.0f} as before; is the sensor covered?")
                self._usual.clear()
        self._unusual.clear()
        self._usual.append((median_m, points))

    def add(self, frame: MemoryFrame) -> None:
        """Keep a frame; others make room where it is needed."""
        self.frames.append(frame)
        while sum(f.size_bytes for f in self.frames) > self.limit_bytes and len(self.frames) > 1:
            del self.frames[int(self._rng.integers(max(1, len(self.frames) // 2)))]
