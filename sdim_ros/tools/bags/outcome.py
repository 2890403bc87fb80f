"""What a replay leaves: the bag of results, the numbers of the report, the error over time."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from sdim_ros.core.config import Settings
from sdim_ros.core.frame_reader import Reading
from sdim_ros.core.projection import coloured_points
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.core.types import DenseDepth
from sdim_ros.tools.bag_writer import BagWriter
from sdim_ros.tools.bags.reading import store
from sdim_ros.tools.bags.sets import Tally
from sdim_ros.tools.bags.topics import CAMERA_INFO
from sdim_ros.tools.results import FrameResult

matplotlib.use("Agg")

from matplotlib.figure import Figure  # noqa: E402

PLOTTED = ("sdim", "fill_only")


def write_messages(writer: BagWriter, reading: Reading, dense: DenseDepth, settings: Settings
                   ) -> tuple[np.ndarray, np.ndarray]:
    """Add what the node would publish of one frame, under the stamp and frame of its image.

    Returns:
        The cloud and its colours, as of ``coloured_points``.
    """
    header, frame = reading.header, reading.frame
    time_ns, name = stamp_ns(header), header.frame_id
    if reading.info is None or not hasattr(reading.info, "d"):  # ROS 1 calls it D
        writer.camera_info("/depth/camera_info", time_ns, name, frame.camera)
    else:
        info = dataclasses.replace(reading.info, header=header)
        writer.raw("/depth/camera_info", CAMERA_INFO, time_ns,
                   store().serialize_cdr(info, CAMERA_INFO))
    depth = dense.confident(settings.output.min_confidence)
    writer.depth("/depth/completed", time_ns, name, depth, settings.output.encoding)
    writer.depth("/depth/confidence", time_ns, name, dense.confidence)
    points, colours = coloured_points(depth, frame.image, frame.camera, settings.points)
    writer.cloud("/depth/points", time_ns, name, points, colours)
    return points, colours


class Outcome:
    """Numbers of the frames so far; maps are not kept.

    Attributes:
        results: one for each completed frame.
        skipped: images and sets without a result, by reason.
        warnings: what looked wrong but was used.
    """

    def __init__(self) -> None:
        self.results: list[FrameResult] = []
        self.skipped, self.warnings = Tally(), Tally()
        self.unjudged = Tally()
        self.over_time: list[dict[str, float]] = []
        self._stages: dict[str, list[float]] = defaultdict(list)
        self._first_ns: int | None = None
        self._last_ns: int | None = None

    def add(self, time_ns: int, result: FrameResult, ms: Mapping[str, float]) -> dict[str, float]:
        """Take one completed frame.

        Args:
            time_ns: stamp of the image.
            ms: milliseconds by stage.

        Returns:
            The mean absolute errors at pixels that were not given, by method; empty where the
            frame was not judged.
        """
        self.results.append(result)
        self._first_ns = time_ns if self._first_ns is None else min(self._first_ns, time_ns)
        self._last_ns = time_ns if self._last_ns is None else max(self._last_ns, time_ns)
        for stage, spent in ms.items():
            self._stages[stage].append(spent)
        held_out = {name: errors["held_out"] for name, errors in result.errors.items()
                    if "held_out" in errors}
        if "sdim" in held_out:
            ours = held_out["sdim"]
            self.over_time.append({
                "stamp_s": time_ns / 1e9, "mae": ours["mae"], "rmse": ours["rmse"],
                **{f"{name}_mae": errors["mae"] for name, errors in held_out.items()
                   if name != "sdim"}})
        return {name: errors["mae"] for name, errors in held_out.items()}

    def header(self, images: int, sets: int) -> dict[str, Any]:
        """The part ``replay`` of the report."""
        return {
            "images": images, "sets": sets, "completed": len(self.results),
            "skipped": self.skipped.as_dict(), "warnings": self.warnings.as_dict(),
            "unjudged": self.unjudged.as_dict(),
            "first_stamp_s": None if self._first_ns is None else self._first_ns / 1e9,
            "last_stamp_s": None if self._last_ns is None else self._last_ns / 1e9,
            "stages_ms": {name: float(np.median(spent)) for name, spent in self._stages.items()}}


def draw_over_time(path: Path, over_time: Sequence[Mapping[str, float]]) -> None:
    """error_over_time.png: the mean absolute error of each judged frame."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.add_subplot()
    seconds = np.array([entry["stamp_s"] for entry in over_time])
    for method in PLOTTED:
        key = "mae" if method == "sdim" else f"{method}_mae"
        errors = [entry.get(key, np.nan) for entry in over_time]
        axes.plot(seconds - seconds[0], errors, label=method, linewidth=1,
                  marker="." if len(seconds) < 100 else None)
    axes.set_xlabel(f"seconds since {seconds[0]:.3f} s")
    axes.set_ylabel("MAE, m")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
