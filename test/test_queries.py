"""Which pixels are asked, and what they are told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from models import CONFIG, frame

from sdim_ros.core import fill
from sdim_ros.core.config import QuerySettings
from sdim_ros.core.queries import budget_of, describe, regular_grid


@pytest.mark.parametrize("points", [500, 6000, 11_500])
@pytest.mark.parametrize("budget", [1, 7, 100, 400])
def test_the_grid_keeps_the_budget_and_uses_most_of_it(budget: int, points: int) -> None:
    _, sparse = frame(points=points)
    rows, cols = regular_grid(sparse <= 0, budget)
    assert len(rows) <= budget
    assert len(rows) >= 0.45 * budget or budget < 10
    assert (sparse[rows, cols] == 0).all()


def test_the_grid_covers_the_whole_image() -> None:
    rows, cols = regular_grid(np.ones((375, 1242), bool), 1500)
    for at, length in ((rows, 375), (cols, 1242)):
        lines = np.unique(at)
        gaps = np.diff([-lines[0] - 1, *lines, 2 * length - lines[-1] - 1])
        assert gaps.max() <= 1.25 * np.median(gaps) + 1


@pytest.mark.parametrize(("settings", "expected"), [
    (QuerySettings(preset="fast"), 500), (QuerySettings(preset="balanced"), 1500),
    (QuerySettings(preset="fast", budget=70), 70), (QuerySettings(budget=10**6), 11_788),
    (QuerySettings(preset="exact"), 11_788), (QuerySettings(preset="paper"), 11_788)])
def test_preset_and_budget_say_how_many_are_asked(settings: QuerySettings, expected: int) -> None:
    _, sparse = frame(points=500)
    assert budget_of(sparse, settings) == expected


def test_a_complete_map_asks_nothing() -> None:
    assert budget_of(np.ones((20, 30), np.float32), QuerySettings(preset="exact")) == 0


def test_each_query_is_told_the_nearest_measurements_in_the_frames_unit() -> None:
    sparse = np.zeros((50, 100), np.float32)
    sparse[10, 20], sparse[10, 30], sparse[40, 90] = 2.0, 4.0, 8.0
    asked = describe(CONFIG, sparse, np.array([10]), np.array([22]),
                     {"linear": np.array([2.2]), "edge_aware": np.array([np.nan])}, unit=2.0)
    assert asked.near_value[0, 0].tolist() == [1.0, 2.0, 4.0]
    assert asked.hints[0, 0].tolist() == pytest.approx([1.1, 0.0])
    assert asked.measured[0, 0] == 0
    assert asked.position[0, 0].tolist() == pytest.approx([22.5 / 100, 10.5 / 50])
    assert asked.aspect.item() == pytest.approx(0.5)


def test_a_told_measurement_stands_in_the_query() -> None:
    _, sparse = frame()
    rows, cols = (x[:3] for x in np.nonzero(sparse))
    asked = describe(CONFIG, sparse, rows, cols, dict.fromkeys(CONFIG.hints, np.ones(3)), 2.0,
                     sparse[rows, cols])
    np.testing.assert_allclose(asked.measured[0], sparse[rows, cols] / 2, rtol=1e-6)


def test_neighbours_that_are_not_told_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    _, sparse = frame()
    monkeypatch.setattr(fill, "nearest_points", None)
    config = dataclasses.replace(CONFIG, told="guess")
    hints = dict.fromkeys(config.hints, np.ones(2))
    asked = describe(config, sparse, np.array([3, 9]), np.array([4, 5]), hints, unit=2.0)
    assert asked.near_value.shape == (1, 2, 0)


def test_without_measurements_nothing_is_told() -> None:
    asked = describe(CONFIG, np.zeros((20, 30), np.float32), np.array([3]), np.array([4]),
                     dict.fromkeys(CONFIG.hints, np.full(1, np.nan)), 3.0)
    assert not asked.near_value.any() and not asked.hints.any()
    assert np.isfinite(asked.spacing.item())
