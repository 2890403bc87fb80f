"""How likely the completed depth is within 5 % of the truth, learnt on each frame's own points.

Measured points that were hidden tell where the map can be relied on: a logistic regression
from three signs of trouble to "was within 5 %", drawn to a default where points are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from sdim_ros.core import fill
from sdim_ros.core.blend import Blend, OutOfFold
from sdim_ros.core.types import Answers

TOLERANCE = 0.05
# Offset, then one weight per column of ``features``: rounded from a fit to pooled indoor and
# street frames. The offset is lower than that fit's 1.5: without evidence, rather too unsure.
DEFAULT_WEIGHTS = np.array([1.0, -0.5, -0.8, -1.0])
# Precision of the prior around the default; a few tens of points outweigh it.
PRIOR_PRECISION = 2.0


@dataclass(frozen=True, slots=True)
class ConfidenceModel:
    """Logistic regression; ``weights`` is (1 + F,), the offset first."""

    weights: np.ndarray

    def apply(self, signs: np.ndarray) -> np.ndarray:
        """Probability (...) float32 of signs (..., F); 0 where one of them is NaN."""
        weights = self.weights.astype(np.float32)
        return np.nan_to_num(expit(weights[0] + signs @ weights[1:]))


def fit(signs: np.ndarray, hits: np.ndarray) -> ConfidenceModel:
    """Maximum a posteriori weights with a Gaussian prior around the default.

    Args:
        signs: (N, F) float, of ``features``; N may be 0.
        hits: (N,) bool, whether the depth was within the tolerance.
    """
    inputs = np.column_stack([np.ones(len(signs)), signs]).astype(np.float64)
    outcome = np.where(hits, 1.0, -1.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = outcome * (inputs @ weights)
        away = weights - DEFAULT_WEIGHTS
        value = np.logaddexp(0, -margin).sum() + PRIOR_PRECISION / 2 * away @ away
        gradient = inputs.T @ (-outcome * expit(-margin)) + PRIOR_PRECISION * away
        return value, gradient

    return ConfidenceModel(minimize(loss, DEFAULT_WEIGHTS, jac=True, method="BFGS").x)


def features(
    depth: np.ndarray,
    relative_spread: np.ndarray,
    distance: np.ndarray,
    predictions: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Three signs of trouble, for a map (H, W) or for points (N,) alike.

    Args:
        depth: (...) float32, metres, the completed depth.
        relative_spread: (...) float32, ``Answers.spread`` over ``Answers.depth``.
        distance: (...) float32, of ``fill.distance_to_measured``.
        predictions: ``linear`` and ``guided``, (...) float32, metres.

    Returns:
        (..., 3) float32: how unsure the model is, how far the next measured point is, and how
        much the two fills and the completed depth disagree. The first and the last are 0 at
        the tolerance.
    """
    candidates = (depth, predictions["linear"], predictions["guided"])
    disagreement = np.maximum.reduce(candidates) - np.minimum.reduce(candidates)
    return np.stack([
        _log_tolerances(relative_spread),
        np.log1p(distance),
        _log_tolerances(disagreement / depth),
    ], axis=-1).astype(np.float32)


def _log_tolerances(relative: np.ndarray) -> np.ndarray:
    """Logarithm of relative deviations in units of the tolerance, from 1/50 to 50 of them."""
    return np.log(np.clip(relative / TOLERANCE, 0.02, 50))


def spread_map(answers: Answers | None, image: np.ndarray) -> np.ndarray:
    """Relative spread of the answers, carried to every pixel up to the edges of the image.

    Returns:
        (H, W) float32; the tolerance itself, which says nothing, where no answer is near.
    """
    if answers is None or len(answers) == 0:
        return np.full(image.shape[:2], TOLERANCE, np.float32)
    values, asked = np.zeros((2, *image.shape[:2]), np.float32)
    at = answers.rows, answers.cols
    values[at] = np.log(np.maximum(answers.spread / answers.depth, 1e-4))
    asked[at] = 1
    carried = np.exp(fill.spread_values(image, values, asked))
    return np.nan_to_num(carried, nan=TOLERANCE)


def of_map(
    sparse: np.ndarray,
    image: np.ndarray,
    depth: np.ndarray,
    maps: Mapping[str, np.ndarray],
    answers: Answers | None,
    hidden: OutOfFold,
    hidden_answers: Answers | None,
    blend: Blend,
) -> np.ndarray:
    """Confidence of a completed map.

    Args:
        sparse: (H, W) float32, metres, 0 = not measured.
        image: (H, W, 3) uint8, RGB.
        depth: (H, W) float32, metres, NaN = unknown; the completed map.
        maps: classical fills of this frame that exist already, by method.
        answers: the model on this frame; None = there is no model.
        hidden: the fills at the hidden points.
        hidden_answers: the model at the hidden points, in the same order.
        blend: what made the map out of these.

    Returns:
        (H, W) float32 from 0 to 1: 1 where the measured depth was kept, 0 where unknown or
        where nothing is measured at all.
    """
    model = fit(*hidden_outcomes(hidden, hidden_answers, blend))
    fills = {method: maps[method] if method in maps else fill.classical(method, sparse, image)
             for method in ("linear", "guided")}
    signs = features(depth, spread_map(answers, image), fill.distance_to_measured(sparse), fills)
    kept = (sparse > 0) & (depth == sparse)
    return np.where(kept, np.float32(1), model.apply(signs))


def hidden_outcomes(
    hidden: OutOfFold, answers: Answers | None, blend: Blend,
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 3) of the hidden points, and whether each was met within 5 %, (N,) bool."""
    if answers is None or len(answers) == 0:
        depth = blend.predict(hidden.predictions, None)
        spread = np.full(len(depth), TOLERANCE, np.float32)
    else:
        depth = blend.predict(hidden.predictions, answers.depth)
        spread = answers.spread / answers.depth
    hits = np.abs(depth - hidden.truth) <= TOLERANCE * hidden.truth
    return features(depth, spread, hidden.distance, hidden.predictions), hits
