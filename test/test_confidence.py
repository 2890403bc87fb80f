"""Confidence and interval mean what they say, on a made-up scene and a made-up model."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.core import confidence, fill
from sdim_ros.core.blend import apply_blend, fit_blend, hidden_folds, out_of_fold
from sdim_ros.core.refinement import joined
from sdim_ros.core.types import Answers

SHAPE = (120, 160)
NO_ANSWERS = joined([])


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


Completed = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def complete(seed: int, points: int) -> Completed:
    """Confidence, interval, completed depth, true depth and sparse depth of one scene."""
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
    known = confidence.known_errors(hidden, hidden_answers, blend)
    spread = confidence.spread_map(answers, image)
    return *confidence.of_map(sparse, depth, maps, spread, known), depth, truth, sparse


@pytest.fixture(scope="module")
def scenes() -> list[Completed]:
    return [complete(seed, points=100) for seed in range(6)]


@pytest.fixture(scope="module")
def pooled(scenes: list[Completed]) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and hit of every unmeasured pixel of six scenes."""
    sure, hits = [], []
    for found, _, depth, truth, sparse in scenes:
        missing = sparse == 0
        sure.append(found[missing])
        hits.append((np.abs(depth - truth) <= 0.05 * truth)[missing])
    return np.concatenate(sure), np.concatenate(hits)


def test_the_interval_holds_four_of_five_truths_where_nothing_was_measured(
        scenes: list[Completed]) -> None:
    held = [(np.abs(depth - truth) <= interval)[sparse == 0].mean()
            for _, interval, depth, truth, sparse in scenes]
    # The noise of the made-up answers partly cancels between the pixels asked.
    assert 0.75 < np.mean(held) < 0.92 and min(held) > 0.7


def test_errors_are_larger_where_the_interval_is_wider(scenes: list[Completed]) -> None:
    for _, interval, depth, truth, sparse in scenes:
        error, width = np.abs(depth - truth)[sparse == 0], interval[sparse == 0]
        narrow = width <= np.quantile(width, 0.8)
        assert error[narrow].mean() < 0.85 * error.mean()


def test_a_surer_pixel_has_a_narrower_relative_interval(scenes: list[Completed]) -> None:
    sure, interval, depth, _, sparse = scenes[0]
    order = np.argsort(sure[sparse == 0])
    assert (np.diff((interval / depth)[sparse == 0][order]) <= 1e-5).mean() > 0.99


def test_sure_pixels_are_right_more_often(pooled: tuple[np.ndarray, np.ndarray]) -> None:
    sure, hits = pooled
    high, low = sure > 0.9, sure < 0.6
    assert high.mean() > 0.1 and low.mean() > 0.02
    assert hits[high].mean() > 0.85 and hits[high].mean() > hits[low].mean() + 0.3


def test_confidence_is_calibrated(pooled: tuple[np.ndarray, np.ndarray]) -> None:
    sure, hits = pooled
    level = np.minimum((10 * sure).astype(int), 9)
    gaps = [(level == i).mean() * abs(sure[level == i].mean() - hits[level == i].mean())
            for i in np.unique(level)]
    assert sum(gaps) < 0.1


def test_measured_and_kept_is_certain_and_everything_is_a_probability() -> None:
    sure, interval, _, _, sparse = complete(0, points=250)
    assert sure.shape == interval.shape == SHAPE and sure.dtype == interval.dtype == np.float32
    assert (sure[sparse > 0] == 1).all() and sure.min() >= 0 and sure[sparse == 0].max() < 1
    assert (interval[sparse > 0] == 0).all() and (interval[sparse == 0] > 0).all()


def of_wall(depth: np.ndarray, sparse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence in ``depth`` and its interval, without any model and without hidden points."""
    image = scene()[0]
    nothing = out_of_fold(sparse, image, [])
    known = confidence.known_errors(
        nothing, NO_ANSWERS, fit_blend(nothing.predictions, nothing.truth, NO_ANSWERS.depth))
    spread = confidence.spread_map(NO_ANSWERS, image)
    return confidence.of_map(
        sparse, depth, fill.several(confidence.FILLS, sparse, image), spread, known)


def test_unknown_is_zero_and_an_overruled_measurement_is_not_certain() -> None:
    sparse = np.zeros(SHAPE, np.float32)
    sparse[::10, ::10] = 2
    depth = np.full(SHAPE, 2, np.float32)
    depth[3, 3], depth[10, 10] = np.nan, 4
    sure, interval = of_wall(depth, sparse)
    assert sure[3, 3] == 0 and 0 < sure[10, 10] < 0.9 and sure[20, 20] == 1
    assert np.isnan(interval[3, 3]) and interval[10, 10] > 0 and interval[20, 20] == 0


def test_without_any_measurement_nothing_is_sure() -> None:
    depth = np.full(SHAPE, 2, np.float32)
    depth[3, 3] = np.nan
    sure, interval = of_wall(depth, np.zeros(SHAPE, np.float32))
    assert (sure == 0).all()
    assert np.isnan(interval[3, 3]) and np.isposinf(np.delete(interval, 3 * SHAPE[1] + 3)).all()


@pytest.mark.parametrize("points", [1, 2, 5])
def test_few_points_give_a_confidence_and_a_wide_interval(
        scenes: list[Completed], points: int) -> None:
    sure, interval, depth, truth, sparse = complete(0, points)
    assert np.isfinite(sure).all() and (sure > 0).all() and np.isfinite(interval).all()
    missing = sparse == 0
    # One scene's intervals are wide where its answers, good or bad, are believed.
    usual = np.median([np.median(narrow / other) for _, narrow, other, _, _ in scenes])
    assert np.median((interval / depth)[missing]) > 1.5 * usual
    assert (np.abs(depth - truth) <= interval)[missing].mean() > 0.8


def test_points_and_maps_share_one_definition_of_the_features() -> None:
    rng = np.random.default_rng(0)
    depth, spread, distance, near, far = rng.uniform(1, 2, (5, 6, 7)).astype(np.float32)
    fills = {"linear": near, "guided": far}
    of_map = confidence.features(depth, spread, distance, fills)
    at = np.array([1, 5]), np.array([0, 6])
    of_points = confidence.features(
        depth[at], spread[at], distance[at], {name: values[at] for name, values in fills.items()})
    assert of_map.shape == (3, 6, 7) and (of_map[(slice(None), *at)] == of_points).all()


def test_every_sign_of_trouble_grows_with_the_trouble() -> None:
    def signs(depth: float, spread: float, distance: float) -> np.ndarray:
        fills = {"linear": np.float32([2]), "guided": np.float32([2])}
        return confidence.features(
            np.float32([depth]), np.float32([spread]), np.float32([distance]), fills)[:, 0]

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
    assert (confidence.spread_map(NO_ANSWERS, image) == np.float32(confidence.TOLERANCE)).all()
