"""Pixels of one frame, or of several at once, asked in tiles that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdim_ros.core import engine, queries
from sdim_ros.core.config import Settings
from sdim_ros.core.engine import DigitPath
from sdim_ros.core.graphs import Recorder
from sdim_ros.core.model import Prefix, SdimModel
from sdim_ros.core.point_token import PixelQueries
from sdim_ros.core.types import Answers, ModelFailed, ModelLost, OutOfMemory

# Queries of a pass where the settings leave it open: as many as make a pass efficient.
TILES = {"cpu": 512, "cuda": 4096}
# Where memory runs out at fewer, it is not the queries that need it.
SMALLEST = 16
# Times of asking until more queries are tried again: another process may have had the memory.
PATIENCE = 100
# Passes that are recorded have a multiple of this many queries.
FINE = 64
# CUDA's words for errors after which a context answers with the same one for ever.
LOST = ("device-side assert", "illegal memory access", "illegal instruction", "misaligned address",
        "unspecified launch failure", "uncorrectable ECC", "GPU is lost", "device is lost")


@dataclass(frozen=True, slots=True)
class Readout:
    """How the digits of an answer become a depth and a spread.

    Attributes:
        kind: ``median`` or ``greedy``.
        stop_early: as for ``engine.spell``; for medians alone.
        exact: read the 10 % and 90 % quantiles digit by digit too, instead of the interval that
            the median's path shows.
    """

    kind: str = "median"
    stop_early: bool = False
    exact: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Readout:
        """As the settings say; the preset of the paper spells whole numbers greedily."""
        asked = settings.queries
        kind = "greedy" if asked.preset == "paper" else asked.readout
        return cls(kind, asked.stop_early and kind == "median",
                   settings.confidence.exact_quantiles)

    def spell(self, model: SdimModel, prefix: Prefix, suffix: Tensor) -> tuple[Tensor, ...]:
        """What ``engine.spell`` gives for (B, K, S, C), and the digits of both quantiles."""
        rows = suffix.flatten(0, 1)
        spelled = engine.spell(model, prefix, rows, self.kind, self.stop_early)
        ends = [engine.spell(model, prefix, rows, "median", quantile=q)[0]
                for q in (0.1, 0.9)] if self.exact else []
        return *spelled, *ends


@dataclass(frozen=True, slots=True)
class Questions:
    """Missing pixels of one frame.

    Attributes:
        sparse: (H, W) float32 metres, 0 = missing, what the model is shown.
        rows, cols: (Q,) int.
        hints: by name (Q,) metres, the classical fills at these pixels.
    """

    sparse: np.ndarray
    rows: np.ndarray
    cols: np.ndarray
    hints: Mapping[str, np.ndarray]

    def padded(self, count: int) -> Questions:
        """With the last pixel repeated up to ``count``."""
        at = np.minimum(np.arange(count), max(len(self.rows) - 1, 0))
        return Questions(self.sparse, self.rows[at], self.cols[at],
                         {name: values[at] for name, values in self.hints.items()})


class Asker:
    """Asks one model; remembers for a while how many queries its memory takes at a time.

    Args:
        tile: most queries of a pass; 0 = as the device likes it.
        recorder: what replays known shapes on a GPU; None = every pass is launched anew.
    """

    def __init__(self, model: SdimModel, tile: int, recorder: Recorder | None = None) -> None:
        self._model, self._recorder = model, recorder
        self.tile = self._most = tile or TILES.get(model.device.type, TILES["cpu"])
        self._since_halved = 0

    def ask(self, prefix: Prefix, questions: list[Questions], readout: Readout,
            beat: Callable[[], None]) -> Pending:
        """Start on the numbers of all pixels.

        Args:
            prefix: of as many frames as there are questions.
            beat: called between passes.
        """
        pending = Pending(self._model, prefix.unit, questions)
        if not pending.longest:
            return pending
        self._since_halved += 1
        if self.tile < self._most and self._since_halved > PATIENCE:
            self.tile, self._since_halved = min(2 * self.tile, self._most), 0
        if self._model.config.addressing == "text":
            for i, asked in enumerate(self._described(prefix, questions, pending.longest)):
                image = prefix.image(i)
                for at, suffix in engine.suffixes(self._model, image, asked, self.tile):
                    beat()
                    pending.add(i * pending.longest + at, self._halving(
                        lambda part: readout.spell(self._model, image, part), suffix[None]))
            return pending
        for columns, part in self._tiles(prefix, questions, pending.longest):
            beat()
            places = np.arange(len(questions))[:, None] * pending.longest + columns
            spelled = self._halving(
                lambda asked: self._recorded(readout, prefix, asked), part)
            # Beyond the longest are those that fill up a pass.
            known = columns < pending.longest
            pending.add(places[:, known].ravel(), tuple(
                x.view(len(questions), len(columns), *x.shape[1:])[:, :known.sum()].flatten(0, 1)
                for x in spelled))
        return pending

    def _tiles(self, prefix: Prefix, questions: list[Questions], longest: int
               ) -> Iterator[tuple[np.ndarray, PixelQueries]]:
        """Numbers of the queries of each tile, and the tile on the model's device."""
        # Tiles of one size: a small rest would cost a pass like a full one.
        tiles = min(-(-longest * len(questions) // self.tile), longest)
        size, total = -(-longest // tiles), longest
        if self._recorder is not None:  # few shapes, each of which is recorded once
            step = FINE if size <= 16 * FINE else 4 * FINE
            most = max(size, self.tile // len(questions))
            size = min(-(-size // step) * step, most)
            total = -(-longest // size) * size
        asked = queries.stack(self._described(prefix, questions, total)).to(self._model.device)
        for start in range(0, total, size):
            stop = min(start + size, total)
            yield np.arange(start, stop), asked.part(start, stop)

    def _described(self, prefix: Prefix, questions: list[Questions], count: int
                   ) -> list[PixelQueries]:
        return [queries.describe(self._model.config, q.sparse, q.rows, q.cols, q.hints,
                                 float(unit))
                for q, unit in zip((q.padded(count) for q in questions), prefix.unit)]

    def _recorded(self, readout: Readout, prefix: Prefix, asked: PixelQueries
                  ) -> tuple[Tensor, ...]:
        """Spell the numbers of a tile, replayed where that is possible."""
        model, layers = self._model, len(prefix.cache.keys)
        if self._recorder is None:
            return readout.spell(model, prefix, model.point_suffix(prefix, asked))

        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            prefix, rest = Prefix.from_tensors(inputs, layers)
            return readout.spell(model, prefix, model.point_suffix(prefix, PixelQueries(*rest)))

        return self._recorder.run(run, [*prefix.tensors(), *asked.tensors()], readout)

    def _halving(self, spell: Callable[[Any], tuple[Tensor, ...]], asked: Any
                 ) -> tuple[Tensor, ...]:
        """Spell the numbers of B images with K queries each, in halves where memory runs out.

        Args:
            asked: queries, or embeddings (B, K, S, C).
        """
        parts = isinstance(asked, PixelQueries)
        k = len(asked) if parts else asked.shape[1]
        images = len(asked.tensors()[0] if parts else asked)
        try:
            return spell(asked)
        except RuntimeError as problem:
            if not out_of_memory(problem) or k <= SMALLEST:
                raise
        # Behind the handler, which keeps the failed pass alive.
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        # The second half may fail like the first: what fits is halved once, not for each of them.
        self.tile, self._since_halved = min(self.tile, max(SMALLEST, images * k // 2)), 0
        halves = [self._halving(spell, asked.part(*at) if parts else asked[:, slice(*at)])
                  for at in ((0, k // 2), (k // 2, k))]
        return tuple(torch.cat([x.view(-1, n, *x.shape[1:]) for x, n in
                                zip(pair, (k // 2, k - k // 2))], dim=1).flatten(0, 1)
                     for pair in zip(*halves))


class Pending:
    """Answers that a GPU may still be working on.

    Attributes:
        longest: most pixels asked in one frame.
    """

    def __init__(self, model: SdimModel, unit: np.ndarray, questions: list[Questions]) -> None:
        self._number, self._unit, self._questions = model.config.number, unit, questions
        self._places: list[np.ndarray] = []
        self._spelled: list[tuple[Tensor, ...]] = []
        self.longest = max((len(q.rows) for q in questions), default=0)

    def add(self, places: np.ndarray, spelled: tuple[Tensor, ...]) -> None:
        """Take what was spelled at these places among the queries of all frames, in a row."""
        self._places.append(places)
        self._spelled.append(spelled)

    def answers(self) -> list[Answers]:
        """Those of each frame, in the order that the pixels were given; waits for them.

        Raises:
            ModelFailed: the model's probabilities are not finite.
        """
        if not self.longest:
            return [_answers(q, np.zeros(0), np.zeros(0)) for q in self._questions]
        path, ends = self._read(np.argsort(np.concatenate(self._places)))
        if not np.isfinite(path.probabilities).all():
            raise ModelFailed("the model's probabilities are not finite; check the checkpoint")
        # A number of only zeros is no depth: the smallest one instead.
        number = self._number
        depth = np.maximum(path.value(number), number.resolution)
        spread = engine.interval(path, number) if not ends else np.maximum(
            number.value(ends[1]) - number.value(ends[0]), number.resolution) / 2
        shape = (len(self._questions), self.longest)
        return [_answers(q, unit * d[:len(q.rows)], unit * s[:len(q.rows)]) for q, unit, d, s in
                zip(self._questions, self._unit, depth.reshape(shape), spread.reshape(shape))]

    def _read(self, order: np.ndarray) -> tuple[DigitPath, list[np.ndarray]]:
        """What was spelled, on the host and in order: the median, and both quantiles if any."""
        fields = [torch.cat(parts).cpu().numpy()[order] for parts in zip(*self._spelled)]
        return DigitPath(*fields[:3]), fields[3:]


def _answers(questions: Questions, depth: np.ndarray, spread: np.ndarray) -> Answers:
    return Answers(questions.rows, questions.cols, depth.astype(np.float32),
                   spread.astype(np.float32))


@contextmanager
def accelerator_named(asker: Asker) -> Iterator[None]:
    """Running out of memory says what to lower; a GPU that is lost is told from a bad frame."""
    try:
        yield
    except RuntimeError as problem:
        if is_lost(problem):
            raise ModelLost(
                f"the GPU failed ({problem}): this process cannot use it any more") from problem
        if out_of_memory(problem):
            raise OutOfMemory(
                f"out of memory for queries in tiles of {asker.tile}: lower "
                "queries.tile or queries.budget, or use a smaller image") from problem
        raise


def is_lost(problem: RuntimeError) -> bool:
    """Whether the accelerator is gone for this process."""
    return any(words in str(problem) for words in LOST)


def out_of_memory(problem: RuntimeError) -> bool:
    """Whether it was for want of memory: on a CPU and in cuBLAS only the words tell."""
    said = str(problem)
    return not is_lost(problem) and ("memory" in said or "ALLOC_FAILED" in said)
