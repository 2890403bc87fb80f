"""``sdim demo``: one real scene through the real node, judged by the scene's own reference."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.status import Status

from sdim_ros.core.config import Settings
from sdim_ros.core.projection import disparity_to_depth
from sdim_ros.core.types import Frame, SdimError
from sdim_ros.tools import overview, report, results, sampling
from sdim_ros.tools.complete import (
    add_model_arguments, load_completer, make_folder, settings_from,
)
from sdim_ros.tools.datasets import motorcycle
from sdim_ros.tools.datasets.frames import FIRST_STAMP_NS, Sample
from sdim_ros.tools.frame_judge import FrameJudge
from sdim_ros.tools.results import METHODS, FrameResult

RANDOM_POINTS = "500"
STEREO_POINTS = "1500"
SEED = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``sdim demo``."""
    parser.add_argument("--out", default="demo_out", metavar="DIR",
                        help="where the results go (default demo_out)")
    parser.add_argument("--frames", type=int, default=5, metavar="N",
                        help="how often each input is sent to the node (default 5)")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Both inputs through the node; writes overview.png, report.json and demo.mcap of each.

    An error that is larger than it should be is said, and is no failure of the command.
    """
    if args.frames < 1:
        raise SdimError(f"--frames {args.frames}: expected at least 1")
    try:
        from sdim_ros.tools import live
    except ImportError as problem:
        raise SdimError(
            f"the demo needs ROS 2 and rosbags ({problem}): `make demo` installs what is missing; "
            "`sdim evaluate --dataset motorcycle` needs neither") from problem
    console = Console(stderr=True)
    settings = settings_from(args)
    sample, right = motorcycle.motorcycle_stereo()
    sample = dataclasses.replace(sample, stamp_ns=FIRST_STAMP_NS)
    judge = FrameJudge(METHODS, load_completer(settings))
    reports: dict[str, Any] = {}
    for name, (sparse, purpose) in _inputs(sample, right).items():
        frame = sample.frame(sparse)
        out = make_folder(Path(args.out) / name)
        with console.status(name) as status:
            tell = _teller(console, status, name)
            recording = live.play(frame, settings, args.frames, out / "node.log", tell)
            tell("comparing with the other methods")
            result, difference = _judged(judge, frame, sample.truth, recording)
            tell("writing the results")
            live.write_bag(out / "demo.mcap", recording)
        content = report.build(_header(args, settings, judge, recording, difference), [result])
        report.write_json(out / "report.json", content)
        overview.draw(out / "overview.png", purpose, frame.image, frame.sparse, recording.depth,
                      recording.confidence, sample.truth, report.notes(result))
        console.print(f"{name}: {out}/overview.png, report.json, demo.mcap", highlight=False)
        reports[f"{name}: {purpose}"] = content
    _tell_results(Console(), reports)
    return 0


def stereo_points(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """What a robot may get from a stereo camera: noisy, wrong at edges, thinned at random.

    Args:
        left, right: (H, W, 3) uint8 RGB, the rectified pair of Motorcycle.

    Returns:
        (H, W) float32 metres in the left view, 0 = not measured.
    """
    window, channels = 5, 3
    matcher = cv2.StereoSGBM_create(
        minDisparity=0, numDisparities=80, blockSize=window,
        P1=8 * channels * window**2, P2=32 * channels * window**2, disp12MaxDiff=1,
        uniquenessRatio=10, speckleWindowSize=100, speckleRange=2)
    disparity = matcher.compute(left, right).astype(np.float32) / 16  # fixed point, 4 bits
    depth = disparity_to_depth(
        disparity, motorcycle.MOTORCYCLE_FOCAL_PX, motorcycle.MOTORCYCLE_BASELINE_M,
        motorcycle.MOTORCYCLE_DOFFS_PX)
    return sampling.sample_points(depth, STEREO_POINTS, SEED)


def _teller(console: Console, status: Status, name: str) -> Callable[[str], None]:
    """Shows what is being done: one line that changes, or a line each in a log file."""
    def tell(what: str) -> None:
        status.update(f"{name}: {what}")
        if not console.is_terminal:
            console.print(f"{name}: {what}", highlight=False)
    return tell


def _tell_results(console: Console, reports: Mapping[str, Any]) -> None:
    """A table of each input, then in words what the model added to it."""
    for title, content in reports.items():
        console.print(title, report.table(content), sep="\n", highlight=False)
    console.print("sdim is what the node published; its ms are the round trip over DDS.\n"
                  "Errors are judged where no point was given. One scene is no benchmark.")
    for title, content in reports.items():
        _, keeps_up = report.against_classical(content)
        console.print(f"{title}:\n  {report.contribution(content)}\n  {keeps_up}",
                      highlight=False)


def _inputs(
    sample: Sample, right: np.ndarray
) -> dict[str, tuple[np.ndarray, str]]:
    """Sparse depth and title of each input of the demo."""
    random = sampling.sample_points(sample.reference, RANDOM_POINTS, SEED)
    return {
        "random": (random, "Motorcycle, 500 random points"),
        "stereo": (stereo_points(sample.image, right), "Motorcycle, 1500 stereo matches"),
    }


def _judged(
    judge: FrameJudge, frame: Frame, truth: np.ndarray, recording: Any
) -> tuple[FrameResult, float]:
    """The result with the published map as ``sdim``, and how far it is from the core's own."""
    judged = judge(frame, truth, SEED)
    difference = float(np.nanmax(np.abs(recording.depth - judged.dense.depth)))
    errors = judged.result.errors | {"sdim": results.judge(recording.depth, truth, frame.sparse)}
    times = judged.result.ms | {"sdim": float(np.median(recording.round_trip_ms))}
    return dataclasses.replace(judged.result, errors=errors, ms=times), difference


def _header(
    args: argparse.Namespace, settings: Settings, judge: FrameJudge, recording: Any,
    difference: float,
) -> dict[str, Any]:
    environment = report.environment(
        args.command_line, settings.model.checkpoint, judge.description)
    return environment | {"node": {
        "frames": len(recording.round_trip_ms),
        "round_trip_ms": recording.round_trip_ms,
        "largest_difference_to_core_m": difference,
    }}
