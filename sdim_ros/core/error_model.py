"""How wrong a completed depth is likely to be, learnt from points where its error is known.

The relative error is log-logistic: its logarithm grows with the signs of trouble, and scatters by
the same amount everywhere. One such law gives both the probability that a depth is within 5 % of
the truth and the interval that holds the truth with 80 %. The interval is then set right by
split conformal prediction (Vovk et al., "Algorithmic Learning in a Random World", 2005), with
cross-validation in place of a split: what counts is where errors really fell, not the law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from sdim_ros.core.evidence import Evidence

TOLERANCE = 0.05
# Share of the truths that the interval is to hold.
COVERAGE = 0.8
# Offset, one weight for each sign, and how sharply errors gather. A fit to rendered frames with
# 30 to 1,500 points, but for the offset, which is higher: without evidence, rather too unsure.
DEFAULT = np.array([-2.1, 1.2, 1.4, 0.5, 1.4])
# Precision of the prior around the default. A few tens of points outweigh it in the offset; how
# much each sign counts is nearly the same in all scenes, and seldom worth following.
PRIOR_PRECISION = np.array([5.0, 100.0, 100.0, 100.0, 100.0])
# What the default law says weighs as much as so many points where the interval is set right.
PRIOR_POINTS = 20
# Points of other frames weigh as much as so many of the frame itself, at most.
POOLED_POINTS = 100
FOLDS = 5
STEPS = 30


@dataclass(frozen=True, slots=True)
class ErrorModel:
    """The law of the error, and how far the interval must reach.

    Attributes:
        weights: (1 + F,), the offset and one for each sign; what they add up to is the trouble.
        sharpness: how closely errors gather around what the trouble says.
        reach: of a share ``COVERAGE`` of the points, ``sharpness`` x error - trouble is smaller.
    """

    weights: np.ndarray
    sharpness: float
    reach: float

    def trouble(self, signs: np.ndarray) -> np.ndarray:
        """(...) float32 of signs (F, ...)."""
        weights = self.weights.astype(np.float32)
        total = weights[1] * signs[0] + weights[0]
        for weight, sign in zip(weights[2:], signs[1:], strict=True):
            total += weight * sign
        return total

    def confidence(self, trouble: np.ndarray) -> np.ndarray:
        """Probability that the error is within the tolerance; 0 where the trouble is NaN."""
        with np.errstate(over="ignore"):
            return np.nan_to_num(1 / (1 + np.exp(trouble)))

    def half_width(self, trouble: np.ndarray) -> np.ndarray:
        """Relative error that is exceeded by 1 - ``COVERAGE`` of the truths."""
        with np.errstate(over="ignore"):
            return np.float32(TOLERANCE) * np.exp(
                (trouble + np.float32(self.reach)) / np.float32(self.sharpness))


def fit(own: Evidence, pooled: Evidence | None = None) -> ErrorModel:
    """The law that fits best, drawn to the default where points are few.

    Args:
        own: of the frame itself; neighbours on a scan line follow each other.
        pooled: of other frames. It is left out as a whole where it foretells the errors of the
            frame itself worse than the default does, as after a change of the scene.
    """
    parts = [(own, 1.0)]
    if pooled is not None and len(pooled):
        weight = min(1.0, POOLED_POINTS / len(pooled))
        law = _law(_columns(pooled), np.full(len(pooled), weight))
        mine = _columns(own)
        if _cost(law, mine, np.ones(len(own))) <= _cost(DEFAULT, mine, np.ones(len(own))):
            parts.append((pooled, weight))
    columns = np.concatenate([_columns(part) for part, _ in parts])
    weights = np.concatenate([np.full(len(part), weight) for part, weight in parts])
    fold = np.concatenate([np.arange(len(part)) * FOLDS // max(len(part), 1) for part, _ in parts])
    law = _law(columns, weights)
    scores = np.zeros(len(columns))
    for number in np.unique(fold):
        out = fold == number
        scores[out] = columns[out] @ _law(columns[~out], weights[~out])
    return ErrorModel(law[:-1], float(law[-1]), _reach(scores, weights))


def _reach(scores: np.ndarray, weights: np.ndarray) -> float:
    """What a share ``COVERAGE`` of the scores stays under, those of the default law included."""
    expected = logit((np.arange(PRIOR_POINTS) + 0.5) / PRIOR_POINTS)
    scores = np.concatenate([scores, expected])
    order = np.argsort(scores)
    reached = np.cumsum(np.concatenate([weights, np.ones(PRIOR_POINTS)])[order])
    return float(scores[order][np.searchsorted(reached, COVERAGE * reached[-1])])


def _columns(points: Evidence) -> np.ndarray:
    """(N, 2 + F), to be multiplied with a law: the score of each point, see ``ErrorModel``."""
    return np.column_stack([-np.ones(len(points)), -points.signs, points.errors])


def _cost(law: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> float:
    """Negative logarithm of the likelihood; convex in the law."""
    scores = columns @ law
    return float(weights @ (2 * np.logaddexp(0, scores) - scores)
                 - weights.sum() * np.log(law[-1]))


def _law(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Maximum a posteriori law by Newton's method: weights and sharpness, (2 + F,)."""

    def total(law: np.ndarray) -> float:
        away = law - DEFAULT
        return _cost(law, columns, weights) + PRIOR_PRECISION / 2 @ np.square(away)

    law, cost, points = DEFAULT, total(DEFAULT), weights.sum()
    for _ in range(STEPS):
        under = expit(columns @ law)
        slope = columns.T @ (weights * (2 * under - 1)) + PRIOR_PRECISION * (law - DEFAULT)
        slope[-1] -= points / law[-1]
        bend = (columns.T * (2 * weights * under * (1 - under))) @ columns
        bend[np.diag_indices_from(bend)] += PRIOR_PRECISION
        bend[-1, -1] += points / law[-1] ** 2
        step = np.linalg.solve(bend, slope)
        # The sharpness stays positive, and the cost never grows.
        while law[-1] - step[-1] <= 0 or (lower := total(law - step)) > cost + 1e-9:
            step = step / 2
            if np.abs(step).max() < 1e-9:
                return law
        law, saved, cost = law - step, cost - lower, lower
        if saved < 1e-6:
            break
    return law
