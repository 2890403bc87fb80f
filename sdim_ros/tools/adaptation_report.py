"""What an adaptation brought: numbers, the course of it, and one frame before and after."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from sdim_ros.core import metrics
from sdim_ros.core.adaptation import Adaptation
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import Settings
from sdim_ros.core.types import BadInput, ModelFailed
from sdim_ros.tools import adaptation_course, html_report, report
from sdim_ros.tools.html_report import Picture
from sdim_ros.tools.panels import frame_panels
from sdim_ros.tools.report import by_image
from sdim_ros.tools.results import FrameResult


def build(header: Mapping[str, Any], results: Sequence[FrameResult],
          courses: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of report.json.

    Args:
        courses: one a seed, from `course_of`.
    """
    content = report.build(header, results)
    return content | {"adaptation": {"runs": list(courses), **_gains(results)}}


def _gains(results: Sequence[FrameResult]) -> dict[str, Any]:
    """By how much the adapted weights lower the MAE, a share, for each seed and their median.

    ``paired`` compares frame by frame, of all seeds together.
    """
    gains: dict[str, Any] = {}
    for before, after in (("sdim", "sdim_adapted"), ("answers", "answers_adapted")):
        judged = [r for r in results if _both(r, before, after)]
        if judged:
            pairs = np.array([[r.errors[name]["held_out"]["mae"] for name in (before, after)]
                              for r in judged])
            seeds = np.array([r.seed for r in judged])
            by_seed = [1 - pairs[seeds == seed, 1].mean() / pairs[seeds == seed, 0].mean()
                       for seed in np.unique(seeds)]
            gains[after] = {"lower_by": by_seed, "median": float(np.median(by_seed)),
                            "paired": metrics.paired_difference(
                                *(by_image(judged, pairs[:, i]) for i in (1, 0)))}
    return gains


def _both(result: FrameResult, *names: str) -> bool:
    return all("held_out" in result.errors.get(name, {}) for name in names)


def write(out: Path, args: argparse.Namespace, settings: Settings, completer: Completer,
          results: Sequence[FrameResult], courses: Sequence[Mapping[str, Any]],
          skipped: Mapping[str, str], pictures: Sequence[Picture] = ()) -> None:
    """Write report.json, report.html and adaptation.png, and tell the result."""
    header = report.environment(
        args.command_line, settings.model.checkpoint, completer.description)
    content = build(header | {"skipped": dict(skipped)}, results, courses)
    report.write_json(out / "report.json", content)
    _plot(out / "adaptation.png", courses)
    html_report.write(out / "report.html", content, pictures)
    console = Console()
    if results:
        console.print(report.table(content))
    for line in sentences(content):
        console.print(line, highlight=False)


def sentences(content: Mapping[str, Any]) -> list[str]:
    """The result for people."""
    found = content["adaptation"]
    lines = []
    for name, words in (("sdim_adapted", "the map"), ("answers_adapted", "the answers")):
        if name in found:
            change = found[name]["median"]
            lines.append(f"adaptation {'lowers' if change >= 0 else 'raises'} the MAE of {words} "
                         f"by {100 * abs(change):.1f} % (median of "
                         f"{len(found[name]['lower_by'])} seeds)"
                         + _interval(found[name]["paired"]))
    for course in found["runs"]:
        lines += adaptation_course.sentences(course)
    return lines


def _interval(paired: Mapping[str, Any]) -> str:
    """How sure the change is; of one frame nobody knows."""
    if paired["images"] < 2:
        return ""
    return (f"; paired over {paired['images']} frames, metres, 95 % interval: "
            + " to ".join(f"{end:+.5f}" for end in paired["ci95"]))


def _plot(path: Path, courses: Sequence[Mapping[str, Any]]) -> None:
    """The error at judging points over the steps, or over the frames of a live run."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for course in courses:
        if "live" in course:
            frames = course["live"]["frames"]
            axes.plot([f["before"] for f in frames], color="0.6", label="as loaded")
            axes.plot([f["now"] for f in frames], color="C0", label="learning")
            axes.set(xlabel="frame", ylabel="MAE where no point was given, m")
        else:
            steps = [j["steps"] for j in course["judged"]]
            axes.plot(steps, [100 * j["before"] for j in course["judged"]], color="0.6",
                      label="as loaded")
            axes.plot(steps, [100 * j["now"] for j in course["judged"]], color="C0",
                      label="in use")
            axes.set(xlabel="steps", ylabel="error at points that never train, %")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(*zip(*dict(zip(labels, zip(handles, labels))).values()) if labels else ([], []))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def before_and_after(adaptation: Adaptation, frames: Sequence[tuple[Any, np.ndarray]]
                     ) -> list[Picture]:
    """Pictures of frames by the weights in use, with the error of those that were loaded.

    Args:
        frames: input and reference of each.
    """
    pictures = []
    for frame, reference in frames:
        try:
            after = adaptation.completer.complete(frame)
            with adaptation.as_loaded():
                before = adaptation.completer.complete(frame)
        except (BadInput, ModelFailed):  # told among the frames that were left out
            continue
        pictures.append(Picture(
            f"before and after: {frame.name}", f"{after.stats.points:,} points given",
            frame_panels(frame.image, frame.sparse, after.depth, reference, before.depth,
                         "as loaded", name="adapted")))
    return pictures
