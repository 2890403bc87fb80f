"""One frame in, one dense depth map out: clean, encode, ask, calibrate, fill, check."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from sdim_ros.core import checkpoint, confidence, doubt, engine, fill, queries
from sdim_ros.core.blend import (
    Blend, OutOfFold, apply_blend, fit_blend, hidden_folds, out_of_fold,
)
from sdim_ros.core.config import Settings
from sdim_ros.core.model import Prefix, SdimModel, random_twin
from sdim_ros.core.point_token import guess_everywhere
from sdim_ros.core.projection import clean_depth
from sdim_ros.core.types import Answers, BadInput, DenseDepth, Frame, ModelFailed, ModelLost, Stats

# What the model sees instead of the image when it is judged without it.
GREY = 127
# Sensors see less far: a larger median of the depths looks like another unit.
UNLIKELY_M = 200.0
# CUDA's words for errors after which a context answers with the same one for ever.
LOST = ("device-side assert", "illegal memory access", "illegal instruction", "misaligned address",
        "unspecified launch failure", "uncorrectable ECC", "GPU is lost", "device is lost")


@dataclass
class _Stopwatch:
    """Milliseconds by stage; a stage that comes again adds up.

    Attributes:
        beat: called at every stage and between passes: a sign of life that may end the frame.
    """

    beat: Callable[[], None] = lambda: None
    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.beat()
        start = time.perf_counter()
        yield
        self.ms[name] = self.ms.get(name, 0.0) + 1000 * (time.perf_counter() - start)


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
        settings: everything that can be set.
        model: a network in memory; None = the one that the settings name.

    Raises:
        ModelUnavailable: when the model cannot be loaded; the message says which and why.
    """

    def __init__(self, settings: Settings, model: SdimModel | None = None) -> None:
        self.settings = settings
        self.model = checkpoint.load(settings.model) if model is None else model

    @property
    def description(self) -> str:
        """For people: which model, how large, where."""
        name = self.settings.model.checkpoint or "embedded tiny checkpoint"
        millions = self.model.parameter_count() / 1e6
        kind = str(self.model.dtype).removeprefix("torch.")
        return f"{name}, {millions:.1f} M parameters, {self.model.device}, {kind}"

    @property
    def readout(self) -> str:
        """How digits become a number; the preset of the paper is greedy."""
        settings = self.settings.queries
        return "greedy" if settings.preset == "paper" else settings.readout

    @contextmanager
    def turn(self, beat: Callable[[], None]) -> Iterator[Callable[[], None]]:
        """Nobody else uses this model: the turn is there at once, with ``beat`` as it is."""
        yield beat

    def reconfigure(self, settings: Settings) -> None:
        """Use other settings from the next frame on; those of the model stay as loaded."""
        self.settings = settings

    @torch.inference_mode()
    def complete(self, frame: Frame, *, blind: bool = False,
                 beat: Callable[[], None] | None = None) -> DenseDepth:
        """Dense depth of one frame. Measured pixels that were kept come out bit-exact.

        Args:
            frame: image and sparse depth.
            blind: show the model a grey image; all else, the fills as well, stays equal.
            beat: called between stages and passes, as a sign of life; what it raises ends the
                frame.

        Raises:
            BadInput: ``no_points`` when nothing is measured and the settings say skip,
                ``too_large`` for an image over ``input.max_pixels``.
            ModelFailed: when the model's answers are not finite, or memory ran out.
        """
        watch = _Stopwatch(beat) if beat else _Stopwatch()
        if self.model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.model.device)
        with watch.stage("prepare"):
            measured, cleaned = self.clean(frame)
            view = _View.of(frame.image, blind)
        doubted = self._doubted(frame.image, measured, watch)
        with watch.stage("prepare"):
            sparse = self._believed(measured, doubted, cleaned)
            maps = queries.hint_maps(sparse, frame.image, self.model.config.hints)
            rows, cols = queries.pixels_to_ask(sparse, self.settings.queries)
        prefix = self._encode(view, sparse, watch)
        answers = self._read(prefix, sparse, rows, cols, _at(maps, (rows, cols)), watch)
        with watch.stage("calibrate"):
            folds = self._folds(frame, sparse)
            hidden = out_of_fold(sparse, frame.image, folds, self._fills_needed())
        said = self._ask_hidden(view, sparse, folds, hidden, watch)
        with watch.stage("fill"):
            blend = self._blend(hidden, said)
            depth, fill_only = apply_blend(blend, sparse, frame.image, answers, maps,
                                           self._guess(prefix.mixing, maps))
        with watch.stage("confidence"):
            sure = confidence.of_map(
                sparse, frame.image, depth, maps, answers, hidden, said, blend)
        stats = Stats(
            points=int((sparse > 0).sum()), cleaned=cleaned, doubted=len(doubted[0]),
            queries=len(answers) + len(hidden.truth), calibration_queries=len(hidden.truth),
            fill=blend.describe(), trust=blend.trust,
            out_of_range=self._out_of_range(sparse), gpu_mb=self._gpu_mb(), ms=watch.ms)
        return _checked(DenseDepth(depth, sure, fill_only, answers, stats, doubted))

    @torch.inference_mode()
    def ask(self, frame: Frame, rows: np.ndarray, cols: np.ndarray, *,
            blind: bool = False) -> Answers:
        """The model alone, at given pixels, which count as missing.

        Args:
            rows, cols: (Q,) int.
        """
        sparse, _ = self.clean(frame)
        view = _View.of(frame.image, blind)
        watch, hints = _Stopwatch(), self.hints(frame, rows, cols)
        return self._read(self._encode(view, sparse, watch), sparse, rows, cols, hints, watch)

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
        fused = self.model.fuse(self.model.prepare([frame.image], [sparse]))
        maps = queries.hint_maps(sparse, frame.image, self.model.config.hints)
        return self._guess(fused.mixing, maps)

    def clean(self, frame: Frame) -> tuple[np.ndarray, dict[str, int]]:
        """The measured depth that is used, (H, W) metres, and what was removed, by reason.

        Raises:
            BadInput: ``too_large``, or ``no_points`` where the settings say skip.
        """
        limits = self.settings.input
        if frame.sparse.size > limits.max_pixels:
            raise BadInput(
                "too_large", f"image of {frame.sparse.size} pixels: expected at most "
                f"{limits.max_pixels}; raise input.max_pixels or use a smaller image")
        sparse, cleaned = clean_depth(frame.sparse, limits.min_depth_m, limits.max_depth_m)
        if limits.on_empty_sparse == "skip" and not (sparse > 0).any():
            raise BadInput(
                "no_points", "sparse depth without a usable point (removed: "
                f"{cleaned}{_median_of(frame.sparse)}): expected depths from "
                f"{limits.min_depth_m:g} to {limits.max_depth_m:g} m; check sensor and "
                "extrinsics, or set input.on_empty_sparse to answer")
        return sparse, cleaned

    def _doubted(self, image: np.ndarray, sparse: np.ndarray, watch: _Stopwatch
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
            prefix = self._encode(_View.of(image, False), rest, watch)
            said = self._read(prefix, rest, *asked, hints, watch)
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

    def _encode(self, view: _View, sparse: np.ndarray, watch: _Stopwatch) -> Prefix:
        """All that the pixels of a frame share."""
        with watch.stage("encode"), self._accelerator_named():
            return self.model.encode(self.model.prepare([view.seen], [sparse], [view.guide]))

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

    def _read(self, prefix: Prefix, sparse: np.ndarray, rows: np.ndarray, cols: np.ndarray,
              hints: Mapping[str, np.ndarray], watch: _Stopwatch) -> Answers:
        """The number of every pixel, tile by tile."""
        number = self.model.config.number
        unit = float(prefix.unit[0])
        depth, spread = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.float32)
        with watch.stage("query_passes"), self._accelerator_named():
            asked = queries.describe(self.model.config, sparse, rows, cols, hints, unit)
            asked, tile = asked.to(self.model.device), self.settings.queries.tile
            for at, suffix in engine.suffixes(self.model, prefix, asked, tile):
                watch.beat()
                path = engine.decode(self.model, prefix, suffix, self.readout)
                if not np.isfinite(path.probabilities).all():
                    raise ModelFailed(
                        "the model's probabilities are not finite; check the checkpoint")
                # A number of only zeros is no depth: the smallest one instead.
                value = np.maximum(number.value(path.digits), number.resolution)
                depth[at] = value * unit
                spread[at] = engine.interval(path, number) * unit
        return Answers(rows, cols, depth, spread)

    @contextmanager
    def _accelerator_named(self) -> Iterator[None]:
        """Running out of memory says what to lower; a GPU that is lost is told from a bad frame."""
        try:
            yield
        except RuntimeError as problem:
            # On a GPU an OutOfMemoryError; on a CPU and in cuBLAS only the words tell.
            said = str(problem)
            if any(words in said for words in LOST):
                raise ModelLost(
                    f"the GPU failed ({said}): this process cannot use it any more") from problem
            if "memory" in said or "ALLOC_FAILED" in said:
                raise ModelFailed(
                    f"out of memory for queries in tiles of {self.settings.queries.tile}: lower "
                    "queries.tile or queries.budget") from problem
            raise

    def _folds(self, frame: Frame, sparse: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        settings = self.settings.fill
        return hidden_folds(sparse, settings.folds, settings.calibration_points,
                            seed=frame.stamp_ns % 2**32)

    def _ask_hidden(self, view: _View, sparse: np.ndarray,
                    folds: list[tuple[np.ndarray, np.ndarray]], hidden: OutOfFold,
                    watch: _Stopwatch) -> Answers:
        """The model at the hidden points, each fold from a frame that does not show it."""
        said, start = [], 0
        for rows, cols in folds:
            visible = sparse.copy()
            visible[rows, cols] = 0
            hints = _at(hidden.predictions, slice(start, start + len(rows)))
            prefix = self._encode(view, visible, watch)
            said.append(self._read(prefix, visible, rows, cols, hints, watch))
            start += len(rows)
        none = [np.zeros(0, np.float32)]
        return Answers(hidden.rows, hidden.cols, np.concatenate(none + [a.depth for a in said]),
                       np.concatenate(none + [a.spread for a in said]))

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
        known = sparse[sparse > 0]
        covered = self.model.config.number.covers(known / self.model.config.unit_of(sparse))
        return int((~covered).sum())


def with_random_weights(completer: Completer, seed: int = 0) -> Completer:
    """The same architecture and settings with random weights: what no training would give."""
    return Completer(completer.settings, random_twin(completer.model, seed))


def _median_of(removed: np.ndarray) -> str:
    """What depths that were all removed are like; nothing where there were none."""
    depths = removed[np.isfinite(removed) & (removed > 0)]
    if not depths.size:
        return ""
    median = float(np.median(depths))
    doubt = "; millimetres in 32FC1?" if median > UNLIKELY_M else ""
    return f", median {median:g} m{doubt}"


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
    dense.depth[bad], dense.confidence[bad] = np.nan, 0.0
    return dense
