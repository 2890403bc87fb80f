"""From what a sensor gives to sparse depth, and from depth back to points.

Depth is planar (along the optical axis), in metres. Pixel centres lie at integer coordinates, so
a point belongs to the pixel whose centre is nearest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import minimum_filter
from scipy.spatial.transform import Rotation

from sdim_ros.core.config import PointsSettings, ProjectionSettings
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


def lidar_to_sparse(
    points: np.ndarray, camera: Camera, pose: np.ndarray | None, settings: ProjectionSettings,
) -> np.ndarray:
    """A LiDAR cloud as sparse depth of the image, hidden points removed.

    Args:
        points: (N, 3), metres, in the sensor's frame.
        pose: (4, 4) of the sensor in the camera's optical frame; None = the same frame.

    Returns:
        (H, W) float32, metres, 0 = unknown.
    """
    sparse = project_points(points, camera, pose, settings.min_range_m, settings.max_range_m)
    return occlusion_filter(
        sparse, settings.occlusion_window_px, settings.occlusion_tolerance_m,
        settings.occlusion_tolerance_ratio)


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
    min_range_m: float = 0.0,
    max_range_m: float = np.inf,
) -> np.ndarray:
    """Back-project a depth map into the camera's optical frame.

    Args:
        depth: (H, W) float32, metres; NaN, inf, 0 and negative = unknown.
        stride: take every n-th pixel of every n-th row.
        min_range_m, max_range_m: depths kept, both ends included.

    Returns:
        (rows, cols, 3) float32, metres: the point of each pixel taken, NaN where it has none.

    Raises:
        BadInput: ``size_mismatch``, when map and camera differ in size.
    """
    if depth.shape != (camera.height, camera.width):
        raise BadInput(
            "size_mismatch", f"depth of shape {depth.shape} for a camera of "
            f"{(camera.height, camera.width)}: expected the same height and width")
    coarse = depth[::stride, ::stride]
    kept = (coarse > 0) & (coarse >= min_range_m) & (coarse <= max_range_m) & np.isfinite(coarse)
    z = np.where(kept, coarse, np.float32(np.nan))
    x = (np.arange(0, camera.width, stride) - camera.cx) / camera.fx
    y = (np.arange(0, camera.height, stride) - camera.cy) / camera.fy
    points = np.empty((*z.shape, 3), np.float32)
    np.multiply(z, x.astype(np.float32), out=points[:, :, 0])
    np.multiply(z, y.astype(np.float32)[:, None], out=points[:, :, 1])
    points[:, :, 2] = z
    return points


def coloured_points(
    depth: np.ndarray, image: np.ndarray, camera: Camera, settings: PointsSettings
) -> tuple[np.ndarray, np.ndarray]:
    """The cloud of a completed map.

    Args:
        depth: (H, W) float32, metres, NaN = unknown.
        image: (H, W, 3) uint8, RGB.

    Returns:
        points in the camera's optical frame, float32 metres, and colours, uint8 RGB: (N, 3) of
        the known ones, or (rows, cols, 3) with NaN where ``points.organized`` wants it.
    """
    points = depth_to_points(
        depth, camera, settings.stride_px, settings.min_range_m, settings.max_range_m)
    colours = image[::settings.stride_px, ::settings.stride_px]
    return (points, colours) if settings.organized else finite_points(points, colours)


def finite_points(points: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points (N, 3) without NaN of an organised cloud (H, W, 3), and their colours (N, 3)."""
    known = ~np.isnan(points[:, :, 2])
    return points[known], colours[known]


def reproject_depth(
    depth: np.ndarray, source: Camera, target: Camera, pose: np.ndarray | None,
) -> np.ndarray:
    """A depth image as another camera sees it; each point moves, none is interpolated.

    Args:
        depth: (H, W) float32 of the source camera, metres; 0, negative, NaN and inf = unknown.
        pose: (4, 4) of the source camera in the target's optical frame; None = the same place.

    Returns:
        (H, W) float32 of the target camera, 0 = unknown; where points share a pixel the nearest
        wins.

    Raises:
        BadInput: ``size_mismatch``, when depth and source differ in size.
    """
    points = depth_to_points(depth, source).reshape(-1, 3)
    return project_points(points, target, pose, 0.0, np.inf)


def nearest_of(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Several sparse depth maps of one image as one: the smallest measured depth of each pixel.

    Args:
        maps: one or more (H, W) float32, metres; 0, negative, NaN and inf = unknown.
    """
    if len(maps) == 1:
        return maps[0]
    known = [np.where((depth > 0) & np.isfinite(depth), depth, np.inf) for depth in maps]
    nearest = np.minimum.reduce(known)
    return np.where(np.isfinite(nearest), nearest, 0).astype(np.float32)


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
