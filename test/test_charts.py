"""Charts put their values where a reader expects them."""

from __future__ import annotations

import pytest

from sdim_ros.tools.charts import PLOT_H, TOP, WIDTH, over_levels, over_ranges


def test_larger_errors_are_higher_and_later_levels_farther_right():
    chart = over_levels("MAE", "points", ["50", "500"], {"sdim": [0.4, 0.1], "linear": [0.8, 0.2]})
    sdim, linear = chart.lines
    assert sdim.dots[0].x < sdim.dots[1].x and sdim.dots[0].y < sdim.dots[1].y
    assert linear.dots[0].y < sdim.dots[0].y
    assert all(TOP <= dot.y <= TOP + PLOT_H and chart.left <= dot.x <= WIDTH
               for line in chart.lines for dot in line.dots)
    assert "sdim, 50: 0.4 m" == sdim.dots[0].text


def test_the_axis_begins_at_zero_unless_errors_differ_much():
    plain = over_levels("MAE", "points", ["a", "b"], {"sdim": [0.1, 0.4]})
    assert plain.y_ticks[0] == (TOP + PLOT_H, "0")
    wide = over_levels("MAE", "points", ["a", "b"], {"sdim": [0.01, 40.0]})
    labels = [float(label) for _, label in wide.y_ticks]
    assert len(labels) >= 3 and min(labels) > 0
    steps = [a[0] - b[0] for a, b in zip(wide.y_ticks, wide.y_ticks[1:])]
    assert max(steps) == pytest.approx(min(steps))  # decades at equal distances


def test_an_unknown_value_leaves_a_gap_in_the_line():
    chart = over_levels("MAE", "points", list("abcde"), {"sdim": [0.1, 0.2, None, 0.3, 0.4]})
    line, = chart.lines
    assert [len(path.split()) for path in line.paths] == [2, 2] and len(line.dots) == 4


@pytest.mark.parametrize("values", [[None, None], [float("nan")] * 2])
def test_there_is_no_chart_without_values(values):
    assert over_levels("MAE", "points", ["a", "b"], {"sdim": values}) is None
    assert over_ranges("MAE", "m", [0, 1], [0.5, 0.5], {"sdim": values}) is None
    assert over_ranges("MAE", "m", [0, 1], [0, 0], {"sdim": [1, 1]}) is None
    assert over_ranges("MAE", "m", [0, 1], [], {}) is None


def test_one_value_and_errors_of_zero_are_drawn():
    chart = over_levels("MAE", "points", ["a"], {"sdim": [0.0], "linear": [0.0]})
    assert [len(line.dots) for line in chart.lines] == [1, 1] and not chart.lines[0].paths


def test_names_too_long_to_stand_side_by_side_are_slanted_and_cut():
    names = ["as it is", "half as bright as it was", "dark", "over-exposed", "in the fog"]
    slanted = over_levels("MAE", "light", names, {"sdim": [1, 2, 3, 4, 5]})
    upright = over_levels("MAE", "points", ["0", "50"], {"sdim": [1, 2]})
    assert slanted.slanted and not upright.slanted and slanted.height > upright.height
    assert max(len(label) for _, label in slanted.x_ticks) <= 14
    assert "half as bright as it was" in slanted.lines[0].dots[1].text


def test_ranges_without_pixels_are_left_out_at_both_ends():
    chart = over_ranges("MAE", "m", [0, 1, 2, 5, 10], [0, 0.25, 0.75, 0, 0],
                        {"sdim": [None, 0.1, 0.2, None, None]})
    assert [label for _, label in chart.x_ticks] == ["1", "2", "5"]
    assert [dot.text for dot in chart.lines[0].dots] == [
        "sdim, 1 to 2: 0.1 m", "sdim, 2 to 5: 0.2 m"]
    (x, *_, low), (_, *_, high) = chart.bars
    assert high == pytest.approx(3 * low)
    assert chart.x_ticks[0][0] < chart.lines[0].dots[0].x < chart.x_ticks[1][0]


def test_the_last_range_has_no_end():
    chart = over_ranges("MAE", "m", [0, 80], [0.5, 0.5], {"sdim": [0.1, 3.0]})
    assert chart.lines[0].dots[-1].text == "sdim, over 80: 3 m"
