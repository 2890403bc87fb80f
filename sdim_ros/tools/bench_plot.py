"""The curves of a benchmark as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

AXES = (("resolution", "pixels", "pixels of the image"), ("queries", "queries", "pixels asked"),
        ("points", "points", "measured points"))


def draw(path: Path, figures: dict[str, Any], model: str) -> None:
    """Write a PNG: milliseconds of a frame over resolution, queries and points.

    Args:
        figures: the ``bench`` section of a report with ``curves``.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(model)
    for axes, (curve, key, label) in zip(figure.subplots(1, len(AXES)), AXES):
        rows = figures["curves"][curve]
        x = [row[key] for row in rows]
        axes.plot(x, [row["ms"] for row in rows], marker="o", label="whole frame")
        axes.plot(x, [row["query_passes_ms"] for row in rows], marker="o", label="query passes")
        axes.set(xscale="log", xlabel=label, ylabel="ms", ylim=(0, None))
        axes.set_xticks(x, [f"{value:,}" for value in x])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
