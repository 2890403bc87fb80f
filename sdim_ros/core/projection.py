"""From what a sensor gives to sparse depth, and from depth back to points.

Depth is planar (along the optical axis), in metres. Pixel centres lie at integer coordinates, so
a point belongs to the pixel whose centre is nearest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import minimum_filter
from scipy.spatial.transform import Rotation

from sdim_ros.core.types import BadInput, BadSetting, Camera


def clean_depth(
    depth: np.ndarray, min_m: float, max_m: float
) -> tuple[np.ndarray, dict[str, int]]:
    """Turn every value that is no usable measurement into "unknown", and count them.

    Args:
        depth: (H, W), any real type, metres; 0 = not measured. It is not modified.
        min_m, max_m: range kept, both ends included.

    Returns:
        sparse: (H, W) float32, 0 = unknown.
        counts: removed pixels by reason: ``not_finite``, ``negative``, ``range``. Zeros are not
            removed, they were never measured.
    """
    depth = np.asarray(depth, dtype=np.float32)
    finite = np.isfinite(depth)
    negative = finite & (depth < 0)
    positive = finite & (depth > 0)
    kept = positive & (depth >= np.float32(min_m)) & (depth <= np.float32(max_m))
    counts = {
        "not_finite": int(depth.size - finite.sum()),
        "negative": int(negative.sum()),
        "range": int(positive.sum() - kept.sum()),
    }
    return np.where(kept, depth, np.float32(0)), counts


def project_points(
    points: np.ndarray,
    camera: Camera,
    extrinsics: np.ndarray | None,
    min_m: float,
    max_m: float,
) -> np.ndarray:
    """Project a point cloud into the image; where points share a pixel the nearest wins.

    Args:
        points: (N, 3), metres, in the sensor's frame. Rows with NaN or inf are ignored.
        extrinsics: (4, 4) pose of the sensor in the camera's optical frame (x right, y down,
            z forward); None = the points are in the optical frame already.
        min_m, max_m: depths kept along the optical axis, both ends included.

    Returns:
        (H, W) float32 sparse depth, 0 = unknown.

    Raises:
        BadInput: ``cloud_shape``.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 3:
        raise BadInput(
            "cloud_shape", f"point cloud of shape {points.shape}: expected (N, 3), x y z")
    points = points[np.isfinite(points).all(axis=1)].astype(np.float64)
    if extrinsics is not None:
        points = points @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    x, y, z = points.T

    # Before the division: a point behind the camera would land in the image, mirrored.
    kept = (z > 0) & (z >= min_m) & (z <= max_m)
    x, y, z = x[kept], y[kept], z[kept]
    cols = np.floor(camera.fx * x / z + camera.cx + 0.5)
    rows = np.floor(camera.fy * y / z + camera.cy + 0.5)
    # Compared as floats: coordinates far outside of the image do not fit an integer.
    inside = (rows >= 0) & (rows < camera.height) & (cols >= 0) & (cols < camera.width)
    return _nearest_wins(
        rows[inside].astype(np.intp), cols[inside].astype(np.intp), z[inside],
        (camera.height, camera.width))


def pose_matrix(values: Sequence[float]) -> np.ndarray:
    """The (4, 4) float64 pose of ``x y z qx qy qz qw``; the quaternion is normalised.

    Raises:
        BadSetting: not 7 finite numbers, or a quaternion of length zero.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (7,) or not np.isfinite(values).all() or not values[3:].any():
        raise BadSetting(
            f"pose {values.tolist()}: expected 7 finite numbers, x y z in metres and a "
            "quaternion qx qy qz qw that is not zero")
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(values[3:]).as_matrix()
    pose[:3, 3] = values[:3]
    return pose


def occlusion_filter(
    sparse: np.ndarray, window_px: int, tolerance_m: float, tolerance_ratio: float
) -> np.ndarray:
    """Drop points that the camera cannot see: those with a much nearer one beside them.

    A LiDAR beside the camera looks past edges. Its background points then project between those
    of the object in front. (After Conti et al., "Unsupervised confidence for LiDAR depth maps and
    applications", 2022, arXiv:2210.03118; simplified to a minimum filter.)

    Args:
        sparse: (H, W) float32, metres, 0 = unknown. It is not modified.
        window_px: side of the square window; 0 or 1 = off.
        tolerance_m, tolerance_ratio: a depth is dropped when it exceeds
            ``nearest + tolerance_m + tolerance_ratio * nearest``.

    Returns:
        (H, W) float32 sparse depth, 0 = unknown.
    """
    if window_px <= 1:
        return sparse.copy()
    known = sparse > 0
    nearest = minimum_filter(
        np.where(known, sparse, np.inf), size=window_px, mode="constant", cval=np.inf)[known]
    filtered = np.zeros_like(sparse)
    filtered[known] = np.where(
        sparse[known] <= nearest + tolerance_m + tolerance_ratio * nearest, sparse[known], 0)
    return filtered


def disparity_to_depth(
    disparity: np.ndarray, focal_px: float, baseline_m: float, doffs_px: float = 0.0
) -> np.ndarray:
    """Depth of a rectified stereo pair: ``focal_px * baseline_m / (disparity + doffs_px)``.

    Args:
        disparity: (H, W), pixels. Zero, negative (what OpenCV's matchers write where they
            found nothing), NaN and inf are invalid.
        doffs_px: difference of the principal points' x, ``cx_right - cx_left``.

    Returns:
        (H, W) float32 depth in metres, 0 where the disparity is invalid.

    Raises:
        BadInput: ``stereo_geometry``, when focal length or baseline are not positive.
    """
    if not (np.isfinite([focal_px, baseline_m]).all() and focal_px > 0 and baseline_m > 0):
        raise BadInput(
            "stereo_geometry",
            f"focal length {focal_px} px and baseline {baseline_m} m: expected both finite and "
            "positive; is the stereo pair calibrated?")
    disparity = np.asarray(disparity, dtype=np.float32)
    shifted = disparity + np.float32(doffs_px)
    valid = np.isfinite(shifted) & (disparity > 0) & (shifted > 0)
    depth = np.zeros(disparity.shape, np.float32)
    depth[valid] = focal_px * baseline_m / shifted[valid]
    return depth


def depth_to_points(
    depth: np.ndarray,
    camera: Camera,
    stride: int = 1,
    max_range_m: float = np.inf,
    colors: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Back-project a depth map into the camera's optical frame.

    Args:
        depth: (H, W) float32, metres; NaN, inf, 0 and negative = unknown.
        stride: take every n-th pixel of every n-th row.
        max_range_m: pixels deeper than this are left out.
        colors: (H, W, 3) uint8 image of the same size, or None.

    Returns:
        points: (N, 3) float32, metres, row by row, all finite.
        colors: (N, 3) uint8 of the same pixels, or None.

    Raises:
        BadInput: ``size_mismatch``, when map, camera and colours differ in size.
    """
    height, width = camera.height, camera.width
    if depth.shape != (height, width) or (
        colors is not None and colors.shape[:2] != (height, width)
    ):
        seen = "" if colors is None else f" and colours of {colors.shape[:2]}"
        raise BadInput(
            "size_mismatch",
            f"depth of shape {depth.shape}{seen} for a camera of {(height, width)}: "
            "expected the same height and width")
    coarse = depth[::stride, ::stride]
    known = np.isfinite(coarse) & (coarse > 0) & (coarse <= max_range_m)
    rows, cols = np.nonzero(known)
    z = coarse[rows, cols]
    points = np.empty((len(z), 3), np.float32)
    points[:, 0] = (cols * stride - camera.cx) / camera.fx * z
    points[:, 1] = (rows * stride - camera.cy) / camera.fy * z
    points[:, 2] = z
    if colors is None:
        return points, None
    return points, colors[::stride, ::stride][rows, cols]


def scatter_resize(sparse: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Move each point to its place in a map of another size; values are never interpolated.

    Interpolating a sparse map would mix measurements with the zeros that mean "unknown".

    Args:
        sparse: (H, W) float32, metres, 0 = unknown.
        size: (height, width) of the result.

    Returns:
        (height, width) float32, 0 = unknown; where points share a pixel the nearest wins.
    """
    rows, cols = np.nonzero(sparse > 0)
    # Pixel centres, exact in integers: floor((row + 1/2) * new / old).
    new_rows = (2 * rows + 1) * size[0] // (2 * sparse.shape[0])
    new_cols = (2 * cols + 1) * size[1] // (2 * sparse.shape[1])
    return _nearest_wins(new_rows, new_cols, sparse[rows, cols], size)


def _nearest_wins(
    rows: np.ndarray, cols: np.ndarray, depth: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Z-buffer: the smallest depth of each pixel, (H, W) float32, 0 where there is none."""
    buffer = np.full(size, np.inf, np.float32)
    np.minimum.at(buffer, (rows, cols), depth.astype(np.float32))
    return np.where(np.isfinite(buffer), buffer, np.float32(0))
