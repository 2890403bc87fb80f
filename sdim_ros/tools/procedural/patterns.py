"""Texture tiles of the training scenes: one function per kind of surface.

A pattern gives (256, 256, 1 to 3) float32: how much of up to three other colours shows over the
first one; the kinds in COLOURED give RGB instead. The values are 0-1, roughly.
"""

from __future__ import annotations

import cv2
import numpy as np

from sdim_ros.tools.procedural.noise import (
    TEXELS, band, cells, dead_leaves, fractal, soft_step, write)


def some_colours(rng: np.random.Generator, number: int, spread: float = 0.6) -> np.ndarray:
    """Colours (number, 3) around a common one, as things of one picture have."""
    base = rng.uniform(0.1, 0.9, 3) * rng.uniform(0.3, 1)
    other = base * (1 - spread) + spread * rng.random((number, 3))
    return (other * rng.uniform(0.3, 1.1, (number, 1))).clip(0, 1).astype(np.float32)


def cloudy(rng):
    """Soft spots of all sizes."""
    first = fractal(rng, rng.uniform(1.0, 2.2))
    second = fractal(rng, rng.uniform(1.0, 1.8))
    return np.stack([0.5 + 0.25 * first, 0.3 * np.clip(second, 0, 2)], -1)


def plaster(rng):
    """Fine unevenness."""
    fine = band(rng, rng.uniform(25, 90), 0.6)
    return np.stack([0.5 + 0.2 * fine, 0.15 * np.clip(fractal(rng, 1.6), 0, 3)], -1)


def carpet(rng):
    """Fibres, at times with figures."""
    fine = 0.5 + 0.3 * fractal(rng, 0.35)
    figure = soft_step(band(rng, rng.uniform(4, 16), 0.3) - rng.uniform(0, 1.5), 0.3)
    return np.stack([fine, figure * rng.choice([0, 0, 0.7])], -1)


def terrazzo(rng):
    """Chips of two colours in a ground."""
    large = soft_step(band(rng, rng.uniform(12, 30), 0.5) - 1.1, 0.2)
    small = soft_step(band(rng, rng.uniform(30, 80), 0.4) - 1.0, 0.3)
    return np.stack([0.4 + 0.1 * fractal(rng, 0.8), large, small * (1 - large)], -1)


def asphalt(rng):
    """Grit, with cracks and mended places."""
    fine = 0.5 + 0.22 * fractal(rng, rng.uniform(0.2, 0.6)) + 0.12 * fractal(rng, 1.8)
    cracks = np.zeros((TEXELS, TEXELS), np.float32)
    for _ in range(rng.integers(0, 4)):
        path = np.cumsum(rng.normal(0, 1, (60, 2)) * 5 + rng.normal(0, 4, 2), axis=0)
        path = (path + rng.uniform(0, TEXELS, 2)).astype(np.int32)
        cv2.polylines(cracks, [path], False, 0.8, 1, cv2.LINE_AA)
    patch = soft_step(fractal(rng, 2.0) - 1.2, 0.1) * rng.choice([0, 0.5])
    return np.stack([fine, cracks, patch], -1)


def planks(rng):
    """Boards side by side, with grain."""
    across, along = int(rng.integers(1, 9)), int(rng.integers(1, 4))
    tone, u, v = cells(rng, along, across)
    turn = rng.permutation(across)
    x = np.arange(TEXELS) * across // TEXELS
    shift = np.arange(TEXELS)[:, None] + 37 * turn[x]
    warp = fractal(rng, 1.8, stretch=0.12)[shift % TEXELS, np.arange(TEXELS)]
    rings = np.sin(u * rng.uniform(4, 14) + 3 * warp + 20 * tone)
    fine = fractal(rng, 0.7, stretch=0.05)
    joint = (u < 0.025 * across / 4 + 0.005) | (v < 0.012 * along)
    grain = 0.45 + 0.22 * rings + 0.12 * fine + rng.uniform(0.1, 0.9) * (tone - 0.5)
    return np.stack([np.clip(grain, 0, 1) * (1 - joint), joint * rng.uniform(0.3, 1)], -1)


def tiles(rng):
    """Tiles with joints, straight or shifted."""
    rows = int(rng.integers(1, 7))
    tone, u, v = cells(rng, rows, int(rows * rng.choice([1, 1, 2])), rng.choice([0, 0, 0.5]))
    width = rng.uniform(0.015, 0.05)
    joint = (u < width) | (v < width)
    veins = fractal(rng, rng.uniform(1.2, 2))
    inside = 0.4 + rng.uniform(0, 0.5) * (tone - 0.5) + rng.uniform(0, 0.15) * veins
    return np.stack([inside * (1 - joint), joint], -1)


def checks(rng):
    """A chequerboard."""
    count = 2 * int(rng.integers(1, 5))
    v, u = np.indices((TEXELS, TEXELS)) * count // TEXELS
    return (np.mod(u + v, 2) * 0.9 + 0.06 * fractal(rng, 1.2))[..., None]


def bricks(rng):
    """Courses of bricks with mortar."""
    rows = int(rng.integers(4, 13))
    tone, u, v = cells(rng, 2 * (rows // 2), max(2, rows // 2), rng.choice([0.5, 0.5, 0.25]))
    rough = 0.12 * fractal(rng, 1.0)
    joint = soft_step(0.07 - np.minimum(np.minimum(u, 1 - u) * 2, np.minimum(v, 1 - v))
                      + 0.15 * rough, 0.05)
    lit = 0.25 * soft_step(0.16 - v, 0.1)
    return np.stack([(0.5 * tone + rough + 0.2 - lit) * (1 - joint), joint, tone > 0.85], -1)


def stones(rng):
    """Irregular blocks: the cell of the nearest of some points, darker to its border."""
    number = int(rng.integers(15, 70))
    points = rng.uniform(0, TEXELS, (number, 2)).astype(np.float32)
    canvas = np.ones((TEXELS, TEXELS), np.uint8)
    canvas[tuple(points.astype(int).T)] = 0
    wide = cv2.copyMakeBorder(canvas, *[TEXELS // 2] * 4, cv2.BORDER_WRAP)
    far, label = cv2.distanceTransformWithLabels(wide, cv2.DIST_L2, 5)
    inner = (slice(TEXELS // 2, -TEXELS // 2),) * 2
    border = cv2.dilate((cv2.Laplacian(label.astype(np.float32), cv2.CV_32F) != 0)
                        .astype(np.float32), np.ones((3, 3)))[inner]
    tone = rng.random(label.max() + 1).astype(np.float32)[label][inner]
    return np.stack([0.2 + 0.6 * tone + 0.1 * fractal(rng, 1.2), cv2.blur(border, (3, 3))], -1)


def bars(rng):
    """Stripes of a few widths and colours."""
    widths = rng.choice([2, 4, 8, 16, 24, 40], int(rng.integers(3, 12)))
    values = rng.choice([0, 0.3, 1], (len(widths), 3)).astype(np.float32)
    line = np.repeat(values, widths, axis=0)
    line = np.tile(line, (-(-TEXELS // len(line)), 1))[:TEXELS]
    return np.broadcast_to(line, (TEXELS, TEXELS, 3)) * rng.choice([1.0, 0.4])


def weave(rng):
    """Yarns that cross or run aslant."""
    v, u = np.indices((TEXELS, TEXELS)) * (2 * np.pi * int(rng.integers(12, 40)) / TEXELS)
    slip = 0.4 * fractal(rng, 1.5)
    yarn = np.sin(u + slip) * np.sin(v + slip) if rng.random() < 0.5 else np.sin(u + v + slip)
    return np.stack([0.5 + 0.3 * yarn + 0.1 * fractal(rng, 0.5),
                     soft_step(fractal(rng, 1.8) - 1, 0.5) * 0.3], -1)


def dots(rng):
    """Round spots in rows."""
    count = int(rng.integers(4, 14))
    tone, u, v = cells(rng, 2 * (count // 2), count, 0.5)
    spot = soft_step(rng.uniform(0.12, 0.4) - np.hypot(u - 0.5, v - 0.5), 0.05)
    second = (tone > 0.6) * rng.choice([0, 1])
    return np.stack([spot * (1 - second), spot * second], -1)


def brushed(rng):
    """Streaks along one direction, with stains."""
    return np.stack([0.5 + 0.16 * fractal(rng, 0.5, stretch=rng.choice([0.02, 0.1])),
                     0.5 * soft_step(fractal(rng, 1.5) - rng.uniform(0.8, 2.5), 0.6)], -1)


def marble(rng):
    """Veins."""
    warp = fractal(rng, 1.9)
    v, u = np.indices((TEXELS, TEXELS)) * (2 * np.pi / TEXELS)
    veins = 1 - np.abs(np.sin(u * rng.integers(1, 4) + v * rng.integers(0, 3)
                              + rng.uniform(1, 3) * warp))
    return np.stack([veins ** rng.uniform(1.5, 6), 0.3 + 0.2 * fractal(rng, 1.6)], -1)


def worn(rng):
    """Paint with dirt, runs and scratches."""
    dirt = soft_step(fractal(rng, rng.uniform(1.3, 2)) - rng.uniform(0.5, 1.6), 0.6)
    runs = np.clip(fractal(rng, 1.0, stretch=12), 0, 3) * 0.12
    scratches = np.zeros((TEXELS, TEXELS), np.float32)
    for _ in range(rng.integers(0, 14)):
        start = rng.integers(0, TEXELS, 2)
        end = start + rng.normal(0, 25, 2).astype(int)
        cv2.line(scratches, start.tolist(), end.tolist(), rng.uniform(0.3, 1), 1, cv2.LINE_AA)
    return np.stack([dirt, runs, scratches], -1)


def foliage(rng):
    """Leaves over one another."""
    tones = np.repeat(rng.uniform(0, 1, (12, 1)), 3, axis=1).astype(np.float32)
    tones[:, 1] = tones[:, 0] * rng.choice([0, 0.4])
    tones[:, 2] = (rng.random(12) < 0.1) * rng.choice([0, 0, 1])
    return dead_leaves(rng, 900, tones, rng.uniform(6, 20), "long")


def pebbles(rng):
    """Pebbles over one another."""
    tones = rng.uniform(0, 1, (14, 3)).astype(np.float32) * [1, 0.5, 0.3]
    return dead_leaves(rng, 900, tones.astype(np.float32), rng.uniform(5, 18), "round")


def facade(rng):
    """Windows in rows, with frames; some with a blind or a light."""
    rows, columns = int(rng.integers(2, 5)), int(rng.integers(2, 6))
    tone, u, v = cells(rng, rows, columns)
    left, low = rng.uniform(0.12, 0.3), rng.uniform(0.12, 0.35)
    inside = np.minimum(np.minimum(u - left, 1 - left - u), np.minimum(v - low, 0.92 - v))
    pane = (inside > 0) & (np.abs(u - 0.5) > rng.choice([0, 0.012]))
    frame = (inside > -rng.uniform(0.02, 0.06)) & ~pane
    blind = pane & (v > rng.uniform(0.3, 1, (rows, 1))[np.indices((TEXELS, TEXELS))[0]
                                                       * rows // TEXELS, 0])
    dark = pane * (0.75 + 0.25 * tone) * (1 - 0.8 * (blind & (tone > 0.5)))
    wall = 0.1 * fractal(rng, 1.3) * ~pane
    return np.stack([dark + wall, frame + 0.3 * wall, pane & (tone < 0.12)], -1)


def page(rng):
    """Print in columns on paper, with boxes."""
    canvas = np.zeros((TEXELS, TEXELS, 3), np.float32)
    columns = int(rng.integers(1, 4))
    edges = np.linspace(12, TEXELS - 6, columns + 1).astype(int)
    height = rng.uniform(5, 18)
    write(rng, canvas, (12, 4, TEXELS - 12, 30), rng.uniform(14, 26), (1, 0, 0))
    for left, right in zip(edges[:-1], edges[1:]):
        top = 40
        while top < TEXELS - 20:
            bottom = min(TEXELS - 6, top + int(rng.integers(20, 120)))
            if rng.random() < 0.3:
                cv2.rectangle(canvas, (left, top + 4), (right - 8, bottom - 4),
                              tuple(rng.uniform(0, 1, 3)), -1)
            else:
                write(rng, canvas, (left, top, right - 8, bottom), height, (1, 0, 0))
            top = bottom
    return canvas


def scene_picture(rng):
    """Something like a photograph: sky, ridges, shapes before them."""
    colours = some_colours(rng, 14, rng.uniform(0.4, 1))
    canvas = np.linspace(0, 1, TEXELS, dtype=np.float32)[:, None, None] * (
        colours[1] - colours[0]) + colours[0]
    canvas = np.ascontiguousarray(np.broadcast_to(canvas, (TEXELS, TEXELS, 3)))
    for level in np.sort(rng.uniform(0.2, 0.9, rng.integers(1, 4))):
        ridge = level * TEXELS + 18 * fractal(rng, 1.8)[0]
        canvas[np.arange(TEXELS)[:, None] > ridge] = colours[rng.integers(14)]
    if rng.random() < 0.7:
        over = dead_leaves(rng, int(rng.integers(10, 300)), colours, rng.uniform(30, 110))
        keep = soft_step(fractal(rng, 1.8) + rng.uniform(-1.5, 1), 0.05)[..., None]
        canvas = canvas * (1 - keep) + over * keep
    return canvas * (1 + 0.12 * fractal(rng, rng.uniform(0.8, 1.6)))[..., None]


def collage(rng):
    """Pieces of all sizes over one another."""
    shape = str(rng.choice(["mixed", "square", "round"]))
    canvas = dead_leaves(rng, int(rng.integers(80, 900)), some_colours(rng, 10, 0.8),
                         rng.uniform(15, 100), shape)
    return canvas * (1 + 0.1 * fractal(rng, 1.2))[..., None]


def poster(rng):
    """A picture or two, a title and small print."""
    colours = some_colours(rng, 5, 0.9)
    canvas = np.empty((TEXELS, TEXELS, 3), np.float32)
    canvas[:] = colours[0] if rng.random() < 0.6 else 0.9
    split = int(rng.integers(60, 180))
    picture = (scene_picture, collage)[rng.integers(2)](rng)
    margin = int(rng.choice([0, 8, 16]))
    canvas[margin:split, margin:TEXELS - margin] = picture[margin:split, margin:TEXELS - margin]
    for _ in range(rng.integers(0, 4)):
        corner = rng.integers(0, TEXELS - 40, 2)
        cv2.rectangle(canvas, corner.tolist(), (corner + rng.integers(15, 90, 2)).tolist(),
                      colours[rng.integers(5)].tolist(), -1)
    ink = (0.05,) * 3 if canvas[-1, -1].mean() > 0.4 else (0.95,) * 3
    write(rng, canvas, (14, split, 242, split + 40), rng.uniform(14, 34), ink)
    write(rng, canvas, (14, split + 40, 242, 244), rng.uniform(5, 10), ink)
    return canvas


def label(rng):
    """Packaging: fields of colour, a sign, large and small print, bars."""
    colours = some_colours(rng, 5, 1.0)
    canvas = np.empty((TEXELS, TEXELS, 3), np.float32)
    canvas[:] = colours[0]
    for _ in range(rng.integers(1, 4)):
        top, high = rng.integers(0, 200), rng.integers(15, 120)
        canvas[top:top + high] = colours[rng.integers(5)]
    cv2.ellipse(canvas, rng.integers(60, 196, 2).tolist(), rng.integers(15, 70, 2).tolist(),
                float(rng.uniform(0, 90)), 0, 360, colours[rng.integers(5)].tolist(), -1,
                cv2.LINE_AA)
    write(rng, canvas, (20, int(rng.integers(20, 120)), 236, 150), rng.uniform(22, 48),
          colours[rng.integers(5)].tolist())
    write(rng, canvas, (20, 160, 150, 236), rng.uniform(5, 9), (rng.choice([0.05, 0.9]),) * 3)
    code = np.repeat(rng.choice([0.05, 0.95], 30), rng.integers(1, 4, 30))[:70]
    canvas[190:235, 170:170 + len(code)] = code[None, :, None]
    return canvas


def spines(rng):
    """Books side by side, seen from their backs."""
    canvas = np.empty((TEXELS, TEXELS, 3), np.float32)
    left, colours = 0, some_colours(rng, 12, 0.9)
    while left < TEXELS:
        right = left + int(rng.integers(8, 34))
        canvas[:, left:right] = colours[rng.integers(12)]
        for _ in range(rng.integers(0, 4)):
            top = int(rng.integers(0, TEXELS))
            canvas[top:top + int(rng.integers(3, 60)), left + 2:right - 2] = (
                colours[rng.integers(12)])
        canvas[:, max(left - 1, 0):left + 1] = 0.03
        left = right
    return canvas


COLOURED = {kind.__name__: kind for kind in (scene_picture, collage, poster, label, spines)}
MIXED = {kind.__name__: kind for kind in (
    cloudy, plaster, carpet, terrazzo, asphalt, planks, tiles, checks, bricks, stones, bars, weave,
    dots, brushed, marble, worn, foliage, pebbles, facade, page)}
