"""The law of the error: learnt from points, set right where they fell, helped by other frames."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.core import error_model
from sdim_ros.core.error_model import COVERAGE, DEFAULT, TOLERANCE
from sdim_ros.core.evidence import LONGEST_NS, Evidence, RecentErrors

SECOND = 10**9


def drawn(count: int, seed: int = 0, shift: float = 0.0, law: np.ndarray = DEFAULT) -> Evidence:
    """Points whose errors follow a law exactly; ``shift`` makes all of them larger or smaller."""
    rng = np.random.default_rng(seed)
    signs = rng.normal(0, 0.7, (count, len(law) - 2))
    trouble = law[0] + signs @ law[1:-1]
    return Evidence(signs, (rng.logistic(size=count) + trouble) / law[-1] + shift)


def fit(own: Evidence, pooled: Evidence | None = None) -> error_model.ErrorModel:
    """What own points tell about pixels whose signs nobody knows."""
    return error_model.fit(own, np.zeros((0, own.signs.shape[1])), pooled)


def held(model: error_model.ErrorModel, points: Evidence) -> float:
    """Share of the points inside of the interval."""
    half = model.half_width(model.trouble(points.signs.T.astype(np.float32)))
    return float((TOLERANCE * np.exp(points.errors) <= half).mean())


def hit_rate_and_promise(model: error_model.ErrorModel, points: Evidence) -> tuple[float, float]:
    sure = model.confidence(model.trouble(points.signs.T.astype(np.float32)))
    return float((points.errors <= 0).mean()), float(sure.mean())


def test_without_points_the_default_stands() -> None:
    model = fit(drawn(0))
    np.testing.assert_allclose([*model.weights, model.sharpness], DEFAULT)
    assert held(model, drawn(20_000)) == pytest.approx(COVERAGE, abs=0.03)


def test_many_points_outweigh_the_default() -> None:
    law = np.array([-1.0, 0.3, 2.0, 1.0, 2.0])
    model = fit(drawn(20_000, law=law))
    np.testing.assert_allclose([*model.weights, model.sharpness], law, atol=0.15)


@pytest.mark.parametrize("shift", [-1.5, 0.0, 1.5])
def test_the_interval_holds_its_share_however_large_the_errors_are(shift: float) -> None:
    found = [held(fit(drawn(200, seed, shift)), drawn(5000, 100 + seed, shift))
             for seed in range(8)]
    assert np.mean(found) == pytest.approx(COVERAGE, abs=0.03)
    assert max(abs(share - COVERAGE) for share in found) < 0.1


def test_the_interval_holds_its_share_where_errors_follow_another_law() -> None:
    """Half of the points have hardly any error: nothing log-logistic about that."""
    def odd(count: int, seed: int) -> Evidence:
        points = drawn(count, seed)
        easy = np.random.default_rng(seed).random(count) < 0.5
        return Evidence(points.signs, np.where(easy, np.log(0.02), points.errors + 1))

    found = [held(fit(odd(200, seed)), odd(5000, 100 + seed)) for seed in range(8)]
    assert np.mean(found) == pytest.approx(COVERAGE, abs=0.03)


@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0])
def test_the_confidence_is_the_share_within_the_tolerance(shift: float) -> None:
    hits, promised = hit_rate_and_promise(
        fit(drawn(200, 0, shift)), drawn(5000, 1, shift))
    assert promised == pytest.approx(hits, abs=0.06)


def test_three_hits_are_no_certainty() -> None:
    model = fit(Evidence(np.zeros((3, 3)), np.full(3, np.log(0.02))))
    trouble = model.trouble(np.zeros((3, 1), np.float32))
    assert model.confidence(trouble)[0] < 0.98 and model.half_width(trouble)[0] > 0.01


@pytest.mark.parametrize("errors", [np.full(1000, np.log(0.02)), np.full(1000, np.log(50.0)),
                                    np.repeat(np.log([0.02, 50.0]), 500)])
def test_points_that_all_err_alike_give_finite_numbers(errors: np.ndarray) -> None:
    model = fit(Evidence(np.full((1000, 3), -3.0), errors))
    assert np.isfinite([*model.weights, model.sharpness, model.reach]).all()
    assert model.sharpness > 0


def test_points_that_are_easier_than_the_missing_pixels_count_less() -> None:
    """Dense stereo: a hidden point lies beside others, a hole does not, and errs more."""
    rng = np.random.default_rng(0)
    easy, hard = drawn(200, 0), drawn(5000, 1)
    easy = Evidence(easy.signs - 2, np.log(0.02) + 0 * easy.errors)
    seen, blind = error_model.fit(easy, hard.signs), fit(easy)
    assert held(blind, hard) < 0.6 < 0.7 < held(seen, hard) < 0.9
    alike = rng.choice(hard.signs, 200)
    np.testing.assert_allclose(error_model._weights(alike, hard.signs), 1, atol=0.5)


def test_a_frame_with_few_points_is_helped_by_those_before_it() -> None:
    """Six points that all happen to be good do not make a bad scene a good one."""
    shift = 1.5
    others = Evidence.joined([drawn(40, seed, shift) for seed in range(10, 20)])
    judged = drawn(5000, 99, shift)
    alone, helped = [], []
    for seed in range(10):
        own = drawn(6, seed, shift)
        alone.append(abs(held(fit(own), judged) - COVERAGE))
        helped.append(abs(held(fit(own, others), judged) - COVERAGE))
    assert np.mean(helped) < 0.6 * np.mean(alone) and np.mean(helped) < 0.05


def test_frames_of_another_scene_do_not_spoil_it() -> None:
    flat = Evidence.joined([drawn(40, seed, -3.0) for seed in range(10, 20)])
    own, judged = drawn(200, 0, 1.0), drawn(5000, 99, 1.0)
    assert held(fit(own, flat), judged) == held(fit(own), judged)


def test_recent_points_are_those_of_the_last_frames_before_a_frame() -> None:
    recent = RecentErrors()
    assert recent.before(0) is None
    for second in range(5):
        recent.add(second * SECOND, drawn(30, second), frames=3)
    assert len(recent) == 3 and len(recent.before(5 * SECOND)) == 90
    assert len(recent.before(4 * SECOND)) == 60  # never a frame's own points
    assert recent.before(5 * SECOND + LONGEST_NS) is None


def test_a_frame_that_is_computed_once_more_counts_once() -> None:
    recent = RecentErrors()
    for draw in range(2):
        recent.exchange(SECOND, drawn(30, draw), frames=3)
    assert len(recent) == 1 and len(recent.before(2 * SECOND)) == 30


def test_time_that_goes_back_and_a_reset_forget_everything() -> None:
    recent = RecentErrors()
    recent.add(10 * SECOND, drawn(30), frames=3)
    assert recent.before(9 * SECOND) is None and len(recent) == 0
    recent.add(10 * SECOND, drawn(30), frames=3)
    recent.reset()
    assert recent.before(11 * SECOND) is None


def test_a_frame_without_points_keeps_what_is_known_and_many_points_are_thinned() -> None:
    recent = RecentErrors()
    recent.add(SECOND, drawn(4000), frames=3)
    kept = len(recent.before(2 * SECOND))
    recent.add(2 * SECOND, drawn(0), frames=3)
    assert 0 < kept < 100 and len(recent.before(3 * SECOND)) == kept
