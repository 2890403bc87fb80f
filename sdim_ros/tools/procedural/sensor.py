"""What a camera makes of the light: exposure, lens, noise, tone, compression."""

from __future__ import annotations

import cv2
import numpy as np


def photograph(radiance: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image of a scene as some camera would have taken it.

    Args:
        radiance: (H, W, 3) float32, linear RGB, not limited.
        depth: (H, W) in any unit, inf = sky; for what the lens has out of focus.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    image = radiance * _exposure(radiance, depth, rng)
    image = image * np.exp(rng.normal(0, 0.06, 3)).astype(np.float32)
    if rng.random() < 0.3:
        image = _bloom(image, rng)
    if rng.random() < 0.12:
        image = _defocus(image, depth, rng)
    if rng.random() < 0.12:
        image = _shake(image, rng)
    if rng.random() < 0.6:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.7))
    if rng.random() < 0.6:
        image = image * _vignette(image.shape, rng)
    image = _noise(image, rng)
    image = _tone(image, rng)
    if rng.random() < 0.4:
        image = _sharpen(image, rng)
    image = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return _compress(image, rng) if rng.random() < 0.5 else image


def _exposure(radiance: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> float:
    """A gain by the median or by the bright part of the frame, with the errors of a meter."""
    grey = radiance[::3, ::3].mean(-1)
    if rng.random() < 0.75:  # the sky may become white
        ground = grey[np.isfinite(depth[::3, ::3])]
        grey = ground if len(ground) > 100 else grey
    middle, bright = np.percentile(grey, [50, 92])
    mix = rng.random()
    return float(np.exp(mix * np.log(0.13 / max(middle, 1e-3))
                        + (1 - mix) * np.log(0.6 / max(bright, 1e-3)) + rng.normal(0, 0.3)))


def _bloom(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Veil around what is too bright."""
    small = cv2.resize(np.clip(image - 0.9, 0, 3), None, fx=0.25, fy=0.25,
                       interpolation=cv2.INTER_AREA)
    veil = cv2.GaussianBlur(small, (0, 0), rng.uniform(1, 6))
    return image + rng.uniform(0.05, 0.4) * cv2.resize(veil, image.shape[1::-1])


def _defocus(image: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur by the distance of 1 / depth from that in focus."""
    inverse = (1 / depth).astype(np.float32)
    focus = rng.choice(inverse[inverse > 0]) if (inverse > 0).any() else 1.0
    radius = np.abs(inverse / max(focus, 1e-6) - 1) * rng.uniform(0.8, 3)
    radius = cv2.blur(np.clip(radius, 0, 3.5), (5, 5))[..., None]
    result, before, last = image, image, 0.0
    for sigma in (1.0, 2.2, 3.5):
        blurred = cv2.GaussianBlur(image, (0, 0), sigma)
        share = np.clip((radius - last) / (sigma - last), 0, 1)
        result = np.where(radius > last, before + (blurred - before) * share, result)
        before, last = blurred, sigma
    return result


def _shake(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The camera moved on a short straight way, seen from its middle."""
    way = rng.normal(0, 1, 2)
    way *= rng.uniform(1, 4) / np.linalg.norm(way)
    kernel = np.zeros((11, 11), np.float32)
    for step in np.linspace(-1, 1, 21):
        x, y = 5 + step * way
        kernel[int(np.rint(y)), int(np.rint(x))] += 1
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def _vignette(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    y, x = np.ogrid[-1:1:shape[0] * 1j, -1:1:shape[1] * 1j]
    return (1 - rng.uniform(0.05, 0.4) * (x ** 2 + y ** 2) / 2)[..., None].astype(np.float32)


def _noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shot and read noise; coarser where the camera has smoothed it."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.3:
        noise = 2 * cv2.GaussianBlur(noise, (0, 0), 0.8)
    shot, read = 0.05 * rng.random() ** 2, 0.016 * rng.random() ** 2
    return image + noise * np.sqrt(shot ** 2 * np.clip(image, 0, 1) + read ** 2)


def _tone(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma, an S-shaped contrast curve, saturation, the floor of black."""
    if rng.random() < 0.5:  # a soft shoulder, in place of a hard limit
        image = np.where(image > 0.6, 0.6 + 0.4 * np.tanh((image - 0.6) / 0.4), image)
    image = np.clip(image, 0, 1) ** np.float32(1 / rng.uniform(1.8, 2.4))
    curve = np.float32(rng.uniform(0.2, 1.5))
    image = image + curve * (image * image * (3 - 2 * image) - image)
    grey = image.mean(-1, keepdims=True)
    image = grey + (image - grey) * np.float32(rng.uniform(0.8, 1.7))
    if rng.random() < 0.03:
        image = np.repeat(grey, 3, axis=-1)
    if rng.random() < 0.2:
        image = image * np.float32(0.93) + np.float32(rng.uniform(0, 0.1))
    return image


def _sharpen(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.7, 1.5))
    return image + np.float32(rng.uniform(0.3, 1.0)) * (image - blurred)


def _compress(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    quality = int(rng.integers(40, 96))
    coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])
