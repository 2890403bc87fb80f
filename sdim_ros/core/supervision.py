"""Text supervision: points are hidden and asked for, and the answers' digits are the labels.

Training and adaptation on the robot share it. No dense depth is needed (the paper's "SD"); where
there is some, its pixels are the labels ("GT").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sdim_ros.core import engine, fill, queries
from sdim_ros.core.losses import guess_loss, text_loss
from sdim_ros.core.model import SdimConfig, SdimModel
from sdim_ros.core.point_token import PixelQueries
from sdim_ros.core.types import BadInput


@dataclass(frozen=True, slots=True)
class Posed:
    """One frame with its questions.

    Attributes:
        image, sparse: what the model is shown, (H, W, 3) uint8 RGB and (H, W) float32 metres.
        labels: (H, W) float32 metres, what is known of the truth, 0 = unknown.
        queries: K questions, of one image.
        truth: (K,) metres.
        unit: metres of one unit of the number format.
        maps: by name (H, W) float32 metres, the classical fills that the model is told of, whole;
            None = only what they say at the pixels asked was kept.
    """

    image: np.ndarray
    sparse: np.ndarray
    labels: np.ndarray
    queries: PixelQueries
    truth: np.ndarray
    unit: float
    maps: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """B images of one size with K questions each.

    Attributes:
        images, sparses: what the model is shown, (H, W, 3) uint8 and (H, W) float32 metres.
        labels: (H, W) float32 metres each, what is known of the truth, 0 = unknown.
        queries: of B images.
        digits: (B, K, D) int64, the true answers as spelled.
        truth, unit: (B, K) and (B,) metres.
        maps: of each image, as in ``Posed``.
        skipped: frames that could not be used on the way to this batch, by reason.
    """

    images: list[np.ndarray]
    sparses: list[np.ndarray]
    labels: list[np.ndarray]
    queries: PixelQueries
    digits: np.ndarray
    truth: np.ndarray
    unit: np.ndarray
    maps: list[Mapping[str, np.ndarray] | None]
    skipped: Mapping[str, int] = field(default_factory=dict)


def split_points(measured: np.ndarray, hidden: float, rng: np.random.Generator,
                 single: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Hide a share of the points: single ones, whole blocks or whole rows.

    Args:
        measured: (H, W) metres, 0 = not measured.
        hidden: share to hide; at least one point is hidden and one stays.
        single: never hide blocks or rows.

    Returns:
        The shown points and the hidden points, (H, W) float32 each.

    Raises:
        BadInput: ``too_few_points``, when there are fewer than two.
    """
    at = np.flatnonzero(measured)
    if len(at) < 2:
        raise BadInput("too_few_points", f"{len(at)} measured points: expected two or more, to "
                       "show one and ask the other")
    # Points are hidden block by block: of single pixels, tiles or bands of rows.
    height, width = measured.shape
    grids = [(height, width), rng.integers(2, 9, 2), (rng.integers(8, 41), 1)]
    tall, wide = grids[0 if single else rng.integers(len(grids))]
    rows, cols = np.unravel_index(at, measured.shape)
    block = rows * tall // height * wide + cols * wide // width
    order = np.argsort(rng.permutation(tall * wide)[block], kind="stable")
    count = min(max(1, round(hidden * len(at))), len(at) - 1)
    labels = np.zeros_like(measured)
    labels.flat[at[order[:count]]] = measured.flat[at[order[:count]]]
    return np.where(labels > 0, np.float32(0), measured), labels


def pose_questions(image: np.ndarray, shown: np.ndarray, labels: np.ndarray, config: SdimConfig,
                   pixels: int, mask_1: float, rng: np.random.Generator, keep_maps: bool = False
                   ) -> Posed:
    """Ask about some pixels of a frame; few askable pixels are asked twice.

    Args:
        image: (H, W, 3) uint8 RGB.
        shown: (H, W) metres, what the model is shown, 0 = nothing.
        labels: (H, W) metres, what is known of the truth, 0 = unknown.
        pixels: number of questions.
        mask_1: share of them that are told their own measurement.
        keep_maps: work out the fills everywhere, for the fusion as well as for the questions.

    Raises:
        BadInput: ``nothing_to_ask``.
    """
    rows, cols, truth, told = _asked(shown, labels, config, pixels, mask_1, rng)
    # The hints must come from what the model is shown: no other map is at hand from here on.
    maps = None
    if keep_maps:
        maps = {name: fill.classical(name, shown, image) for name in config.hints}
        hints = {name: dense[rows, cols] for name, dense in maps.items()}
    else:
        hints = {name: fill.classical_at(name, shown, image, rows, cols) for name in config.hints}
    unit = config.unit_of(shown)
    asked = queries.describe(config, shown, rows, cols, hints, unit, told)
    return Posed(image, shown, labels, asked, truth, unit, maps)


def _asked(shown: np.ndarray, labels: np.ndarray, config: SdimConfig, pixels: int,
           mask_1: float, rng: np.random.Generator
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns, true depths and told depths (0 = mask 0) of the questions, (K,) each."""
    unit = config.unit_of(shown)
    askable = np.flatnonzero((shown <= 0) & config.number.covers(labels / unit))
    tellable = np.flatnonzero(config.number.covers(shown / unit))
    # Rounded at random: with one pixel an image, that share of the images is told.
    told_count = int(pixels * mask_1 + rng.random()) if len(tellable) else 0
    asked_count = pixels - told_count
    if asked_count and not len(askable):
        raise BadInput("nothing_to_ask", "no pixel has a true depth that is not shown and that "
                       "the number format can spell")
    at = np.concatenate([
        rng.choice(tellable, told_count, replace=len(tellable) < told_count),
        rng.choice(askable, asked_count, replace=len(askable) < asked_count)])
    rows, cols = np.unravel_index(at, shown.shape)
    told = shown[rows, cols]  # 0 at every pixel that is asked
    return rows, cols, np.where(told > 0, told, labels[rows, cols]), told


def collate(drawn: list[Posed], config: SdimConfig, skipped: Mapping[str, int]) -> Batch:
    """Frames of one size side by side."""
    truth, unit = np.stack([d.truth for d in drawn]), np.array([d.unit for d in drawn])
    digits = np.stack([config.number.spell(t / u) for t, u in zip(truth, unit)])
    return Batch([d.image for d in drawn], [d.sparse for d in drawn], [d.labels for d in drawn],
                 queries.stack([d.queries for d in drawn]), digits, truth, unit,
                 [d.maps for d in drawn], dict(skipped))


@dataclass(frozen=True, slots=True)
class LossWeights:
    """What counts how much in the loss.

    Attributes:
        metric: lambda of the L1 through text.
        slots: of each digit in the cross-entropy; None = equal.
        guess: of the fusion's guess, where it makes one.
        against_fills: hold that guess against the fills of its image, as in ``guess_loss``.
    """

    metric: float = 0.3
    slots: tuple[float, ...] | None = None
    guess: float = 10.0
    against_fills: bool = False


@contextmanager
def in_precision(model: SdimModel, kind: torch.dtype) -> Iterator[None]:
    """Matrix products of the model in a number type; float32 leaves them as they are."""
    with torch.autocast(model.device.type, kind, enabled=kind != torch.float32):
        yield


def supervised_loss(model: SdimModel, batch: Batch, weights: LossWeights,
                    kind: torch.dtype = torch.float32) -> tuple[Tensor, dict[str, Tensor]]:
    """Text supervision of one batch: the digits of known depths, and the guess before them.

    Args:
        kind: number type of matrix products; the loss itself is worked out in float32.

    Returns:
        loss: a scalar, the mean over all questions of the batch.
        parts: its terms before they are weighed, detached scalars by name.
    """
    digits = torch.from_numpy(batch.digits).to(model.device)
    with in_precision(model, kind):
        known = batch.maps if model.takes_maps(*batch.sparses[0].shape) else None
        inputs = model.prepare(batch.images, batch.sparses, maps=known)
        prefix = model.encode(inputs)
        logits = engine.training_logits(model, prefix, batch.queries.to(model.device), digits)
    number = model.config.number
    loss = text_loss(logits, digits, number, weights.metric, weights.slots)
    entropy = text_loss(logits.detach(), digits, number, 0.0, weights.slots)
    parts = {"cross_entropy": entropy,
             "metric_term": (loss.detach() - entropy) / (weights.metric or 1.0)}
    if prefix.mixing is not None:
        units = np.float32(batch.unit)[:, None, None]
        labels = torch.from_numpy(np.stack(batch.labels) / units).to(inputs.depth)
        guessed = guess_loss(prefix.mixing, inputs.depth[:, 2:], labels, weights.against_fills)
        loss, parts["guess"] = loss + weights.guess * guessed, guessed.detach()
    return loss, parts
