"""Restyled training images, so that the model cannot go by what only a renderer draws.

Parts of real photographs are laid over the image, some along depth edges and some across them;
then contrast, colour, sharpness and noise change. Without this a model trained on rendered
scenes alone did better on real images when it was shown grey ones. The idea is domain
randomisation (Tobin et al., IROS 2017).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import skimage
from PIL import Image

from sdim_ros.core.types import GREY

# Photographs in every installation of scikit-image, each CC0 or in the public domain (see the
# docstrings of skimage.data). Its stereo pair is not among them: it measures the model.
PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png",
    "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "retina.jpg",
    "rocket.jpg", "text.png")


def restyle(image: np.ndarray, depth: np.ndarray, rng: np.random.Generator,
            blind: float = 0.1) -> np.ndarray:
    """The same scene as if it were made of other things and seen by another camera.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        depth: (H, W) float32 metres, 0 = unknown.
        blind: how often the image is all grey, so that the model also learns to do without.

    Returns:
        (H, W, 3) uint8.
    """
    if rng.random() < blind:
        return np.full_like(image, GREY)
    light = image.astype(np.float32) / 255
    for _ in range(rng.integers(0, 4)):
        light = _laid_over(light, depth, rng)
    light = _developed(np.clip(light, 0, 1), rng)
    image = np.round(255 * np.clip(light, 0, 1)).astype(np.uint8)
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))]
        image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
    return np.ascontiguousarray(image)


def _laid_over(light: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of a photograph over a part of the image, as paint or as a pattern of brightness."""
    height, width = depth.shape
    photograph = _photograph_part(rng, height, width)
    if rng.random() < 0.5:
        where = _blobs(rng, height, width)
    else:  # all that lies between two depths: this texture ends where surfaces do
        near, far = np.sort(np.quantile(depth[::8, ::8], rng.random(2)))
        where = ((depth >= near) & (depth <= far)).astype(np.float32)
    opacity = rng.uniform(0.2, 0.9)
    if rng.random() < 0.5:
        painted = light + opacity * (photograph - light)
    else:
        brightness = 2 * photograph.mean(axis=2, keepdims=True)
        painted = light * (1 + opacity * (brightness - 1))
    return light + where[..., None] * (painted - light)


def _developed(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma, colour, contrast, blur and noise of a camera, each at times."""
    if rng.random() < 0.3:
        light = light ** np.exp(rng.normal(0, 0.5))
    if rng.random() < 0.2:
        light = light.mean(axis=2, keepdims=True).repeat(3, axis=2)
    if rng.random() < 0.1:
        light = 1 - light
    if rng.random() < 0.5:
        light = (light - 0.5) * rng.uniform(0.4, 1.3) + 0.5 + rng.uniform(-0.15, 0.15)
    if rng.random() < 0.3:
        light = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.4, 1.5))
    if rng.random() < 0.5:
        light = light + rng.normal(0, rng.uniform(0, 0.05), light.shape)
    return light


@cache
def _photographs() -> list[np.ndarray]:
    """(H, W, 3) uint8 RGB each."""
    folder = Path(skimage.__file__).parent / "data"
    # OpenCV would complain about the colour profile of one of them.
    return [np.asarray(Image.open(folder / name).convert("RGB")) for name in PHOTOGRAPHS]


def _photograph_part(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) float32 from 0 to 1: turned, larger or smaller, mirrored at borders."""
    source = _photographs()[rng.integers(len(PHOTOGRAPHS))]
    scale, angle = np.exp(rng.uniform(np.log(0.15), np.log(1.5))), rng.uniform(0, 2 * np.pi)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = rng.uniform((0, 0), (source.shape[1], source.shape[0]))
    shift = centre - turn @ (width / 2, height / 2)
    if scale > 1:
        source = cv2.GaussianBlur(source, (0, 0), 0.5 * scale)
    part = cv2.warpAffine(source, np.column_stack([turn, shift]), (width, height),
                          flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                          borderMode=cv2.BORDER_REFLECT_101)
    return part.astype(np.float32) / 255


def _blobs(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width) float32 from 0 to 1, smooth patches."""
    coarse = rng.random(rng.integers(2, 6, 2)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(8 * (smooth - rng.uniform(0.3, 0.6)), 0, 1)
