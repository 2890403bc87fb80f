"""How far each fill, and the model on top of them, can be trusted on this very frame.

Measured points are hidden, predicted from the others, and the mixture that predicts them best
completes the frame. ``sparse``, ``image`` and dense maps are as in ``fill``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from sdim_ros.core import fill
from sdim_ros.core.types import Answers

# Without points to calibrate on: linear and edge_aware err in different places, and their mean
# was better than either on indoor frames with 3 to 50 points.
DEFAULT_WEIGHTS = {"linear": 0.5, "edge_aware": 0.5}
MIN_HIDDEN = 10
# Extra cost of leaving the default, over the number of hidden points. Set on indoor frames with
# 10 to 100 points: 4 keeps the harm of a model that knows nothing near 2 %.
WEIGHTS_PRIOR, TRUST_PRIOR = 10, 4


def hidden_folds(
    sparse: np.ndarray, folds: int, limit: int, seed: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Disjoint sets of measured pixels to hide, one set at a time.

    A hidden point should lie as far from the visible ones as a missing pixel does. Single
    points of a random scatter do. On a scan line the next point is far nearer than the next
    line, so there pieces as long as the gap between two lines are hidden.

    Args:
        folds: a set has at most 1 / folds of the measured pixels, or one pixel.
        limit: most pixels in all sets together.
        seed: equal seeds give equal sets.

    Returns:
        Rows and columns of each set; no set when fewer than 2 pixels are measured.
    """
    points = np.argwhere(sparse > 0)
    total = min(limit, len(points))
    if len(points) < 2 or total == 0:
        return []
    rng = np.random.default_rng(seed)
    width = _piece_width(points)
    pieces = points[:, 0] * sparse.shape[1] + (points[:, 1] + rng.integers(width)) // width
    _, piece = np.unique(pieces, return_inverse=True)
    order = np.argsort(rng.permutation(piece.max() + 1)[piece], kind="stable")
    # As few sets as the limit allows: each one costs a fill.
    count = -(-total // max(len(points) // folds, 1))
    return [(part[:, 0], part[:, 1]) for part in np.array_split(points[order[:total]], count)]


def _piece_width(points: np.ndarray) -> int:
    """Pixels along the row to hide together, for points (N, 2) of row and column, N >= 2.

    1 = single points; on scan lines the gap between two lines.
    """
    distance, index = cKDTree(points).query(points, k=[2])
    step = np.abs(points[index[:, 0]] - points)
    # Of a random scatter 30 % have their nearest neighbour this close to their own row.
    if len(points) < 50 or np.mean(step[:, 1] > 2 * step[:, 0]) < 0.8:
        return 1
    height, width = np.ptp(points, axis=0) + 1
    area_per_point = height * width / len(points)
    return max(round(area_per_point / np.median(distance)), 1)


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What the classical fills say about measured pixels that were hidden from them.

    Attributes:
        rows, cols: (N,) int, the hidden pixels, fold after fold.
        truth: (N,) float32, metres, what was measured there.
        predictions: method -> (N,) float32, metres.
        distance: (N,) float32, ``distance_to_measured`` with the fold hidden.
    """

    rows: np.ndarray
    cols: np.ndarray
    truth: np.ndarray
    predictions: dict[str, np.ndarray]
    distance: np.ndarray


def out_of_fold(
    sparse: np.ndarray, image: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]],
) -> OutOfFold:
    """Predict each fold of ``hidden_folds`` from the measured pixels outside of it."""
    rows = np.concatenate([np.zeros(0, int), *(rows for rows, _ in folds)])
    cols = np.concatenate([np.zeros(0, int), *(cols for _, cols in folds)])
    parts: dict[str, list[np.ndarray]] = {m: [] for m in (*fill.CLASSICAL, "distance")}
    for at in folds:
        visible = sparse.copy()
        visible[at] = 0
        parts["nearest"].append(fill.nearest(visible)[at])
        parts["linear"].append(fill.linear_at(visible, *at))
        parts["edge_aware"].append(fill.edge_aware(visible, image)[at])
        parts["distance"].append(fill.distance_to_measured(visible)[at])
    joined = {m: np.concatenate([np.zeros(0, np.float32), *part]) for m, part in parts.items()}
    return OutOfFold(rows, cols, sparse[rows, cols], distance=joined.pop("distance"),
                     predictions=joined)


@dataclass(frozen=True, slots=True)
class Blend:
    """How much of each classical fill, and of the model on top of them.

    Attributes:
        weights: method -> share of the fill, non-negative, together 1.
        trust: 0 = the fill alone, 1 = the model's answers replace it.
    """

    weights: dict[str, float]
    trust: float

    def describe(self) -> str:
        """For people: ``"0.7 edge_aware + 0.3 linear"``."""
        shares = sorted(self.weights.items(), key=lambda share: -share[1])
        return " + ".join(f"{weight:.1f} {method}" for method, weight in shares if weight > 0)

    def fill(self, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
        """The weighted sum of the fills, in the shape that each of them has."""
        return sum(np.float32(w) * predictions[m] for m, w in self.weights.items() if w > 0)

    def predict(
        self, predictions: Mapping[str, np.ndarray], answers: np.ndarray | None,
    ) -> np.ndarray:
        """The fill moved by ``trust`` towards the answers (N,), metres, at the same pixels."""
        base = self.fill(predictions)
        return base if answers is None else base + np.float32(self.trust) * (answers - base)


def fit_blend(
    predictions: Mapping[str, np.ndarray],
    truth: np.ndarray,
    answers: np.ndarray | None,
    fixed_method: str | None = None,
    fixed_trust: float | None = None,
) -> Blend:
    """The blend that predicts the hidden points best.

    The cost is the sum of MAE and RMSE, each relative to the best single fill, so that neither
    the bulk of the pixels nor the few at depth edges decide alone. Few points may favour a fill
    or the model by chance, so what leaves the default must gain more the fewer they are.

    Args:
        predictions: method of ``fill.CLASSICAL`` -> (N,) metres, at the hidden points.
        truth: (N,) metres.
        answers: (N,) metres, the model at the hidden points; None = there is no model.
        fixed_method: use this fill whatever its cost.
        fixed_trust: use this trust whatever its cost; without a model it is 0 all the same.
    """
    if fixed_method is not None:
        weights = {fixed_method: 1.0}
    elif len(truth) >= MIN_HIDDEN:
        weights = _best_weights(predictions, truth)
    else:
        weights = dict(DEFAULT_WEIGHTS)
    if answers is None or fixed_trust is not None:
        return Blend(weights, 0.0 if answers is None else fixed_trust)
    if len(truth) < MIN_HIDDEN:
        # Nothing speaks for either side: the error of a mean is at most the mean error.
        return Blend(weights, 0.5)
    base = Blend(weights, 0.0).fill(predictions)
    return Blend(weights, _best_trust(base - truth, answers - truth))


def _best_weights(predictions: Mapping[str, np.ndarray], truth: np.ndarray) -> dict[str, float]:
    """The cheapest weights on a grid of tenths, drawn towards the default."""
    errors = np.stack([predictions[method] - truth for method in fill.CLASSICAL])
    grid = itertools.product(range(11), repeat=len(fill.CLASSICAL))
    shares = np.array([tenths for tenths in grid if sum(tenths) == 10]) / 10
    default = np.array([DEFAULT_WEIGHTS.get(method, 0.0) for method in fill.CLASSICAL])
    # Shares add up to 1, so the errors mix as the predictions do.
    cost = _cost(shares @ errors, errors)
    cost += WEIGHTS_PRIOR / len(truth) * np.square(shares - default).sum(axis=1)
    best = shares[cost.argmin()]
    return {method: float(w) for method, w in zip(fill.CLASSICAL, best, strict=True) if w > 0}


def _best_trust(base_error: np.ndarray, answer_error: np.ndarray) -> float:
    """The cheapest trust in steps of 0.05; 0 unless the model gains more than 0.5 %."""
    trust = np.arange(21) / 20
    mixed = base_error + trust[:, None] * (answer_error - base_error)
    cost = _cost(mixed, base_error[None])
    best = (cost + TRUST_PRIOR / len(base_error) * trust).argmin()
    return float(trust[best]) if cost[best] < 0.995 * cost[0] else 0.0


def _cost(errors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """MAE + RMSE of each row of errors (K, N), in units of the least of the reference (M, N)."""
    def mae_and_rmse(e: np.ndarray) -> np.ndarray:
        return np.stack([np.abs(e).mean(axis=1), np.sqrt(np.square(e).mean(axis=1))])

    # A fill without any error (a flat wall) would divide by zero.
    unit = np.maximum(mae_and_rmse(reference).min(axis=1), 1e-9)
    return (mae_and_rmse(errors) / unit[:, None]).sum(axis=0)


def apply_blend(
    blend: Blend,
    sparse: np.ndarray,
    image: np.ndarray,
    answers: Answers | None,
    maps: Mapping[str, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The dense map with and without the model.

    The fill is corrected by ``trust`` times the residual of the answers, which is zero where
    depth was measured and spreads over the image up to its edges. Unsure answers count less.

    Args:
        blend: of ``fit_blend``.
        answers: the model at some pixels; None = there is no model.
        maps: classical fills of this frame that exist already, by method.

    Returns:
        depth and fill_only, two dense maps, the measured depths unchanged in both. When nothing
        is measured fill_only is NaN everywhere, and depth comes from the answers alone.
    """
    maps = dict(maps or {})
    for method, weight in blend.weights.items():
        if weight > 0 and method not in maps:
            maps[method] = fill.classical(method, sparse, image)
    measured = sparse > 0
    fill_only = np.where(measured, sparse, blend.fill(maps))
    if answers is None or len(answers) == 0 or blend.trust == 0:
        return fill_only.copy(), fill_only
    at = answers.rows, answers.cols
    if not measured.any():
        said = np.zeros_like(sparse)
        said[at] = answers.depth
        return fill.edge_aware(said, image), fill_only
    residual, weight = np.zeros_like(sparse), np.zeros_like(sparse)
    residual[at] = answers.depth - fill_only[at]
    weight[at] = 1 / (1 + np.square(answers.spread / (0.1 * answers.depth)))
    residual[measured], weight[measured] = 0, 1
    # As far as the gaps between what is known are wide: dense answers keep their detail.
    reach = min(300.0, 0.5 * sparse.size / np.count_nonzero(weight))
    correction = np.nan_to_num(fill.spread_values(image, residual, weight, reach))
    known = np.concatenate([sparse[measured], answers.depth])
    depth = np.clip(fill_only + np.float32(blend.trust) * correction,
                    0.5 * known.min(), 2 * known.max())
    return np.where(measured, sparse, depth), fill_only
