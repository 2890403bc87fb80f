"""``sdim complete``: an image and sparse depth in, dense depth out, no ROS needed."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.types import BadInput, BadSetting, DenseDepth, Frame, ModelFailed
from sdim_ros.tools import overview, report
from sdim_ros.tools.assignments import parse_assignments
from sdim_ros.tools.datasets.files import read_depth, read_image, write_depth_png
from sdim_ros.tools.datasets.frames import Sample, file_name, frame_names
from sdim_ros.tools.datasets.frames_folder import FramesFolder
from sdim_ros.tools.results import FrameResult, judge

DEPTH_SCALE = 1000.0
CONFIDENCE_SCALE = 65535

# How settings begin that only messages of ROS have a use for.
OF_MESSAGES = ("autostart", "diagnostics.", "input.depth_transport", "input.image_transport",
               "input.max_age_s", "input.rectify", "input.sources", "output.encoding",
               "output.max_rate_hz", "points.", "projection.", "sync.", "worker.")
# What `add_model_arguments` adds.
MODEL_FLAGS = ("checkpoint", "preset", "device", "doubt", "set")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``sdim complete``."""
    parser.add_argument("--image", help="image file; goes with --sparse")
    parser.add_argument("--sparse", help="sparse depth: PNG of 16 bits, or .npy in metres")
    parser.add_argument("--depth-scale", type=float, metavar="S",
                        help=f"metres = PNG value / S, in and out (default {DEPTH_SCALE:g}); a "
                        "frames folder says its own")
    parser.add_argument("--data", metavar="FOLDER", help="a frames folder instead of one image")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the results go")
    add_model_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of every verb that runs the model."""
    parser.add_argument("--checkpoint", help="folder or Hugging Face id; default: the embedded")
    parser.add_argument("--preset", help="fast, balanced, exact or paper")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--doubt", help="points that neighbours and model contradict: ignore, "
                        "warn or reject")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                        help="any other setting, e.g. queries.budget=500; may be repeated")


def settings_from(args: argparse.Namespace, unread: tuple[str, ...] = ()) -> Settings:
    """The settings that the flags of `add_model_arguments` describe.

    Args:
        unread: how settings begin that the verb has no use for.

    Raises:
        BadSetting: a setting that does not exist, cannot have this value, or is unread.
    """
    flags = {"model.checkpoint": args.checkpoint, "queries.preset": args.preset,
             "model.device": args.device, "doubt.mode": args.doubt}
    values: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    assigned = parse_assignments(args.set)
    for name in assigned:
        if name.startswith(unread):
            raise BadSetting(f"--set {name}: nothing here reads it; it is for the node, and maybe "
                             "for sdim replay")
    values |= assigned
    return with_values(Settings(), values)


def load_completer(settings: Settings) -> Any:
    """The model with what it learnt in ``adaptation.folder``, if anything.

    Imported here so that classical fills and ``--help`` do not wait for it.
    """
    from sdim_ros.core.completer import Completer

    with Console(stderr=True).status("loading the model"):
        completer = Completer(settings)
        if settings.adaptation.folder:
            _use_adapter(completer, settings)
        return completer


def _use_adapter(completer: Any, settings: Settings) -> None:
    from sdim_ros.core import adapter_files
    from sdim_ros.core.adaptation import Adaptation

    folder = Path(settings.adaptation.folder).expanduser()
    adaptation = Adaptation(completer, settings.adaptation)
    found = adapter_files.load_newest(
        folder, adaptation.weights(), settings.model.checkpoint or report.EMBEDDED)
    if found is None:
        inside = folder / "adapter"
        raise BadInput("adapter", f"adaptation.folder {folder} holds no adapter: expected "
                       + (f"{inside}, inside of it" if inside.is_dir() else
                          "the folder `adapter` that `sdim adapt` wrote, or the node's"))
    adaptation.load(found[0])


def make_folder(path: str | Path) -> Path:
    """The folder, made where it is missing.

    Raises:
        BadInput: ``out``: it cannot be made or written to; told now, not after hours of work.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        raise BadInput("out", f"--out {folder} cannot be written to: {problem.strerror}; choose "
                       "another folder") from problem
    return folder


def run(args: argparse.Namespace) -> int:
    """Complete one image or a frames folder; writes results and report.json."""
    samples, scale = _inputs(args)
    settings = settings_from(args, OF_MESSAGES)
    out = make_folder(args.out)
    _spare_input(args, out)
    completer = load_completer(settings)
    console, results, skipped = Console(), [], {}
    names = frame_names(samples)
    with Progress(console=Console(stderr=True), disable=len(names) == 1) as progress:
        for index, name in enumerate(progress.track(names, description="completing")):
            try:
                sample = samples[index]
                frame = sample.frame(_measured(sample))
                dense = completer.complete(frame)
                dense = replace(dense, depth=dense.confident(settings.output.min_confidence))
            except (BadInput, ModelFailed) as problem:
                if args.image is not None:
                    raise
                skipped[name] = str(problem)
                progress.console.print(f"{name}: skipped, {problem}", markup=False,
                                       highlight=False, soft_wrap=True)
                continue
            write_result(out, frame, dense, scale, sample.truth, console)
            results.append(_result(frame, dense, sample.truth))
    header = report.environment(args.command_line, settings.model.checkpoint,
                                completer.description)
    files = {"depth_scale": scale, "confidence_scale": CONFIDENCE_SCALE, "skipped": skipped}
    report.write_json(out / "report.json", report.build(header | files, results))
    if not results:
        raise BadInput("no_result", f"none of {len(names)} frames could be completed")
    console.print(f"{len(results)} of {len(names)} frames written to {out} "
                  f"(PNG: metres = value / {scale:g}, 0 = unknown)", highlight=False)
    return 0


def _spare_input(args: argparse.Namespace, out: Path) -> None:
    """Refuse to write a result over the map that it is made from."""
    if args.sparse is not None and Path(args.sparse).resolve() in [
            (out / f"{Path(args.image).stem}_depth{ending}").resolve()
            for ending in (".png", ".npy")]:
        raise BadInput("out", f"--out {out}: the result would replace the input {args.sparse}; "
                       "choose another folder")


def write_result(
    out: Path, frame: Frame, dense: DenseDepth, scale: float, truth: np.ndarray | None,
    console: Console,
) -> None:
    """Write NAME_depth.npy, NAME_depth.png, NAME_confidence.npy, .png and NAME_overview.png.

    NAME is the frame's, as ``file_name`` makes it.
    """
    name = file_name(frame.name)
    np.save(out / f"{name}_depth.npy", dense.depth)
    np.save(out / f"{name}_confidence.npy", dense.confidence)
    lost = write_depth_png(out / f"{name}_depth.png", dense.depth, scale)
    if lost:
        console.print(
            f"{name}: {lost} pixels are farther than a PNG of scale {scale:g} reaches "
            f"({65535 / scale:.1f} m) and unknown there; the .npy has them", highlight=False)
    write_depth_png(out / f"{name}_confidence.png", dense.confidence, CONFIDENCE_SCALE)
    overview.draw(out / f"{name}_overview.png", frame.name, frame.image, frame.sparse,
                  dense.depth, dense.confidence, truth)


def _inputs(args: argparse.Namespace) -> tuple[Sequence[Sample], float]:
    """The frames to complete and the scale of their depth PNGs."""
    if args.data is not None and args.image is None and args.sparse is None:
        if args.depth_scale is not None:
            raise BadInput("arguments", f"--depth-scale {args.depth_scale:g} with --data: "
                           "frames.json says the scale, in and out; leave it out")
        folder = FramesFolder(args.data)
        if not (folder.folder / "sparse").is_dir():
            raise BadInput(
                "no_sparse", f"{folder.folder / 'sparse'} is missing: expected what the sensor "
                "measured, since gt/ is never taken as input; to draw points from gt/, use "
                f"sdim evaluate --data {args.data} --points 500 --out {args.out}")
        name, count = Counter(map(file_name, folder.names)).most_common(1)[0]
        if count > 1:
            raise BadInput("name", f"{count} frames of {args.data} would be written as {name}: "
                           "expected different names")
        return folder, folder.depth_scale
    if args.data is not None or args.image is None or args.sparse is None:
        raise BadInput("arguments", "give either --image with --sparse, or --data")
    scale = DEPTH_SCALE if args.depth_scale is None else args.depth_scale
    if not 0 < scale < math.inf:
        raise BadInput("arguments", f"--depth-scale {scale}: expected a number over 0")
    sparse = read_depth(args.sparse, scale)
    return [Sample(Path(args.image).stem, read_image(args.image), sparse, None)], scale


def _measured(sample: Sample) -> np.ndarray:
    """What the sensor measured: the reference must not be completed and then judge itself."""
    if sample.sparse is None:
        raise BadInput("no_sparse", f"sparse/{sample.name}.png is missing")
    return sample.sparse


def _result(frame: Frame, dense: DenseDepth, truth: np.ndarray | None) -> FrameResult:
    errors = {} if truth is None else {"sdim": judge(dense.depth, truth, frame.sparse)}
    return FrameResult(
        frame.name, 0, dense.stats.points, errors,
        {"sdim": sum(dense.stats.ms.values())}, dense.stats)
