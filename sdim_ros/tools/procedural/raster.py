"""A scanline rasteriser: which triangle every pixel sees, exactly, for thousands at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NOTHING = -1


def rasterize(screen: np.ndarray, nearness: np.ndarray, faces: np.ndarray, width: int, height: int
              ) -> tuple[np.ndarray, np.ndarray]:
    """The nearest triangle at every pixel centre.

    Args:
        screen: (V, 2) float64 pixel coordinates of the vertices; may lie far outside.
        nearness: (V,) float64 > 0, a value that is linear on the screen and grows towards the
            viewer: 1 / depth in perspective, or a constant minus the depth without.
        faces: (F, 3) int, of either orientation.

    Returns:
        Nearness (H, W) float64, 0 where nothing is seen, and face (H, W) int, NOTHING there.
    """
    corners = [faces[:, i] for i in range(3)]
    y = [screen[:, 1][corner] for corner in corners]
    top = np.ceil(np.minimum(np.minimum(y[0], y[1]), y[2]))
    bottom = np.floor(np.maximum(np.maximum(y[0], y[1]), y[2]))
    top, bottom = np.maximum(top, 0), np.minimum(bottom, height - 1)
    seen = np.flatnonzero(top <= bottom)
    x, near = ([column[corner[seen]] for corner in corners]
               for column in (screen[:, 0], nearness))
    y = [value[seen] for value in y]
    aside = (np.maximum(np.maximum(x[0], x[1]), x[2]) >= 0) & (
        np.minimum(np.minimum(x[0], x[1]), x[2]) <= width - 1)
    first = top[seen].astype(np.int64)
    count = np.where(aside, bottom[seen].astype(np.int64) - first + 1, 0)
    face = np.repeat(np.arange(len(seen)), count)
    row = _ramps(count) + first[face]
    left, right = _spans(x, y, face, row)
    begin = np.ceil(np.maximum(left, 0)).astype(np.int64)
    length = np.maximum(np.floor(np.minimum(right, width - 1)).astype(np.int64) - begin + 1, 0)
    full = np.flatnonzero(length)
    face, row, begin, length = face[full], row[full], begin[full], length[full]
    origin, along_x, along_y = (value[face] for value in _planes(x, y, near))
    # Fragment k of all is pixel k + base of its span: no coordinates of its own are needed.
    starts = np.cumsum(length) - length
    base, constant = row * width + begin - starts, origin + along_y * row + along_x * (
        begin - starts)
    order = np.arange(length.sum())
    span = np.repeat(np.arange(len(length)), length)
    pixel = base.take(span) + order
    value = constant.take(span) + along_x.take(span) * order
    best = np.zeros(width * height)
    np.maximum.at(best, pixel, value)
    wins = np.flatnonzero((value == best.take(pixel)) & (value > 0))
    chosen = np.full(width * height, NOTHING)
    chosen[pixel[wins]] = seen[face[span[wins]]]
    best[chosen == NOTHING] = 0
    return best.reshape(height, width), chosen.reshape(height, width)


def _ramps(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... counts[0] - 1, 0, 1, ... counts[1] - 1, ..."""
    starts = np.cumsum(counts) - counts
    return np.arange(counts.sum()) - np.repeat(starts, counts)


def _spans(x: Sequence[np.ndarray], y: Sequence[np.ndarray], face: np.ndarray, row: np.ndarray
           ) -> tuple[np.ndarray, np.ndarray]:
    """Where rows enter and leave their triangles, in pixels."""
    left, right = np.full(len(row), -np.inf), np.full(len(row), np.inf)
    turn = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        for start, end in ((0, 1), (1, 2), (2, 0)):
            rise = y[end] - y[start]
            slope = np.where(rise == 0, 0, (x[end] - x[start]) / rise)
            begin, side = x[start] - slope * y[start], rise * turn
            way = slope.take(face) * row
            # A level edge limits no row; of the others each is on the left or on the right.
            np.maximum(left, np.where(side < 0, begin, -np.inf).take(face) + way, out=left)
            np.minimum(right, np.where(side > 0, begin, np.inf).take(face) + way, out=right)
    left[np.isinf(left)] = np.inf  # a triangle without area
    return np.minimum(left, 1e9), np.maximum(right, -1e9)


def _planes(x: Sequence[np.ndarray], y: Sequence[np.ndarray], value: Sequence[np.ndarray]
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients of value = origin + along_x * x + along_y * y on each triangle."""
    ax, ay, av = x[1] - x[0], y[1] - y[0], value[1] - value[0]
    bx, by, bv = x[2] - x[0], y[2] - y[0], value[2] - value[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / (ax * by - bx * ay)
        along_x, along_y = (av * by - bv * ay) * inverse, (bv * ax - av * bx) * inverse
        return value[0] - along_x * x[0] - along_y * y[0], along_x, along_y


def clip_near(points: np.ndarray, faces: np.ndarray, near: float
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut triangles at the plane z = near, and drop what lies behind it.

    Args:
        points: (V, 3) float64 in camera axes.
        faces: (F, 3) int.

    Returns:
        Points (V', 3), of which the first V are the given ones, faces (F', 3) with z >= near at
        every corner, and the face (F',) that each one is a piece of.
    """
    inside = (points[:, 2] > near)[faces]
    count = inside.sum(1)
    whole = np.flatnonzero(count == 3)
    all_points, all_faces, source = [points], [faces[whole]], [whole]
    total = len(points)
    for kept in (1, 2):
        cut = np.flatnonzero(count == kept)
        # The corner that is alone on its side comes first.
        alone = np.argmax(inside[cut] == (kept == 1), axis=1)
        corners = np.take_along_axis(faces[cut], (alone[:, None] + np.arange(3)) % 3, axis=1)
        tip, second, third = (points[corners[:, i]] for i in range(3))
        for other in (second, third):
            share = (near - tip[:, 2]) / (other[:, 2] - tip[:, 2])
            all_points.append(tip + (other - tip) * share[:, None])
        ab, ac = total + np.arange(len(cut)), total + len(cut) + np.arange(len(cut))
        total += 2 * len(cut)
        if kept == 1:
            all_faces.append(np.stack([corners[:, 0], ab, ac], 1))
            source.append(cut)
        else:
            all_faces += [np.stack([ab, corners[:, 1], corners[:, 2]], 1),
                          np.stack([ab, corners[:, 2], ac], 1)]
            source += [cut, cut]
    return np.concatenate(all_points), np.concatenate(all_faces), np.concatenate(source)
