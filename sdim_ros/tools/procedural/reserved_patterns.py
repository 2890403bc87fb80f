"""Texture tiles of the scenes that are kept for evaluation; training never sees these kinds.

The convention is that of ``patterns``.
"""

from __future__ import annotations

import cv2
import numpy as np

from sdim_ros.tools.procedural.noise import TEXELS, band, cells, fractal, soft_step


def _places() -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every texel, 0-1."""
    return np.indices((TEXELS, TEXELS), np.float32) / TEXELS


def hexagons(rng):
    """A honeycomb: the nearer of two shifted grids of cells."""
    count = int(rng.integers(3, 9))
    v, u = _places()
    x, y = u * count, v * 2 * round(count / np.sqrt(3))
    first = np.abs(np.mod(x, 1) - 0.5), np.abs(np.mod(y, 2) - 1)
    second = np.abs(np.mod(x + 0.5, 1) - 0.5), np.abs(np.mod(y + 1, 2) - 1)
    far = [np.maximum(a, 0.5 * a + 0.433 * b * np.sqrt(4 / 3)) for a, b in (first, second)]
    edge = soft_step(np.minimum(*far) - 0.42, 0.05)
    return np.stack([edge, 0.3 * (far[0] < far[1]) * rng.choice([0, 1])], -1)


def chevrons(rng):
    """A zigzag, as herringbone parquet and knitwear have it."""
    v, u = _places()
    count, steep = int(rng.integers(2, 7)), int(rng.integers(1, 4))
    fold = np.abs(np.mod(u * count, 1) - 0.5) * steep
    band_at = np.mod(v * count * steep + fold, 1)
    return np.stack([soft_step(band_at - 0.5, 0.08), 0.25 + 0.12 * fractal(rng, 1.0)], -1)


def plaid(rng):
    """Crossing translucent bands, as woven blankets have them."""
    v, u = _places()
    sheet = np.zeros((TEXELS, TEXELS, 3), np.float32)
    for channel in range(3):
        for place in (u, v):
            start, width = rng.random(), rng.uniform(0.03, 0.35)
            sheet[..., channel] += 0.5 * (np.mod(place * rng.integers(1, 4) - start, 1) < width)
    return sheet


def truchet(rng):
    """Quarter circles in random turns: winding paths."""
    count = int(rng.integers(4, 12))
    tone, u, v = cells(rng, count, count)
    u = np.where(tone < 0.5, u, 1 - u)
    near = np.minimum(np.abs(np.hypot(u, v) - 0.5), np.abs(np.hypot(1 - u, 1 - v) - 0.5))
    return soft_step(rng.uniform(0.06, 0.2) - near, 0.06)[..., None]


def labyrinth(rng):
    """Stripes without a direction, as on corals and fingerprints."""
    lines = band(rng, rng.uniform(5, 18), 0.12)
    return np.stack([soft_step(lines, 0.4), 0.1 * np.clip(fractal(rng, 1.4), 0, 3)], -1)


def scales(rng):
    """Rows of round shingles that overlap, darker where they begin."""
    count = 2 * int(rng.integers(2, 7))
    _, u, v = cells(rng, count, count // 2, 0.5)
    far = np.hypot((u - 0.5) * 2, (1 - v) * 1.1)
    return np.stack([np.clip(far, 0, 1), soft_step(far - 1, 0.1)], -1)


def rosettes(rng):
    """Flowers of many petals around rings, in rows."""
    count = int(rng.integers(1, 4))
    _, u, v = cells(rng, count, count)
    angle, far = np.arctan2(v - 0.5, u - 0.5), np.hypot(u - 0.5, v - 0.5)
    petals = np.cos(angle * rng.integers(4, 13))
    figure = np.sin(far * rng.uniform(20, 60) + petals * rng.uniform(0.5, 2))
    inside = soft_step(0.47 - far, 0.03)
    return np.stack([soft_step(figure, 0.4) * inside, inside * (far < 0.15)], -1)


def halftone(rng):
    """A soft picture printed in dots of changing size."""
    count = int(rng.integers(18, 44))
    _, u, v = cells(rng, count, count, 0.5)
    size = np.clip(0.32 + 0.2 * fractal(rng, 2.0), 0.05, 0.7)
    return np.stack([soft_step(size - np.hypot(u - 0.5, v - 0.5), 0.15),
                     0.3 * soft_step(fractal(rng, 2.0), 0.3)], -1)


def waves(rng):
    """Sheets of water or sand ripples with broken crests."""
    v, u = _places()
    bend = rng.uniform(0.5, 2.5) * fractal(rng, 2.0)
    crest = np.sin(2 * np.pi * int(rng.integers(4, 15)) * v + bend
                   + np.sin(2 * np.pi * u * rng.integers(1, 3)))
    return np.stack([np.abs(crest) ** rng.uniform(0.5, 2), 0.15 * fractal(rng, 0.5) + 0.15], -1)


def glyphs(rng):
    """Rows of strokes like a script that nobody reads."""
    sheet = np.zeros((TEXELS, TEXELS), np.float32)
    step = int(rng.choice([16, 24, 40]))
    for top in range(4, TEXELS - step, step):
        for left in range(4, TEXELS - step, step):
            if rng.random() < 0.15:
                continue
            points = rng.integers(0, max(step - 6, 8), (rng.integers(2, 5), 2)) + [left, top]
            cv2.polylines(sheet, [points.astype(np.int32)], bool(rng.random() < 0.4), 1.0,
                          max(1, step // 12), cv2.LINE_AA)
    return sheet[..., None]


def spectra(rng):
    """A smooth colourful picture: three slow noises, posterised at times."""
    sheet = np.stack([0.45 + 0.17 * fractal(rng, rng.uniform(1.6, 2.4)) for _ in range(3)], -1)
    steps = rng.choice([256, 3, 5])
    return np.round(sheet * steps) / steps


COLOURED = {kind.__name__: kind for kind in (spectra,)}
MIXED = {kind.__name__: kind for kind in (
    hexagons, chevrons, plaid, truchet, labyrinth, scales, rosettes, halftone, waves, glyphs)}
