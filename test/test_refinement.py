"""Rounds of queries: what they promise on any answers, within pixels and within time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from models import frame, random_model

from sdim_ros.core import engine
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import QuerySettings, Settings, with_values
from sdim_ros.core.pace import Pace, TimeLeft
from sdim_ros.core.queries import regular_grid
from sdim_ros.core.refinement import Rounds, best_spread_out, interest
from sdim_ros.core.types import Answers, Frame


def answered(rows: np.ndarray, cols: np.ndarray, spread: float | np.ndarray = 0.05,
             depth: float | np.ndarray = 2.0) -> Answers:
    return Answers(rows, cols, *(np.full(len(rows), x, np.float32) for x in (depth, spread)))


def asked(settings: QuerySettings, sparse: np.ndarray, image: np.ndarray
          ) -> list[tuple[np.ndarray, np.ndarray]]:
    """All rounds of a frame whose answers differ from pixel to pixel."""
    rounds, seen = Rounds(sparse, image, {}, settings), []
    while len((at := rounds.next())[0]):
        rounds.told(answered(*at, spread=0.01 + (at[0] * 7 + at[1] * 3) % 11 / 50))
        seen.append(at)
    return seen


@pytest.mark.parametrize("points", [1, 120, 6000, 12_200])
@pytest.mark.parametrize("budget", [1, 2, 7, 100, 1000, 5000])
def test_the_budget_is_used_and_no_pixel_is_asked_twice_or_where_it_is_measured(
        budget: int, points: int) -> None:
    image, sparse = frame(points=points)
    rows, cols = np.concatenate([np.stack(at) for at in asked(
        QuerySettings(budget=budget, refined=0.5), sparse, image)], axis=1)
    assert len(rows) == min(budget, sparse.size - points)
    assert len(set(zip(rows, cols, strict=True))) == len(rows)
    assert (sparse[rows, cols] == 0).all()


def test_without_refinement_there_is_one_grid() -> None:
    image, sparse = frame()
    (rows, cols), = asked(QuerySettings(budget=900), sparse, image)
    expected = regular_grid(sparse <= 0, 900)
    np.testing.assert_array_equal((rows, cols), expected)


def test_equal_frames_ask_equal_pixels() -> None:
    image, sparse = frame()
    first, second = (asked(QuerySettings(budget=900, refined=0.5), sparse, image) for _ in range(2))
    np.testing.assert_array_equal(np.hstack(first), np.hstack(second))


@pytest.mark.parametrize(("settings", "expected"), [
    (QuerySettings(preset="fast", refined=0.5), [250, 250]), (QuerySettings(preset="balanced", refined=0.5), [750, 750]),
    (QuerySettings(budget=6000, refined=0.5), [1500, 1500, 3000])])
def test_half_is_a_grid_and_each_round_doubles_the_answers(
        settings: QuerySettings, expected: list[int]) -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    counts = [len(rows) for rows, _ in asked(settings, np.zeros((300, 400), np.float32), image)]
    assert sum(counts) == sum(expected)
    np.testing.assert_allclose(counts, expected, rtol=0.1)


@pytest.mark.parametrize("preset", ["exact", "paper"])
def test_exact_asks_every_missing_pixel(preset: str) -> None:
    image, sparse = frame()
    counts = [len(rows) for rows, _ in asked(QuerySettings(preset=preset, refined=0.5), sparse, image)]
    assert sum(counts) == sparse.size - 120 and counts[0] <= 1500


def test_where_a_grid_misses_what_is_missing_the_first_round_is_spread_over_it() -> None:
    image = np.zeros((96, 128, 3), np.uint8)
    sparse = np.full((96, 128), 2, np.float32)
    sparse[:, 1] = 0  # a column between the lines of every coarse grid
    first = asked(QuerySettings(budget=20, refined=0.5), sparse, image)[0]
    assert len(first[0]) == 10 and (first[1] == 1).all()
    assert np.ptp(first[0]) > 40


def left_half(sparse: np.ndarray, image: np.ndarray, spread: Callable, depth: Callable,
              maps: dict) -> float:
    """Share of the second round that lies in the left half."""
    rounds = Rounds(sparse, image, maps, QuerySettings(budget=400, refined=0.5))
    rows, cols = rounds.next()
    rounds.told(answered(rows, cols, spread(cols < 64), depth(rows, cols < 64)))
    return float(np.mean(rounds.next()[1] < 64))


def test_the_second_round_goes_where_something_is_wrong() -> None:
    sparse, image = np.zeros((96, 128), np.float32), np.zeros((96, 128, 3), np.uint8)
    sparse[4::16, 4::16] = 2.0
    flat = np.full(sparse.shape, 2, np.float32)
    other = flat * np.where(np.arange(128) < 64, 1.2, 1).astype(np.float32)

    def same(*_: np.ndarray) -> float:
        return 0.02

    def agree(*_: np.ndarray) -> float:
        return 2.0

    def share(spread: Callable = same, depth: Callable = agree, fills: np.ndarray = flat) -> float:
        return left_half(sparse, image, spread, depth, {"linear": flat, "guided": fills})

    assert 0.4 < share() < 0.6
    unsure = share(spread=lambda left: np.where(left, 0.4, 0.02))
    torn = share(depth=lambda rows, left: 2 + 0.5 * (left & (rows // 8 % 2 == 0)))
    assert unsure > 0.9 and torn > 0.9 and share(fills=other) > 0.9


def test_far_from_all_measurements_and_answers_is_more_interesting_than_near() -> None:
    sparse, image = np.zeros((60, 60), np.float32), np.zeros((60, 60, 3), np.uint8)
    sparse[30, 5] = 2.0
    score = interest(sparse, image, answered(np.array([30]), np.array([15])), {})
    assert score[30, 5] == score[30, 15] == 0
    assert score[30, 10] < score[30, 30] < score[30, 55]


def test_the_best_pixels_do_not_lie_on_one_heap() -> None:
    score = np.zeros((80, 80), np.float32)
    score[:16, :16] = 1
    rows, cols = best_spread_out(score, 20)
    inside = (rows < 16) & (cols < 16)
    assert len(rows) == 20 and 1 <= inside.sum() < 10


class Clock:
    """Goes on by so many milliseconds at every query, and else only when it is told to."""

    def __init__(self, ms: float = 0.0) -> None:
        self.seconds, self.ms = 0.0, ms

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Completer, Clock]]:
    """A completer whose queries take the given milliseconds each, and nothing else takes time."""
    spell, model = engine.spell, random_model()

    def make(ms: float, **settings: object) -> tuple[Completer, Clock]:
        clock = Clock(ms)

        def slow(model, prefix, suffix, *how):
            clock.seconds += clock.ms * len(suffix) / 1000
            return spell(model, prefix, suffix, *how)

        monkeypatch.setattr(engine, "spell", slow)
        values = {"queries.preset": "balanced", "queries.refined": 0.5, "queries.tile": 100,
                  "fill.calibration_points": 20, **settings}
        return Completer(with_values(Settings(), values), model, clock), clock

    return make


@pytest.mark.parametrize("calibration_points", [0, 20])
@pytest.mark.parametrize("ms", [0.8, 5.0])
def test_a_time_budget_ends_every_frame_from_the_first_one_on(
        timed: Callable, ms: float, calibration_points: int) -> None:
    completer, clock = timed(ms, **{"queries.budget_ms": 1000.0,
                                    "fill.calibration_points": calibration_points})
    for _ in range(3):
        start = clock.seconds
        dense = completer.complete(Frame(*frame()))
        assert 0.8 <= clock.seconds - start <= 1.0
        assert dense.stats.queries == pytest.approx(1000 * (clock.seconds - start) / ms, abs=1)


def test_frames_without_a_budget_do_not_mislead_those_with_one(timed: Callable) -> None:
    """As where it is set at run time, or for one of two cameras that share a model."""
    completer, clock = timed(5.0, **{"queries.refined": 0.0})
    with_budget = with_values(completer.settings, {"queries.budget_ms": 1000.0})
    for _ in range(2):
        completer.complete(Frame(*frame()))
        without = completer.settings
        completer.reconfigure(with_budget)
        start = clock.seconds
        completer.complete(Frame(*frame()))
        assert clock.seconds - start <= 1.0
        completer.reconfigure(without)


def test_time_that_is_not_needed_is_not_used(timed: Callable) -> None:
    completer, clock = timed(0.1, **{"queries.budget_ms": 1000.0})
    assert len(completer.complete(Frame(*frame())).answers) == 1500
    assert clock.seconds < 0.2


def test_without_any_time_a_few_pixels_are_asked_all_the_same(timed: Callable) -> None:
    completer, _ = timed(5.0, **{"queries.budget_ms": 1.0})
    dense = completer.complete(Frame(*frame()))
    assert 1 <= len(dense.answers) <= 64 and np.isfinite(dense.depth).all()


def test_a_machine_that_slows_down_is_asked_less(timed: Callable) -> None:
    completer, clock = timed(1.0, **{"queries.budget_ms": 1000.0})
    many = len(completer.complete(Frame(*frame())).answers)
    clock.ms, start = 4.0, clock.seconds
    few = len(completer.complete(Frame(*frame())).answers)
    assert few < many / 2 and clock.seconds - start < 2.2
    start = clock.seconds
    completer.complete(Frame(*frame()))
    assert clock.seconds - start <= 1.2


def test_the_time_for_what_follows_the_queries_is_set_aside() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.learn("query", 100.0, 100)
    pace.learn("fill", 200.0, 1000)
    pace.learn("confidence", 100.0, 1000)
    pace.learn("choose", 50.0, 1000)
    once, often = (TimeLeft(pace, 1000.0, 1000, every) for every in (False, True))
    assert once.queries(10, 5000) == pytest.approx(0.95 * 650, abs=1)
    assert often.queries(10, 5000) == pytest.approx(0.95 * 350, abs=1)
    clock.seconds += 0.7
    assert once.queries(10, 5000) == 0


def test_the_first_result_comes_after_the_first_grid_and_the_last_is_that_of_complete() -> None:
    completer = Completer(with_values(Settings(), {
        "queries.budget": 100, "queries.refined": 0.5, "fill.calibration_points": 40}), random_model())
    given = Frame(*frame())
    results = completer.improve(given)
    first = next(results)
    assert 40 <= len(first.answers) <= 50 and np.isfinite(first.depth).all()
    *_, last = results
    whole = completer.complete(given)
    assert len(last.answers) == 100
    assert first.stats.first_queries == last.stats.first_queries == len(first.answers)
    np.testing.assert_array_equal(last.depth, whole.depth)
    np.testing.assert_array_equal(last.answers.depth[:len(first.answers)], first.answers.depth)


def test_nobody_pays_for_results_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from sdim_ros.core import completer as module

    fills, apply_blend = [], module.apply_blend
    monkeypatch.setattr(module, "apply_blend",
                        lambda *given: fills.append(1) or apply_blend(*given))
    completer = Completer(with_values(Settings(), {
        "queries.budget": 100, "queries.refined": 0.5, "fill.calibration_points": 20}), random_model())
    completer.complete(Frame(*frame()))
    assert len(fills) == 1
    assert len(list(completer.improve(Frame(*frame())))) == 2 and len(fills) == 3


def test_a_complete_map_is_improved_once() -> None:
    image, _ = frame()
    full = np.full(image.shape[:2], 2.5, np.float32)
    assert len(list(Completer(Settings(), random_model()).improve(Frame(image, full)))) == 1
