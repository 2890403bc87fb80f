"""What the embedded checkpoint promises on Motorcycle, the scene and inputs of ``sdim demo``."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sdim_ros.core import fill
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import Settings, with_values
from sdim_ros.tools import demo, report
from sdim_ros.tools.datasets.motorcycle import motorcycle_stereo
from sdim_ros.tools.frame_judge import FrameJudge, Judged
from sdim_ros.tools.results import METHODS
from sdim_ros.tools.sampling import sample_points


@pytest.fixture(scope="module")
def frames():
    """The demo's frames under its stamp, by input, and the reference depth."""
    sample, right = motorcycle_stereo()
    sample = dataclasses.replace(sample, stamp_ns=demo.FIRST_STAMP_NS)
    inputs = demo._inputs(sample, right)
    return {name: sample.frame(sparse) for name, (sparse, _) in inputs.items()}, sample.truth


@pytest.fixture(scope="module")
def results(frames):
    judge = FrameJudge(METHODS, Completer(Settings()))
    return {name: judge(frame, frames[1], demo.SEED) for name, frame in frames[0].items()}


def error(judged: Judged, method: str, metric: str = "mae") -> float:
    """Where no point was given, metres."""
    return judged.result.errors[method]["held_out"][metric]


@pytest.mark.parametrize("metric", ["mae", "rmse"])
@pytest.mark.parametrize("name", ["random", "stereo"])
def test_the_map_is_at_most_2_percent_worse_than_the_best_classical_fill(results, name, metric):
    best = min(error(results[name], method, metric) for method in fill.CLASSICAL)
    assert error(results[name], "sdim", metric) <= 1.02 * best


@pytest.mark.parametrize("other", ["answers_linear", "answers_hint"])
def test_the_answers_alone_are_at_most_10_percent_worse_than_classical_values_there(
        results, other):
    assert error(results["random"], "answers") <= 1.1 * error(results["random"], other)


def test_random_weights_answer_at_least_three_times_worse(results):
    assert error(results["random"], "sdim_random") >= 3 * error(results["random"], "answers")


@pytest.mark.parametrize("name", ["random", "stereo"])
def test_every_pixel_is_filled_and_measured_ones_stay_bit_exact(frames, results, name):
    depth, sparse = results[name].dense.depth, frames[0][name].sparse
    assert np.isfinite(depth).all()
    np.testing.assert_array_equal(depth[sparse > 0], sparse[sparse > 0])


@pytest.mark.parametrize("name", ["random", "stereo"])
def test_the_report_tells_trust_and_the_error_without_the_image(results, name):
    methods = report.build({}, [results[name].result])["methods"]
    assert 0 <= methods["sdim"]["trust"] <= 1
    assert 0 < methods["sdim_blind"]["held_out"]["mae"] < np.inf


def test_without_any_point_the_map_is_finite_and_sure_of_nothing(frames):
    frame = dataclasses.replace(frames[0]["random"], sparse=np.zeros_like(frames[1]))
    settings = with_values(Settings(), {"input.on_empty_sparse": "answer"})
    dense = Completer(settings).complete(frame)
    assert np.isfinite(dense.depth).all() and (dense.depth > 0).all()
    assert (dense.confidence == 0).all()


def test_five_points_give_a_map_as_good_as_the_nearest_fill(frames):
    completer, errors = Completer(Settings()), []
    for seed in range(4):
        sparse = sample_points(frames[1], "5", seed)
        depth = completer.complete(dataclasses.replace(frames[0]["random"], sparse=sparse)).depth
        assert np.isfinite(depth).all()
        judged = frames[1] > 0
        errors.append([np.abs(made - frames[1])[judged].mean()
                       for made in (depth, fill.nearest(sparse))])
    ours, nearest = np.mean(errors, axis=0)
    assert ours <= nearest
