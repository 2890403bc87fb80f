"""``sdim replay --live``: a bag to the real node over DDS, and what comes back judged.

First the bag is played and its results are recorded, then the bag is gone through once more: the
sets are those of a replay without a node, with what was recorded in place of the model. So judging
takes nothing from the node while it works.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from sdim_ros.core.config import SOURCES, Settings, sources_of, with_values
from sdim_ros.core.frame_reader import Stages
from sdim_ros.core.projection import clean_depth, coloured_points
from sdim_ros.core.sensor_data import read_depth, stamp_ns
from sdim_ros.core.topics import TRANSPORTS
from sdim_ros.core.types import Answers, BadInput, DenseDepth, Frame, SdimError
from sdim_ros.tools import sampling
from sdim_ros.tools.bag_writer import BagWriter
from sdim_ros.tools.bags.reading import Bag
from sdim_ros.tools.bags.rerun_file import RerunFile
from sdim_ros.tools.bags.sets import REFERENCE_WAIT_NS, Set
from sdim_ros.tools.bags.topics import (
    COMPRESSED, IMAGE, Reference, choose_topics, parse_topics)
from sdim_ros.tools.complete import MODEL_FLAGS, make_folder
from sdim_ros.tools.frame_judge import Judged
from sdim_ros.tools.live_figures import Played, figures
from sdim_ros.tools.replay import Replay, settings_of
from sdim_ros.tools.replay_report import check_damage, conclude, report_of
from sdim_ros.tools.results import FrameResult

# How often the node reports what became of the images; once a second would make the end long.
PERIOD_S = 0.1
STARTED = "/completion_node"
DEPTH, CONFIDENCE = "/depth/completed", "/depth/confidence"
TRANSPORT_SETTINGS = {"image": "input.image_transport", "sparse_depth": "input.depth_transport"}


def run(args: argparse.Namespace) -> int:
    """Play and score; writes DIR/completed, report.json, report.html, pictures, and node.log."""
    live = _live()
    settings, remaps = _settings(args), _remaps(args.remap)
    with Bag(args.bag) as bag, ExitStack() as opened:
        _refuse_ros1(bag)
        topics = choose_topics(bag, parse_topics(args.topics),
                               Reference.of(bag, args.gt_topic).topic,
                               sources_of(settings.input.sources) if settings else ())
        hide = None if args.points is None else _hider(args, bag, topics)
        if settings is not None:
            settings = _of_the_bag(settings, bag, topics)
            needs_poses(bag, topics, settings, is_started=True)
        out = make_folder(args.out)
        writer = BagWriter(out / "completed", storage=args.storage)
        rerun = opened.enter_context(RerunFile(args.rerun)) if args.rerun else None
        plan = live.Plan(
            topics, args.node or STARTED, remaps, args.rate or 1.0, args.limit,
            lambda known: needs_poses(bag, topics, known, settings is not None), hide)
        played = Played()
        try:
            with writer:
                known, stopped = _play(live, plan, settings, bag, writer, played, out)
        except BadInput as problem:  # the disk is full
            known, stopped = settings, problem
        if not played.results:  # so that the same command may be given again
            shutil.rmtree(out / "completed", ignore_errors=True)
        scoring = Scoring(args, bag, topics, known or Settings(), rerun, played, hide)
        if (out / "completed").exists():
            with Bag(out / "completed") as scoring.recorded.bag:
                stopped = scoring.go(out) or stopped
        content = report_of(args, scoring, known or Settings(), topics, played.model, stopped)
        log = out / "node.log" if settings is not None else None
        content["live"] = {"node": plan.node, "is_started_here": settings is not None,
                           **figures(played, plan.rate, log)}
        content["replay"]["stages_ms"] = {
            stage: found["p50"] for stage, found in content["live"]["stages_ms"].items()}
        conclude(scoring, content, out)
        if stopped is not None:
            raise stopped
        if not played.results:
            raise BadInput("no_result", f"the node completed no image of {args.bag}: "
                           f"{_first_drop(content['live'])}")
        check_damage(args, bag)
    return 0


class Scoring(Replay):
    """Judges what a node made of the sets of a bag.

    Args:
        played: what was sent and what came back.
        hide: as of ``live_contact.Plan``.

    Attributes:
        recorded: the results; its bag is to be set.
    """

    methods = ("sdim", "nearest", "linear", "edge_aware")

    def __init__(self, args: argparse.Namespace, bag: Bag, topics: dict[str, str],
                 settings: Settings, rerun: RerunFile | None, played: Played,
                 hide: Callable[[Any, Settings], Any] | None) -> None:
        self.recorded = Recorded(settings)
        super().__init__(
            args, bag, topics, settings, self.recorded, rerun,
            lambda reading, dense: coloured_points(
                dense.depth, reading.frame.image, reading.frame.camera, settings.points))
        self._played, self._hide = played, hide

    def _is_wanted(self, number: int, found: Set) -> bool:
        return stamp_ns(found.job.image.header) in self._played.images

    def _is_over(self) -> bool:
        return self.source.now_ns > self._played.until_ns + 2 * REFERENCE_WAIT_NS

    def _answer(self, frame: Frame, reference: np.ndarray | None, stages: Stages
                ) -> tuple[DenseDepth, FrameResult, Judged | None]:
        if reference is None:
            dense, judged = self.recorded.complete(frame), None
            points = int(np.count_nonzero(frame.sparse > 0))
            result = FrameResult(frame.name, self.args.seed, points, {})
        else:
            judged = self._judge(frame, reference, self.args.seed)
            dense, result = judged.dense, judged.result
            published = {name: judged.maps[name] for name in self.methods}
            judged = dataclasses.replace(judged, maps=published)
        ms = result.ms | {"sdim": self._played.round_trip_ms[frame.stamp_ns]}
        return dense, dataclasses.replace(result, ms=ms), judged

    def _drawn(self, frame: Frame, measured: np.ndarray, found: Set) -> np.ndarray:
        if not found.job.sparse:  # an image that went on alone
            return measured
        hidden = self._hide(found.job.sparse["sparse_depth"], self._settings)
        job = dataclasses.replace(found.job, sparse={"sparse_depth": hidden})
        return self._reader.read(job, Stages(0.0)).frame.sparse


class Recorded:
    """What the node published, in place of the model.

    Args:
        settings: the node's.

    Attributes:
        bag: of the results.
    """

    description = "recorded"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bag: Bag | None = None

    def reconfigure(self, settings: Settings) -> None:
        """The node had its settings when it was played to."""

    def complete(self, frame: Frame) -> DenseDepth:
        """The published depth and confidence of a frame.

        Raises:
            BadInput: ``not_answered``.
        """
        found = {topic: read_depth(message, self.settings.input.max_pixels)
                 for topic, _, message in self.bag.messages(
                     [DEPTH, CONFIDENCE], frame.stamp_ns, frame.stamp_ns + 1)}
        if DEPTH not in found:
            raise BadInput("not_answered", "the node gave no result; live.drops says why")
        depth = np.where(found[DEPTH] > 0, found[DEPTH], np.float32(np.nan))
        none = np.empty(0, np.float32)
        return DenseDepth(
            depth, found.get(CONFIDENCE, np.zeros_like(depth)), depth,
            Answers(none.astype(int), none.astype(int), none, none), None)


def needs_poses(bag: Bag, topics: Mapping[str, str], settings: Settings, is_started: bool
                ) -> bool:
    """Whether the node needs transforms to place a sensor of the bag.

    Args:
        is_started: whether the node runs in this installation, and not somewhere else.

    Raises:
        BadInput: ``tf``: it does, and there is no tf2_ros.
    """
    placed = {"points": not settings.projection.extrinsics,
              "sparse_depth": "sparse_camera_info" in topics}
    image = bag.first(topics["image"])
    for role in (role for role, by_tf in placed.items() if by_tf and role in topics):
        sensor = bag.first(topics[role])
        if None in (image, sensor) or (sensor.header.frame_id == image.header.frame_id
                                       and not settings.projection.fixed_frame):
            continue
        packages = ("tf2_msgs", *(["tf2_ros"] if is_started else []))
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            raise BadInput(
                "tf", f"{topics[role]} is in frame '{sensor.header.frame_id}', the image in "
                f"'{image.header.frame_id}', and {' and '.join(missing)} cannot be imported here, "
                "so that the node gets no TF: source a ROS that has it, " + (
                    "give the pose with --extrinsics, " if role == "points" else "")
                + "or replay without --live, which needs none")
        return True
    return False


def _play(live: Any, plan: Any, settings: Settings | None, bag: Bag, writer: BagWriter,
          played: Played, out: Path) -> tuple[Settings | None, BaseException | None]:
    """Play with a bar that shows how far it is."""
    total = (bag.end_ns - bag.start_ns) / 1e9
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("waiting for the node", total=None)

        def tell(seconds: float | None) -> None:
            if seconds is not None:
                progress.update(task, description=f"playing to {plan.node}", total=total,
                                completed=seconds)

        return live.play(plan, settings, bag, writer, played, out / "node.log", tell)


def _live() -> Any:
    try:
        from sdim_ros.tools import live_replay
    except ImportError as problem:
        raise SdimError(f"--live needs ROS 2 ({problem}): source it, or `make setup` installs it "
                        "from PyPI; without --live none is needed") from problem
    return live_replay


def _settings(args: argparse.Namespace) -> Settings | None:
    """Of the node that is started; None = one runs already. Looks at the flags."""
    settings = settings_of(args)
    if args.every != 1:
        raise BadInput("arguments", f"--every {args.every} with --live: the node takes the newest "
                       "image whenever it is ready; leave it out, or play slower with --rate")
    if args.rate is not None and not (math.isfinite(args.rate) and args.rate > 0):
        raise BadInput("arguments", f"--rate {args.rate}: expected a number over 0")
    if args.node is None:
        if args.remap is not None:
            raise BadInput("arguments", "--remap is for --node: give that too, or leave it out")
        return settings
    own = [flag for flag in (*MODEL_FLAGS, "extrinsics") if getattr(args, flag)]
    if own:
        raise BadInput("arguments", f"--{own[0]} with --node: a node that runs has its own "
                       f"settings; give it to the node (ros2 param set {args.node} ...)")
    if not args.node.startswith("/") or args.node.endswith("/"):
        raise BadInput("arguments", f"--node {args.node}: expected its full name, as "
                       "/completion_node or /front/completion_node")
    return None


def _remaps(text: str | None) -> dict[str, str]:
    """``"image=/a,points=/b"`` as topics by the names that the node has for them."""
    from sdim_ros.tools.live_contact import NAMES

    found = {}
    for part in filter(None, (text or "").split(",")):
        name, equals, topic = (word.strip() for word in part.partition("="))
        if not equals or not topic.startswith("/") or name not in NAMES:
            raise BadInput("arguments", f"--remap {text}: expected NAME=/TOPIC, separated by "
                           f"commas; the names are {', '.join(NAMES)}")
        found[name] = topic
    return found


def _refuse_ros1(bag: Bag) -> None:
    if bag.path.suffix == ".bag":
        raise BadInput("bag", f"{bag.path} is of ROS 1, whose messages no node of ROS 2 takes: "
                       "convert it with `rosbags-convert --src OLD.bag --dst NEW`, or replay it "
                       "without --live")


def _of_the_bag(settings: Settings, bag: Bag, topics: Mapping[str, str]) -> Settings:
    """The settings of a node that takes what the bag has."""
    values: dict[str, Any] = {}
    for role, name in TRANSPORT_SETTINGS.items():
        if role in topics:
            kind = bag.topics[topics[role]].kind
            values[name] = TRANSPORTS[role] if kind == COMPRESSED else "raw"
    if settings.diagnostics == Settings().diagnostics:
        values["diagnostics.period_s"] = PERIOD_S
    return with_values(settings, values)


def _hider(args: argparse.Namespace, bag: Bag, topics: Mapping[str, str]
           ) -> Callable[[Any, Settings], Any]:
    """What takes the points out of a depth image by which the result is judged.

    Raises:
        BadInput: ``arguments``: the bag has no depth images whose points can be taken out.
    """
    sources = [role for role in SOURCES if role in topics]
    if sources != ["sparse_depth"] or bag.topics[topics["sparse_depth"]].kind != IMAGE:
        raise BadInput(
            "arguments", f"--points with --live takes depth images (Image) alone, and here depth "
            f"is {', '.join(topics[role] for role in sources)}: name a reference with --gt-topic, "
            f"or make depth images of it first: sdim convert --bag {args.bag} --to bag --out NEW")
    return lambda message, settings: hidden(args, message, settings)


def hidden(args: argparse.Namespace, message: Any, settings: Settings) -> Any:
    """A depth image with ``--points`` of its measured points; the others are 0.

    The draw is that of a replay without ``--live`` where image and depth have the same stamp.
    """
    limits = settings.input
    try:
        depth, _ = clean_depth(read_depth(message, limits.max_pixels), limits.min_depth_m,
                               limits.max_depth_m)
    except BadInput:
        return message  # the node refuses it as well
    kept = sampling.sample_points(depth, args.points, (args.seed, stamp_ns(message.header))) > 0
    row = message.width * (4 if message.encoding == "32FC1" else 2)
    # Rows may be padded, and the last one need not be.
    padded = np.zeros(max(message.height * message.step, len(message.data)), np.uint8)
    padded[:len(message.data)] = message.data
    rows = padded[:message.height * message.step].reshape(message.height, message.step)[:, :row]
    rows *= np.repeat(kept, row // message.width, axis=1)
    return dataclasses.replace(message, data=padded[:len(message.data)])


def _first_drop(live: Mapping[str, Any]) -> str:
    drops = live["drops"].items()
    return next((f"{found['count']} {reason}, {found['first']}" for reason, found in drops),
                "it holds no image of these topics that could be read")
