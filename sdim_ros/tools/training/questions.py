"""From one frame to what the model is shown of it, and the pixels it is asked about."""

from __future__ import annotations

import cv2
import numpy as np

from sdim_ros.core.model import SdimConfig
from sdim_ros.core.projection import scatter_resize
from sdim_ros.core.supervision import Posed, pose_questions, split_points
from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.frames import Sample
from sdim_ros.tools.training.data_recipe import DataRecipe
from sdim_ros.tools.training.restyle import restyle
from sdim_ros.tools.training.sparse_patterns import measure

SMALLEST_WINDOW = 0.5  # of the frame, in each direction, when it is cropped at random
LEAST_CONTRAST = 10  # grey values; broken renderings and lens caps have less

# Image, sparse and dense depth of one frame; either depth may lack.
Maps = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


def draw(sample: Sample, rng: np.random.Generator, data: DataRecipe, config: SdimConfig,
         pixels: int, size: tuple[int, int], augment: bool) -> Posed:
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
    # What makes batches works beside the training, which would have to fill them once more.
    whole = bool(config.fusion.fills) and image[..., 0].size <= config.max_pixels
    return pose_questions(image, shown, labels, config, pixels, data.mask_1, rng, whole)


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
