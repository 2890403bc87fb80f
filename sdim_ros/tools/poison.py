"""Spoilt input for a stretch of frames: does what learns from it stay sound?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sdim_ros.core.types import BadInput, Frame
from sdim_ros.tools import sampling

KINDS = ("outliers", "lens_cap", "frozen", "unit")
WRONG_POINTS = "30%"
FEET_PER_M = np.float32(1 / 0.3048)


@dataclass(frozen=True, slots=True)
class Poison:
    """Frames from ``start`` on, ``length`` of them, are spoilt.

    Attributes:
        kind: ``outliers``: 30 % of the points are wrong; ``lens_cap``: the image is black;
            ``frozen``: the image before the first of them stays; ``unit``: depth in feet.
    """

    kind: str
    start: int
    length: int

    def hits(self, number: int) -> bool:
        """Whether this frame is spoilt."""
        return self.start <= number < self.start + self.length

    def apply(self, number: int, frame: Frame, before: Frame | None, seed: int) -> Frame:
        """The frame as it arrives.

        Args:
            before: the last sound frame, or None.
        """
        if not self.hits(number):
            return frame
        if self.kind == "outliers":
            return replace(frame, sparse=sampling.add_outliers(frame.sparse, WRONG_POINTS, seed))
        if self.kind == "lens_cap":
            return replace(frame, image=np.zeros_like(frame.image))
        if self.kind == "unit":
            return replace(frame, sparse=frame.sparse * FEET_PER_M)
        return frame if before is None else replace(frame, image=before.image)


def parse_poison(text: str) -> Poison:
    """``KIND:START:LENGTH`` as the flag has it."""
    kind, _, place = text.partition(":")
    start, _, length = place.partition(":")
    if kind not in KINDS or not start.isdigit() or not length.isdigit() or int(length) < 1:
        raise BadInput("poison", f"--poison {text}: expected KIND:START:LENGTH, such as "
                       f"outliers:30:20, with a kind of {', '.join(KINDS)}")
    return Poison(kind, int(start), int(length))
