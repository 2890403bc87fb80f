"""``sdim replay``: a bag through the core as the node would run it, without ROS.

With ``--live`` it goes to the real node instead, see ``live_score``.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from sdim_ros.core.config import Settings, sources_of, with_values
from sdim_ros.core.evidence import RecentErrors
from sdim_ros.core.frame_reader import BadMessage, FrameReader, Reading, Stages
from sdim_ros.core.metrics import held_out_mask
from sdim_ros.core.projection import clean_depth
from sdim_ros.core.types import (
    BadInput, DenseDepth, Frame, ModelFailed, ModelLost)
from sdim_ros.tools import overview, report, sampling
from sdim_ros.tools.assignments import parse_numbers
from sdim_ros.tools.bag_writer import STORAGES, BagWriter
from sdim_ros.tools.bags.outcome import Outcome, write_messages
from sdim_ros.tools.bags.reading import Bag
from sdim_ros.tools.bags.rerun_file import RerunFile
from sdim_ros.tools.bags.sets import BagSets, Set, read_reference
from sdim_ros.tools.bags.topics import GROUND_TRUTH, Reference, choose_topics, parse_topics
from sdim_ros.tools.complete import (
    add_model_arguments, load_completer, make_folder, settings_from,
)
from sdim_ros.tools.frame_judge import FrameJudge, Judged
from sdim_ros.tools.replay_report import Gallery, check_damage, conclude, report_of
from sdim_ros.tools.results import FrameResult

METHODS = ("sdim", "fill_only", "nearest", "linear", "edge_aware")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``sdim replay``."""
    parser.add_argument("bag", metavar="BAG", help="folder of a rosbag2, or an .mcap or .db3 file")
    parser.add_argument("--out", required=True, metavar="DIR",
                        help="where the bag completed, report.json, report.html and pictures "
                        "go")
    parser.add_argument("--topics", metavar="ROLE=/TOPIC,...", help="image, camera_info, points, "
                        "sparse_depth, disparity, sparse_camera_info; default: found by type")
    parser.add_argument("--extrinsics", metavar="X,Y,Z,QX,QY,QZ,QW", help="pose of the LiDAR in "
                        "the camera's optical frame; default: from the bag's /tf and /tf_static")
    parser.add_argument("--gt-topic", metavar="/TOPIC",
                        help="depth images, registered to the image, to judge by; default: "
                        f"{GROUND_TRUTH} where it is")
    parser.add_argument("--points", metavar="N|N%", help="give only N of the measured points, or "
                        "a share, and judge by the others; default: give all")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of --points (default 0)")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="each K-th set only")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N sets")
    parser.add_argument("--rerun", metavar="FILE", help="write a recording for Rerun, .rrd")
    parser.add_argument("--pictures", type=int, default=3, metavar="N",
                        help="worst and best frames shown in report.html (default 3 each)")
    parser.add_argument("--storage", choices=STORAGES, default="mcap",
                        help="of the bag that is written (default %(default)s)")
    live = parser.add_argument_group("to the real node")
    live.add_argument("--live", action="store_true", help="play the messages to the node over "
                      "DDS, at the pace of the bag, and score what it publishes; starts a node "
                      "with these settings")
    live.add_argument("--rate", type=float, metavar="R", help="seconds of the bag in one second "
                      "(default 1)")
    live.add_argument("--node", metavar="NAME", help="play to a node that runs already and has "
                      "its own settings, e.g. /completion_node")
    live.add_argument("--remap", metavar="NAME=/TOPIC,...", help="topics of --node by the names "
                      "that it has for them, e.g. image=/camera/image,depth/points=/cloud")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Complete the sets of a bag; writes DIR/completed, report.json, report.html and pictures."""
    if args.live:
        from sdim_ros.tools import live_score
        return live_score.run(args)
    for flag in ("rate", "node", "remap"):
        if getattr(args, flag) is not None:
            raise BadInput("arguments", f"--{flag} is for --live: give that too, or leave it out")
    settings, named = settings_of(args), parse_topics(args.topics)
    with Bag(args.bag) as bag, ExitStack() as opened:
        topics = choose_topics(
            bag, named, Reference.of(bag, args.gt_topic).topic, sources_of(settings.input.sources))
        out = make_folder(args.out)
        writer = BagWriter(out / "completed", storage=args.storage)
        rerun = opened.enter_context(RerunFile(args.rerun)) if args.rerun else None
        completer = load_completer(settings)
        completer.recent = RecentErrors()  # as in the node
        replay = Replay(args, bag, topics, settings, completer, rerun, lambda reading, dense:
                        write_messages(writer, reading, dense, settings))
        try:
            with writer:
                stopped = replay.go(out)
        except BadInput as problem:  # the disk is full; the numbers are still there
            stopped = problem
        if not replay.outcome.results:  # so that a corrected command may be given
            shutil.rmtree(out / "completed", ignore_errors=True)
        content = report_of(args, replay, settings, topics, completer.description, stopped)
        conclude(replay, content, out)
        if stopped is not None:
            raise stopped
        if not replay.outcome.results:
            raise BadInput("no_result", f"no set of {args.bag} could be completed: "
                           f"{_first_reason(replay)}")
        check_damage(args, bag)
    return 0


@dataclass(frozen=True)
class _Done:
    """One completed frame.

    Attributes:
        frame: as the methods got it.
        reference: (H, W) metres, what it was judged by; None = it was not.
    """

    reading: Reading
    frame: Frame
    reference: np.ndarray | None
    dense: DenseDepth
    result: FrameResult
    judged: Judged | None


class Replay:
    """Completes one set after the other.

    Args:
        args: the flags of the command.
        completer: the model; it completes frames.
        rerun: where frames are logged, or None.
        write: takes each result, and gives its cloud and colours as of ``coloured_points``.

    Attributes:
        outcome: what came of it.
        sets: that were to be completed, ``--every`` and ``--limit`` considered.
        gallery: the frames for report.html.
    """

    # A second model beside the one of the node may be more than the memory holds.
    methods: tuple[str, ...] = tuple(name for name in METHODS if name != "sdim_unquantized")

    def __init__(self, args: argparse.Namespace, bag: Bag, topics: dict[str, str],
                 settings: Settings, completer: Any, rerun: RerunFile | None,
                 write: Callable[[Reading, DenseDepth], tuple[np.ndarray, np.ndarray]]) -> None:
        self.args, self.bag = args, bag
        self.outcome, self.sets = Outcome(), 0
        self.gallery = Gallery(args.pictures)
        self._settings, self._completer, self._rerun = settings, completer, rerun
        self._write = write
        self.truth = Reference.of(bag, args.gt_topic)
        self.source = BagSets(bag, topics, settings, self.truth)
        self._reader = FrameReader(
            topics, self.source.poses,
            lambda topic, reason, text: self.outcome.warnings.add(reason, f"{topic}: {text}"))
        self._judge = FrameJudge(self.methods, completer)

    def go(self, out: Path) -> BaseException | None:
        """Complete all sets; what ended it early, Ctrl-C or a lost GPU, is returned.

        Raises:
            BadInput: ``bag``: the results cannot be written.
        """
        stopped: BaseException | None = None
        try:
            with Progress(console=Console(stderr=True)) as progress:
                self._all(out, progress)
        except (KeyboardInterrupt, ModelLost) as problem:
            stopped = problem
        skipped = self.outcome.skipped
        for reason, count in self.source.skipped.counts.items():
            skipped.add(reason, self.source.skipped.texts[reason], count)
        for topic, count in self.bag.unreadable.items():
            skipped.add("unreadable", f"{topic}: a message whose bytes do not fit its type", count)
        self.outcome.warnings.add("tf", "a transform that is not finite or has no rotation",
                                  self.source.poses.ignored)
        return stopped

    def _all(self, out: Path, progress: Progress) -> None:
        task = progress.add_task("replaying", total=(self.bag.end_ns - self.bag.start_ns) / 1e9)
        stages = Stages(time.perf_counter())
        for number, found in enumerate(self.source):
            stages.ended("read")
            progress.update(task, completed=(self.source.now_ns - self.bag.start_ns) / 1e9)
            if not self._is_wanted(number, found):
                continue
            self.sets += 1
            done = self._completed_set(found, stages)
            if done is not None:
                self._keep(done, stages, out)
            if self._is_over():
                break
            stages = Stages(time.perf_counter())
        progress.update(task, completed=(self.bag.end_ns - self.bag.start_ns) / 1e9)

    def _is_wanted(self, number: int, found: Set) -> bool:
        return number % self.args.every == 0

    def _is_over(self) -> bool:
        return self.sets == self.args.limit

    def _completed_set(self, found: Set, stages: Stages) -> _Done | None:
        """What the core makes of a set; None where it refuses it, which is counted."""
        skipped = self.outcome.skipped
        try:
            return self._complete(found, stages)
        except ModelLost:
            raise
        except BadMessage as problem:
            skipped.add(problem.reason, f"{problem.topic}: {problem}")
        except BadInput as problem:
            skipped.add(problem.reason, str(problem))
        except ModelFailed as problem:
            skipped.add("model_failed", str(problem))
        except Exception as problem:  # as in the node: one frame must not cost the others
            skipped.add("exception", f"please report this {type(problem).__name__}: {problem}")
        return None

    def _complete(self, found: Set, stages: Stages) -> _Done:
        depth = found.job.sparse.get("sparse_depth")
        if getattr(depth, "encoding", "") == "mono16":
            self.outcome.warnings.add("mono16", "depth of encoding mono16 is read as 16UC1, "
                                      "millimetres; have the driver say 16UC1")
        reading = self._reader.read(found.job, stages)
        frame, reference = self._given(reading.frame, found)
        self._completer.reconfigure(found.job.settings)
        return _Done(reading, frame, reference, *self._answer(frame, reference, stages))

    def _answer(self, frame: Frame, reference: np.ndarray | None, stages: Stages
                ) -> tuple[DenseDepth, FrameResult, Judged | None]:
        """The completed frame, and its errors where there is a reference."""
        if reference is not None:
            judged = self._judge(frame, reference, self.args.seed)
            stages.ended("judge")
            stages.ms["complete"] = judged.result.ms["sdim"]
            stages.ms["judge"] -= judged.result.ms["sdim"]
            return judged.dense, judged.result, judged
        dense = self._completer.complete(frame)
        stages.ended("complete")
        return dense, FrameResult(
            frame.name, self.args.seed, dense.stats.points, {},
            {"sdim": stages.ms["complete"]}, dense.stats), None

    def _keep(self, done: _Done, stages: Stages, out: Path) -> None:
        """Write one frame down, in the bag, the numbers and the pictures."""
        frame, dense, reference = done.frame, done.dense, done.reference
        points, colours = self._write(done.reading, dense)
        stages.ended("write")
        if done.judged is not None:
            self.gallery.add(frame, reference, done.judged)
        errors = self.outcome.add(frame.stamp_ns, done.result, stages.ms)
        if self._rerun is not None:
            self._rerun.add(frame, dense, points, colours, errors)
        if len(self.outcome.results) == 1:
            judged_by = None if reference is None else np.where(
                held_out_mask(reference, frame.sparse), reference, 0)
            overview.draw(
                out / "overview.png", f"{frame.stamp_ns / 1e9:.3f} s", frame.image, frame.sparse,
                dense.depth, dense.confidence, judged_by,
                report.notes(done.result) if errors else "")

    def _given(self, frame: Frame, found: Set) -> tuple[Frame, np.ndarray | None]:
        """The frame with what the methods get, and what they are judged by, (H, W) metres."""
        frame = dataclasses.replace(frame, name=f"{frame.stamp_ns:019d}")
        reference = None
        if self.args.points is not None:
            limits = self._settings.input
            reference, _ = clean_depth(frame.sparse, limits.min_depth_m, limits.max_depth_m)
            frame = dataclasses.replace(frame, sparse=self._drawn(frame, reference, found))
        if self.truth.topic is not None:
            reference = self._truth(frame, found.reference)
        if reference is not None and not held_out_mask(reference, frame.sparse).any():
            self.outcome.unjudged.add("nothing_hidden", "every pixel with a reference was given")
            reference = None
        return frame, reference

    def _drawn(self, frame: Frame, measured: np.ndarray, found: Set) -> np.ndarray:
        """The measured points that the methods get, (H, W) metres."""
        # By the stamp, not by the place in the bag: --every must not change the draw.
        return sampling.sample_points(
            measured, self.args.points, (self.args.seed, frame.stamp_ns))

    def _truth(self, frame: Frame, message: Any | None) -> np.ndarray | None:
        """The ground truth of a frame, (H, W) metres; None = there is none to be used."""
        if message is None:
            wanted = "with the stamp of its image" if self.truth.same_stamp else (
                f"within sync.slop_s = {self._settings.sync.slop_s} s")
            self.outcome.unjudged.add(
                "no_reference", f"no message of {self.truth.topic} {wanted}")
            return None
        try:
            return read_reference(message, frame.sparse.shape, self._settings)
        except BadInput as problem:
            self.outcome.unjudged.add(problem.reason, f"{self.truth.topic}: {problem}")
            return None


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings, and a look at the flags before anything is loaded."""
    if args.every < 1 or (args.limit is not None and args.limit < 1):
        raise BadInput("arguments", f"--every {args.every} --limit {args.limit}: expected at "
                       "least 1")
    if args.seed < 0 or args.pictures < 0:
        raise BadInput("arguments", f"--seed {args.seed} --pictures {args.pictures}: expected at "
                       "least 0")
    if args.points is not None:
        sampling.parse_amount(args.points, "--points")
    settings = settings_from(args)
    if args.extrinsics is None:
        return settings
    pose = parse_numbers("--extrinsics", args.extrinsics, 7)
    return with_values(settings, {"projection.extrinsics": pose})


def _first_reason(replay: Replay) -> str:
    """Why nothing was completed: the most frequent reason, and the damage if there is any."""
    found = replay.outcome.skipped.counts.most_common(1)
    why = replay.outcome.skipped.texts[found[0][0]] if found else \
        "the bag holds no image of these topics that could be read"
    return why if replay.bag.damage is None else f"{why}; {replay.bag.damage}"
