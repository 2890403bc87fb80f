"""How good a model in training is on frames that it never trains on, in figures and a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from sdim_ros.core.completer import Completer
from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.supervision import Batch
from sdim_ros.core.types import Frame
from sdim_ros.tools import overview
from sdim_ros.tools.training.trainer import Training

# Questions about each validation frame; in the paper's mode training asks one, too few to judge.
PIXELS = 64
# Questions whose truth is shown in the picture of a frame.
PICTURE_PIXELS = 4000


# Of all depths that train: the limits of the node are those of its sensor.
LIMITS = {"input.min_depth_m": 0.0, "input.max_depth_m": 10_000.0,
          "input.on_empty_sparse": "answer"}


def validate(training: Training, frames: Dataset) -> dict[str, float]:
    """Mean absolute errors of the answers, and of the hints at the same pixels.

    Args:
        frames: batches of one frame each.

    Returns:
        by name, in the unit of the number format: ``answers``, the fusion's ``guess`` and every
        hint, without those that are never there.
    """
    names = ("answers", "guess", *training.model.config.hints)
    total, count = np.zeros(len(names)), np.zeros(len(names))
    completer, parallel = _completer(training), training.parallel
    with training.judging():
        for index in parallel.turns(len(frames)):
            found = _errors(completer, frames[index])
            total += np.nansum(found, axis=1)
            count += np.isfinite(found).sum(axis=1)
    sums = np.reshape(parallel.sum([*total, *count]), (2, -1))
    return {name: float(t / n) for name, t, n in zip(names, *sums) if n}


def _completer(training: Training) -> Completer:
    return Completer(with_values(Settings(), LIMITS), training.model)


def _errors(completer: Completer, batch: Batch) -> np.ndarray:
    """(2 + hints, K): what answers, guess and each hint miss; NaN where one says nothing."""
    unit = batch.unit[0]
    frame, pixels = Frame(batch.images[0], batch.sparses[0]), _pixels(batch)
    answers, guess = completer.ask(frame, *pixels).depth, completer.guess(frame)
    hints = batch.queries.hints[0].numpy().T
    said = [answers / unit, answers * np.nan if guess is None else guess[pixels] / unit,
            *np.where(hints > 0, hints, np.nan)]
    return np.abs(np.stack(said) - batch.truth[0] / unit)


def _pixels(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the questions about the only frame."""
    height, width = batch.sparses[0].shape
    place = (batch.queries.position[0].numpy() * (width, height)).astype(int)
    return place[:, 1], place[:, 0]


def draw(training: Training, batch: Batch, path: Path) -> None:
    """Complete the frame of a batch as ``sdim complete`` does; the main process draws it.

    Args:
        batch: of one frame; the error is shown at its questions.
        path: of the PNG.
    """
    frame = Frame(batch.images[0], batch.sparses[0])
    with training.judging():
        dense = _completer(training).complete(frame)
    if not training.parallel.main:
        return
    reference = np.zeros_like(frame.sparse)
    reference[_pixels(batch)] = batch.truth[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    overview.draw(path, f"step {training.step}", frame.image, frame.sparse, dense.depth,
                  dense.confidence, reference, f"trust in the model  {dense.stats.trust:.2f}")
