"""iBims-1: a hundred indoor scenes with the depth of a laser scanner.

T. Koch et al., "Evaluation of CNN-based Single-Image Depth Estimation Methods", ECCV Workshops
2018, https://www.asg.ed.tum.de/lmf/ibims1/
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdim_ros.core.types import BadInput, Camera
from sdim_ros.tools.datasets.files import read_mat
from sdim_ros.tools.datasets.frames import Frames, Sample

POINTS, SEED = 1000, 2024  # of the protocol
FIELDS = ("rgb", "depth", "calib", "mask_invalid", "mask_transp")
WHERE = "iBims-1: ibims1_core_mat.zip from https://mediatum.ub.tum.de/1455541"


class Ibims(Frames):
    """All scenes, with the thousand points of each that the protocol draws.

    Both masks are 1 where a pixel may be judged: not invalid, not transparent. The reference is
    the depth there, and the points are drawn from it with one seed for every scene.

    Raises:
        BadInput: no scenes there; names where they were looked for.
    """

    def __init__(self, folder: str | Path) -> None:
        root = Path(folder)
        # The archive holds a folder of its own name.
        places = [root, root / "ibims1_core_mat", root / "ibims1_core_mat" / "ibims1_core_mat"]
        self.files = next(
            (found for place in places if (found := sorted(place.glob("*.mat")))), [])
        if not self.files:
            raise BadInput(
                "dataset", f"looked for *.mat in {', '.join(map(str, places))} and found none: "
                f"expected {WHERE}")
        self.names = [path.stem for path in self.files]

    def read(self, number: int) -> Sample:
        path = self.files[number]
        image, depth, calib, invalid, transparent = _fields(path)
        size = depth.shape
        if image.shape != (*size, 3) or invalid.shape != size or transparent.shape != size:
            raise BadInput(
                "size_mismatch", f"{path}: rgb {image.shape}, depth {size}, mask_invalid "
                f"{invalid.shape}, mask_transp {transparent.shape}: expected one size")
        judged = (invalid != 0) & (transparent != 0) & (depth > 0)
        truth = np.where(judged, depth, 0).astype(np.float32)
        return Sample(self.names[number], image, protocol_points(truth), truth,
                      _camera(path, calib, size))


def protocol_points(truth: np.ndarray) -> np.ndarray:
    """The points that every method is given: the first thousand pixels of a shuffle.

    Args:
        truth: (H, W) float32, metres, 0 = unknown.

    Returns:
        (H, W) float32 with up to 1000 of its pixels, 0 elsewhere.
    """
    chosen = np.flatnonzero(truth)
    # The generator of the protocol: np.random.seed(2024) before each scene.
    np.random.RandomState(SEED).shuffle(chosen)
    sparse = np.zeros_like(truth)
    sparse.flat[chosen[:POINTS]] = truth.flat[chosen[:POINTS]]
    return sparse


def _fields(path: Path) -> list[np.ndarray]:
    data = read_mat(path, "data")
    missing = [name for name in FIELDS if name not in (data.dtype.names or ())]
    if missing or data.shape != (1, 1):
        raise BadInput(
            "dataset", f"{path}: data has no {', '.join(missing) or 'single entry'}: expected "
            f"the fields {', '.join(FIELDS)}, as in {WHERE}")
    return [np.asarray(data[name][0, 0]) for name in FIELDS]


def _camera(path: Path, calib: np.ndarray, size: tuple[int, int]) -> Camera:
    """From K as MATLAB has it: transposed."""
    if calib.shape != (3, 3):
        raise BadInput("dataset", f"{path}: calib of shape {calib.shape}: expected (3, 3)")
    height, width = size
    return Camera(float(calib[0, 0]), float(calib[1, 1]), float(calib[2, 0]), float(calib[2, 1]),
                  width, height)
