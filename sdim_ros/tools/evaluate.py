"""``sdim evaluate``: the model and other methods, judged at pixels they were not given."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from sdim_ros.core import fill
from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.types import BadInput, Frame, ModelFailed
from sdim_ros.tools import (
    frame_pictures, html_report, overview, published, report, sampling)
from sdim_ros.tools.complete import (
    OF_MESSAGES, add_model_arguments, load_completer, make_folder, settings_from,
)
from sdim_ros.tools.datasets.catalogue import DATASETS, open_dataset
from sdim_ros.tools.datasets.frames import Sample, frame_names, protocol_points
from sdim_ros.tools.evaluation_rows import Crew, Rows
from sdim_ros.tools.frame_judge import FrameJudge, Judged
from sdim_ros.tools.predictions import Predictions, open_predictions
from sdim_ros.tools.results import METHODS, FrameResult, judge_doubts
from sdim_ros.tools.robustness import AXES, Level, parse_axis


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``sdim evaluate``."""
    parser.add_argument("--data", metavar="FOLDER",
                        help="a frames folder, or with --dataset the folder of that data set")
    parser.add_argument("--dataset", choices=DATASETS, metavar="NAME",
                        help=f"its protocol: {', '.join(DATASETS)}")
    parser.add_argument("--void-clip", action="store_true",
                        help="judge VOID from 0.2 to 5 m only, as its authors do")
    parser.add_argument("--points", metavar="N|N%", help="draw N pixels or a share of them from "
                        "the sparse map, or from gt where there is none; default: all, or what the "
                        "protocol draws")
    parser.add_argument("--outliers", metavar="N%", help="replace a share of the input by noise")
    parser.add_argument("--axis", action="append", default=[], metavar="NAME=LEVEL,...",
                        help="a curve over inputs that get harder in one way: "
                        f"{', '.join(AXES)}; e.g. points=0,5,50,500,5000; may be repeated")
    parser.add_argument("--seeds", default="0", help="repeat the draw, e.g. 0,1,2 (default 0)")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="each K-th frame")
    parser.add_argument("--methods", default=",".join(METHODS),
                        help="comma-separated; sdim_unquantized with model.quantization alone; "
                        "default: %(default)s")
    parser.add_argument("--predictions", action="append", default=[], metavar="FOLDER[=SCALE]",
                        help="depth of another method for the same input, NAME.npy in metres or "
                        "NAME.png with metres = value / SCALE (default 256); may be repeated")
    parser.add_argument("--pictures", type=int, default=3, metavar="N",
                        help="worst and best frames shown in report.html (default 3 each)")
    parser.add_argument("--out", required=True, metavar="DIR",
                        help="where report.json, report.html and overview.png go; the same "
                        "command goes on with what was interrupted there")
    add_model_arguments(parser)


@dataclass(frozen=True, slots=True)
class Run:
    """One input to judge: a frame, a draw, and what makes it harder, if anything."""

    index: int
    name: str
    seed: int
    level: Level | None

    @property
    def key(self) -> str:
        harder = "" if self.level is None else f" {self.level.axis} {self.level.text}"
        return f"{self.name} seed {self.seed}{harder}"


class Evaluation:
    """The frames, the methods and the draws of one evaluation."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.methods, seeds = _methods(args.methods), sampling.parse_seeds(args.seeds)
        if args.every < 1 or args.pictures < 0:
            raise BadInput("arguments", f"--every {args.every} --pictures {args.pictures}: "
                           "expected at least 1 and at least 0")
        if args.points is not None:
            sampling.parse_amount(args.points, "--points")
        if args.outliers is not None and isinstance(
                sampling.parse_amount(args.outliers, "--outliers"), int):
            raise BadInput("amount", f"--outliers {args.outliers}: expected a share such as 5%")
        levels = [level for axis in args.axis for level in parse_axis(axis)]
        self.settings = settings_from(args, (*OF_MESSAGES, "output."))
        if "sdim_unquantized" in self.methods and args.methods != ",".join(METHODS) and (
                self.settings.model.quantization == "none"):
            raise BadInput("arguments", "--methods sdim_unquantized is to be held against smaller "
                           "weights: add --set model.quantization=int8 or int4")
        if any(AXES[level.axis].draws and level.value == 0 for level in levels):
            self.settings = with_values(self.settings, {"input.on_empty_sparse": "answer"})
        self.dataset = open_dataset(args.data, args.dataset, void_clip=args.void_clip)
        usual = protocol_points(self.dataset)
        self.points = usual if args.points is None else args.points
        self.off_protocol = [flag for flag, value, protocol in (
            (f"--every {args.every}", args.every, 1),
            (f"--outliers {args.outliers}", args.outliers, None),
            (f"--points {args.points}", self.points, usual),
            ("--void-clip", args.void_clip, False)) if value != protocol]
        names = frame_names(self.dataset)
        chosen = range(0, len(names), args.every)
        self.predictions: list[Predictions] = []
        for text in args.predictions:
            taken = {*METHODS, *(p.method for p in self.predictions)}
            self.predictions.append(open_predictions(text, [names[i] for i in chosen], taken))
        if self.predictions and len(seeds) > 1:
            raise BadInput("arguments", f"--seeds {args.seeds} with --predictions: expected one "
                           "seed, since a prediction belongs to one draw of the input")
        self.runs = [Run(index, names[index], seed, level) for index in chosen
                     for seed in seeds for level in (None, *levels)]
        self._judge: FrameJudge | None = None
        self._read: tuple[int, Any] = (-1, None)

    @property
    def needs_model(self) -> bool:
        return not set(self.methods) <= set(fill.CLASSICAL)

    @property
    def description(self) -> str:
        """Of the model, once it is loaded."""
        return "none" if self._judge is None else self._judge.description

    def question(self) -> dict[str, Any]:
        """Everything that the results depend on, but not how they are worked out or shown."""
        free = {"out", "pictures", "command_line", "verb"}
        asked = {key: value for key, value in vars(self.args).items() if key not in free}
        folder = Path(self.settings.model.checkpoint or "-")
        files = sorted(folder.glob("*.*")) if folder.is_dir() else []
        weights = [[f.name, f.stat().st_size, f.stat().st_mtime] for f in files]
        maps = [part for predictions in self.predictions
                for part in predictions.files(run.name for run in self.runs if not run.level)]
        return {**asked, "weights": weights, "maps": maps, **self._adapter()}

    def _adapter(self) -> dict[str, str]:
        """Name and checksum of the newest adapter: a node may save another while this runs."""
        if not self.settings.adaptation.folder or not self.needs_model:
            return {}
        from sdim_ros.core.adapter_files import ABOUT, saved  # with PyTorch, as the model is

        folder = Path(self.settings.adaptation.folder).expanduser()
        found = [path for path in (saved(folder) if folder.is_dir() else ())
                 if (path / ABOUT).is_file()]
        return {} if not found else {
            "adapter": found[-1].name,  # of what is said about it: the weights' checksum as well
            "adapter_sha256": hashlib.sha256((found[-1] / ABOUT).read_bytes()).hexdigest()}

    def load(self, device: str | None) -> None:
        """Load the model where a method needs it."""
        settings: Settings = self.settings
        if device is not None and settings.model.device == "auto":
            settings = with_values(settings, {"model.device": device})
        self._judge = FrameJudge(
            self.methods, load_completer(settings) if self.needs_model else None)

    def judged(self, run: Run) -> tuple[Frame, np.ndarray, Judged]:
        """The input of a run, its reference, and what the methods made of it.

        Raises:
            BadInput, ModelFailed: there is no result of this run.
        """
        sample = self._sample(run.index)
        frame = draw_input(sample, self.points, self.args.outliers, run.seed, run.level)
        outside = {} if run.level else {
            p.method: p.read(run.name, frame.sparse.shape) for p in self.predictions}
        judged = self._judge(frame, sample.reference, run.seed, outside)
        changes: dict[str, Any] = {}
        if run.level:
            changes = {"axis": run.level.axis, "level": run.level.text}
        elif self.args.outliers and judged.dense is not None:
            before = draw_input(sample, self.points, None, run.seed).sparse
            changes = {"doubt": judge_doubts(before, frame.sparse, judged.dense.doubted)}
        result = dataclasses.replace(judged.result, **changes)
        return frame, sample.reference, dataclasses.replace(judged, result=result)

    def _sample(self, index: int) -> Sample:
        """A frame; draws and levels of the same one follow each other."""
        if self._read[0] != index:
            self._read = index, self.dataset[index]
        return self._read[1]


def run(args: argparse.Namespace) -> int:
    """Evaluate a dataset; writes report.json, report.html and the overview of the first frame."""
    evaluation = Evaluation(args)
    out, crew = make_folder(args.out), Crew()
    rows = Rows(out / "rows", evaluation.question(), crew)
    evaluation.load(crew.device)
    _work(evaluation, rows, crew)
    rows.close()
    crew.wait()
    if not crew.is_first:
        return 0
    results, skipped = rows.collect(run.key for run in evaluation.runs)
    content = _report(evaluation, results, skipped)
    report.write_json(out / "report.json", content)
    if not results:
        raise BadInput("no_result", f"no frame could be judged: {next(iter(skipped.values()))}")
    _draw(out, evaluation, results, content)
    rows.remove()
    _tell(Console(), evaluation, content, len(results))
    return 0


def _work(evaluation: Evaluation, rows: Rows, crew: Crew) -> None:
    """Judge this process's share of the runs that are not done yet."""
    mine = [run for run in evaluation.runs[crew.rank::crew.count] if run.key not in rows]
    with Progress(console=Console(stderr=True), disable=not crew.is_first) as progress:
        if crew.is_first and len(rows):
            progress.console.print(f"going on: {len(rows)} of {len(evaluation.runs)} are done",
                                   highlight=False)
        for run in progress.track(mine, description="evaluating"):
            try:
                *_, judged = evaluation.judged(run)
            except (BadInput, ModelFailed) as problem:
                rows.add(run.key, str(problem))
                continue
            rows.add(run.key, judged.result)


def draw_input(sample: Sample, points: str | None, outliers: str | None, seed: int,
               level: Level | None = None) -> Frame:
    """The frame as the methods get it.

    Args:
        points, outliers: amounts as in `sampling`, or None.
        level: what else makes it harder.
    """
    sparse = sample.measured
    if points is not None and not (level and AXES[level.axis].draws):
        sparse = sampling.sample_points(sparse, points, seed)
    frame = sample.frame(sparse)
    if level is not None:
        frame = level.apply(frame, seed)
    if outliers is not None:
        frame = dataclasses.replace(
            frame, sparse=sampling.add_outliers(frame.sparse, outliers, seed))
    return frame


def _report(evaluation: Evaluation, results: Sequence[FrameResult], skipped: dict[str, str]
            ) -> dict[str, Any]:
    args = evaluation.args
    header = report.environment(
        args.command_line, evaluation.settings.model.checkpoint,
        evaluation.description)
    header |= {"skipped": skipped, "doubt_mode": evaluation.settings.doubt.mode}
    content = report.build(header, results)
    others = published.published_for(args.dataset or "")
    if others and evaluation.off_protocol:
        others["caveats"] = [
            f"This run is not the protocol ({' '.join(evaluation.off_protocol)}): its numbers are "
            "not to be held against these.", *others["caveats"]]
    return content | ({"published": others} if others else {})


def _draw(out: Path, evaluation: Evaluation, results: Sequence[FrameResult],
          content: dict[str, Any]) -> None:
    """overview.png of the first frame, and report.html with the worst and the best.

    Nothing but numbers was kept of the frames, so those shown are run once more.
    """
    runs = {(run.name, run.seed): run for run in evaluation.runs if run.level is None}
    plain = [result for result in results if not result.axis]
    method = frame_pictures.shown_method(plain) if plain else None
    if method is None:
        html_report.write(out / "report.html", content)
        return
    frame, reference, judged = evaluation.judged(runs[plain[0].name, plain[0].seed])
    if judged.dense is not None:
        overview.draw(out / "overview.png", frame.name, frame.image, frame.sparse,
                      judged.dense.depth, judged.dense.confidence, reference,
                      report.notes(judged.result))
    chosen = frame_pictures.worst_and_best(plain, method, evaluation.args.pictures)
    html_report.write(out / "report.html", content, frame_pictures.draw(
        chosen, method, lambda result: evaluation.judged(runs[result.name, result.seed])))


def _tell(console: Console, evaluation: Evaluation, content: dict[str, Any], judged: int) -> None:
    """The result for people."""
    frames = len({run.index for run in evaluation.runs})
    console.print(f"{judged} of {len(evaluation.runs)} runs on {frames} frames; errors where no "
                  "point was given", highlight=False)
    if content["skipped"]:
        name, reason = next(iter(content["skipped"].items()))
        console.print(f"skipped (all are in report.json), first {name}: {reason}",
                      markup=False, highlight=False, soft_wrap=True)
    console.print(report.table(content))
    if report.certainty(content):
        console.print(report.certainty(content), highlight=False)
    if "doubt" in content and content["doubt_mode"] != "ignore":
        console.print(report.doubts(content), highlight=False)
    console.print(f"{evaluation.args.out}/report.html shows it", highlight=False)


def _methods(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise BadInput("arguments", f"--methods {text}: expected some of {', '.join(METHODS)}")
    return names
