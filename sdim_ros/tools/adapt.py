"""``sdim adapt``: tune a checkpoint on recorded frames, as the node does on the robot."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from sdim_ros.core import adapter_files
from sdim_ros.core.adaptation import Adaptation
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import Settings
from sdim_ros.core.types import BadInput, Frame, ModelFailed
from sdim_ros.tools import adaptation_report, report, sampling
from sdim_ros.tools.adaptation_course import LiveError, course_of
from sdim_ros.tools.bags.topics import parse_topics
from sdim_ros.tools.complete import (
    add_model_arguments, load_completer, make_folder, settings_from,
)
from sdim_ros.tools.datasets.catalogue import DATASETS
from sdim_ros.tools.frame_judge import FrameJudge
from sdim_ros.tools.frame_sources import BagSource, DatasetSource, Source
from sdim_ros.tools.poison import Poison, parse_poison
from sdim_ros.tools.results import FrameResult

METHODS = ("sdim", "fill_only", "linear", "answers")
# What the methods that learnt are called in the report.
ADAPTED = {"sdim": "sdim_adapted", "answers": "answers_adapted"}
PERIOD_NS = 100_000_000  # of frames without a stamp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``sdim adapt``."""
    parser.add_argument("--data", metavar="FOLDER", help="a frames folder")
    parser.add_argument("--dataset", choices=DATASETS, metavar="NAME", help=", ".join(DATASETS))
    parser.add_argument("--bag", metavar="PATH", help="a bag, read as `sdim convert` does")
    parser.add_argument("--topics", metavar="ROLE=/TOPIC,...", help="of the bag; default: found "
                        "by type")
    parser.add_argument("--gt-topic", metavar="/TOPIC", help="of the bag: the reference")
    parser.add_argument("--points", metavar="N|N%", help="draw N pixels or a share of them; "
                        "the others judge; default: all that was measured")
    parser.add_argument("--adapt", type=int, metavar="N",
                        help="the first N frames adapt, the rest measure; default: all adapt")
    parser.add_argument("--steps", type=int, metavar="N",
                        help="optimiser steps (default: 4 for each frame)")
    parser.add_argument("--online", action="store_true",
                        help="complete every frame and learn in between, as on the robot: each "
                        "frame is measured before it is learnt from")
    parser.add_argument("--poison", action="append", default=[], metavar="KIND:START:LENGTH",
                        help="spoil LENGTH frames: outliers, lens_cap, frozen or unit")
    parser.add_argument("--seeds", "--seed", default="0", help="e.g. 0,1,2 (default 0)")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="each K-th frame")
    parser.add_argument("--out", required=True, metavar="DIR",
                        help="where the adapter, report.json, report.html and pictures go")
    add_model_arguments(parser)


@dataclass
class Course:
    """What happened while it learnt.

    Attributes:
        judgements: steps, and the error at judging points before and now, each time.
        errors: with --online, of every frame.
    """

    judgements: list[tuple[int, float, float]] = field(default_factory=list)
    errors: list[LiveError] = field(default_factory=list)


class Tuning:
    """One adaptation of one completer, from its original weights."""

    def __init__(self, args: argparse.Namespace, source: Source, completer: Completer,
                 adaptation: Adaptation, seed: int, poisons: list[Poison]) -> None:
        self.args, self.source, self.completer = args, source, completer
        self.adaptation, self.seed, self.poisons = adaptation, seed, poisons
        self.course = Course()
        self.skipped: dict[str, str] = {}

    def frames(self, start: int = 0, stop: int | None = None, spoil: bool = False
               ) -> Iterator[tuple[int, Frame, np.ndarray]]:
        """Number, input and reference of the frames in a range."""
        before: Frame | None = None
        for number, (name, read) in enumerate(self.source.frames(
                self.args.every, stop, lambda _: None)):
            if number < start:
                continue
            try:
                sample = read()
                sparse = sample.measured
                if self.args.points is not None:
                    sparse = sampling.sample_points(sparse, self.args.points, self.seed)
                frame = sample.frame(sparse)
            except BadInput as problem:
                self.skipped[f"{name} seed {self.seed}"] = str(problem)
                continue
            frame = dataclasses.replace(
                frame, stamp_ns=frame.stamp_ns or (number + 1) * PERIOD_NS)
            for poison in self.poisons if spoil else ():
                frame = poison.apply(number, frame, before, self.seed)
            before = frame if not any(p.hits(number) for p in self.poisons) else before
            yield number, frame, sample.reference

    def measure(self, judge: FrameJudge, start: int, show: Callable[[], None],
                spoil: bool = False) -> list[FrameResult]:
        """Every method on the frames from ``start`` on, with the weights in use."""
        results = []
        for _, frame, reference in self.frames(start, spoil=spoil):
            show()
            try:
                results.append(judge(frame, reference, self.seed).result)
            except (BadInput, ModelFailed) as problem:
                self.skipped[f"{frame.name} seed {self.seed}"] = str(problem)
        return results

    def learn(self, stop: int | None, count: int, show: Callable[[], None]) -> None:
        """The frames in their order, and an equal part of the steps after each."""
        steps = self.args.steps or 4 * count
        for number, frame, _ in self.frames(0, stop, spoil=True):
            show()
            self._observe(frame)
            self._work(steps * (number + 1) // count)
        self._work(steps)  # those of frames that could not be read
        self.adaptation.settle()
        self._note()

    def learn_online(self, original: list[FrameResult], count: int, show: Callable[[], None]
                     ) -> list[FrameResult]:
        """Complete a frame, then learn from it; errors are those before it was learnt from."""
        before = {result.name: result for result in original}
        judge, results = FrameJudge(METHODS, self.completer), []
        steps = self.args.steps or 4 * count
        for number, frame, reference in self.frames(spoil=True):
            show()
            try:
                result = judge(frame, reference, self.seed).result
                results.append(result)
                both = [before[frame.name], result] if frame.name in before else []
                if both and all("held_out" in r.errors["sdim"] for r in both):
                    self.course.errors.append(LiveError(number, frame.name, *(
                        r.errors["sdim"]["held_out"]["mae"]
                        for r in both)))
            except (BadInput, ModelFailed) as problem:
                self.skipped[f"{frame.name} seed {self.seed}"] = str(problem)
            self._observe(frame)
            self._work(steps * (number + 1) // count)
        self._work(steps)
        return results

    def _observe(self, frame: Frame) -> None:
        try:
            self.adaptation.observe(frame)
        except BadInput:
            pass  # counted by reason in the status

    def _work(self, steps: int) -> None:
        """Pieces of work until so many steps were tried."""
        while self._steps_tried() < steps and self.adaptation.work():
            self._note()

    def _steps_tried(self) -> int:
        """Those that were rolled back, or dropped since they were not finite, too."""
        return self.adaptation.total_steps + self.adaptation.status.dropped_steps

    def _note(self) -> None:
        status, judged = self.adaptation.status, self.course.judgements
        now = (self.adaptation.total_steps, status.error_before, status.error_now)
        if np.isfinite(now[1]) and (not judged or judged[-1][1:] != now[1:]):
            judged.append(now)


def run(args: argparse.Namespace) -> int:
    """Adapt and measure; writes the adapter, report.json, report.html and pictures."""
    _check(args)
    settings, seeds = settings_from(args), sampling.parse_seeds(args.seeds)
    if settings.adaptation.folder:
        raise BadInput("arguments", "sdim adapt begins with the weights of the checkpoint: leave "
                       "adaptation.folder out")
    poisons = [parse_poison(text) for text in args.poison]
    source = DatasetSource(args.data, args.dataset) if args.bag is None else BagSource(
        args.bag, parse_topics(args.topics), settings, args.gt_topic)
    out = make_folder(args.out)
    # Counted as they come: of a bag's images some may have no depth.
    count = sum(1 for _ in source.frames(args.every, None, lambda _: None))
    _check_count(args, source, count)
    first = 0 if args.adapt is None or args.online else args.adapt
    adapting = count if args.adapt is None or args.online else args.adapt
    for poison in poisons:
        if poison.start >= adapting:
            raise BadInput("poison", f"--poison {poison.kind}:{poison.start}:{poison.length}: "
                           f"expected a first frame from 0 to {adapting - 1}: {adapting} adapt")
    completer = load_completer(settings)
    adaptation = Adaptation(completer, settings.adaptation, seeds[0])
    results: list[FrameResult] = []
    courses, skipped, saved = [], {}, ""
    measured = (1 if args.online else 2) * (count - first)
    passes = (measured + adapting) * len(seeds)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("adapting", total=passes)
        for seed in seeds:
            adaptation.start_over(seed)
            tuning = Tuning(args, source, completer, adaptation, seed, poisons)
            results += _tune(tuning, count, lambda: progress.advance(task))
            courses.append(course_of(
                seed, adaptation, tuning.course.judgements, tuning.course.errors, poisons))
            skipped |= tuning.skipped
            if adaptation.version and not saved:  # one adapter, of the first draw that helped
                saved = _save(out, args, settings, adaptation, seed)
    shown = [frame for number, *frame in tuning.frames(count - 1)]
    adaptation_report.write(out, args, settings, completer, results, courses, skipped,
                            adaptation_report.before_and_after(adaptation, shown))
    Console().print(saved or "nothing that was learnt is better: no adapter was written",
                    highlight=False, soft_wrap=True)
    if args.adapt is None and not args.online:
        Console().print("the frames that it learnt from were measured: --adapt N keeps the others "
                        "apart", highlight=False, soft_wrap=True)
    if not results:
        raise BadInput("no_result", f"no frame could be measured: {next(iter(skipped.values()))}")
    return 0


def _save(out: Path, args: argparse.Namespace, settings: Settings, adaptation: Adaptation,
          seed: int) -> str:
    """Write what was learnt as an adapter; says where it is."""
    base = settings.model.checkpoint or report.EMBEDDED
    path = adapter_files.save(out / "adapter", adaptation.weights(), {
        "base": adapter_files.base_of(base, adaptation.original()),
        "command": shlex.join(args.command_line), "steps": adaptation.steps_in_use, "seed": seed,
        "settings": dataclasses.asdict(settings.adaptation)})
    return f"{path} holds what was learnt with seed {seed}; its folder is for adaptation.folder"


def _tune(tuning: Tuning, count: int, show: Callable[[], None]) -> list[FrameResult]:
    """The results of one seed, of original and of adapted weights."""
    args, judge = tuning.args, FrameJudge(METHODS, tuning.completer)
    first = 0 if args.online or args.adapt is None else args.adapt
    original = tuning.measure(judge, first, show, spoil=args.online)
    if args.online:
        adapted = tuning.learn_online(original, count, show)
    else:
        stop = args.adapt
        tuning.learn(stop, count if stop is None else stop, show)
        adapted = tuning.measure(judge, first, show)
    return _both(original, adapted)


def _both(original: list[FrameResult], adapted: list[FrameResult]) -> list[FrameResult]:
    """Results of the same frames side by side."""
    learnt = {result.name: result for result in adapted}
    both = []
    for result in original:
        if result.name not in learnt:
            continue
        other = learnt[result.name]
        both.append(dataclasses.replace(
            result,
            errors=result.errors | {new: other.errors[old] for old, new in ADAPTED.items()
                                    if old in other.errors},
            by_range=result.by_range | {ADAPTED["sdim"]: other.by_range["sdim"]},
            ms=result.ms | {ADAPTED["sdim"]: other.ms["sdim"]}))
    return both


def _check(args: argparse.Namespace) -> None:
    """What the flags tell by themselves, before anything is opened."""
    if args.every < 1 or (args.steps is not None and args.steps < 1):
        raise BadInput("arguments", f"--every {args.every} --steps {args.steps}: expected at "
                       "least 1")
    if args.points is not None:
        sampling.parse_amount(args.points, "--points")
    if args.bag is not None and (args.data or args.dataset):
        raise BadInput("arguments", "--bag beside --data or --dataset: expected one of them")
    for flag in ("topics", "gt_topic"):
        if args.bag is None and getattr(args, flag) is not None:
            raise BadInput("arguments", f"--{flag.replace('_', '-')} is for --bag: give that too, "
                           "or leave it out")
    if args.online and args.adapt is not None:
        raise BadInput("arguments", f"--adapt {args.adapt} beside --online, where every frame "
                       "adapts and measures: expected one of them")


def _check_count(args: argparse.Namespace, source: Source, count: int) -> None:
    """Whether there are frames enough."""
    if not count:
        raise BadInput("no_result", "there is no frame to learn from" + "".join(
            f": {n} messages left out, {why}" for why, n in list(source.left_out.items())[:1]))
    if args.adapt is not None and not 0 < args.adapt < count:
        raise BadInput("arguments", f"--adapt {args.adapt}: expected 1 to {count - 1}, since "
                       f"there are {count} frames and some must measure")
