"""The benchmarks' filter of hidden LiDAR points, against hand-worked values and plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.core.projection import occlusion_filter
from sdim_ros.tools.datasets.protocol_filter import drop_hidden_points


def by_loops(sparse: np.ndarray, window: int, tolerance: float) -> np.ndarray:
    """Every point judges the points of its window, one by one."""
    height, width = sparse.shape
    reach = window // 2
    behind = np.zeros_like(sparse)
    for row, col in zip(*np.nonzero(sparse)):
        around = [(r, c) for r in range(max(row - reach, 0), min(row + reach + 1, height))
                  for c in range(max(col - reach, 0), min(col + reach + 1, width))]
        nearest = min(sparse[place] for place in around if sparse[place] > 0)
        for place in around:
            behind[place] = max(behind[place], sparse[place] - nearest)
    return np.where(behind > tolerance, 0, sparse)


def in_a_row(*depths: float) -> np.ndarray:
    return np.array([depths], np.float32)


def test_a_point_far_behind_a_near_one_in_its_window_is_dropped():
    sparse = in_a_row(10, 0, 0, 4, 0, 5.5, 0)
    np.testing.assert_array_equal(drop_hidden_points(sparse), in_a_row(0, 0, 0, 4, 0, 5.5, 0))
    assert sparse[0, 0] == 10


def test_exactly_the_tolerance_is_kept():
    np.testing.assert_array_equal(drop_hidden_points(in_a_row(4, 5.5)), in_a_row(4, 5.5))
    above = 5.5 + 1 / 256
    np.testing.assert_array_equal(drop_hidden_points(in_a_row(4, above)), in_a_row(4, 0))


def test_a_near_point_reaches_through_the_window_of_a_point_between():
    """Six pixels apart, no window of 7 holds both ends; the one around the middle point does."""
    with_a_point_between = in_a_row(4, 0, 0, 5, 0, 0, 6)
    np.testing.assert_array_equal(
        drop_hidden_points(with_a_point_between), in_a_row(4, 0, 0, 5, 0, 0, 0))
    alone = in_a_row(4, 0, 0, 0, 0, 0, 6)
    np.testing.assert_array_equal(drop_hidden_points(alone), alone)
    # The node's own filter looks at one window only.
    np.testing.assert_array_equal(
        occlusion_filter(with_a_point_between, 7, 1.5, 0), with_a_point_between)


def test_a_near_point_more_than_two_windows_away_changes_nothing():
    apart = in_a_row(4, 0, 0, 4.5, 0, 0, 0, 6)
    np.testing.assert_array_equal(drop_hidden_points(apart), apart)


@pytest.mark.parametrize("seed, share, window, tolerance", [
    (0, 0.02, 7, 1.5), (1, 0.2, 7, 1.5), (2, 0.9, 7, 1.5), (3, 0.3, 3, 0.5), (4, 0.3, 5, 20.0)])
def test_it_does_what_the_plain_loops_do(seed, share, window, tolerance):
    generator = np.random.default_rng(seed)
    depth = generator.integers(256, 80 * 256, (24, 31)) / 256
    near = np.where(generator.random((24, 31)) < 0.5, 0.05 * depth + 5, depth)
    sparse = np.where(generator.random((24, 31)) < share, near, 0).astype(np.float32)
    expected = by_loops(sparse, window, tolerance)
    np.testing.assert_array_equal(drop_hidden_points(sparse, window, tolerance), expected)
    assert seed == 4 or np.count_nonzero(expected) < np.count_nonzero(sparse)


def test_an_empty_map_stays_empty():
    assert not drop_hidden_points(np.zeros((5, 6), np.float32)).any()
