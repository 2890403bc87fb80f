"""Pictures for people: measured points over the image, and those that are doubted."""

from __future__ import annotations

import cv2
import numpy as np

# Share of the image's longer side.
DOT = 1 / 320
DOUBT = 1 / 60
NEAR_FAR = (2, 98)  # percentiles of the depths that span the colours
DOUBT_COLOUR = (255, 0, 255)


def points_over_image(image: np.ndarray, sparse: np.ndarray) -> np.ndarray:
    """The image, darker, with every measured point as a dot: blue is near, red is far.

    Args:
        image: (H, W, 3) uint8 RGB. It is not modified.
        sparse: (H, W) float32, metres; 0, negative, NaN and inf = unknown.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    picture = np.ascontiguousarray(image // 2)  # OpenCV draws on no other layout
    rows, cols = np.nonzero((sparse > 0) & np.isfinite(sparse))
    if not len(rows):
        return picture
    # Far ones first: where dots overlap, the near one is the one that the camera sees.
    order = np.argsort(-sparse[rows, cols], kind="stable")
    rows, cols = rows[order], cols[order]
    colours = _colours(sparse[rows, cols])
    radius = round(max(sparse.shape) * DOT)
    height, width = sparse.shape
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            y, x = rows + down, cols + right
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            picture[y[inside], x[inside]] = colours[inside]
    return picture


def doubted_over_image(
    image: np.ndarray, sparse: np.ndarray, rows: np.ndarray, cols: np.ndarray,
) -> np.ndarray:
    """``points_over_image`` with a ring around each point that is doubted.

    Args:
        rows, cols: (N,) int, the doubted points.
    """
    picture = points_over_image(image, sparse)
    radius = max(3, round(max(sparse.shape) * DOUBT))
    for row, col in zip(rows.tolist(), cols.tolist(), strict=True):
        cv2.circle(picture, (col, row), radius, DOUBT_COLOUR, thickness=2)
    return picture


def _colours(depth: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 RGB of (N,) depths, by their logarithm: near things differ more."""
    log = np.log(depth)
    near, far = np.percentile(log, NEAR_FAR)
    share = np.clip((log - near) / max(far - near, 1e-6), 0, 1)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)
    return table[(share * 255).astype(np.uint8), 0, ::-1]
