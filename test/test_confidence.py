"""The confidence means what it says: the share of depths within 5 % of the truth."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.core import confidence, fill
from sdim_ros.core.blend import apply_blend, fit_blend, hidden_folds, out_of_fold
from sdim_ros.core.types import Answers

SHAPE = (120, 160)


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Image and depth: a slanted wall with boxes, some of the colour of the wall."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(SHAPE)
    depth = (4 + 0.01 * cols + 0.005 * rows).astype(np.float32)
    image = np.full((*SHAPE, 3), 90, np.uint8)
    for _ in range(8):
        top, left = rng.integers(100), rng.integers(130)
        area = np.s_[top:top + rng.integers(15, 50), left:left + rng.integers(15, 50)]
        depth[area] = rng.uniform(1.5, 3.5)
        image[area] = rng.choice([90, 30, 160, 230])
    return image, depth


def ask(depth: np.ndarray, rows: np.ndarray, cols: np.ndarray, seed: int) -> Answers:
    """A model that errs by 2 % where it says so, and by 15 % where it says so."""
    rng = np.random.default_rng(seed)
    error = np.where(rng.random(len(rows)) < 0.6, 0.02, 0.15)
    truth = depth[rows, cols]
    answer = np.maximum(truth * (1 + error * rng.normal(size=len(rows))), 0.1)
    return Answers(rows, cols, answer.astype(np.float32), (1.28 * error * answer).astype("f4"))


def complete(seed: int, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, completed depth, true depth and sparse depth of one scene."""
    image, truth = scene(seed)
    rng = np.random.default_rng(seed)
    sparse = np.zeros(SHAPE, np.float32)
    chosen = rng.choice(truth.size, points, replace=False)
    sparse.flat[chosen] = truth.flat[chosen]
    asked = np.unravel_index(rng.choice(np.flatnonzero(sparse == 0), 600, replace=False), SHAPE)
    answers = ask(truth, *asked, seed)
    hidden = out_of_fold(sparse, image, hidden_folds(sparse, 5, 500, seed))
    hidden_answers = ask(truth, hidden.rows, hidden.cols, seed + 1)
    blend = fit_blend(hidden.predictions, hidden.truth, hidden_answers.depth)
    maps = {method: fill.classical(method, sparse, image) for method in fill.FILLS}
    depth, _ = apply_blend(blend, sparse, image, answers, maps)
    sure = confidence.of_map(
        sparse, image, depth, maps, answers, hidden, hidden_answers, blend)
    return sure, depth, truth, sparse


@pytest.fixture(scope="module")
def pooled() -> tuple[np.ndarray, np.ndarray]:
    """Confidence and hit of every unmeasured pixel of six scenes."""
    sure, hits = [], []
    for seed in range(6):
        found, depth, truth, sparse = complete(seed, points=100)
        missing = sparse == 0
        sure.append(found[missing])
        hits.append((np.abs(depth - truth) <= 0.05 * truth)[missing])
    return np.concatenate(sure), np.concatenate(hits)


def test_sure_pixels_are_right_more_often(pooled: tuple[np.ndarray, np.ndarray]) -> None:
    sure, hits = pooled
    high, low = sure > 0.9, sure < 0.5
    assert high.mean() > 0.1 and low.mean() > 0.02
    assert hits[high].mean() > 0.85 and hits[high].mean() > hits[low].mean() + 0.3


def test_confidence_is_calibrated(pooled: tuple[np.ndarray, np.ndarray]) -> None:
    sure, hits = pooled
    level = np.minimum((10 * sure).astype(int), 9)
    gaps = [(level == i).mean() * abs(sure[level == i].mean() - hits[level == i].mean())
            for i in np.unique(level)]
    assert sum(gaps) < 0.1


def test_measured_and_kept_is_certain_and_everything_is_a_probability() -> None:
    sure, _, _, sparse = complete(0, points=250)
    assert sure.shape == SHAPE and sure.dtype == np.float32
    assert (sure[sparse > 0] == 1).all() and sure.min() >= 0 and sure[sparse == 0].max() < 1


def of_wall(depth: np.ndarray, sparse: np.ndarray) -> np.ndarray:
    """Confidence in ``depth``, without any model and without hidden points."""
    image = scene()[0]
    nothing = out_of_fold(sparse, image, [])
    blend = fit_blend(nothing.predictions, nothing.truth, None)
    return confidence.of_map(sparse, image, depth, {}, None, nothing, None, blend)


def test_unknown_is_zero_and_an_overruled_measurement_is_not_certain() -> None:
    sparse = np.zeros(SHAPE, np.float32)
    sparse[::10, ::10] = 2
    depth = np.full(SHAPE, 2, np.float32)
    depth[3, 3], depth[10, 10] = np.nan, 4
    sure = of_wall(depth, sparse)
    assert sure[3, 3] == 0 and 0 < sure[10, 10] < 0.9 and sure[20, 20] == 1


def test_without_any_measurement_nothing_is_sure() -> None:
    assert (of_wall(np.full(SHAPE, 2, np.float32), np.zeros(SHAPE, np.float32)) == 0).all()


@pytest.mark.parametrize("points", [1, 2, 5])
def test_few_points_still_give_a_confidence(points: int) -> None:
    sure, *_ = complete(0, points)
    assert np.isfinite(sure).all() and (sure > 0).all()


def test_without_hidden_points_the_default_stands() -> None:
    model = confidence.fit(np.zeros((0, 3)), np.zeros(0, bool))
    assert np.allclose(model.weights, confidence.DEFAULT_WEIGHTS)


def test_three_hits_are_no_certainty() -> None:
    signs = np.zeros((3, 3))
    sure = confidence.fit(signs, np.ones(3, bool)).apply(signs.astype(np.float32))
    assert (sure < 0.95).all()


def test_many_points_outweigh_the_default() -> None:
    rng = np.random.default_rng(0)
    weights = np.array([-0.5, 1.0, 0.5, -2.0])
    signs = rng.normal(size=(5000, 3))
    hits = rng.random(5000) < 1 / (1 + np.exp(-weights[0] - signs @ weights[1:]))
    assert np.allclose(confidence.fit(signs, hits).weights, weights, atol=0.15)


def test_hits_without_exception_stay_finite() -> None:
    signs = np.full((1000, 3), -3.0)
    sure = confidence.fit(signs, np.ones(1000, bool)).apply(signs.astype(np.float32))
    assert (sure > 0.99).all() and (sure <= 1).all()


def test_points_and_maps_share_one_definition_of_the_features() -> None:
    rng = np.random.default_rng(0)
    depth, spread, distance, near, far = rng.uniform(1, 2, (5, 6, 7)).astype(np.float32)
    fills = {"linear": near, "guided": far}
    of_map = confidence.features(depth, spread, distance, fills)
    at = np.array([1, 5]), np.array([0, 6])
    of_points = confidence.features(
        depth[at], spread[at], distance[at], {name: values[at] for name, values in fills.items()})
    assert of_map.shape == (6, 7, 3) and (of_map[at] == of_points).all()


def test_every_sign_of_trouble_grows_with_the_trouble() -> None:
    def signs(depth: float, spread: float, distance: float) -> np.ndarray:
        fills = {"linear": np.float32([2]), "guided": np.float32([2])}
        return confidence.features(
            np.float32([depth]), np.float32([spread]), np.float32([distance]), fills)[0]

    calm = signs(2.01, 0.02, 0.5)
    assert (np.array([signs(2.01, 0.2, 0.5)[0], signs(2.01, 0.02, 2)[1],
                      signs(2.5, 0.02, 0.5)[2]]) > calm).all()


def test_spread_follows_the_image_and_is_neutral_without_answers() -> None:
    image = np.zeros((*SHAPE, 3), np.uint8)
    image[:, 80:] = 255
    rows, cols = np.array([60, 60]), np.array([40, 120])
    answers = Answers(rows, cols, np.float32([2, 2]), np.float32([0.02, 0.4]))
    carried = confidence.spread_map(answers, image)
    assert np.allclose(carried[:, :70], 0.01, rtol=0.1)
    assert np.allclose(carried[:, 90:], 0.2, rtol=0.1)
    assert (confidence.spread_map(None, image) == np.float32(confidence.TOLERANCE)).all()
