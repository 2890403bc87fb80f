"""NYU-Depth V2 as depth completion measures it: 304 x 228 pixels, 500 points.

N. Silberman et al., "Indoor Segmentation and Support Inference from RGBD Images", ECCV 2012
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sdim_ros.core.types import BadInput, Camera
from sdim_ros.tools.datasets.files import import_h5py, read_mat
from sdim_ros.tools.datasets.frames import Frames, Sample

IMAGES_FILE, POINTS_FILE = "nyu_img_gt.h5", "nyu_pred_with_500.h5"
LABELLED_FILE, SPLIT_FILE = "nyu_depth_v2_labeled.mat", "splits.mat"
WHERE = (
    f"NYU-Depth V2: {IMAGES_FILE} and {POINTS_FILE} from https://github.com/andreaconti/"
    "sparsity-agnostic-depth-completion/releases/tag/v0.1.0 (the protocol), or "
    f"{LABELLED_FILE} and {SPLIT_FILE} from https://cs.nyu.edu/~silberman/datasets/"
    "nyu_depth_v2.html")
HEIGHT, WIDTH = 228, 304
# The camera of the published images of 640 x 480 (camera_params.m of the authors' toolbox),
# halved, less the crop.
FULL_SIZE = (480, 640)
CROP_TOP, CROP_LEFT = 6, 8
CAMERA = Camera(
    518.85790117450188 / 2, 519.46961112127485 / 2, 325.58244941119034 / 2 - CROP_LEFT,
    253.73616633400465 / 2 - CROP_TOP, WIDTH, HEIGHT)


def open_nyuv2(folder: str | Path) -> Frames:
    """The prepared files of the protocol where both lie in the folder, else the labelled set.

    Raises:
        BadInput: neither is there; names what was looked for.
    """
    folder = Path(folder)
    needed = (IMAGES_FILE, POINTS_FILE, LABELLED_FILE)
    found = [name for name in needed if (folder / name).is_file()]
    if {IMAGES_FILE, POINTS_FILE} <= set(found):
        return NyuPrepared(folder)
    if LABELLED_FILE in found:
        return NyuLabelled(folder)
    raise BadInput(
        "dataset", f"{folder} holds {' and '.join(found) or 'no frames of NYU-Depth V2'}: "
        f"expected {WHERE}")


class NyuPrepared(Frames):
    """The 654 test frames, and the 500 points of each that every method is given.

    A. Conti et al., "Sparsity Agnostic Depth Completion", WACV 2023, made these files.

    Raises:
        BadInput: a file is damaged or does not fit the other.
    """

    def __init__(self, folder: Path) -> None:
        self.images, self.points = folder / IMAGES_FILE, folder / POINTS_FILE
        with _hdf5(self.images, "img", "gt") as file:
            counts = [len(file["img"]), len(file["gt"])]
        with _hdf5(self.points, "hints") as file:
            counts.append(len(file["hints"]))
        if len(set(counts)) > 1:
            raise BadInput(
                "dataset", f"{folder}: {counts[0]} images, {counts[1]} references and {counts[2]} "
                f"maps of points: expected one each; download {IMAGES_FILE} and {POINTS_FILE} "
                "again")
        self.names = [f"{number:04d}" for number in range(counts[0])]

    def read(self, number: int) -> Sample:
        with _hdf5(self.images, "img", "gt") as file:
            image, truth = file["img"][number], file["gt"][number]
        with _hdf5(self.points, "hints") as file:
            sparse = file["hints"][number]
        expected = (HEIGHT, WIDTH)
        if (image.shape, image.dtype) != ((*expected, 3), np.uint8):
            raise BadInput(
                "image_file", f"{self.images}: img {number} is {image.dtype} of shape "
                f"{image.shape}: expected uint8 of shape {(*expected, 3)}")
        return Sample(self.names[number], image, _map(sparse, self.points, "hints"),
                      _map(truth, self.images, "gt"), CAMERA)


class NyuLabelled(Frames):
    """The labelled frames of the authors, resized and cropped as usual; points are yet to draw.

    The frames are those of the test split where the authors' ``splits.mat`` lies in the folder
    too, else all 1449. The filled depth maps are the reference. The image is averaged to half
    its size, and of the depth every second pixel is taken: averages would mix depths at edges.

    Raises:
        BadInput: a file is damaged.
    """

    protocol_points = "500"

    def __init__(self, folder: Path) -> None:
        self.file = folder / LABELLED_FILE
        with _hdf5(self.file, "images", "depths") as file:
            count = len(file["images"])
        split = folder / SPLIT_FILE
        self.frames = _test_frames(split, count) if split.is_file() else list(range(count))
        self.names = [f"{frame + 1:04d}" for frame in self.frames]

    def read(self, number: int) -> Sample:
        with _hdf5(self.file, "images", "depths") as file:
            frame = self.frames[number]
            image, depth = file["images"][frame], file["depths"][frame]
        # MATLAB writes the last axis first.
        image, depth = image.T, depth.T
        if image.shape != (*FULL_SIZE, 3) or depth.shape != FULL_SIZE or image.dtype != np.uint8:
            raise BadInput(
                "size_mismatch", f"{self.file}: frame {self.names[number]} has an image of "
                f"{image.dtype} {image.shape} and depth {depth.shape}: expected uint8 "
                f"{(*FULL_SIZE, 3)} and {FULL_SIZE}")
        half = cv2.resize(np.ascontiguousarray(image), None, fx=0.5, fy=0.5,
                          interpolation=cv2.INTER_AREA)
        return Sample(self.names[number], _crop(half), None,
                      _crop(depth[::2, ::2]).astype(np.float32), CAMERA)


def _crop(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(
        image[CROP_TOP:CROP_TOP + HEIGHT, CROP_LEFT:CROP_LEFT + WIDTH])


def _map(depth: np.ndarray, path: Path, key: str) -> np.ndarray:
    """(H, W) float32 metres of a map with or without an axis for its one channel."""
    if depth.size != HEIGHT * WIDTH or depth.shape[:2] != (HEIGHT, WIDTH):
        raise BadInput("depth_file", f"{path}: {key} of shape {depth.shape}: expected "
                       f"{(HEIGHT, WIDTH, 1)}")
    return depth.reshape(HEIGHT, WIDTH).astype(np.float32)


def _test_frames(path: Path, count: int) -> list[int]:
    """Numbers of the test frames, from 0."""
    numbers = read_mat(path, "testNdxs").astype(np.int64).ravel() - 1
    if not len(numbers) or numbers.min() < 0 or numbers.max() >= count:
        raise BadInput(
            "dataset", f"{path}: testNdxs holds {len(numbers)} numbers that do not all lie in 1 "
            f"to {count}: expected the split of {LABELLED_FILE}")
    return sorted(numbers.tolist())


@contextmanager
def _hdf5(path: Path, *keys: str) -> Iterator[Any]:
    """An open HDF5 file with these datasets; what goes wrong in it names the file."""
    try:
        with import_h5py("NYU-Depth V2's files").File(path, "r") as file:
            missing = [key for key in keys if key not in file]
            if missing:
                raise KeyError(f"no {', '.join(missing)}, only {', '.join(file)}")
            yield file
    except (OSError, KeyError, ValueError, TypeError, IndexError) as problem:
        raise BadInput(
            "depth_file", f"{path} cannot be read ({problem}): expected an HDF5 file with "
            f"{' and '.join(keys)}; download it again") from problem
