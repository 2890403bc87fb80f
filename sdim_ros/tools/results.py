"""What methods made of one frame, as numbers that can be written down and read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sdim_ros.core import metrics
from sdim_ros.core.types import DenseDepth, Stats

METHODS = (
    "sdim", "fill_only", "nearest", "linear", "edge_aware",
    "answers", "answers_linear", "answers_hint", "answers_guess", "sdim_blind", "sdim_unquantized",
    "sdim_random",
)
# Judged only where the model was asked, so never to be compared with the others.
AT_ASKED_PIXELS = (
    "answers", "answers_linear", "answers_hint", "answers_guess", "sdim_random", "answers_adapted")
# Where the bins of the error by range begin, metres; the last one has no end.
RANGE_EDGES_M = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 80.0)

# What one method leaves out more than another, where the two may be compared; a share.
SAME_MISSING = 0.001
# A point replaced by another within this share of its depth does no harm worth finding.
FAR = 0.1


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What the methods made of one frame.

    Attributes:
        errors: by method, then ``protocol`` and ``held_out``, then metric.
        ms: wall time by method, where a method was timed by itself.
        stats: how the model's map came to be, or None when only other methods ran.
        by_range: by method, ``sum_m`` of the held-out errors and ``pixels`` of each bin of
            `RANGE_EDGES_M`.
        axis, level: what made the input harder; empty = nothing.
        certainty: of `judge_certainty`; empty where only other methods ran.
        doubt: counts of `judge_doubts`, where points were replaced by noise.
    """

    name: str
    seed: int
    points: int
    errors: dict[str, dict[str, dict[str, float]]]
    ms: dict[str, float] = field(default_factory=dict)
    stats: Stats | None = None
    by_range: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    axis: str = ""
    level: str = ""
    certainty: dict[str, Any] = field(default_factory=dict)
    doubt: dict[str, int] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """Plain numbers, for JSON; `from_row` reads them."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> FrameResult:
        """The result that `as_row` wrote."""
        stats = row["stats"]
        return cls(**{**row, "stats": None if stats is None else Stats(**stats)})


def judge(
    prediction: np.ndarray, reference: np.ndarray, given: np.ndarray
) -> dict[str, dict[str, float]]:
    """Errors on all pixels with a reference, and on those of them that were not given.

    Args:
        prediction, reference, given: metres, one shape: (H, W), or (Q,) at asked pixels.

    Returns:
        ``protocol`` and ``held_out``, each left out where it has no pixel to judge.
    """
    masks = {
        "protocol": metrics.protocol_mask(reference),
        "held_out": metrics.held_out_mask(reference, given),
    }
    return {
        name: metrics.evaluate(prediction, reference, mask)
        for name, mask in masks.items() if mask.any()
    }


def judge_doubts(before: np.ndarray, given: np.ndarray,
                 doubted: tuple[np.ndarray, np.ndarray]) -> dict[str, int]:
    """How many of the points that were replaced were doubted.

    Args:
        before, given: (H, W) metres, the points as they were and as the method got them.
        doubted: rows and columns.

    Returns:
        Counts of points: ``replaced`` and, of these, those ``far`` from what they were;
        ``found`` and ``found_far`` of them that were doubted.
    """
    off = np.abs(given - before)
    replaced, far = off > 0, off > FAR * before
    return {"replaced": int(replaced.sum()), "found": int(replaced[doubted].sum()),
            "far": int(far.sum()), "found_far": int(far[doubted].sum())}


def judge_by_range(
    prediction: np.ndarray, reference: np.ndarray, given: np.ndarray
) -> dict[str, list[float]]:
    """Held-out errors by the reference's range, as `FrameResult.by_range` has them."""
    sums, pixels = metrics.error_by_range(
        prediction, reference, metrics.held_out_mask(reference, given), RANGE_EDGES_M)
    return {"sum_m": sums.tolist(), "pixels": pixels.tolist()}


def judge_certainty(dense: DenseDepth, reference: np.ndarray, given: np.ndarray
                    ) -> dict[str, Any]:
    """Whether confidence and interval of the model's map hold, where no point was given.

    Args:
        reference, given: (H, W) metres.

    Returns:
        What `metrics.certainty` tells; empty where no pixel can be judged.
    """
    judged = metrics.held_out_mask(reference, given) & metrics.protocol_mask(dense.depth)
    if dense.interval is None or not judged.any():
        return {}
    return metrics.certainty(
        dense.depth[judged], reference[judged], dense.confidence[judged], dense.interval[judged])


def with_fewest_holes(missing: Mapping[str, float | None]) -> list[str]:
    """The methods that leave out as little as any: what is left out is seldom the easiest.

    Args:
        missing: share of the judged pixels by method.
    """
    least = min((share or 0.0 for share in missing.values()), default=0.0)
    return [name for name, share in missing.items() if (share or 0.0) < least + SAME_MISSING]
