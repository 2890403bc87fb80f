"""One frame in, one dense depth map out: clean, encode, ask, calibrate, fill, check."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from sdim_ros.core import checkpoint, confidence, doubt, fill, queries
from sdim_ros.core.asking import Asker, Pending, Questions, Readout, accelerator_named
from sdim_ros.core.blend import Blend, OutOfFold, apply_blend, fit_blend, hidden_folds, out_of_fold
from sdim_ros.core.cleaning import clean
from sdim_ros.core.config import Settings
from sdim_ros.core.evidence import RecentErrors
from sdim_ros.core.graphs import Recorder
from sdim_ros.core.model import ModelInput, Prefix, SdimModel, random_twin
from sdim_ros.core.pace import Pace, Stopwatch, TimeLeft
from sdim_ros.core.point_token import guess_everywhere
from sdim_ros.core.refinement import Rounds, joined
from sdim_ros.core.steps import compiled
from sdim_ros.core.types import (
    GREY, Answers, DenseDepth, Frame, ModelFailed, OutOfMemory, Stats)


@dataclass(frozen=True, slots=True)
class _View:
    """What the model sees, (H, W, 3) uint8, and the image that guides the fills."""

    seen: np.ndarray
    guide: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, blind: bool) -> _View:
        return cls(np.full_like(image, GREY) if blind else image, image)


class Completer:
    """Completes frames with one model. Not thread-safe: one thread uses it at a time.

    Args:
        model: a network in memory; None = the one that the settings name.
        clock: seconds, for the statistics and ``queries.budget_ms``.

    Attributes:
        recent: what the last frames of this camera told about errors, for the confidence of the
            next ones; None = every frame stands for itself, in whatever order they come.

    Raises:
        ModelUnavailable: when the model cannot be loaded; the message says which and why.
    """

    def __init__(self, settings: Settings, model: SdimModel | None = None,
                 clock: Callable[[], float] = time.perf_counter) -> None:
        self.settings, self._pace = settings, Pace(clock)
        self.model = checkpoint.load(settings.model) if model is None else model
        self._together = self.model.device.type == "cuda"
        if settings.model.compile and self._together:
            self.model.steps = compiled()
        self._recorder = Recorder(self.model.device) if self._together else None
        self._asker = self.asker()
        self.recent: RecentErrors | None = None

    @property
    def description(self) -> str:
        """For people: which model, how large, where."""
        name = self.settings.model.checkpoint or "embedded tiny checkpoint"
        millions = self.model.parameter_count() / 1e6
        kind = str(self.model.dtype).removeprefix("torch.")
        return f"{name}, {millions:.1f} M parameters, {self.model.device}, {kind}"

    @property
    def readout(self) -> Readout:
        """How digits become numbers."""
        return Readout.of(self.settings)

    @contextmanager
    def turn(self, beat: Callable[[], None]) -> Iterator[Callable[[], None]]:
        """Nobody else uses this model: the turn is there at once, with ``beat`` as it is."""
        yield beat

    def reconfigure(self, settings: Settings) -> None:
        """Use other settings from the next frame on; those of the model stay as loaded."""
        tile, self.settings = self.settings.queries.tile, settings
        if tile != settings.queries.tile:  # else what was learnt about the memory is kept
            self._asker = self.asker()

    def forget_recordings(self) -> None:
        """Give the memory of recorded passes back; also where modules of the model changed."""
        if self._recorder is not None:
            self._recorder.forget()
            torch.cuda.empty_cache()

    def asker(self) -> Asker:
        """What puts questions to the model, with tiles as the settings say."""
        return Asker(self.model, self.settings.queries.tile, self._recorder)

    def complete(self, frame: Frame, *, blind: bool = False,
                 beat: Callable[[], None] | None = None) -> DenseDepth:
        """Dense depth of one frame. Measured pixels that were kept come out bit-exact.

        Args:
            frame: image and sparse depth.
            blind: show the model a grey image; all else, the fills as well, stays equal, but for
                the pixels that are chosen by its answers.
            beat: called between stages and passes, as a sign of life; what it raises ends the
                frame.

        Raises:
            BadInput: ``no_points`` when nothing is measured and the settings say skip,
                ``too_large`` for an image over ``input.max_pixels``.
            ModelFailed: when the model's answers are not finite, or memory ran out.
        """
        try:
            return next(self._results(frame, blind, beat, every=False))
        except OutOfMemory:
            self._together = False  # once more, with as little at a time as possible
            self.forget_recordings()
        return next(self._results(frame, blind, beat, every=False))

    def improve(self, frame: Frame, *, blind: bool = False,
                beat: Callable[[], None] | None = None) -> Iterator[DenseDepth]:
        """Results of one frame that get better: the first after the first grid of queries.

        All is as for ``complete``, whose result is the last one. Each of them costs a fill.
        """
        return self._results(frame, blind, beat, every=True)

    @torch.inference_mode()
    def _results(self, frame: Frame, blind: bool, beat: Callable[[], None] | None, every: bool
                 ) -> Iterator[DenseDepth]:
        """The result after every round of queries, or after the last one alone."""
        pace = self._pace
        watch = Stopwatch(beat or (lambda: None), pace.clock)
        time_left = TimeLeft(pace, self.settings.queries.budget_ms, frame.sparse.size, every)
        if self.model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.model.device)
        with watch.stage("prepare"):
            measured, cleaned = self.clean(frame)
            view = _View.of(frame.image, blind)
        doubted = self._doubted(frame.image, measured, watch)
        with watch.stage("prepare"), pace.measured("prepare", frame.sparse.size):
            sparse = self._believed(measured, doubted, cleaned)
            maps = queries.hint_maps(sparse, frame.image, self.model.config.hints)
        prefix = self._encode(view, [sparse], watch, [maps])
        rounds = Rounds(sparse, frame.image, maps, self.settings.queries)
        started = None if self.settings.queries.budget_ms else self._next_round(
            rounds, prefix, math.inf, watch)
        with watch.stage("calibrate"):  # while a GPU works on the first answers
            folds = self._folds(frame, sparse)
            hidden = out_of_fold(sparse, frame.image, folds, self._fills_needed(),
                                 self.model.takes_maps(*sparse.shape))
        before = watch.ms.get("query_passes", 0.0)
        asked = self._ask_hidden(view, sparse, folds, hidden, watch)
        said = joined([a for p in asked for a in self._finish(p, watch)])
        pace.learn("hidden", watch.ms.get("query_passes", 0.0) - before, len(hidden.truth))
        with watch.stage("fill"):
            blend = self._blend(hidden, said)
            guess = self._guess(prefix.mixing, maps)
            lacking = {*blend.methods, *confidence.FILLS} - maps.keys()
            maps = {**maps, **fill.several(lacking, sparse, frame.image)}
        with watch.stage("confidence"):
            known = confidence.known_errors(hidden, said, blend)
            recent = None if blind or self.recent is None else self.recent.exchange(
                frame.stamp_ns, known, self.settings.confidence.recent_frames)
        for answers in self._answer(rounds, prefix, started, time_left, watch, every):
            with watch.stage("fill"), pace.measured("fill", sparse.size):
                (depth, fill_only), spread = fill.side_by_side(lambda task: task(), (
                    lambda: apply_blend(blend, sparse, frame.image, answers, maps, guess),
                    lambda: confidence.spread_map(answers, frame.image)))
            with watch.stage("confidence"), pace.measured("confidence", sparse.size):
                sure, interval = confidence.of_map(
                    sparse, depth, maps, spread, known, recent)
            stats = Stats(
                points=int((sparse > 0).sum()), cleaned=cleaned, doubted=len(doubted[0]),
                queries=len(answers) + len(hidden.truth), calibration_queries=len(hidden.truth),
                first_queries=rounds.first, fill=blend.describe(), trust=blend.trust,
                out_of_range=self._out_of_range(sparse), gpu_mb=self._gpu_mb(), ms=dict(watch.ms))
            yield _checked(DenseDepth(depth, sure, fill_only, answers, stats, doubted, interval))

    def _next_round(self, rounds: Rounds, prefix: Prefix, limit: float, watch: Stopwatch
                    ) -> Pending | None:
        """Start on the next pixels; None when there are no more."""
        chosen_by_answers = rounds.sparse.size if len(rounds.answers) else 0
        with watch.stage("choose"), self._pace.measured("choose", chosen_by_answers):
            at = rounds.next(limit)
        if len(at[0]) == 0:
            return None
        asked = Questions(rounds.sparse, *at, _at(rounds.maps, at))
        return self._start(prefix, [asked], watch)

    def _answer(self, rounds: Rounds, prefix: Prefix, started: Pending | None,
                time_left: TimeLeft, watch: Stopwatch, every: bool) -> Iterator[Answers]:
        """All answers so far, after every round of queries or after the last one alone.

        Args:
            started: the first round, where it has begun.
        """
        pace = self._pace
        while True:
            begun, chosen = pace.clock(), watch.ms.get("choose", 0.0)
            is_timed = started is None  # else most of its time is over
            if started is None:
                limit = time_left.queries(len(rounds.answers), self._asker.tile)
                started = self._next_round(rounds, prefix, limit, watch)
                begun += (watch.ms["choose"] - chosen) / 1000
            if started is None:
                break
            answers, = self._finish(started, watch)
            if is_timed:
                pace.learn("query", 1000 * (pace.clock() - begun), len(answers))
            rounds.told(answers)
            started = None
            if every:
                yield rounds.answers
        if not every or len(rounds.answers) == 0:
            yield rounds.answers

    @torch.inference_mode()
    def ask(self, frame: Frame, rows: np.ndarray, cols: np.ndarray, *,
            blind: bool = False) -> Answers:
        """The model alone, at given pixels, which count as missing.

        Args:
            rows, cols: (Q,) int.
        """
        sparse, _ = self.clean(frame)
        maps = queries.hint_maps(sparse, frame.image, self.model.config.hints)
        watch, asked = Stopwatch(), Questions(sparse, rows, cols, _at(maps, (rows, cols)))
        prefix = self._encode(_View.of(frame.image, blind), [sparse], watch, [maps])
        return self._finish(self._start(prefix, [asked], watch), watch)[0]

    def hints(self, frame: Frame, rows: np.ndarray, cols: np.ndarray) -> dict[str, np.ndarray]:
        """The classical values that stand in the prompts of these pixels, (Q,) metres each."""
        sparse, _ = self.clean(frame)
        maps = queries.hint_maps(sparse, frame.image, self.model.config.hints)
        return _at(maps, (rows, cols))

    @torch.inference_mode()
    def guess(self, frame: Frame) -> np.ndarray | None:
        """What the fusion network alone expects, (H, W) float32 metres, before any text.

        The language model is told this number at the pixel asked where the checkpoint says so;
        None where the fusion makes no guess, or nothing is measured.
        """
        sparse, _ = self.clean(frame)
        maps = queries.hint_maps(sparse, frame.image, self.model.config.hints)
        shown = [maps] if self.model.takes_maps(*sparse.shape) else None
        fused = self.model.fuse(self.model.prepare([frame.image], [sparse], maps=shown))
        return self._guess(fused.mixing, maps)

    def clean(self, frame: Frame) -> tuple[np.ndarray, dict[str, int]]:
        """``cleaning.clean`` within the limits of the settings."""
        return clean(frame, self.settings.input)

    @torch.inference_mode()
    def believed(self, image: np.ndarray, sparse: np.ndarray) -> np.ndarray:
        """Of cleaned measurements, (H, W) metres, those that ``complete`` uses."""
        if self.settings.doubt.mode != "reject":
            return sparse
        return doubt.without(sparse, self._doubted(image, sparse, Stopwatch()))

    def _doubted(self, image: np.ndarray, sparse: np.ndarray, watch: Stopwatch
                 ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the measured points that neighbours and model contradict.

        The model sees the image here even where it is judged without it: what is measured must
        be the same.
        """
        settings = self.settings.doubt
        with watch.stage("doubt"):
            suspects = doubt.suspects(sparse, image, settings)
            rest = suspects.without(sparse)
            asked = suspects.rows[:suspects.asked], suspects.cols[:suspects.asked]
            hints = {name: fill.classical_at(name, rest, image, *asked)
                     for name in self.model.config.hints if suspects.asked}
        said = None
        if suspects.asked:
            prefix = self._encode(_View.of(image, False), [rest], watch)
            pending = self._start(prefix, [Questions(rest, *asked, hints)], watch)
            said, = self._finish(pending, watch)
        return suspects.contradicted(sparse, said, settings.spreads)

    def _believed(self, sparse: np.ndarray, doubted: tuple[np.ndarray, np.ndarray],
                  cleaned: dict[str, int]) -> np.ndarray:
        """The measurements to use; what is rejected of them is counted in ``cleaned``."""
        if self.settings.doubt.mode != "reject" or not len(doubted[0]):
            return sparse
        cleaned["doubted"] = len(doubted[0])
        return doubt.without(sparse, doubted)

    def _gpu_mb(self) -> float:
        """Most memory that PyTorch held on the GPU during this frame, 0 on a CPU."""
        device = self.model.device
        return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0

    def _encode(self, view: _View, sparses: list[np.ndarray], watch: Stopwatch,
                maps: list[Mapping[str, np.ndarray] | None] | None = None) -> Prefix:
        """All that the pixels of a frame share, for each of several sparse depths.

        Args:
            maps: of each its fills, where they exist already.
        """
        n = len(sparses)
        maps = maps if self.model.takes_maps(*sparses[0].shape) else None
        with watch.stage("encode"), accelerator_named(self._asker):
            inputs = self.model.prepare([view.seen] * n, sparses, [view.guide] * n, maps)
            if self._recorder is None:
                return self.model.encode(inputs)
            row = self._recorder.run(
                lambda *tensors: self.model.encode(ModelInput(*tensors, inputs.unit)).tensors(),
                [inputs.image, inputs.depth, inputs.points], "encode")
            layers = len(self.model.qwen.model.language_model.layers)
            return Prefix.from_tensors(row, layers, inputs.unit)[0]

    def _guess(self, mixing: torch.Tensor | None, maps: Mapping[str, np.ndarray]
               ) -> np.ndarray | None:
        """The guess at every pixel, (H, W) metres, from the maps of the hints; None = none."""
        if mixing is None:
            return None
        hints = np.stack([maps[name] for name in self.model.config.hints])
        if np.isnan(hints).any():
            return None
        fills = torch.from_numpy(hints)[None].to(mixing.device)
        return guess_everywhere(mixing, fills)[0].cpu().numpy()

    def _start(self, prefix: Prefix, questions: list[Questions], watch: Stopwatch) -> Pending:
        """Put the questions about the frames of a prefix to the model, which may take its time."""
        with watch.stage("query_passes"), accelerator_named(self._asker):
            return self._asker.ask(prefix, questions, self.readout, watch.beat)

    def _finish(self, pending: Pending, watch: Stopwatch) -> list[Answers]:
        """Wait for the answers of each frame."""
        with watch.stage("query_passes"), accelerator_named(self._asker):
            return pending.answers()

    def _folds(self, frame: Frame, sparse: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        settings = self.settings.fill
        return hidden_folds(sparse, settings.folds, settings.calibration_points,
                            seed=frame.stamp_ns % 2**32)

    def _ask_hidden(self, view: _View, sparse: np.ndarray,
                    folds: list[tuple[np.ndarray, np.ndarray]], hidden: OutOfFold,
                    watch: Stopwatch) -> list[Pending]:
        """The model at the hidden points, each fold from a frame that does not show it."""
        asked, start = [], 0
        for rows, cols in folds:
            visible = sparse.copy()
            visible[rows, cols] = 0
            hints = _at(hidden.predictions, slice(start, start + len(rows)))
            asked.append(Questions(visible, rows, cols, hints))
            start += len(rows)
        # A GPU takes them all in the time of one; on a CPU that would only need more memory.
        size = max(len(asked), 1) if self._together else 1
        parts = [asked[i:i + size] for i in range(0, len(asked), size)]
        maps = [hidden.maps[i:i + size] for i in range(0, len(asked), size)]
        return [self._start(self._encode(view, [q.sparse for q in part], watch, m), part, watch)
                for part, m in zip(parts, maps)]

    def _fills_needed(self) -> tuple[str, ...]:
        """Those that are told to the model, or that the settings name."""
        chosen = self.settings.fill.method
        return (*self.model.config.hints, *([] if chosen == "auto" else [chosen]))

    def _blend(self, hidden: OutOfFold, said: Answers) -> Blend:
        settings = self.settings.fill
        return fit_blend(
            hidden.predictions, hidden.truth, said.depth,
            fixed_method=None if settings.method == "auto" else settings.method,
            fixed_trust=None if settings.trust < 0 else settings.trust)

    def _out_of_range(self, sparse: np.ndarray) -> int:
        """Measured depths that the checkpoint's numbers cannot spell."""
        numbers = sparse[sparse > 0] / self.model.config.unit_of(sparse)
        return int((~self.model.config.number.covers(numbers)).sum())


def with_random_weights(completer: Completer, seed: int = 0) -> Completer:
    """The same architecture and settings with random weights: what no training would give."""
    return Completer(completer.settings, random_twin(completer.model, seed))


def _at(values: Mapping[str, np.ndarray], at: object) -> dict[str, np.ndarray]:
    """Values of several fills at some pixels."""
    return {name: value[at] for name, value in values.items()}


def _checked(dense: DenseDepth) -> DenseDepth:
    """Refuse a map that is mostly unusable; mask the rest."""
    bad = ~np.isfinite(dense.depth) | (dense.depth <= 0)
    if bad.mean() > 0.5 and dense.stats.points:
        raise ModelFailed(
            f"{100 * bad.mean():.0f} % of the depths are not usable numbers, expected at most "
            "50 %; check the checkpoint")
    dense.depth[bad], dense.confidence[bad], dense.interval[bad] = np.nan, 0.0, np.nan
    return dense
