"""Where the lines, dots and labels of a small chart go; the template of the report draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import LogLocator, MaxNLocator

# What a phone of 360 pixels has beside the margins: text of 14 units can be read there.
WIDTH = 300
PLOT_H = 176
TOP = 10
RIGHT = 12
CHARACTER = 8.2
LINE_H = 20
# Errors that differ by more than this are drawn by their logarithm.
LOG_RATIO = 20
SHARES_H = 0.3          # of the plot, for the bars behind the lines
LONGEST_LABEL = 14


@dataclass(frozen=True)
class Dot:
    """A value: where it is, and what it says when one points at it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """The values of one method; gaps split its path."""

    name: str
    paths: tuple[str, ...]
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Chart:
    """A chart of WIDTH x height units.

    Attributes:
        x_ticks, y_ticks: position and label.
        slanted: the labels of x are too long to stand side by side.
        bars: left, top, width and height of the bars behind the lines.
        bottom: where the plot ends.
    """

    title: str
    x_label: str
    left: float
    bottom: float
    height: float
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    slanted: bool
    bars: tuple[tuple[float, float, float, float], ...] = ()

    @property
    def width(self) -> float:
        return WIDTH

    @property
    def right(self) -> float:
        return WIDTH - RIGHT


def over_levels(
    title: str, x_label: str, levels: Sequence[str], series: Mapping[str, Sequence[float | None]]
) -> Chart | None:
    """One line per method over named levels, which stand at equal distances.

    Args:
        series: by method, one value per level; None and NaN = unknown.

    Returns:
        None when no value is known.
    """
    labels = [level if len(level) <= LONGEST_LABEL else level[:LONGEST_LABEL - 1] + "…"
              for level in levels]
    places = [((index + 0.5) / len(labels), label) for index, label in enumerate(labels)]
    return _chart(title, x_label, places, levels, series)


def over_ranges(
    title: str, x_label: str, edges: Sequence[float], shares: Sequence[float],
    series: Mapping[str, Sequence[float | None]],
) -> Chart | None:
    """One line per method over bins; behind them, the share of the pixels in each bin as a bar.

    Args:
        edges: lower ends of the bins; the last bin has no upper end.
        shares: of all pixels, one per bin. Empty bins at both ends are left out.
        series: by method, one value per bin; None and NaN = unknown.

    Returns:
        None when no value is known.
    """
    used = [index for index, share in enumerate(shares) if share > 0]
    if not used:
        return None
    first, end = used[0], used[-1] + 1
    names = [f"{low:g} to {high:g}" for low, high in zip(edges, edges[1:])]
    names.append(f"over {edges[-1]:g}")
    places = [((index - first) / (end - first), f"{edge:g}")
              for index, edge in enumerate(edges) if first <= index <= end]
    kept = {name: values[first:end] for name, values in series.items()}
    return _chart(title, x_label, places, names[first:end], kept, shares[first:end])


def _chart(
    title: str, x_label: str, places: Sequence[tuple[float, str]], names: Sequence[str],
    series: Mapping[str, Sequence[float | None]], shares: Sequence[float] = (),
) -> Chart | None:
    known = [value for values in series.values() for value in values if _known(value)]
    if not known:
        return None
    scale = _Scale(known)
    left = 8 + CHARACTER * max(len(label) for _, label in scale.ticks)
    span = WIDTH - RIGHT - left
    widest = max(len(label) for _, label in places) * CHARACTER
    slanted = widest + 6 > span / len(places)
    labels_h = LINE_H + 0.65 * widest if slanted else LINE_H
    bottom = TOP + PLOT_H
    steps = [left + span * (index + 0.5) / len(names) for index in range(len(names))]
    lines = tuple(_line(name, values, names, steps, scale) for name, values in series.items())
    width, most = span / len(names), max(shares, default=0)
    bars = tuple(
        (x - width / 2 + 1, bottom - height, width - 2, height)
        for x, share in zip(steps, shares)
        if (height := PLOT_H * SHARES_H * share / most) > 0)
    return Chart(
        title, x_label, left, bottom, bottom + labels_h + LINE_H + 8, lines,
        tuple((left + span * share, label) for share, label in places),
        tuple((scale.y(value), label) for value, label in scale.ticks), slanted, bars)


def _line(name: str, values: Sequence[float | None], names: Sequence[str],
          steps: Sequence[float], scale: _Scale) -> Line:
    paths, dots, path = [], [], []
    for x, value, place in zip(steps, values, names):
        if not _known(value):
            paths, path = paths + [path], []
            continue
        y = scale.y(value)
        path.append(f"{x:.1f},{y:.1f}")
        dots.append(Dot(round(x, 1), round(y, 1), f"{name}, {place}: {value:.3g} m"))
    paths.append(path)
    return Line(name, tuple(" ".join(path) for path in paths if len(path) > 1), tuple(dots))


class _Scale:
    """Heights in the plot: from 0 on, or by the logarithm where errors differ much."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = min(values), max(values)
        self.log = low > 0 and high / low > LOG_RATIO
        if self.log:
            decades = math.log10(high / low)
            found = LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)).tick_values(low, high)
            self.low, self.high = math.log10(low / 1.15), math.log10(high * 1.15)
        else:
            found = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, high or 1)
            self.low, self.high = 0.0, (high or 1) * 1.05
        self.ticks = tuple(
            (value, f"{value:g}") for value in map(float, found)
            if (value > 0 or not self.log) and TOP <= self.y(value) <= TOP + PLOT_H)

    def y(self, value: float) -> float:
        at = math.log10(value) if self.log else value
        return TOP + PLOT_H * (1 - (at - self.low) / (self.high - self.low))


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
