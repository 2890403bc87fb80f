"""The curves of a benchmark as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

AXES = (("resolution", "pixels", "pixels of the image"), ("queries", "queries", "pixels asked"),
        ("points", "points", "measured points"))


def draw(path: Path, figures: dict[str, Any], model: str) -> None:
    """Write a PNG: milliseconds of a frame over resolution, queries and points, and its error.

    Args:
        figures: the ``bench`` section of a report with ``curves``.
    """
    curves = figures["curves"]
    figure = Figure(figsize=(4 * len(curves), 4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(model)
    plots = figure.subplots(1, len(curves))
    for axes, (curve, key, label) in zip(plots, AXES):
        rows = curves[curve]
        _lines(axes, rows, key, {"ms": "whole frame", "query_passes_ms": "query passes"})
        axes.set(xlabel=label, ylabel="ms")
    if "error" in curves:
        _lines(plots[-1], curves["error"], "queries",
               {"mae": "with the model", "fill_only_mae": "the same fill without it"})
        plots[-1].set(xlabel="pixels asked", ylabel="MAE, m")
    figure.savefig(path, dpi=110)


def _lines(axes: Axes, rows: list[dict[str, float]], key: str, names: dict[str, str]) -> None:
    x = [row[key] for row in rows]
    for name, label in names.items():
        axes.plot(x, [row[name] for row in rows], marker="o", label=label)
    axes.set_ylim(0, 1.25 * max(row[name] for row in rows for name in names))
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{value:,}" for value in x])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
