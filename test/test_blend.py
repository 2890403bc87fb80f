"""The blend gives weight only to what predicts hidden measurements, and keeps the others."""

from __future__ import annotations

import numpy as np
import pytest
from test_fill import HEIGHT, WIDTH, box_in_front_of_a_wall, grey, plane, scatter

from sdim_ros.core import fill
from sdim_ros.core.blend import (
    BLENDED, DEFAULT_TRUST, DEFAULT_WEIGHTS, Blend, apply_blend, fit_blend, hidden_folds,
    out_of_fold,
)
from sdim_ros.core.refinement import joined
from sdim_ros.core.types import Answers

NO_ANSWERS = joined([])


def answers_everywhere(depth: np.ndarray, spread: float = 0.01) -> Answers:
    rows, cols = (index.ravel() for index in np.indices(depth.shape))
    return Answers(rows, cols, depth[rows, cols], np.full(rows.shape, spread, np.float32))


def applied(blend: Blend, sparse: np.ndarray, image: np.ndarray, answers: Answers,
            guess: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """``apply_blend`` with the fills of the blend."""
    maps = fill.several(blend.methods, sparse, image)
    return apply_blend(blend, sparse, image, answers, maps, guess)


def as_set(fold: tuple[np.ndarray, np.ndarray]) -> set[tuple[int, int]]:
    return set(zip(*(index.tolist() for index in fold), strict=True))


@pytest.mark.parametrize(("count", "limit"), [(2, 500), (7, 500), (100, 500), (100, 30),
                                              (2000, 500)])
def test_folds_are_disjoint_measured_and_within_their_limits(count: int, limit: int) -> None:
    sparse = scatter(plane(), count)
    folds = [as_set(fold) for fold in hidden_folds(sparse, 5, limit, seed=3)]
    hidden = set().union(*folds)
    assert len(hidden) == sum(map(len, folds)) == min(limit, count)
    assert all(sparse[at] > 0 for at in hidden)
    assert max(map(len, folds)) <= max(count // 5, 1)
    assert count < 2000 or len(folds) == 2, "no more folds than the limit needs"


def test_folds_depend_on_the_seed_alone() -> None:
    sparse = scatter(plane(), 200)
    first, again, other = (
        list(map(as_set, hidden_folds(sparse, 5, 100, seed))) for seed in (1, 1, 2))
    assert first == again != other


def test_no_fold_without_a_point_to_hide_and_one_to_see() -> None:
    for count, limit in ((0, 500), (1, 500), (100, 0)):
        assert hidden_folds(scatter(plane(), count), 5, limit, seed=0) == []


def test_scan_lines_are_hidden_in_pieces_as_long_as_their_gap() -> None:
    lines = np.zeros((240, 400), np.float32)
    lines[5::12, ::2] = 1
    visible, (fold,) = lines.copy(), hidden_folds(lines, 5, 200, seed=0)
    visible[fold] = 0
    spacing = np.sqrt(lines.size / np.count_nonzero(lines))
    of_missing = fill.distance_to_measured(lines)[lines == 0].mean() * spacing
    of_hidden = fill.distance_to_measured(visible)[fold].mean() * spacing
    # Hidden one by one they would lie 2 pixels from the next point of their line.
    assert 3 < of_missing < of_hidden < 1.5 * of_missing


def test_random_scatter_is_hidden_point_by_point() -> None:
    sparse = scatter(np.ones((240, 400), np.float32), 30000)
    (fold,) = hidden_folds(sparse, 5, 300, seed=0)
    hidden = np.zeros(sparse.shape, bool)
    hidden[fold] = True
    neighbours = hidden[:, :-1] & (sparse[:, 1:] > 0)
    assert (neighbours & hidden[:, 1:]).sum() < 0.1 * neighbours.sum()


def test_out_of_fold_predictions_never_see_their_own_point() -> None:
    sparse = scatter(plane(), 60)
    folds = hidden_folds(sparse, 5, 500, seed=0)
    hidden = out_of_fold(sparse, grey(), folds)
    at = folds[2]
    visible = sparse.copy()
    visible[at] = 0
    mine = slice(len(folds[0][0]) + len(folds[1][0]), sum(len(f[0]) for f in folds[:3]))
    assert (hidden.truth == sparse[hidden.rows, hidden.cols]).all() and len(hidden.truth) == 60
    assert (hidden.distance > 0).all()
    for method in BLENDED:
        np.testing.assert_allclose(
            hidden.predictions[method][mine], fill.classical(method, visible, grey())[at])


def predictions(count: int = 300, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Fills with independent errors: guided 5 cm, linear 10 cm, nearest 50 cm."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1, 5, count).astype(np.float32)
    errors = {"guided": 0.05, "linear": 0.1, "nearest": 0.5}
    return {m: truth + rng.normal(0, e, count).astype(np.float32)
            for m, e in errors.items()}, truth


def test_the_better_fill_gets_more_weight() -> None:
    # The best mixture of independent errors weighs by inverse variance: 0.8, 0.2 and 0.
    fills, truth = predictions(2000)
    weights = fit_blend(fills, truth, truth).weights
    assert weights["guided"] == pytest.approx(0.8, abs=0.11)
    assert sum(weights.values()) == pytest.approx(1)
    exact = {**fills, "linear": truth}
    assert fit_blend(exact, truth, truth).weights == {"linear": 1.0}


def test_the_median_wins_where_each_fill_fails_now_and_then() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 5, 900).astype(np.float32)
    failing = rng.integers(3, size=900)
    fills = {method: truth + (failing == i) * np.float32(1)
             for i, method in enumerate(BLENDED)}
    blend = fit_blend(fills, truth, truth)
    assert blend.weights == {"median": 1.0} and blend.methods == BLENDED
    assert (blend.fill(fills) == truth).all()


def test_fills_are_chosen_by_mae_even_where_another_has_less_rmse() -> None:
    truth = np.full(2000, 2, np.float32)
    sharp, smooth = truth.copy(), truth + np.float32(0.5)
    sharp[:100] += 4
    fills = {"guided": sharp, "linear": smooth, "nearest": smooth}
    assert np.square(sharp - truth).mean() > np.square(smooth - truth).mean()
    assert fit_blend(fills, truth, truth).weights == {"guided": 1.0}


def test_too_few_points_leave_the_default_and_share_the_trust() -> None:
    fills, truth = predictions(9)
    assert fit_blend(fills, truth, truth) == Blend(DEFAULT_WEIGHTS, DEFAULT_TRUST)


def test_a_small_difference_counts_only_on_many_points() -> None:
    few, many = np.full(10, 2, np.float32), np.full(2000, 2, np.float32)

    def choice(truth: np.ndarray, answer_error: float) -> Blend:
        fills = {"linear": truth + 0.1, "guided": truth + 0.09, "nearest": truth + 0.1}
        return fit_blend(fills, truth, truth + answer_error)

    assert choice(few, 0.08).weights["guided"] < 0.7
    assert choice(many, 0.08).weights == {"guided": 1.0}
    assert choice(few, 0.09).trust == pytest.approx(DEFAULT_TRUST)
    assert choice(few, 0.10).trust == pytest.approx(DEFAULT_TRUST, abs=0.1)
    assert choice(many, 0.10).trust == 0


def test_answers_that_are_plainly_wrong_get_no_trust_even_on_few_points() -> None:
    fills, truth = predictions(20)
    wrong = truth + np.float32(5)
    assert fit_blend(fills, truth, wrong).trust == 0


def test_the_model_gets_the_trust_that_it_earns() -> None:
    fills, truth = predictions(2000)
    only = {method: fills["guided"] for method in BLENDED}
    rng = np.random.default_rng(5)
    equally_good = truth + rng.normal(0, 0.05, 2000).astype(np.float32)
    assert fit_blend(only, truth, truth).trust == 1
    assert fit_blend(only, truth, equally_good).trust == pytest.approx(0.5, abs=0.1)
    assert fit_blend(only, truth, rng.permutation(truth)).trust == 0


@pytest.mark.parametrize("case", ["lower_rmse", "lower_mae"])
def test_the_model_may_not_raise_the_mean_error(case: str) -> None:
    """A lower mean error may cost squared error: at hidden points that hangs on a few."""
    truth = np.full(2000, 2, np.float32)
    few_large, many_small = truth.copy(), truth.copy()
    if case == "lower_rmse":
        few_large[:400] += 1
        many_small += 0.25
        base, answers = few_large, many_small
    else:
        few_large[:100] += 1
        many_small += 0.2
        base, answers = many_small, few_large
    trust = fit_blend({method: base for method in BLENDED}, truth, answers).trust
    before, after = base - truth, base + trust * (answers - base) - truth
    assert np.abs(after).mean() <= np.abs(before).mean()
    if case == "lower_rmse":
        assert np.square(after).mean() <= np.square(before).mean()


def test_a_few_far_points_do_not_decide_the_trust() -> None:
    truth = np.full(2000, 2, np.float32)
    truth[:10] = 100
    base, answers = truth.copy(), truth.copy()
    base[10:] += 0.2
    answers[:10] += 50  # in metres all these errors together are larger than those of the fill
    assert fit_blend({method: base for method in BLENDED}, truth, answers).trust > 0.8


def test_fixed_method_and_trust_are_obeyed() -> None:
    fills, truth = predictions()
    blend = fit_blend(fills, truth, truth, fixed_method="nearest", fixed_trust=0.25)
    assert blend == Blend({"nearest": 1.0}, 0.25)


def test_a_blend_predicts_between_fill_and_answers_and_describes_itself() -> None:
    blend = Blend({"linear": 0.3, "guided": 0.7}, 0.25)
    fills = {"linear": np.float32([1]), "guided": np.float32([2])}
    assert blend.fill(fills) == pytest.approx([1.7])
    assert blend.predict(fills, np.float32([5.7])) == pytest.approx([2.7])
    assert blend.describe() == "0.7 guided + 0.3 linear"


@pytest.mark.parametrize("trust", [0.0, 0.6, 1.0])
def test_measured_pixels_come_back_bit_exact(trust: float) -> None:
    image, depth = box_in_front_of_a_wall()
    sparse = scatter(depth + np.float32(0.1) * plane(), 100)
    maps = applied(
        Blend(DEFAULT_WEIGHTS, trust), sparse, image, answers_everywhere(depth))
    for dense in maps:
        assert dense.dtype == np.float32 and np.isfinite(dense).all()
        assert (dense[sparse > 0] == sparse[sparse > 0]).all()


def test_without_trust_or_answers_the_map_is_the_fill() -> None:
    image, depth = box_in_front_of_a_wall()
    sparse = scatter(depth, 50)
    for trust, answers in ((0.0, answers_everywhere(plane())), (1.0, NO_ANSWERS)):
        blend = Blend({"linear": 1.0}, trust)
        full, fill_only = applied(blend, sparse, image, answers)
        assert (full == fill_only).all() and (fill_only == fill.linear(sparse)).all()
        assert full is not fill_only


def test_right_answers_repair_what_the_fill_gets_wrong() -> None:
    image, depth = box_in_front_of_a_wall()
    sparse, at = scatter(depth, 30), np.random.default_rng(1).integers((60, 80), size=(300, 2)).T
    answers = Answers(*at, depth[tuple(at)], np.full(300, 0.01, np.float32))
    full, fill_only = applied(Blend({"linear": 1.0}, 1.0), sparse, image, answers)
    assert np.abs(full - depth).mean() < 0.5 * np.abs(fill_only - depth).mean()


def test_answers_everywhere_keep_thin_things() -> None:
    thin = np.full((HEIGHT, WIDTH), 5, np.float32)
    thin[:, 40] = 2
    image = np.where(thin[..., None] == 2, np.uint8(220), np.uint8(20)).repeat(3, axis=2)
    sparse = np.where(np.arange(WIDTH) < 5, thin, np.float32(0))
    blend, answers = Blend({"nearest": 1.0}, 1.0), answers_everywhere(thin)
    seen, _ = applied(blend, sparse, image, answers)
    np.testing.assert_allclose(seen, thin, atol=0.05)
    unseen, _ = applied(blend, sparse, grey(), answers)
    assert unseen[:, 40].max() < 4


def test_unsure_answers_count_less() -> None:
    sparse = scatter(np.full((HEIGHT, WIDTH), 2, np.float32), 5)
    right, wrong = np.float32(2), np.float32(3)
    said = np.where(np.indices((HEIGHT, WIDTH)).sum(axis=0) % 2, right, wrong)

    def moved(spread_of_wrong: float) -> float:
        answers = answers_everywhere(said)
        answers.spread[answers.depth == wrong] = spread_of_wrong
        blend = Blend({"linear": 1.0}, 1.0)
        full, fill_only = applied(blend, sparse, grey(), answers)
        return float(np.abs(full - fill_only).mean())

    # Half way between 1/2 and 1/3, as inverse depth is filled.
    assert moved(0.01) == pytest.approx(2.4 - 2, abs=0.05)
    assert moved(1.0) < 0.3 * moved(0.01)


def test_between_a_measurement_and_an_answer_depth_goes_over_from_one_to_the_other() -> None:
    sparse = np.zeros((HEIGHT, WIDTH), np.float32)
    sparse[30, 20] = 2
    at = [grid.ravel() for grid in np.mgrid[0:HEIGHT:10, 0:WIDTH:10]]
    answers = Answers(*at, np.full(len(at[0]), 3, np.float32), np.full(len(at[0]), 0.01))
    full, _ = applied(Blend({"linear": 1.0}, 1.0), sparse, grey(), answers)
    assert 2 < full[30, 21] < full[30, 23] < full[30, 25] < full[30, 60] <= 3


def test_a_guess_gives_the_shapes_and_what_is_known_their_distance() -> None:
    depth = plane()
    sparse, at = scatter(depth, 20), np.mgrid[5:HEIGHT:20, 5:WIDTH:20].reshape(2, -1)
    answers = Answers(*at, depth[tuple(at)], np.full(len(at[0]), 0.01, np.float32))
    blend, wrong_scale = Blend({"nearest": 1.0}, 1.0), np.float32(0.8) * depth
    full, _ = applied(blend, sparse, grey(), answers, guess=wrong_scale)
    np.testing.assert_allclose(full, depth, rtol=1e-3)
    plain, _ = applied(blend, sparse, grey(), answers)
    assert np.abs(plain / depth - 1).mean() > 0.01


def test_depths_stay_in_the_known_range() -> None:
    sparse = np.zeros((HEIGHT, WIDTH), np.float32)
    sparse[::6, 10], sparse[::6, 70] = 8, 2
    answers = Answers(np.array([30]), np.array([39]), np.float32([0.5]), np.float32([0.01]))
    full, _ = applied(Blend({"nearest": 1.0}, 1.0), sparse, grey(), answers)
    assert full.min() >= 0.5 and full[30, 39] < 1 and full.max() <= 8


def test_without_points_the_answers_alone_make_the_map() -> None:
    image, depth = box_in_front_of_a_wall()
    nothing = np.zeros_like(depth)
    blend = fit_blend({}, np.zeros(0), np.zeros(0))
    full, fill_only = applied(blend, nothing, image, answers_everywhere(depth))
    np.testing.assert_allclose(full, depth, rtol=0.02)
    assert np.isnan(fill_only).all()
    assert np.isnan(applied(blend, nothing, image, NO_ANSWERS)[0]).all()


def test_maps_at_hand_are_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = scatter(plane(), 50)
    maps = {"linear": fill.linear(sparse)}
    monkeypatch.setattr(fill, "classical", lambda *_: pytest.fail("computed again"))
    blend = Blend({"linear": 1.0, "median": 0.0}, 0.0)
    assert (apply_blend(blend, sparse, grey(), NO_ANSWERS, maps)[0] == maps["linear"]).all()


@pytest.mark.parametrize("count", [0, 1, 3, 12, 300])
def test_a_frame_goes_through_at_any_number_of_points(count: int) -> None:
    image, depth = box_in_front_of_a_wall()
    sparse = scatter(depth, count)
    hidden = out_of_fold(sparse, image, hidden_folds(sparse, 5, 500, seed=0))
    assert len(hidden.truth) == len(hidden.distance) == (count if count > 1 else 0)
    blend = fit_blend(hidden.predictions, hidden.truth, hidden.truth)
    full, _ = applied(blend, sparse, image, answers_everywhere(depth))
    assert np.isfinite(full).all() and (full > 0).all()
