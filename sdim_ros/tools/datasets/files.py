"""Single images and depth maps on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sdim_ros.core.types import BadInput


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of any file that OpenCV reads."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise BadInput("image_file", f"{path} is not an image that can be read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_depth(path: str | Path, scale: float) -> np.ndarray:
    """A depth map from a PNG of 16 bits (metres = value / scale) or an NPY file in metres.

    Returns:
        (H, W) float32 metres, 0 = unknown; in NPY files NaN, inf and negative values stay as
        they are, for the completer to clean and count.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput("depth_file", f"{path} does not exist")
    if path.suffix == ".npy":
        return _read_npy(path)
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.dtype != np.uint16 or depth.ndim != 2:
        found = "not an image" if depth is None else f"{depth.dtype} of shape {depth.shape}"
        raise BadInput(
            "depth_file", f"{path} is {found}: expected a PNG with one channel of 16 bits, or an "
            ".npy file in metres")
    return (depth / scale).astype(np.float32)


def _read_npy(path: Path) -> np.ndarray:
    try:
        depth = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as problem:
        raise BadInput("depth_file", f"{path} is not an array of numbers: {problem}") from problem
    if not isinstance(depth, np.ndarray) or depth.ndim != 2 or depth.dtype.kind not in "fiu":
        found = getattr(depth, "shape", type(depth).__name__)
        raise BadInput("depth_file", f"{path} holds {found}: expected (H, W) numbers in metres")
    return depth.astype(np.float32)


def write_depth_png(path: str | Path, depth: np.ndarray, scale: float) -> int:
    """Write metres as uint16 = round(metres * scale), 0 = unknown.

    Returns:
        The number of known pixels that do not fit into 16 bits; they are written as unknown.
    """
    known = np.isfinite(depth) & (depth > 0)
    value = np.round(np.where(known, depth, 0) * scale)
    too_far = value > np.iinfo(np.uint16).max
    cv2.imwrite(str(path), np.where(too_far, 0, value).astype(np.uint16))
    return int(too_far.sum())
