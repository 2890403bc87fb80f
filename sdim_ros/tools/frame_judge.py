"""Runs methods on a frame and judges each at pixels that it was not given."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdim_ros.core import fill
from sdim_ros.core.config import with_values
from sdim_ros.core.doubt import without
from sdim_ros.core.projection import clean_depth
from sdim_ros.core.types import BadInput, DenseDepth, Frame
from sdim_ros.tools.results import FrameResult, judge, judge_by_range, judge_certainty

# The best of the classical values that a model may see in its prompt.
HINT = "edge_aware"


@dataclass(frozen=True)
class Judged:
    """A frame's result, and the maps that it was made from.

    Attributes:
        maps: (H, W) float32 metres by method, of those that give a whole map.
        dense: what the model gave, or None when only other methods ran.
    """

    result: FrameResult
    maps: dict[str, np.ndarray]
    dense: DenseDepth | None


class FrameJudge:
    """Runs the chosen methods on a frame and measures their errors and times.

    Args:
        methods: of `results.METHODS`.
        completer: the model; None when only classical fills are chosen.
    """

    def __init__(self, methods: Collection[str], completer: Any | None) -> None:
        self.methods = methods
        self.completer = completer
        self._random: Any | None = None
        self._whole: Any | None = None

    @property
    def description(self) -> str:
        return "none" if self.completer is None else self.completer.description

    def __call__(self, frame: Frame, reference: np.ndarray, seed: int,
                 predictions: Mapping[str, np.ndarray] | None = None) -> Judged:
        """Judge one frame.

        Args:
            reference: (H, W) metres, 0 = unknown.
            seed: of the draw that made the frame, for the report.
            predictions: (H, W) metres by the name of another method; 0 and NaN = missing.

        Raises:
            BadInput: when the frame has no points or nothing to judge by.
            ModelFailed: when the model's answers cannot be used.
        """
        sparse, _ = clean_depth(frame.sparse, *self._range())
        maps, ms = self._classical(frame, sparse)
        dense = None
        if self.completer is not None:
            dense, ms["sdim"] = _timed(lambda: self.completer.complete(frame))
            maps |= {"sdim": dense.depth, "fill_only": dense.fill_only}
            if "sdim_blind" in self.methods:
                maps["sdim_blind"] = self.completer.complete(frame, blind=True).depth
        chosen = {name: depth for name, depth in maps.items() if name in self.methods}
        if (whole := self._unquantized()) is not None:
            chosen["sdim_unquantized"] = whole.complete(frame).depth
        chosen |= predictions or {}
        errors = {name: judge(depth, reference, frame.sparse) for name, depth in chosen.items()}
        by_range = {name: judge_by_range(depth, reference, frame.sparse)
                    for name, depth in chosen.items()}
        if dense is not None and len(dense.answers):
            errors |= self._at_asked_pixels(frame, sparse, reference, dense)
        if not any(errors.values()):
            raise BadInput("no_reference", f"frame {frame.name} has no reference to judge by")
        result = FrameResult(
            frame.name, seed, int(np.count_nonzero(sparse)), errors, ms,
            None if dense is None else dense.stats, by_range,
            certainty={} if dense is None else judge_certainty(dense, reference, frame.sparse))
        return Judged(result, maps | chosen, dense)

    def _classical(self, frame: Frame, sparse: np.ndarray
                   ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """The chosen classical fills and their times."""
        maps: dict[str, np.ndarray] = {}
        ms: dict[str, float] = {}
        for method in fill.CLASSICAL:
            if method in self.methods:
                maps[method], ms[method] = _timed(
                    lambda name=method: fill.classical(name, sparse, frame.image))
        return maps, ms

    def _range(self) -> tuple[float, float]:
        """The depths that the model takes: classical fills get the same points."""
        if self.completer is None:
            return 0.0, np.inf
        limits = self.completer.settings.input
        return limits.min_depth_m, limits.max_depth_m

    def _at_asked_pixels(
        self, frame: Frame, sparse: np.ndarray, reference: np.ndarray, dense: DenseDepth
    ) -> dict[str, dict[str, dict[str, float]]]:
        """The model's own text answers beside other values at the very same pixels.

        They are those of the first round: the others are asked where it is hard.
        """
        first = slice(dense.stats.first_queries or None)
        rows, cols = dense.answers.rows[first], dense.answers.cols[first]
        given = frame.sparse[rows, cols]
        if "doubted" in dense.stats.cleaned:  # the model saw nothing of what was rejected
            frame = dataclasses.replace(frame, sparse=without(frame.sparse, dense.doubted))
        hints = self.completer.hints(frame, rows, cols)
        makers: dict[str, Callable[[], np.ndarray]] = {
            "answers": lambda: dense.answers.depth[first],
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
        truth = reference[rows, cols]
        return {
            name: judge(make(), truth, given) for name, make in makers.items() if name in wanted
        }

    def _random_model(self) -> Any:
        from sdim_ros.core.completer import with_random_weights

        if self._random is None:
            self._random = with_random_weights(self.completer)
        return self._random

    def _unquantized(self) -> Any | None:
        """The same model with its whole weights, where it is to stand beside a smaller one."""
        if (self.completer is None or "sdim_unquantized" not in self.methods
                or self.completer.settings.model.quantization == "none"):
            return None
        from sdim_ros.core.completer import Completer

        if self._whole is None:
            self._whole = Completer(with_values(
                self.completer.settings, {"model.quantization": "none"}))
        return self._whole


def _timed(task: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the milliseconds that it took."""
    start = time.perf_counter()
    result = task()
    return result, (time.perf_counter() - start) * 1e3
