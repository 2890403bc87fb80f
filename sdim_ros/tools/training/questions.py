"""From one frame to what the model is shown of it, and the pixels it is asked about."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sdim_ros.core import fill, queries
from sdim_ros.core.model import SdimConfig
from sdim_ros.core.point_token import PixelQueries
from sdim_ros.core.projection import scatter_resize
from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.frames import Sample
from sdim_ros.tools.training.data_recipe import DataRecipe
from sdim_ros.tools.training.restyle import restyle
from sdim_ros.tools.training.sparse_patterns import measure

SMALLEST_WINDOW = 0.5  # of the frame, in each direction, when it is cropped at random
LEAST_CONTRAST = 10  # grey values; broken renderings and lens caps have less

# Image, sparse and dense depth of one frame; either depth may lack.
Maps = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One frame with its questions.

    Attributes:
        image, sparse: what the model is shown, (H, W, 3) uint8 RGB and (H, W) float32 metres.
        labels: (H, W) float32 metres, what is known of the truth, 0 = unknown.
        queries: K questions, of one image.
        truth: (K,) metres.
        unit: metres of one unit of the number format.
    """

    image: np.ndarray
    sparse: np.ndarray
    labels: np.ndarray
    queries: PixelQueries
    truth: np.ndarray
    unit: float


def draw(sample: Sample, rng: np.random.Generator, data: DataRecipe, config: SdimConfig,
         pixels: int, size: tuple[int, int], augment: bool) -> Drawn:
    """One frame with new points and ``pixels`` questions; few askable pixels are asked twice.

    Args:
        size: (width, height) of the result.
        augment: crop, flip and colour at random.

    Raises:
        BadInput: the frame cannot be used; the reason is ``no_contrast``, ``no_depth``,
            ``too_few_points`` or ``nothing_to_ask``.
    """
    if np.ptp(sample.image[::4, ::4]) < LEAST_CONTRAST:
        raise BadInput("no_contrast", f"frame {sample.name} shows nothing: expected a picture")
    image, sparse, dense = _fitted(sample, size, rng if augment else None)
    if augment:
        image, sparse, dense = _augmented(image, sparse, dense, rng)
        if rng.random() < data.restyle:
            image = restyle(image, sparse if dense is None else dense, rng)
    measured = measure(dense, image, rng, data.patterns) if sparse is None else sparse
    if not measured.any():
        raise BadInput("no_depth", f"frame {sample.name} has no depth where it is looked at")
    if data.labels == "sparse":
        shown, labels = split_points(measured, data.hidden, rng)
    else:
        shown, labels = measured, dense
    rows, cols, truth, told = _asked(shown, labels, config, pixels, data.mask_1, rng)
    # The hints must come from what the model is shown: no other map is at hand from here on.
    hints = {name: _hint(name, shown, image, rows, cols) for name in config.hints}
    unit = config.unit_of(shown)
    asked = queries.describe(config, shown, rows, cols, hints, unit, told)
    return Drawn(image, shown, labels, asked, truth, unit)


def split_points(measured: np.ndarray, hidden: float, rng: np.random.Generator
                 ) -> tuple[np.ndarray, np.ndarray]:
    """Hide a share of the points: single ones, whole blocks or whole rows.

    Args:
        measured: (H, W) metres, 0 = not measured.
        hidden: share to hide; at least one point is hidden and one stays.

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
    tall, wide = grids[rng.integers(len(grids))]
    rows, cols = np.unravel_index(at, measured.shape)
    block = rows * tall // height * wide + cols * wide // width
    order = np.argsort(rng.permutation(tall * wide)[block], kind="stable")
    count = min(max(1, round(hidden * len(at))), len(at) - 1)
    labels = np.zeros_like(measured)
    labels.flat[at[order[:count]]] = measured.flat[at[order[:count]]]
    return np.where(labels > 0, np.float32(0), measured), labels


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


def _hint(name: str, shown: np.ndarray, image: np.ndarray, rows: np.ndarray,
          cols: np.ndarray) -> np.ndarray:
    if name == "linear":  # only where it is asked: several times faster than the whole map
        return fill.linear_at(shown, rows, cols)
    return fill.classical(name, shown, image)[rows, cols]


def _fitted(sample: Sample, size: tuple[int, int], rng: np.random.Generator | None) -> Maps:
    """Image, sparse and dense depth of a window of the frame, resized to ``size``.

    The window has the shape of the result: the largest in the middle, or one drawn at random,
    of at least the size of the result where the frame has that.
    """
    width, height = size
    full_height, full_width = sample.image.shape[:2]
    if (full_width, full_height) == (width, height):
        return sample.image, sample.sparse, sample.truth
    largest = min(full_width / width, full_height / height)
    scale, place = largest, np.array([0.5, 0.5])
    if rng is not None:
        scale = rng.uniform(min(largest, max(1.0, SMALLEST_WINDOW * largest)), largest)
        place = rng.random(2)
    tall, wide = round(height * scale), round(width * scale)
    top, left = (place * (full_height - tall, full_width - wide)).astype(int)
    window = np.s_[top:top + tall, left:left + wide]
    image = cv2.resize(sample.image[window], size,
                       interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR)
    sparse = None if sample.sparse is None else scatter_resize(
        sample.sparse[window], (height, width))
    dense = None if sample.truth is None else _nearest_pixels(
        sample.truth[window], (height, width))
    return image, sparse, dense


def _nearest_pixels(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A dense map in another size; values at edges are never mixed."""
    rows, cols = ((2 * np.arange(new) + 1) * old // (2 * new)
                  for new, old in zip(size, depth.shape))
    return depth[np.ix_(rows, cols)]


def _augmented(image: np.ndarray, sparse: np.ndarray | None, dense: np.ndarray | None,
               rng: np.random.Generator) -> Maps:
    if rng.random() < 0.5:
        image, sparse, dense = (
            None if part is None else np.ascontiguousarray(part[:, ::-1])
            for part in (image, sparse, dense))
    if rng.random() < 0.3:
        image = np.ascontiguousarray(image[..., rng.permutation(3)])
    if rng.random() < 0.5:
        gain = rng.uniform(0.6, 1.5, 3)
        image = np.clip(image * gain, 0, 255).astype(np.uint8)
    return image, sparse, dense
