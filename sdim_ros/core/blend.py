"""How far each fill, and the model on top of them, can be trusted on this very frame.

Measured points are hidden, predicted from the others, and the mixture that predicts them best
completes the frame. ``sparse``, ``image`` and dense maps are as in ``fill``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from sdim_ros.core import fill
from sdim_ros.core.doubt import without
from sdim_ros.core.types import Answers

BLENDED = ("nearest", "linear", "guided")
# What is mixed. The median of the three fills follows the majority at every pixel. Nearest has no
# share of its own: there it takes part already, and fewer choices are less led by chance.
MIXED = ("median", "linear", "guided")
# Without points to calibrate on: linear and guided err in different places, and their mean was
# better than either on indoor frames with 3 to 50 points (where guided is still edge_aware: both
# have the largest reach).
DEFAULT_WEIGHTS = {"linear": 0.5, "guided": 0.5}
MIN_HIDDEN = 10
# Extra cost of leaving the default, over the number of hidden points.
WEIGHTS_PRIOR = 10
# A hundred hidden points tell good answers from bad ones, but little about how good they are: on
# indoor and street frames their own optimum did worse than leaning towards this default. The
# prior goes with the chance in a mean error, or with the inverse of the number where that is less.
DEFAULT_TRUST, TRUST_PRIOR = 1.0, 7
# Strength of the smoother over the area of an image for each known pixel.
REACH = 0.15
# How much a sure answer counts beside a measurement, where both correct a guess: on rendered
# scenes 0.1 had up to 0.2 % more MAE and no less RMSE; 0 had 1 % less MAE between many points, but
# 1 % more RMSE between few and 3 % more MAE on scan lines.
ANSWER_WEIGHT = 0.03


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
        maps: of each fold, the whole fills by method, or None where they were not kept.
    """

    rows: np.ndarray
    cols: np.ndarray
    truth: np.ndarray
    predictions: dict[str, np.ndarray]
    distance: np.ndarray
    maps: list[dict[str, np.ndarray] | None] = field(default_factory=list)


def out_of_fold(
    sparse: np.ndarray, image: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]],
    more: tuple[str, ...] = (), whole_maps: bool = False,
) -> OutOfFold:
    """Predict each fold of ``hidden_folds`` from the measured pixels outside of it.

    Args:
        more: of ``fill.FILLS``, to be predicted besides ``BLENDED``.
        whole_maps: keep those fills, which takes longer than their values at the points.
    """
    methods = dict.fromkeys((*BLENDED, *more))
    rows = np.concatenate([np.zeros(0, int), *(rows for rows, _ in folds)])
    cols = np.concatenate([np.zeros(0, int), *(cols for _, cols in folds)])
    visible = [without(sparse, at) for at in folds]

    def one(task: tuple[int, str]) -> tuple[np.ndarray, np.ndarray | None]:
        fold, method = task
        if whole_maps:
            dense = fill.classical(method, visible[fold], image)
            return dense[folds[fold]], dense if method in more else None
        return fill.classical_at(method, visible[fold], image, *folds[fold]), None

    tasks = [(fold, method) for fold in range(len(folds)) for method in methods]
    done = dict(zip(tasks, fill.side_by_side(one, tasks)))
    none = np.zeros(0, np.float32)
    predictions = {method: np.concatenate(
        [none, *(done[fold, method][0] for fold in range(len(folds)))]) for method in methods}
    distance = np.concatenate(
        [none, *(fill.distance_to_measured(v)[at] for v, at in zip(visible, folds))])
    maps = [{method: done[fold, method][1] for method in more} if whole_maps else None
            for fold in range(len(folds))]
    return OutOfFold(rows, cols, sparse[rows, cols], predictions, distance, maps)


@dataclass(frozen=True, slots=True)
class Blend:
    """How much of each fill, and of the model on top of them.

    Attributes:
        weights: name -> share, non-negative, together 1; of ``MIXED``, or one of ``fill.FILLS``.
        trust: 0 = the fill alone, 1 = the model's answers replace it.
    """

    weights: dict[str, float]
    trust: float

    @property
    def methods(self) -> tuple[str, ...]:
        """The classical fills that it needs."""
        used = {name for name, weight in self.weights.items() if weight > 0}
        used |= set(BLENDED) if "median" in used else set()
        return tuple(m for m in fill.FILLS if m in used)

    def describe(self) -> str:
        """For people: ``"0.7 guided + 0.3 linear"``."""
        shares = sorted(self.weights.items(), key=lambda share: -share[1])
        return " + ".join(f"{weight:.1f} {name}" for name, weight in shares if weight > 0)

    def fill(self, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
        """The weighted sum, in the shape that each of the predictions of ``methods`` has."""
        return sum(np.float32(weight) * _prediction(name, predictions)
                   for name, weight in self.weights.items() if weight > 0)

    def predict(self, predictions: Mapping[str, np.ndarray], answers: np.ndarray) -> np.ndarray:
        """The fill moved by ``trust`` towards the answers (N,), metres, at the same pixels."""
        base = self.fill(predictions)
        return base + np.float32(self.trust) * (answers - base)


def _prediction(name: str, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
    """That of a classical fill, or the median of the three that are blended."""
    if name != "median":
        return predictions[name]
    a, b, c = (predictions[method] for method in BLENDED)
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def fit_blend(
    predictions: Mapping[str, np.ndarray],
    truth: np.ndarray,
    answers: np.ndarray,
    fixed_method: str | None = None,
    fixed_trust: float | None = None,
) -> Blend:
    """The blend that predicts the hidden points best.

    Few points may favour a fill or the model by chance, so what leaves the default must gain
    more the fewer they are.

    Args:
        predictions: method of ``BLENDED`` -> (N,) metres, at the hidden points.
        truth: (N,) metres.
        answers: (N,) metres, the model at the hidden points.
        fixed_method: use this fill whatever its cost.
        fixed_trust: use this trust whatever its cost.
    """
    if fixed_method is not None:
        weights = {fixed_method: 1.0}
    elif len(truth) >= MIN_HIDDEN:
        weights = _best_weights(predictions, truth)
    else:
        weights = dict(DEFAULT_WEIGHTS)
    if fixed_trust is not None:
        return Blend(weights, fixed_trust)
    if len(truth) < MIN_HIDDEN:
        return Blend(weights, DEFAULT_TRUST)
    return Blend(weights, _best_trust(Blend(weights, 0.0).fill(predictions), answers, truth))


def _best_weights(predictions: Mapping[str, np.ndarray], truth: np.ndarray) -> dict[str, float]:
    """The weights of least MAE on a grid of tenths, drawn towards the default.

    RMSE has no say: it hangs on a few hidden points at depth edges, so choosing by it follows
    chance, and a mixture lowers it anyway.
    """
    errors = np.stack([_prediction(name, predictions) - truth for name in MIXED])
    grid = itertools.product(range(11), repeat=len(MIXED))
    shares = np.array([tenths for tenths in grid if sum(tenths) == 10]) / 10
    default = np.array([DEFAULT_WEIGHTS.get(name, 0.0) for name in MIXED])
    # A fill without any error (a flat wall) would divide by zero.
    unit = max(np.abs(errors).mean(axis=1).min(), 1e-9)
    # Shares add up to 1, so the errors mix as the predictions do.
    cost = np.abs(shares @ errors).mean(axis=1) / unit
    cost += WEIGHTS_PRIOR / len(truth) * np.square(shares - default).sum(axis=1)
    best = shares[cost.argmin()]
    return {name: float(w) for name, w in zip(MIXED, best, strict=True) if w > 0}


def _best_trust(filled: np.ndarray, answers: np.ndarray, truth: np.ndarray) -> float:
    """The cheapest trust in steps of 0.05, drawn to the default.

    The cost is the mean error and the mean relative error, each over that of the fill alone: a
    few far points must not decide. The squared error has no say: where it had one the trust was
    smaller, and the maps of rendered scenes had up to 4 % more MAE and, within 0.5 %, the same
    RMSE.
    """
    trust = np.arange(21) / 20
    said = filled + trust[:, None] * (answers - filled)
    relative = np.log(np.maximum(said, 1e-6) / truth)  # an answer can be 0
    both = np.abs(np.stack([said - truth, relative])).mean(axis=2)
    cost = (both / np.maximum(both[:, :1], 1e-9)).mean(axis=0)
    away = TRUST_PRIOR * np.square(trust - DEFAULT_TRUST)
    return float(trust[(cost + away * min(len(truth) ** -0.5, 14 / len(truth))).argmin()])


def apply_blend(
    blend: Blend,
    sparse: np.ndarray,
    image: np.ndarray,
    answers: Answers,
    maps: Mapping[str, np.ndarray],
    guess: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The dense map with and without the model.

    The map goes ``trust`` of the way from the fill without answers to what the model tells.

    Args:
        blend: of ``fit_blend``.
        answers: the model at some pixels, or at none.
        maps: classical fills of this frame by method, those of the blend among them.
        guess: (H, W) float32, metres, what the fusion expects; None = it makes no guess,
            as when nothing is measured.

    Returns:
        depth and fill_only, two dense maps, the measured depths unchanged in both. When nothing
        is measured fill_only is NaN everywhere, and depth comes from the answers alone.
    """
    measured = sparse > 0
    fill_only = np.where(measured, sparse, blend.fill(maps))
    if len(answers) == 0 or (blend.trust == 0 and measured.any()):
        return fill_only.copy(), fill_only
    told = _told_everywhere(sparse, image, answers, guess)
    if not measured.any():  # nothing to fill from: the answers are all there is
        return told, fill_only
    depth = fill_only + np.float32(blend.trust) * (told - fill_only)
    return np.where(measured, sparse, depth), fill_only


def _told_everywhere(
    sparse: np.ndarray, image: np.ndarray, answers: Answers, guess: np.ndarray | None,
) -> np.ndarray:
    """Measurements and answers together, carried to every pixel up to the edges of the image.

    What is carried is how far they are from the guess, which holds the shapes between them;
    without a guess it is they themselves. Unsure answers count less.
    """
    at, measured = (answers.rows, answers.cols), sparse > 0
    known, weight = np.zeros_like(sparse), np.zeros_like(sparse)
    known[at] = answers.depth
    weight[at] = 1 / (1 + np.square(answers.spread / (0.1 * answers.depth)))
    known[measured], weight[measured] = sparse[measured], 1
    # Any farther than the next known pixel would blur what the answers tell.
    reach = fill.reach_over_gaps(known, REACH)
    if guess is None:
        return fill.edge_aware(known, image, weight, reach)
    weight[~measured] *= ANSWER_WEIGHT
    off = np.log(np.where(known > 0, known, guess) / guess)
    # Where nothing arrives nothing speaks against the guess.
    return guess * np.exp(np.nan_to_num(fill.spread_values(image, off, weight, reach)))
