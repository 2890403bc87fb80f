"""Single images, depth maps and intrinsics on disk, and where a dataset's files lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from sdim_ros.core.types import BadInput, Camera


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of any file that OpenCV reads, in the order of its pixels.

    A note in the file that a viewer should turn it is not followed: depth has none.

    Raises:
        BadInput: ``image_file``: it cannot be read, or has more than 8 bits a channel.
    """
    _check_file(path, "image_file")
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise BadInput("image_file", f"{path} is not an image that can be read: expected PNG, "
                       "JPEG or another format of OpenCV, in one piece")
    if image.dtype != np.uint8:
        raise BadInput("image_file", f"{path} is of {image.dtype}: expected 8 bits a channel; "
                       "convert it first, since how many of its bits are used is not said")
    channels = 1 if image.ndim == 2 else image.shape[2]
    return cv2.cvtColor(image, {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB,
                                4: cv2.COLOR_BGRA2RGB}[channels])


def read_depth(path: str | Path, scale: float) -> np.ndarray:
    """A depth map from a PNG of 16 bits (metres = value / scale) or an NPY file in metres.

    Returns:
        (H, W) float32 metres, 0 = unknown; in NPY files NaN, inf and negative values stay as
        they are, for the completer to clean and count.
    """
    path = Path(path)
    _check_file(path, "depth_file")
    if path.suffix == ".npy":
        return _read_npy(path)
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.dtype != np.uint16 or depth.ndim != 2:
        found = "not an image" if depth is None else f"{depth.dtype} of shape {depth.shape}"
        raise BadInput(
            "depth_file", f"{path} is {found}: expected a PNG with one channel of 16 bits, or an "
            ".npy file in metres")
    return (depth / scale).astype(np.float32)


def _check_file(path: str | Path, reason: str) -> None:
    if Path(path).is_dir():
        raise BadInput(reason, f"{path} is a folder: expected a file")
    if not Path(path).exists():
        raise BadInput(reason, f"{path} does not exist")


def read_registered_depth(path: str | Path, scale: float, size: tuple[int, int]) -> np.ndarray:
    """As `read_depth`, of a map that must be as large as its image.

    Args:
        size: (height, width) of the image.
    """
    depth = read_depth(path, scale)
    if depth.shape != size:
        raise BadInput(
            "size_mismatch", f"{path} is {depth.shape[1]}x{depth.shape[0]}, its image is "
            f"{size[1]}x{size[0]}: expected the same size")
    return depth


def read_camera_text(path: str | Path, size: tuple[int, int]) -> Camera:
    """Intrinsics from a text file with the nine numbers of K, row by row.

    Args:
        size: (height, width) of the image.
    """
    try:
        matrix = np.array(Path(path).read_text(encoding="utf-8").split(), np.float64)
        return Camera(*matrix.reshape(3, 3)[[0, 1, 0, 1], [0, 1, 2, 2]].tolist(), *size[::-1])
    except (OSError, ValueError, BadInput) as problem:
        raise BadInput(
            "dataset", f"{path} gives no intrinsics ({problem}): expected a text file with the "
            "nine numbers of the camera matrix K") from problem


def find_folder(
    root: Path, inside: Sequence[str], needs: Sequence[str], where: str
) -> Path:
    """The first of a folder and some folders in it that holds all that is needed.

    Args:
        inside: folders to look in after the root, relative to it.
        needs: names of files and folders.
        where: which dataset this is and where its files come from, for the error.
    """
    places = [root, *(root / name for name in inside)]
    for place in places:
        if all((place / name).exists() for name in needs):
            return place
    raise BadInput(
        "dataset", f"looked for {', '.join(needs)} in {', '.join(map(str, places))} and found "
        f"{_found(places, needs)}: expected {where}")


def _found(places: Sequence[Path], needs: Sequence[str]) -> str:
    best = max(([n for n in needs if (place / n).exists()] for place in places), key=len)
    return f"only {', '.join(best)}" if best else "none of them"


def import_h5py(who: str) -> ModuleType:
    """h5py, for the few datasets that need it.

    Args:
        who: whose files need it, for the error.
    """
    try:
        import h5py
    except ImportError as problem:
        raise BadInput(
            "dataset", f"{who} need h5py, which is not installed: pip install h5py") from problem
    return h5py


def read_mat(path: str | Path, key: str) -> np.ndarray:
    """One variable of a MATLAB file of version 5 to 7.2."""
    from scipy.io import loadmat
    try:
        return loadmat(str(path), variable_names=[key])[key]
    except Exception as problem:  # a damaged file makes its reader raise almost anything
        raise BadInput(
            "dataset", f"{path} cannot be read ({problem}): expected a MATLAB file with the "
            f"variable {key}; download it again") from problem


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
    write_png(path, np.where(too_far, 0, value).astype(np.uint16))
    return int(too_far.sum())


def write_png(path: str | Path, pixels: np.ndarray) -> None:
    """Write (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB.

    Raises:
        BadInput: ``out`` when the file cannot be written, as on a full disk.
    """
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    try:
        # imwrite would not tell that the disk is full.
        Path(path).write_bytes(cv2.imencode(".png", pixels)[1])
    except OSError as problem:
        raise BadInput("out", f"{path} cannot be written: {problem}") from problem
