"""How sure the completed depth is, learnt on each frame's own points.

Measured points that were hidden tell where the map can be relied on: how large errors are for
three signs of trouble. That gives the probability that a depth is within 5 % of the truth, and an
interval that holds the truth with 80 %.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sdim_ros.core import error_model, fill
from sdim_ros.core.blend import Blend, OutOfFold
from sdim_ros.core.error_model import TOLERANCE
from sdim_ros.core.evidence import Evidence
from sdim_ros.core.types import Answers

# Where these differ from each other and from the map, it is in doubt.
FILLS = ("linear", "guided")
# Pixels that stand for all where only their distribution counts.
SAMPLED = 4000


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
        predictions: those of ``FILLS``, (...) float32, metres.

    Returns:
        (3, ...) float32: how unsure the model is, how far the next measured point is, and how
        much the two fills and the completed depth disagree. The first and the last are 0 at
        the tolerance.
    """
    linear, guided = (predictions[method] for method in FILLS)
    largest = np.maximum(np.maximum(linear, guided), depth)
    smallest = np.minimum(np.minimum(linear, guided), depth)
    return np.stack([
        _log_tolerances(relative_spread),
        np.log(1 + distance),
        _log_tolerances((largest - smallest) / depth),
    ]).astype(np.float32)


def _log_tolerances(relative: np.ndarray) -> np.ndarray:
    """Logarithm of relative deviations in units of the tolerance, from 1/50 to 50 of them."""
    return np.log(np.clip(relative / TOLERANCE, 0.02, 50))


def spread_map(answers: Answers, image: np.ndarray) -> np.ndarray:
    """Relative spread of the answers, carried to every pixel up to the edges of the image.

    Returns:
        (H, W) float32; the tolerance itself, which says nothing, where no answer is near.
    """
    if len(answers) == 0:
        return np.full(image.shape[:2], TOLERANCE, np.float32)
    values, asked = np.zeros((2, *image.shape[:2]), np.float32)
    at = answers.rows, answers.cols
    values[at] = np.log(np.maximum(answers.spread / answers.depth, 1e-4))
    asked[at] = 1
    carried = np.exp(fill.spread_values(image, values, asked))
    return np.nan_to_num(carried, nan=TOLERANCE)


def of_map(
    sparse: np.ndarray,
    depth: np.ndarray,
    maps: Mapping[str, np.ndarray],
    spread: np.ndarray,
    known: Evidence,
    recent: Evidence | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and interval of a completed map.

    Args:
        sparse: (H, W) float32, metres, 0 = not measured.
        depth: (H, W) float32, metres, NaN = unknown; the completed map.
        maps: classical fills of this frame by method, those of ``FILLS`` among them.
        spread: (H, W) float32, of ``spread_map``.
        known: how wrong the map would be at hidden points of this frame.
        recent: the same of other frames, if any.

    Returns:
        Confidence, (H, W) float32 from 0 to 1: 1 where the measured depth was kept, 0 where
        unknown or where nothing is measured at all. And the half width of the 80 % interval,
        (H, W) float32 in metres: 0 where the measured depth was kept, NaN where unknown, inf
        where nothing is measured at all.
    """
    signs = features(depth, spread, fill.distance_to_measured(sparse), maps)
    kept = (sparse > 0) & (depth == sparse)
    model = error_model.fit(known, _some_of(signs, ~kept), recent)
    trouble = model.trouble(signs)
    if not (sparse > 0).any():
        trouble = np.where(np.isnan(depth), depth, np.float32(np.inf))
    return (np.where(kept, np.float32(1), model.confidence(trouble)),
            np.where(kept, np.float32(0), depth * model.half_width(trouble)))


def _some_of(signs: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Signs (3, H, W) of at most ``SAMPLED`` of the pixels, evenly over them, (M, 3) float64."""
    at = np.flatnonzero(where)
    chosen = signs.reshape(len(signs), -1)[:, at[::-(-len(at) // SAMPLED) or 1]].T
    return chosen[np.isfinite(chosen).all(axis=1)].astype(np.float64)


def known_errors(hidden: OutOfFold, answers: Answers, blend: Blend) -> Evidence:
    """How wrong the map would be at the hidden points.

    Args:
        hidden: the fills at the hidden points.
        answers: the model at the hidden points, in the same order.
        blend: what makes the map out of these.
    """
    depth = blend.predict(hidden.predictions, answers.depth)
    signs = features(depth, answers.spread / answers.depth, hidden.distance, hidden.predictions).T
    errors = _log_tolerances(np.abs(depth - hidden.truth) / depth)
    known = np.isfinite(errors) & np.isfinite(signs).all(axis=1)
    return Evidence(signs[known].astype(np.float64), errors[known].astype(np.float64))
