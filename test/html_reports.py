"""A report of a small real evaluation, and pictures for it."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

import numpy as np

from sdim_ros.core import fill, metrics
from sdim_ros.tools import report, sampling
from sdim_ros.tools.datasets.motorcycle import motorcycle
from sdim_ros.tools.html_report import Picture
from sdim_ros.tools.panels import frame_panels
from sdim_ros.tools.results import FrameResult, judge

HOSTILE = "x\"'><script>alert(1)</script><img src=x onerror=alert(1)>"
# Two more classical fills stand for the model's map and the fill under it.
FILLS = {"sdim": "guided", "fill_only": "guided_loose", **{n: n for n in fill.CLASSICAL}}


@lru_cache(maxsize=1)
def scene() -> tuple[np.ndarray, np.ndarray]:
    """Motorcycle at a quarter of its size: the image, and the reference in metres."""
    sample = motorcycle()
    return np.ascontiguousarray(sample.image[::4, ::4]), sample.reference[::4, ::4].copy()


def run(seed: int, points: str) -> FrameResult:
    image, reference = scene()
    sparse = sampling.sample_points(reference, points, seed)
    errors = {name: judge(fill.classical(method, sparse, image), reference, sparse)
              for name, method in FILLS.items()}
    dense = fill.classical(FILLS["sdim"], sparse, image)
    hidden = (reference > 0) & (sparse == 0)
    sure = np.linspace(0, 1, hidden.sum())  # no model, so nobody knows
    certainty = metrics.certainty(dense[hidden], reference[hidden], sure, 0.1 * dense[hidden])
    return FrameResult("motorcycle", seed, int(points), errors, {"sdim": 40.0 + seed},
                       certainty=certainty)


def evaluated() -> dict[str, Any]:
    """The content of report.json: measured errors, and made-up curves and published numbers."""
    header = report.environment(["sdim", "evaluate", "--dataset", "motorcycle"], "embedded", "tiny")
    content = report.build(header, [dataclasses.replace(run(seed, "150"), name=f"view {seed}")
                                    for seed in range(4)])
    content["methods"]["sdim"]["trust"] = 0.5
    maes = {name: content["methods"][name]["held_out"]["mae"] for name in FILLS}
    sdim = maes["sdim"]
    content["skipped"] = {"motorcycle seed 9": "no_reference: frame has none"}
    content["paired"] = {"method": "sdim", "against": {name: {"held_out": {"mae": {
        "difference": sdim - mae, "relative": sdim / mae - 1,
        "ci95": [sdim - mae - 0.01, sdim - mae + 0.01], "images": 4}}}
        for name, mae in maes.items() if name != "sdim"}}
    content["axes"] = [{
        "name": "points", "label": "number of points", "levels": ["0", "50", "500"],
        "methods": {name: {"mae": [None, 2 * mae, mae / 2], "rmse": [None, 4 * mae, mae]}
                    for name, mae in maes.items()}}]
    content["by_range"] = {"edges_m": [0, 1, 2, 3, 5], "pixels": [0, 0, 900, 1200, 0],
                           "mae": {name: [None, None, mae / 2, mae, None]
                                   for name, mae in maes.items()}}
    content["published"] = {
        "frames": 654, "caveats": ["OMNI-DC draws other points."],
        "rows": [{"method": "Marigold-DC", "dataset": "nyuv2", "mae_m": 0.048, "rmse_m": 0.124,
                  "source": "https://arxiv.org/abs/2412.13389v2"}]}
    return content


@lru_cache(maxsize=1)
def pictures() -> tuple[Picture, ...]:
    """The best and the worst draw, as the report shows them."""
    image, reference = scene()
    shown = []
    for title, points in (("worst: motorcycle, seed 0", "50"), ("best: motorcycle, seed 1", "500")):
        sparse = sampling.sample_points(reference, points, 0)
        sdim, without = (fill.classical(FILLS[name], sparse, image)
                         for name in ("sdim", "fill_only"))
        shown.append(Picture(title, f"{points} points", frame_panels(
            image, sparse, sdim, reference, without, depth_range=(2, 5), error_max=1.0)))
    return tuple(shown)
