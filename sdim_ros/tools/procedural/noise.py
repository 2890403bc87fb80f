"""Periodic noise and other raw material that texture patterns are made of."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

TEXELS = 256


@lru_cache(maxsize=1)
def _frequencies() -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.meshgrid(np.fft.fftfreq(TEXELS) * TEXELS, np.fft.rfftfreq(TEXELS) * TEXELS,
                             indexing="ij"))


def shaped(rng: np.random.Generator, gain: np.ndarray) -> np.ndarray:
    """Noise (256, 256) float32 with zero mean and unit variance, of this gain per frequency."""
    white = np.fft.rfft2(rng.standard_normal((TEXELS, TEXELS)))
    tile = np.fft.irfft2(white * gain, s=(TEXELS, TEXELS))
    return (tile / (tile.std() + 1e-9)).astype(np.float32)


def fractal(rng: np.random.Generator, exponent: float = 1.4, lowest: float = 1.0,
            stretch: float = 1.0) -> np.ndarray:
    """Noise whose amplitude falls as frequency ** -exponent; stretched along the rows."""
    down, across = _frequencies()
    frequency = np.hypot(down, across * stretch)
    gain = np.where(frequency < lowest, 0, np.maximum(frequency, lowest) ** -exponent)
    return shaped(rng, gain)


def band(rng: np.random.Generator, frequency: float, width: float = 0.4) -> np.ndarray:
    """Noise of grains of one size: ``frequency`` of them along a side."""
    distance = np.log(np.maximum(np.hypot(*_frequencies()), 0.5) / frequency) / width
    return shaped(rng, np.exp(-distance ** 2))


def soft_step(value: np.ndarray, softness: float = 0.1) -> np.ndarray:
    """0 below zero and 1 above it, with a soft border."""
    return np.clip(value / softness + 0.5, 0, 1)


def cells(rng: np.random.Generator, rows: int, columns: int, shift: float = 0.0
          ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grid of cells: a random number 0-1 per cell, and the place in its cell (0-1) of texels.

    Every second row of cells is shifted by this share of a cell.
    """
    v, u = np.indices((TEXELS, TEXELS), np.float32) / TEXELS
    v = v * rows
    u = u * columns + shift * np.mod(np.floor(v), 2)
    table = rng.random((rows, columns)).astype(np.float32)
    value = table[np.floor(v).astype(int) % rows, np.floor(u).astype(int) % columns]
    return value, np.mod(u, 1), np.mod(v, 1)


def clouds(rng: np.random.Generator) -> np.ndarray:
    """(256, 256, 3) 0-1, nearly grey: what the sky shows, and blurred things in mirrors."""
    bank = 0.5 + 0.22 * fractal(rng, rng.uniform(1.4, 2.2))
    if rng.random() < 0.6:
        bank = soft_step(bank - rng.uniform(0.3, 0.8), rng.uniform(0.3, 1.0))
    return np.clip(bank[..., None] * (1 + rng.normal(0, 0.08, 3)), 0, 1)


def write(rng: np.random.Generator, canvas: np.ndarray, area: tuple[int, int, int, int],
          height: float, colour: tuple[float, ...]) -> None:
    """Lines of random words into area (left, top, right, bottom) of a float32 canvas."""
    letters = np.array(list("abcdeefghiiklmnoprsttuvwxyzABDEGKMRST0123456789"))
    left, top, right, bottom = area
    font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX,
                           cv2.FONT_HERSHEY_TRIPLEX]))
    scale, thickness = height / 22, max(1, round(height / 12))
    wide = max(int((right - left) / (height * 0.75)), 1)
    ink = np.zeros(canvas.shape[:2], np.uint8)  # what every release of OpenCV can write on
    for line in np.arange(top + height, bottom, height * 1.7):
        text = rng.choice(letters, wide)
        text[rng.random(wide) < 0.17] = " "
        length = wide if rng.random() < 0.7 else max(1, int(wide * rng.random()))
        cv2.putText(ink, "".join(text[:length]), (int(left), int(line)), font, scale, 255,
                    thickness, cv2.LINE_AA)
    rows, columns = slice(int(top), int(bottom) + 8), slice(int(left), int(right))
    cover = ink[rows, columns, None] / np.float32(255)
    canvas[rows, columns] += cover * (np.float32(colour) - canvas[rows, columns])


def dead_leaves(rng: np.random.Generator, number: int, colours: np.ndarray, largest: float,
                shape: str = "mixed") -> np.ndarray:
    """Opaque shapes of all sizes over one another, (256, 256, 3), as things hide each other.

    Args:
        colours: (N, 3) that the shapes are drawn from.
        largest: radius in texels; the density of radii falls with their third power.
        shape: round, long, square or mixed.
    """
    canvas = np.empty((TEXELS, TEXELS, 3), np.float32)
    canvas[:] = colours[0]
    radii = 3 / np.sqrt(rng.uniform((3 / largest) ** 2, 1, number))
    centers = rng.integers(0, TEXELS, (number, 2))
    for center, radius, pick, angle, kind, ratio in zip(
            centers, np.sort(radii)[::-1], rng.integers(0, len(colours), number),
            rng.uniform(0, 180, number), rng.random(number), rng.uniform(0.25, 1, number)):
        colour = colours[pick].tolist()
        flat = 0.35 * ratio + 0.15 if shape == "long" else ratio
        if shape == "square" or (shape == "mixed" and kind < 0.35):
            corners = cv2.boxPoints(((float(center[0]), float(center[1])),
                                     (2 * radius, 2 * radius * flat), float(angle)))
            cv2.fillConvexPoly(canvas, np.round(corners).astype(np.int32), colour, cv2.LINE_AA)
        else:
            axes = (max(1, int(radius)), max(1, int(radius * flat)))
            cv2.ellipse(canvas, (int(center[0]), int(center[1])), axes, float(angle), 0, 360,
                        colour, -1, cv2.LINE_AA)
    return canvas
