"""Metrics: hand-worked values, honest masks, missing predictions seen, intervals that cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sdim_ros.core import metrics as module
from sdim_ros.core.metrics import (
    METRICS,
    bootstrap_ci,
    calibration_error,
    certainty,
    error_by_range,
    evaluate,
    held_out_mask,
    mean_of,
    paired_difference,
    protocol_mask,
)
from sdim_ros.core.types import BadInput

REFERENCE = np.array([[2.0, 4.0], [5.0, 0.0]], np.float32)
PREDICTION = np.array([[2.5, 2.0], [5.0, 9.0]], np.float32)


def test_each_metric_has_the_value_worked_out_by_hand() -> None:
    # errors 0.5, -2, 0; inverse errors 0.4 - 0.5, 0.5 - 0.25, 0; ratios 1.25, 2, 1
    metrics = evaluate(PREDICTION, REFERENCE, protocol_mask(REFERENCE))
    assert metrics["mae"] == pytest.approx(2.5 / 3)
    assert metrics["rmse"] == pytest.approx(math.sqrt(4.25 / 3))
    assert metrics["imae"] == pytest.approx(0.35 / 3)
    assert metrics["irmse"] == pytest.approx(math.sqrt(0.0725 / 3))
    assert metrics["rel"] == pytest.approx((0.25 + 0.5) / 3)
    assert metrics["delta1"] == pytest.approx(1 / 3)  # 1.25 is not under 1.25
    assert metrics["delta105"] == pytest.approx(1 / 3)
    assert metrics["missing"] == 0.0
    assert tuple(metrics) == (*METRICS, "missing")


def test_certainty_has_the_values_worked_out_by_hand() -> None:
    truth = np.full(5, 10.0)
    depth = np.array([10.1, 10.4, 9.0, 10.0, 13.0])
    sure = np.array([0.95, 0.85, 0.15, 1.0, 0.05])
    found = certainty(depth, truth, sure, np.array([0.2, 0.3, 1.5, 0.0, np.inf]))
    assert found["coverage"] == 4 / 5  # 10.4 is outside
    assert found["mae"] == pytest.approx(4.5 / 5)
    assert found["mae_confident"] == pytest.approx(1.5 / 4)  # without 13.0
    assert found["pixels"] == [1, 1, 0, 0, 0, 0, 0, 0, 1, 2]
    assert found["kept"] == [0, 0, 0, 0, 0, 0, 0, 0, 1, 2]
    assert calibration_error(found["pixels"], found["promised"], found["kept"]) == pytest.approx(
        (0.05 + 0.15 + 0.15 + 0.05) / 5)
    assert math.isnan(calibration_error(np.zeros(10), np.zeros(10), np.zeros(10)))


def test_delta1_counts_ratios_both_ways() -> None:
    reference = np.full(4, 10.0)
    prediction = np.array([12.4, 12.6, 8.1, 7.9])
    assert evaluate(prediction, reference, protocol_mask(reference))["delta1"] == 0.5
    prediction = np.array([10.4, 10.6, 9.6, 9.5])
    assert evaluate(prediction, reference, protocol_mask(reference))["delta105"] == 0.5


def test_exact_prediction_has_no_error() -> None:
    metrics = evaluate(REFERENCE, REFERENCE, protocol_mask(REFERENCE))
    assert all(metrics[name] == 0.0 for name in METRICS[:-2])
    assert metrics["delta1"] == metrics["delta105"] == 1.0


def test_pixels_outside_of_the_mask_do_not_count() -> None:
    mask = np.array([[True, False], [False, False]])
    assert evaluate(PREDICTION, REFERENCE, mask)["mae"] == 0.5


def test_protocol_mask_is_every_pixel_with_a_reference() -> None:
    reference = np.array([1.0, 0.0, -1.0, np.nan, np.inf])
    np.testing.assert_array_equal(protocol_mask(reference), [True, False, False, False, False])


def test_held_out_mask_leaves_out_the_given_pixels_only() -> None:
    reference = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    given = np.array([1.0, 0.0, np.nan, 2.0, 0.0])
    np.testing.assert_array_equal(
        held_out_mask(reference, given), [False, True, True, False, False])


def test_copying_the_input_scores_on_the_protocol_but_not_on_held_out_pixels() -> None:
    reference = np.array([[2.0, 4.0, 6.0, 8.0]])
    given = np.array([[2.0, 4.0, 0.0, 0.0]])
    prediction = np.array([[2.0, 4.0, 7.0, 9.0]])
    assert evaluate(prediction, reference, protocol_mask(reference))["mae"] == 0.5
    assert evaluate(prediction, reference, held_out_mask(reference, given))["mae"] == 1.0


@pytest.mark.parametrize("gap", [np.nan, np.inf, 0.0, -1.0])
def test_missing_prediction_is_seen_and_leaves_the_errors_to_the_rest(gap: float) -> None:
    prediction = np.array([[2.5, gap], [4.0, 9.0]])
    metrics = evaluate(prediction, REFERENCE, protocol_mask(REFERENCE))
    assert metrics["missing"] == pytest.approx(1 / 3)
    assert metrics["mae"] == pytest.approx(0.75)


def test_nothing_predicted_gives_no_number_and_all_missing() -> None:
    metrics = evaluate(np.full((2, 2), np.nan), REFERENCE, protocol_mask(REFERENCE))
    assert metrics["missing"] == 1.0
    assert all(math.isnan(metrics[name]) for name in METRICS)


def test_mask_without_a_reference_is_refused() -> None:
    for mask in (np.zeros((2, 2), bool), np.ones((2, 2), bool)):
        with pytest.raises(BadInput, match="reference") as caught:
            evaluate(PREDICTION, REFERENCE, mask)
        assert caught.value.reason == "no_reference"


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(BadInput, match=r"\(3, 2\)"):
        evaluate(np.ones((3, 2)), REFERENCE, protocol_mask(REFERENCE))


def test_large_maps_do_not_lose_precision_in_float32() -> None:
    reference = np.full((2000, 2000), 100.0, np.float32)
    prediction = reference + np.float32(0.125)
    metrics = evaluate(prediction, reference, protocol_mask(reference))
    assert metrics["mae"] == pytest.approx(0.125, rel=1e-12)
    assert metrics["rmse"] == pytest.approx(0.125, rel=1e-12)


def test_rmse_is_averaged_over_images_not_over_pixels() -> None:
    images = [{"rmse": 1.0, "missing": 0.0}, {"rmse": 3.0, "missing": 0.0}]
    assert mean_of(images)["rmse"] == 2.0  # over pixels it would be sqrt(5)


def test_image_without_prediction_leaves_the_mean_but_not_the_missing_share() -> None:
    images = [{"mae": 1.0, "missing": 0.0}, {"mae": math.nan, "missing": 1.0}]
    assert mean_of(images) == {"mae": 1.0, "missing": 0.5}
    assert math.isnan(mean_of(images[1:])["mae"])


def test_mean_over_no_images_is_refused() -> None:
    with pytest.raises(BadInput, match="at least one"):
        mean_of([])


def test_interval_repeats_with_its_seed_and_holds_the_mean() -> None:
    values = np.random.default_rng(0).exponential(1.0, 50)
    low, high = bootstrap_ci(values, seed=3)
    assert (low, high) == bootstrap_ci(values, seed=3)
    assert (low, high) != bootstrap_ci(values, seed=4)
    assert low < values.mean() < high


def test_interval_agrees_with_the_normal_one_for_many_images() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    half = 1.96 * values.std() / math.sqrt(400)
    assert bootstrap_ci(values) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_interval_covers_the_truth_in_about_95_of_100_repetitions() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_ci(rng.normal(0.0, 1.0, 40), resamples=200)
        hits += low <= 0.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_equal_images_give_an_interval_without_width() -> None:
    assert bootstrap_ci([2.0, 2.0, math.nan, 2.0]) == (2.0, 2.0)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan]])
def test_fewer_than_two_images_give_no_interval(values: list[float]) -> None:
    assert all(math.isnan(end) for end in bootstrap_ci(values))


def test_errors_are_binned_by_the_range_of_the_reference() -> None:
    reference = np.array([0.5, 1.0, 1.9, 2.0, 50.0, 3.0, 0.0])
    prediction = np.array([0.6, 1.5, 2.4, 2.0, 40.0, np.nan, 1.0])
    sums, counts = error_by_range(
        prediction, reference, protocol_mask(reference), (0.0, 1.0, 2.0))
    np.testing.assert_allclose(sums, [0.1, 1.0, 10.0])  # 0.5 | 1.0 and 1.9 | 2.0 and 50
    np.testing.assert_array_equal(counts, [1, 2, 2])
    far, _ = error_by_range(prediction, reference, protocol_mask(reference), (2.0,))
    np.testing.assert_allclose(far, [10.0])  # nearer than the first edge: no bin


def test_pairs_show_a_difference_that_two_means_hide() -> None:
    """Images differ far more than methods do; in pairs what they share cancels."""
    rng = np.random.default_rng(0)
    theirs = rng.uniform(0.1, 10, 40)
    ours = theirs - 0.05 + rng.normal(0, 0.02, 40)
    found = paired_difference(ours, theirs)
    assert found["difference"] == pytest.approx((ours - theirs).mean())
    assert found["relative"] == pytest.approx((ours - theirs).mean() / theirs.mean())
    low, high = found["ci95"]
    assert low < found["difference"] < high < 0 and found["images"] == 40
    assert bootstrap_ci(ours)[1] > bootstrap_ci(theirs)[0]  # the plain intervals overlap


def test_a_pair_counts_only_where_both_have_a_number() -> None:
    found = paired_difference([1.0, np.nan, 3.0], [2.0, 1.0, np.nan])
    assert (found["difference"], found["relative"], found["images"]) == (-1.0, -0.5, 1)
    assert math.isnan(paired_difference([np.nan], [1.0])["difference"])


def test_the_interval_of_very_many_images_is_drawn_in_parts(monkeypatch):
    values = np.random.default_rng(0).normal(1.0, 0.1, 300)
    at_once = bootstrap_ci(values)
    monkeypatch.setattr(module, "DRAWN_AT_ONCE", 1000)
    assert bootstrap_ci(values) == at_once
