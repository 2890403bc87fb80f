"""``sdim convert``: a dataset or a bag becomes a frames folder, or a bag that the node plays."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from sdim_ros.core.types import BadInput, Camera
from sdim_ros.tools import sampling
from sdim_ros.tools.datasets.bag_topics import (
    GROUND_TRUTH, NODE_TOPICS, ROLES, find_topics, parse_topics,
)
from sdim_ros.tools.datasets.catalogue import DATASETS, open_dataset, open_source
from sdim_ros.tools.datasets.frames import Sample, frame_names
from sdim_ros.tools.datasets.frames_writer import (
    MOST, FramesWriter, exact_scale, fitting_scale,
)
from sdim_ros.tools.training.data_recipe import SourceRecipe
from sdim_ros.tools.training.stop import Stop

FRAME_ID = "camera_optical"
# Of frames without a time of their own; the same every time, since random draws depend on it.
FIRST_STAMP_NS = 1_400_000_000_000_000_000
RATE_HZ = 10.0
# Of these, open_dataset gives the frames that judge only.
TRAINING_SETS = ("hypersim", "virtual_kitti")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``sdim convert``."""
    source = parser.add_argument_group("what is converted")
    source.add_argument("--data", metavar="FOLDER", help="a frames folder, or the files of the "
                        "dataset that --dataset names")
    source.add_argument("--dataset", choices=DATASETS, metavar="NAME",
                        help=", ".join(DATASETS))
    source.add_argument("--bag", metavar="PATH", help="folder of a rosbag2, an .mcap file, or a "
                        ".bag file of ROS 1")
    source.add_argument("--topics", metavar="ROLE=TOPIC,...", help="of the bag; roles: "
                        f"{', '.join(ROLES)}; default: those of the node, or the only ones of "
                        "their type")
    source.add_argument("--extrinsics", metavar="X,Y,Z,QX,QY,QZ,QW", help="pose of the points' "
                        "sensor in the camera's optical frame (write --extrinsics=-1,... where "
                        "it begins with a minus); default: the same frame")
    source.add_argument("--every", type=int, default=1, metavar="K", help="each K-th frame")
    source.add_argument("--limit", type=int, metavar="N", help="at most N frames")
    source.add_argument("--camera", metavar="FX,FY,CX,CY", help="intrinsics in pixels for frames "
                        "that come without")
    target = parser.add_argument_group("what it becomes")
    target.add_argument("--to", choices=("frames", "bag"), required=True,
                        help="a frames folder, or a bag with the topics of the node")
    target.add_argument("--out", required=True, metavar="PATH", help="new or empty folder")
    target.add_argument("--points", metavar="N|N%", help="sparse depth is N pixels or a share of "
                        "them, drawn from the sparse map, or from gt where there is none; as "
                        "evaluate draws them; default: the sparse map as it is")
    target.add_argument("--seed", type=int, default=0, help="of that draw (default 0)")
    target.add_argument("--rate", type=float, metavar="HZ", help="gives stamps to frames that "
                        f"have none; default: {RATE_HZ:g} for a bag, no stamps for frames")
    target.add_argument("--depth-scale", type=float, metavar="S", help="of a frames folder: "
                        "metres = PNG value / S; default: one that keeps the depths as they are, "
                        "else the finest of 1000, 256 and 100 that holds the farthest")
    target.add_argument("--storage", choices=("mcap", "sqlite3"), help="of a bag; default: mcap")
    target.add_argument("--compress", action="store_true", help="zstd in a bag")


def run(args: argparse.Namespace) -> int:
    """Convert; frames that cannot be used are named and left out.

    Returns:
        0, or 130 or 143 when Ctrl-C or SIGTERM came before the end; what was written until then
        is whole.
    """
    _check(args)
    source = _open(args)
    names = frame_names(source)
    chosen = range(0, len(names), args.every)[:args.limit]
    with ExitStack() as stack:
        stop = stack.enter_context(Stop("frame"))
        progress = stack.enter_context(Progress(console=Console(stderr=True)))
        conversion = Conversion(source, names, chosen, args, progress, lambda: stop.signal != 0)
        if getattr(source, "damage", None):
            conversion.say(source.damage)
        (_to_frames if args.to == "frames" else _to_bag)(conversion)
    left_out = f", {len(conversion.skipped)} left out" if conversion.skipped else ""
    Console().print(
        f"{conversion.written} of {len(chosen)} frames written to {args.out}{left_out}"
        f"{conversion.note}", highlight=False, markup=False, soft_wrap=True)
    if stop.signal and conversion.written + len(conversion.skipped) < len(chosen):
        Console(stderr=True).print("stopped before the end; what is written is whole")
        return 128 + stop.signal
    return 0


class Conversion:
    """The chosen frames of a source, one after the other, ready to be written.

    Attributes:
        skipped: why, by the name of a frame that cannot be used.
        written: frames that are in the result.
        note: more to say of the result.
    """

    def __init__(self, source: Sequence[Sample], names: Sequence[str], chosen: range,
                 args: argparse.Namespace, progress: Progress, stopped: Callable[[], bool]
                 ) -> None:
        self.source, self.names, self.chosen, self.args = source, names, chosen, args
        self.camera = args.camera and _numbers("--camera", args.camera, 4)
        self.skipped: dict[str, str] = {}
        self.written, self.note = 0, ""
        self._progress, self._stopped = progress, stopped
        self._task = progress.add_task(f"writing {args.to}")

    def samples(self) -> Iterator[Sample]:
        """All frames from the first, with what the flags change; skips what cannot be used."""
        self.skipped = {}
        self._progress.reset(self._task, total=len(self.chosen))
        frames = self._usable()
        if self.args.to == "bag" or self.args.rate:
            frames = stamped(frames, self.args.rate or RATE_HZ, self.skip)
        return frames

    def skip(self, name: str, reason: str) -> None:
        """Leave a frame out and say so."""
        self.skipped[name] = reason
        self.say(f"{name}: left out, {reason}")

    def say(self, text: str) -> None:
        """A line above the progress bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _usable(self) -> Iterator[Sample]:
        for index in self.chosen:
            if self._stopped():
                return
            try:
                sample = self._changed(self.source[index])
                if self.args.to == "bag":
                    _check_playable(sample)
            except BadInput as problem:
                self.skip(self.names[index], str(problem))
            else:
                yield sample
            self._progress.advance(self._task)

    def _changed(self, sample: Sample) -> Sample:
        """With the points, the camera and at least one depth map.

        Raises:
            BadInput: ``no_depth``.
        """
        height, width = sample.measured.shape
        if self.camera and sample.camera is None:
            sample = replace(sample, camera=Camera(*self.camera, width, height))
        if self.args.points:
            points = sampling.sample_points(sample.measured, self.args.points, self.args.seed)
            sample = replace(sample, sparse=points)
        return sample


def stamped(samples: Iterator[Sample], rate_hz: float, skip: Callable[[str, str], None]
            ) -> Iterator[Sample]:
    """Frames that all have a stamp of their own.

    Those of a sequence with stamps keep them; one that begins at 0 begins 1 ns later, since 0
    means unknown. A sequence without stamps gets them at a rate.

    Args:
        skip: told the name of a frame without a stamp, or with that of another, and why.
    """
    head = list(islice(samples, 2))
    timed = any(sample.stamp_ns for sample in head)
    used: set[int] = set()
    for number, sample in enumerate(chain(head, samples)):
        stamp_ns = FIRST_STAMP_NS + round(number * 1e9 / rate_hz)
        if timed:
            stamp_ns = sample.stamp_ns or (1 if number == 0 else 0)
            if stamp_ns == 0 or stamp_ns in used:
                skip(sample.name, f"its stamp is {stamp_ns} ns: expected one of its own, as "
                     "other frames have")
                continue
        used.add(stamp_ns)
        yield replace(sample, stamp_ns=stamp_ns)


def _to_frames(conversion: Conversion) -> None:
    """Write a frames folder, with a scale that is given, the source's own or one that fits."""
    fixed = conversion.args.depth_scale or getattr(conversion.source, "depth_scale", None)
    with FramesWriter(conversion.args.out) as writer:
        coarser = _write_frames(conversion, writer, fixed, fixed is None)
        while coarser is not None:
            conversion.say(f"beginning again with a depth scale of {coarser:g}")
            coarser = _write_frames(conversion, writer, coarser, True)
        conversion.written = len(writer)
        if not len(writer):
            raise _nothing(conversion)
    conversion.note = f" (metres = PNG value / {writer.scale:g})"
    if writer.lost:
        conversion.note += (
            f"; {sum(writer.lost.values())} pixels of {len(writer.lost)} frames, first "
            f"{next(iter(writer.lost))}, are farther than 16 bits reach "
            f"({MOST / writer.scale:.1f} m) and unknown there")


def _write_frames(conversion: Conversion, writer: FramesWriter, scale: float | None, free: bool
                  ) -> float | None:
    """Write all frames with one scale.

    Args:
        scale: None = as the first frame needs it.
        free: whether another scale may be taken.

    Returns:
        The coarser scale that a frame needs, where it is free; None = everything is written.
    """
    for number, sample in enumerate(conversion.samples()):
        if number == 0:
            scale = scale or exact_scale(sample)
            writer.begin(scale)
        if free and fitting_scale(sample) < scale:
            conversion.say(f"{sample.name} has depths over {MOST / scale:.1f} m")
            return exact_scale(sample)
        try:
            writer.add(sample)
        except BadInput as problem:
            if problem.reason != "name":
                raise
            conversion.skip(sample.name, str(problem))
    return None


def _to_bag(conversion: Conversion) -> None:
    from sdim_ros.tools.bag_writer import BagWriter

    args, out = conversion.args, Path(conversion.args.out)
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    with BagWriter(out, args.storage or "mcap", "zstd" if args.compress else None) as bag:
        for sample in conversion.samples():
            at = sample.stamp_ns, FRAME_ID
            bag.camera_info(NODE_TOPICS["camera_info"], *at, sample.camera)
            bag.image(NODE_TOPICS["image"], *at, sample.image)
            bag.depth(NODE_TOPICS["sparse_depth"], *at, sample.sparse)
            if sample.truth is not None:
                bag.depth(GROUND_TRUTH, *at, sample.truth)
            conversion.written += 1
        if not conversion.written:
            raise _nothing(conversion)
    conversion.note = f" ({', '.join(f'{n} {topic}' for topic, n in bag.counts.items())})"


def _check_playable(sample: Sample) -> None:
    """Refuse what the node could not use.

    Raises:
        BadInput: ``no_sparse``, ``no_camera`` or ``camera_size``.
    """
    if sample.sparse is None:
        raise BadInput("no_sparse", "it has no sparse map, which the node needs: draw one from gt "
                       "with --points 500")
    camera, (height, width) = sample.camera, sample.image.shape[:2]
    if camera is None:
        raise BadInput("no_camera", "it has no camera, which the node needs: give --camera "
                       "FX,FY,CX,CY")
    if (camera.width, camera.height) != (width, height):
        raise BadInput("camera_size", f"its camera is {camera.width}x{camera.height}, its image "
                       f"{width}x{height}: expected the same size")


def _nothing(conversion: Conversion) -> BadInput:
    if not conversion.skipped:
        return BadInput("no_result", f"stopped before the first of {len(conversion.chosen)} "
                        "frames; nothing is written")
    name, reason = next(iter(conversion.skipped.items()))
    return BadInput("no_result", f"none of {len(conversion.chosen)} frames can be converted; "
                    f"first {name}: {reason}")


def _open(args: argparse.Namespace) -> Sequence[Sample]:
    """The source of the flags: of a training set, all frames and not only those that judge."""
    if args.bag is not None:
        pose = args.extrinsics and tuple(_numbers("--extrinsics", args.extrinsics, 7))
        from sdim_ros.tools.datasets.bag_frames import BagFrames
        return BagFrames(args.bag, find_topics(args.bag, parse_topics(args.topics)), pose)
    if args.dataset in TRAINING_SETS and args.data is not None:
        return open_source(SourceRecipe(args.dataset, folder=Path(args.data)))
    return open_dataset(args.data, args.dataset)


def _check(args: argparse.Namespace) -> None:
    """Refuse flags that contradict each other, before anything is read.

    Raises:
        BadInput: ``arguments``, ``amount``.
    """
    for flag, value in (("--every", args.every), ("--limit", args.limit)):
        if value is not None and value < 1:
            raise BadInput("arguments", f"{flag} {value}: expected at least 1")
    for flag, value in (("--rate", args.rate), ("--depth-scale", args.depth_scale)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise BadInput("arguments", f"{flag} {value}: expected a number over 0")
    if args.points:
        sampling.parse_amount(args.points)
    if args.camera:
        _numbers("--camera", args.camera, 4)
    if args.bag is not None and (args.data is not None or args.dataset is not None):
        raise BadInput("arguments", "--bag stands alone: give it, or --data and --dataset")
    misplaced: dict[str, Any] = {
        "--topics is for --bag": args.bag is None and args.topics,
        "--extrinsics is for --bag": args.bag is None and args.extrinsics,
        "--depth-scale is for --to frames": args.to == "bag" and args.depth_scale,
        "--storage is for --to bag": args.to == "frames" and args.storage,
        "--compress is for --to bag": args.to == "frames" and args.compress,
    }
    for text, wrong in misplaced.items():
        if wrong:
            raise BadInput("arguments", f"{text}: leave it out")


def _numbers(flag: str, text: str, count: int) -> list[float]:
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise BadInput("arguments", f"{flag} {text}: expected {count} numbers separated by commas")
    return numbers
