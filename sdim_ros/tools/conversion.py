"""Writes the frames of a source as a frames folder, or as a bag that the node plays."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from rich.progress import Progress

from sdim_ros.core.types import BadInput, Camera
from sdim_ros.tools import sampling
from sdim_ros.tools.bags.topics import GROUND_TRUTH
from sdim_ros.tools.datasets.frames import FIRST_STAMP_NS, Sample
from sdim_ros.tools.datasets.frames_writer import (
    MOST, FramesWriter, exact_scale, fitting_scale,
)
from sdim_ros.tools.frame_sources import Source

FRAME_ID = "camera_optical"
IMAGE, CAMERA_INFO, SPARSE_DEPTH = "/image", "/camera_info", "/sparse_depth/image"
RATE_HZ = 10.0


class Conversion:
    """The chosen frames of a source, one after the other.

    Args:
        source: where they come from.
        camera: fx, fy, cx, cy of frames that come without; empty = they stay so.
        args: the flags of ``sdim convert``.
        stopped: whether to end after this frame.

    Attributes:
        skipped: why, by the name of a frame that cannot be used.
        written: frames that are in the result.
        note: more to say of the result.
        stopped_early: whether frames were left when it was stopped.
    """

    def __init__(self, source: Source, camera: Sequence[float], args: argparse.Namespace,
                 progress: Progress, stopped: Callable[[], bool]) -> None:
        self.source, self.camera, self.args = source, camera, args
        self.count = len(range(0, source.count, args.every)[:args.limit])
        self.skipped: dict[str, str] = {}
        self.written, self.note, self.stopped_early = 0, "", False
        self._progress, self._stopped = progress, stopped
        self._task = progress.add_task(f"writing {args.to}")

    def write(self) -> None:
        """Write all of it.

        Raises:
            BadInput: no frame can be used, or the result cannot be written.
        """
        (_write_folder if self.args.to == "frames" else _write_bag)(self)

    def samples(self) -> Iterator[Sample]:
        """All frames from the first, with what the flags change; skips what cannot be used."""
        self.skipped = {}
        self._progress.reset(self._task, total=self.count)
        frames = self._usable()
        if self.args.to == "bag" or self.args.rate:
            frames = stamped(frames, self.args.rate or RATE_HZ, self.skip)
        return frames

    def summary(self) -> str:
        """What was written and what was left out, for people."""
        text = f"{self.written} of {self.count} frames written to {self.args.out}"
        if self.skipped:
            text += f", {len(self.skipped)} left out"
        return "\n".join([text + self.note, *(
            f"{count} messages left out, {reason}"
            for reason, count in self.source.left_out.items())])

    def skip(self, name: str, reason: str) -> None:
        """Leave a frame out and say so."""
        self.skipped[name] = reason
        self.say(f"{name}: left out, {reason}")

    def say(self, text: str) -> None:
        """A line above the progress bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _usable(self) -> Iterator[Sample]:
        every, limit = self.args.every, self.args.limit
        with closing(self.source.frames(every, limit, self.say)) as frames:
            for name, read in frames:
                if self._stopped():
                    self.stopped_early = True
                    return
                try:
                    sample = self._changed(read())
                    if self.args.to == "bag":
                        _check_playable(sample)
                except BadInput as problem:
                    self.skip(name, str(problem))
                else:
                    yield sample
                self._progress.advance(self._task)

    def _changed(self, sample: Sample) -> Sample:
        """With the points, the camera and at least one depth map.

        Raises:
            BadInput: ``no_depth``, ``no_sparse``.
        """
        height, width = sample.reference.shape
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


def _write_folder(conversion: Conversion) -> None:
    """Write a frames folder, with a scale that is given, the source's own or one that fits."""
    fixed = conversion.args.depth_scale or conversion.source.depth_scale
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


def _write_bag(conversion: Conversion) -> None:
    from sdim_ros.tools.bag_writer import BagWriter

    args, out = conversion.args, Path(conversion.args.out)
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    with BagWriter(out, args.storage or "mcap", "zstd" if args.compress else None) as bag:
        for sample in conversion.samples():
            at = sample.stamp_ns, FRAME_ID
            bag.camera_info(CAMERA_INFO, *at, sample.camera)
            bag.image(IMAGE, *at, sample.image)
            bag.depth(SPARSE_DEPTH, *at, sample.sparse)
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
    """The error of a conversion without a result, with the first reason."""
    if conversion.stopped_early:
        return BadInput("no_result", "stopped before the first frame; nothing is written")
    reasons = [f"first {name}: {reason}" for name, reason in conversion.skipped.items()]
    reasons += conversion.source.left_out
    return BadInput("no_result", f"none of {conversion.count} frames can be converted; "
                    f"{reasons[0] if reasons else 'the source has none'}")
