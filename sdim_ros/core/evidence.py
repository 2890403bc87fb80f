"""Points where the error of a depth is known: of one frame, and of the last ones of a camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Of one frame so many points are kept, evenly over it: ten frames weigh more than enough.
POINTS_PER_FRAME = 40
# A frame that is older than this may show another place.
LONGEST_NS = 30 * 10**9


@dataclass(frozen=True, slots=True)
class Evidence:
    """Points whose error is known.

    Attributes:
        signs: (N, F) float, the signs of trouble.
        errors: (N,) float, logarithm of the relative error in tolerances.
    """

    signs: np.ndarray
    errors: np.ndarray

    def __len__(self) -> int:
        return len(self.errors)

    @classmethod
    def joined(cls, parts: list[Evidence]) -> Evidence:
        """All points of one or more parts, in their order."""
        return cls(np.concatenate([part.signs for part in parts]),
                   np.concatenate([part.errors for part in parts]))


class RecentErrors:
    """Points whose error is known, of the last frames.

    It belongs to one camera. A frame then depends on those before it, so whoever judges frames
    in any order goes without.
    """

    def __init__(self) -> None:
        self._frames: tuple[tuple[int, Evidence], ...] = ()

    def __len__(self) -> int:
        return len(self._frames)

    def before(self, stamp_ns: int) -> Evidence | None:
        """All points of earlier frames that are recent at that time; None where there are none.

        Time that went back, as when a recording starts again, empties it.
        """
        if any(kept > stamp_ns for kept, _ in self._frames):
            self.reset()
        recent = [points for kept, points in self._frames if 0 < stamp_ns - kept <= LONGEST_NS]
        return Evidence.joined(recent) if recent else None

    def add(self, stamp_ns: int, points: Evidence, frames: int) -> None:
        """Keep points of the frame at that time, and of the last ``frames`` frames in all.

        A frame that is computed once more, after memory ran out, takes its own place.
        """
        if len(points):
            at = np.linspace(0, len(points) - 1, min(POINTS_PER_FRAME, len(points))).astype(int)
            kept = Evidence(points.signs[at], points.errors[at])
            # Replaced in one step: an abandoned thread may still be at work beside a new one.
            others = (frame for frame in self._frames if frame[0] != stamp_ns)
            self._frames = (*others, (stamp_ns, kept))
        self._frames = self._frames[-frames:]

    def exchange(self, stamp_ns: int, points: Evidence, frames: int) -> Evidence | None:
        """``before`` that time, and then ``add`` what this frame told; nothing with 0 frames."""
        if frames == 0:
            self.reset()
            return None
        earlier = self.before(stamp_ns)
        self.add(stamp_ns, points, frames)
        return earlier

    def reset(self) -> None:
        """Forget everything, as for another camera."""
        self._frames = ()
