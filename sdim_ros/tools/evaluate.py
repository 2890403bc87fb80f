"""``sdim evaluate``: the model and classical fills, judged at pixels they were not given."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from sdim_ros.core import fill
from sdim_ros.core.projection import clean_depth
from sdim_ros.core.types import BadInput, DenseDepth, Frame, ModelFailed
from sdim_ros.tools import overview, report, sampling
from sdim_ros.tools.complete import (
    add_model_arguments, load_completer, make_folder, settings_from,
)
from sdim_ros.tools.datasets.catalogue import DATASETS, open_dataset
from sdim_ros.tools.datasets.frames import Sample, frame_names
from sdim_ros.tools.report import FrameResult, judge

# The best of the classical values that a model may see in its prompt.
HINT = "edge_aware"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``sdim evaluate``."""
    parser.add_argument("--data", metavar="FOLDER", help="a frames folder")
    parser.add_argument("--dataset", choices=DATASETS, help="real or rendered scenes that need no data")
    parser.add_argument("--points", metavar="N|N%", help="draw N pixels or a share of them from "
                        "the sparse map, or from gt where there is none; default: all")
    parser.add_argument("--outliers", metavar="N%", help="replace a share of the input by noise")
    parser.add_argument("--seeds", default="0", help="repeat the draw, e.g. 0,1,2 (default 0)")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="each K-th frame")
    parser.add_argument("--methods", default=",".join(report.METHODS),
                        help="comma-separated; default: %(default)s")
    parser.add_argument("--out", required=True, metavar="DIR",
                        help="where report.json and overview.png go")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate a dataset; writes report.json and the overview of the first frame."""
    methods, seeds = _methods(args.methods), _seeds(args.seeds)
    if args.every < 1:
        raise BadInput("arguments", f"--every {args.every}: expected at least 1")
    for amount in filter(None, (args.points, args.outliers)):
        sampling.parse_amount(amount)
    settings = settings_from(args)
    dataset = open_dataset(args.data, args.dataset)
    out = make_folder(args.out)
    needs_model = not set(methods) <= set(fill.CLASSICAL)
    judged = FrameJudge(methods, load_completer(settings) if needs_model else None)
    results: list[FrameResult] = []
    skipped: dict[str, str] = {}
    names = frame_names(dataset)
    chosen = range(0, len(names), args.every)
    with Progress(console=Console(stderr=True)) as progress:
        for index in progress.track(chosen, description="evaluating"):
            for seed in seeds:
                try:
                    sample = dataset[index]
                    frame = draw_input(sample, args.points, args.outliers, seed)
                    results.append(judged(frame, sample.reference, seed))
                except (BadInput, ModelFailed) as problem:
                    skipped[f"{names[index]} seed {seed}"] = str(problem)
                    continue
                if len(results) == 1:
                    _draw(out / "overview.png", frame, sample.reference, results[0])
    header = report.environment(
        args.command_line, settings.model.checkpoint or "embedded", judged.description)
    result = report.build(header | {"skipped": skipped}, results)
    report.write_json(out / "report.json", result)
    if not results:
        raise BadInput("no_result", f"no frame could be judged: {next(iter(skipped.values()))}")
    console = Console()
    console.print(f"{len(results)} of {len(chosen) * len(seeds)} runs on {len(chosen)} frames; "
                  "errors where no point was given", highlight=False)
    if skipped:
        name, reason = next(iter(skipped.items()))
        console.print(f"skipped (all are in report.json), first {name}: {reason}",
                      markup=False, highlight=False, soft_wrap=True)
    console.print(report.table(result))
    return 0


def draw_input(sample: Sample, points: str | None, outliers: str | None, seed: int) -> Frame:
    """The frame as the methods get it.

    Args:
        points, outliers: amounts as in `sampling`, or None.
    """
    sparse = sample.measured
    if points is not None:
        sparse = sampling.sample_points(sparse, points, seed)
    if outliers is not None:
        sparse = sampling.add_outliers(sparse, outliers, seed)
    return sample.frame(sparse)


class FrameJudge:
    """Runs the chosen methods on a frame and measures their errors and times.

    Args:
        methods: of `report.METHODS`.
        completer: the model; None when only classical fills are chosen.
    """

    def __init__(self, methods: Collection[str], completer: Any | None) -> None:
        self.methods = methods
        self.completer = completer
        self._random: Any | None = None

    @property
    def description(self) -> str:
        return "none" if self.completer is None else self.completer.description

    def __call__(self, frame: Frame, reference: np.ndarray, seed: int) -> FrameResult:
        """Judge one frame.

        Args:
            reference: (H, W) metres, 0 = unknown.
            seed: of the draw that made the frame, for the report.

        Raises:
            BadInput: when the frame has no points or nothing to judge by.
            ModelFailed: when the model's answers cannot be used.
        """
        maps: dict[str, np.ndarray] = {}
        ms: dict[str, float] = {}
        sparse, _ = clean_depth(frame.sparse, *self._range())
        for method in fill.CLASSICAL:
            if method in self.methods:
                maps[method], ms[method] = _timed(
                    lambda name=method: fill.classical(name, sparse, frame.image))
        dense = None
        if self.completer is not None:
            dense, ms["sdim"] = _timed(lambda: self.completer.complete(frame))
            maps |= {"sdim": dense.depth, "fill_only": dense.fill_only}
            if "sdim_blind" in self.methods:
                maps["sdim_blind"] = self.completer.complete(frame, blind=True).depth
        errors = {
            name: judge(depth, reference, frame.sparse)
            for name, depth in maps.items() if name in self.methods
        }
        if dense is not None and len(dense.answers):
            errors |= self._at_asked_pixels(frame, sparse, reference, dense)
        if not any(errors.values()):
            raise BadInput("no_reference", f"frame {frame.name} has no reference to judge by")
        points = int(np.count_nonzero(sparse))
        return FrameResult(frame.name, seed, points, errors, ms, dense)

    def _range(self) -> tuple[float, float]:
        """The depths that the model takes: classical fills get the same points."""
        if self.completer is None:
            return 0.0, np.inf
        limits = self.completer.settings.input
        return limits.min_depth_m, limits.max_depth_m

    def _at_asked_pixels(
        self, frame: Frame, sparse: np.ndarray, reference: np.ndarray, dense: DenseDepth
    ) -> dict[str, dict[str, dict[str, float]]]:
        """The model's own text answers beside other values at the very same pixels."""
        rows, cols = dense.answers.rows, dense.answers.cols
        hints = self.completer.hints(frame, rows, cols)
        makers: dict[str, Callable[[], np.ndarray]] = {
            "answers": lambda: dense.answers.depth,
            "answers_linear": lambda: fill.linear_at(sparse, rows, cols),
            "answers_hint": lambda: hints[HINT],
            "answers_guess": lambda: guess[rows, cols],
            "sdim_random": lambda: self._random_model().ask(frame, rows, cols).depth,
        }
        # Answers mean nothing without something to hold against them.
        wanted = set(self.methods) | ({"answers_linear"} if "answers" in self.methods else set())
        wanted -= set() if HINT in hints else {"answers_hint"}
        if "answers_guess" in wanted:
            guess = self.completer.guess(frame)
            wanted -= {"answers_guess"} if guess is None else set()
        truth, given = reference[rows, cols], frame.sparse[rows, cols]
        return {
            name: judge(make(), truth, given) for name, make in makers.items() if name in wanted
        }

    def _random_model(self) -> Any:
        from sdim_ros.core.completer import with_random_weights

        if self._random is None:
            self._random = with_random_weights(self.completer)
        return self._random


def _timed(task: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the milliseconds that it took."""
    start = time.perf_counter()
    result = task()
    return result, (time.perf_counter() - start) * 1e3


def _draw(path: Any, frame: Frame, reference: np.ndarray, result: FrameResult) -> None:
    if result.dense is not None:
        overview.draw(path, frame.name, frame.image, frame.sparse, result.dense.depth,
                      result.dense.confidence, reference, report.notes(result))


def _methods(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in report.METHODS]
    if unknown or not names:
        raise BadInput("arguments", f"--methods {text}: expected some of "
                       f"{', '.join(report.METHODS)}")
    return names


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise BadInput(
            "arguments", f"--seeds {text}: expected whole numbers such as 0,1,2") from None
