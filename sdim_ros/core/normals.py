"""Surface normals of a depth map."""

from __future__ import annotations

import cv2
import numpy as np

from sdim_ros.core.types import Camera

_SOBEL_SUM = 8  # what the 3 x 3 Sobel filter makes of a slope of 1


def surface_normals(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """The direction in which the surface at each pixel faces, towards the camera.

    The inverse depth of a plane is linear in the image: for ``n . X = d`` and
    ``X = z ((u - cx) / fx, (v - cy) / fy, 1)`` it is
    ``1 / z = (nx (u - cx) / fx + ny (v - cy) / fy + nz) / d``. So its slopes give the normal, for
    a plane exactly.

    Args:
        depth: (H, W) float32, metres, of that camera's size; NaN = unknown.

    Returns:
        (H, W, 3) float32 unit vectors in the optical frame (x right, y down, z forward), NaN
        where the depth of a pixel or of a neighbour is unknown.
    """
    if min(depth.shape) < 2:  # a line has no normals
        return np.full((*depth.shape, 3), np.nan, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(depth > 0, 1 / depth, np.nan).astype(np.float32)
    slope_u, slope_v = (
        cv2.Sobel(inverse, cv2.CV_32F, *order, ksize=3, scale=1 / _SOBEL_SUM,
                  borderType=cv2.BORDER_REPLICATE) for order in ((1, 0), (0, 1)))
    # A replicated border halves the slope across it; one step inside it is whole.
    slope_u[:, [0, -1]], slope_v[[0, -1]] = slope_u[:, [1, -2]], slope_v[[1, -2]]
    u = np.arange(camera.width, dtype=np.float32) - np.float32(camera.cx)
    v = np.arange(camera.height, dtype=np.float32)[:, None] - np.float32(camera.cy)
    normals = np.stack([np.float32(camera.fx) * slope_u, np.float32(camera.fy) * slope_v,
                        inverse - u * slope_u - v * slope_v], axis=2)
    # Towards the camera is against the ray, on which 1 / z of the plane is positive.
    return -normals / np.linalg.norm(normals, axis=2, keepdims=True)
