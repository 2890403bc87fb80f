"""Pixels of one frame, or of several at once, asked in tiles that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdim_ros.core import engine, queries
from sdim_ros.core.engine import DigitPath, Spelled
from sdim_ros.core.graphs import RecordedSpelling
from sdim_ros.core.model import Prefix, SdimModel
from sdim_ros.core.types import Answers, ModelFailed

# Queries of a pass where the settings leave it open: as many as make a pass efficient.
TILES = {"cpu": 512, "cuda": 4096}
# Where memory runs out at fewer, it is not the queries that need it.
SMALLEST = 16


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
    """Asks one model; remembers how many queries its memory takes at a time.

    Args:
        tile: most queries of a pass; 0 = as the device likes it.
    """

    def __init__(self, model: SdimModel, tile: int) -> None:
        self._model = model
        self._recorded = RecordedSpelling(model) if model.device.type == "cuda" else None
        self.tile = tile or TILES.get(model.device.type, TILES["cpu"])

    def ask(self, prefix: Prefix, questions: list[Questions], readout: str, stop_early: bool,
            beat: Callable[[], None]) -> Pending:
        """Start on the numbers of all pixels.

        Args:
            prefix: of as many frames as there are questions.
            readout: ``median`` or ``greedy``.
            stop_early: as for ``engine.spell``.
            beat: called between passes.
        """
        pending = Pending(self._model, prefix.unit, questions)
        if pending.longest:
            for places, at, suffix in self.suffixes(prefix, questions, pending.longest):
                beat()
                one = prefix if at is None else prefix.image(at)
                pending.add(places, self._spell(one, suffix, readout, stop_early))
        return pending

    def suffixes(self, prefix: Prefix, questions: list[Questions], longest: int
                  ) -> Iterator[tuple[np.ndarray, int | None, Tensor]]:
        """Tiles: places among all queries, the image (None = each of them), (B, K, S, C)."""
        model, count = self._model, len(questions)
        described = [
            queries.describe(model.config, q.sparse, q.rows, q.cols, q.hints, float(unit))
            for q, unit in zip((q.padded(longest) for q in questions), prefix.unit)]
        if model.config.addressing == "text":
            for i, asked in enumerate(described):
                for at, suffix in engine.suffixes(model, prefix.image(i), asked, self.tile):
                    yield i * longest + at, i, suffix[None]
            return
        asked = queries.stack(described).to(model.device)
        # Tiles of one size: a small rest would cost a pass like a full one.
        tiles = -(-longest * count // self.tile)
        for columns in np.array_split(np.arange(longest), min(tiles, longest)):
            places = np.arange(count)[:, None] * longest + columns
            part = asked.part(columns[0], columns[-1] + 1)
            yield places.ravel(), None, model.point_suffix(prefix, part)

    def _spell(self, prefix: Prefix, suffix: Tensor, readout: str, stop_early: bool) -> Spelled:
        """Spell the numbers of (B, K, S, C) queries, in halves where memory runs out."""
        k, rows = suffix.shape[1], suffix.flatten(0, 1)
        try:
            if self._recorded is not None:
                return self._recorded.spell(prefix, rows, readout, stop_early)
            return engine.spell(self._model, prefix, rows, readout, stop_early)
        except RuntimeError as problem:
            if not out_of_memory(problem) or k <= SMALLEST:
                raise
        # Behind the handler, which keeps the failed pass alive.
        if suffix.is_cuda:
            torch.cuda.empty_cache()
        self.tile = max(SMALLEST, min(self.tile, k * len(suffix)) // 2)
        halves = [self._spell(prefix, half, readout, stop_early)
                  for half in (suffix[:, :k // 2], suffix[:, k // 2:])]
        b = len(suffix)
        return tuple(torch.cat([x.view(b, -1, *x.shape[1:]) for x in pair], dim=1).flatten(0, 1)
                     for pair in zip(*halves))


class Pending:
    """Answers that a GPU may still be working on.

    Attributes:
        longest: most pixels asked in one frame.
    """

    def __init__(self, model: SdimModel, unit: np.ndarray, questions: list[Questions]) -> None:
        self._number, self._unit, self._questions = model.config.number, unit, questions
        self._places: list[np.ndarray] = []
        self._spelled: list[Spelled] = []
        self.longest = max((len(q.rows) for q in questions), default=0)

    def add(self, places: np.ndarray, spelled: Spelled) -> None:
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
        order = torch.from_numpy(np.argsort(np.concatenate(self._places)))
        path = DigitPath.of(tuple(
            torch.cat(parts)[order.to(parts[0].device)] for parts in zip(*self._spelled)))
        if not np.isfinite(path.probabilities).all():
            raise ModelFailed("the model's probabilities are not finite; check the checkpoint")
        # A number of only zeros is no depth: the smallest one instead.
        depth = np.maximum(path.value(self._number), self._number.resolution)
        spread = engine.interval(path, self._number)
        shape = (len(self._questions), self.longest)
        return [_answers(q, unit * d[:len(q.rows)], unit * s[:len(q.rows)]) for q, unit, d, s in
                zip(self._questions, self._unit, depth.reshape(shape), spread.reshape(shape))]


def _answers(questions: Questions, depth: np.ndarray, spread: np.ndarray) -> Answers:
    return Answers(questions.rows, questions.cols, depth.astype(np.float32),
                   spread.astype(np.float32))


def out_of_memory(problem: RuntimeError) -> bool:
    """Whether it was for want of memory: on a CPU and in cuBLAS only the words tell."""
    said = str(problem)
    return "memory" in said and "access" not in said or "ALLOC_FAILED" in said
