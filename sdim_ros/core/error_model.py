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
# Precision of the prior around the default. A few tens of points outweigh it in the offset, but
# not in how much each sign counts, which differs less from scene to scene.
PRIOR_PRECISION = np.array([5.0, 30.0, 30.0, 30.0, 30.0])
# What the default law says weighs as much as so many points where the interval is set right.
PRIOR_POINTS = 30
# Points of other frames weigh as much as so many of the frame itself, at most.
POOLED_POINTS = 100
FOLDS = 5
# Ranges of trouble in which known points and missing pixels are counted, and how fast points
# that are unlike the pixels lose their weight. On rendered scenes this brought intervals from
# LiDAR lines from 75 to 79 % of the truths, and from semi-dense stereo from 66 to 78 %.
LEVELS, CAUTION = 5, 6
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


def fit(own: Evidence, missing: np.ndarray, pooled: Evidence | None = None) -> ErrorModel:
    """The law that fits best, drawn to the default where points tell little.

    Args:
        own: of the frame itself; neighbours on a scan line follow each other.
        missing: (M, F) signs of pixels whose error is asked for; M may be 0.
        pooled: of other frames. It is left out as a whole where it foretells the errors of the
            frame itself worse than the default does, as after a change of the scene.
    """
    parts = [(own, _weights(own.signs, missing))]
    if pooled is not None and len(pooled):
        weights = _weights(pooled.signs, missing)
        weights *= min(1.0, POOLED_POINTS / max(weights.sum(), 1e-9))
        law = _law(_columns(pooled), weights)
        if _cost(law, _columns(own), parts[0][1]) <= _cost(DEFAULT, _columns(own), parts[0][1]):
            parts.append((pooled, weights))
    columns = np.concatenate([_columns(points) for points, _ in parts])
    weights = np.concatenate([weights for _, weights in parts])
    fold = np.concatenate(
        [np.arange(len(points)) * FOLDS // max(len(points), 1) for points, _ in parts])
    law = _law(columns, weights)
    scores = np.zeros(len(columns))
    for number in np.unique(fold):
        out = fold == number
        scores[out] = columns[out] @ _law(columns[~out], weights[~out], law)
    return ErrorModel(law[:-1], float(law[-1]), _reach(scores, weights))


def _weights(known: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """How much each known point tells about the missing pixels, (N,), 1 at most in the mean.

    A sensor measures where it can; the pixels that it leaves out may be harder. Points like them
    count more, as in conformal prediction under covariate shift (Tibshirani et al., NeurIPS
    2019). The fewer such points there are, the less all of them count against the default.

    Args:
        known, missing: (N, F) and (M, F) signs.
    """
    if len(known) == 0 or len(missing) == 0:
        return np.ones(len(known))
    trouble, wanted = (signs @ DEFAULT[1:-1] for signs in (known, missing))
    edges = np.quantile(wanted, np.arange(1, LEVELS) / LEVELS)
    level, levels = np.searchsorted(edges, trouble), np.searchsorted(edges, wanted)
    has = (np.bincount(level, minlength=LEVELS) + 1) / (len(known) + LEVELS)
    should_have = np.bincount(levels, minlength=LEVELS) / len(missing)
    ratio = should_have / has
    # How unlike the two are distributed (chi-squared), beyond what chance does to few points.
    unlike = max(should_have @ ratio - 1 - (LEVELS - 1) / len(known), 0)
    alike = 1 / (1 + unlike)
    return ratio[level] / max(ratio[level].mean(), 1e-9) * alike ** CAUTION


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
    size = np.abs(columns @ law)
    return float(weights @ (size + 2 * np.log1p(np.exp(-size)))
                 - weights.sum() * np.log(law[-1]))


def _law(columns: np.ndarray, weights: np.ndarray, start: np.ndarray = DEFAULT) -> np.ndarray:
    """Maximum a posteriori law by Newton's method: weights and sharpness, (2 + F,).

    It is the same from every start, but near it sooner.
    """

    def total(law: np.ndarray) -> float:
        away = law - DEFAULT
        return _cost(law, columns, weights) + PRIOR_PRECISION / 2 @ np.square(away)

    law, cost, points = start, total(start), weights.sum()
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
