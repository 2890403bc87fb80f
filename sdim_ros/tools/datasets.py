"""Frames on disk: the frames folder, single depth files, and one real scene from a package.

Public data sets and bags have modules of their own; ``open_source`` opens each by its kind.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sdim_ros.core.projection import disparity_to_depth
from sdim_ros.core.types import BadInput, Camera, Frame
from sdim_ros.tools.training.data_recipe import SourceRecipe

IMAGE_ENDINGS = (".jpg", ".png", ".jpeg")
# A real scene from a package, and rendered scenes that no training sees.
DATASETS = ("motorcycle", "procedural")

# Middlebury 2014 "Motorcycle" at a quarter of its size, as scikit-image ships it: D. Scharstein
# et al., "High-resolution stereo datasets with subpixel-accurate ground truth", GCPR 2014.
MOTORCYCLE_FOCAL_PX = 994.978
MOTORCYCLE_BASELINE_M = 0.193001
MOTORCYCLE_DOFFS_PX = 31.086
MOTORCYCLE_CENTRE_PX = (311.193, 254.877)


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame of a dataset.

    Attributes:
        name: file name without its ending.
        image: (H, W, 3) uint8, RGB.
        sparse: (H, W) float32, what the sensor measured in metres, 0 = nothing; None = no file.
        truth: (H, W) float32, the reference in metres, 0 = unknown; None = no file.
        camera: intrinsics, where known.
        stamp_ns: time in nanoseconds, 0 where unknown.
    """

    name: str
    image: np.ndarray
    sparse: np.ndarray | None
    truth: np.ndarray | None
    camera: Camera | None = None
    stamp_ns: int = 0

    @property
    def measured(self) -> np.ndarray:
        """(H, W) float32, where inputs are drawn from: the sensor's map, else the reference."""
        return self._first(self.sparse, self.truth)

    @property
    def reference(self) -> np.ndarray:
        """(H, W) float32, what a prediction is judged by: the reference, else the sensor's map."""
        return self._first(self.truth, self.sparse)

    def frame(self, sparse: np.ndarray) -> Frame:
        """The input of the method, with this sparse depth."""
        return Frame(self.image, sparse, self.camera, self.stamp_ns, self.name)

    def _first(self, *maps: np.ndarray | None) -> np.ndarray:
        for depth in maps:
            if depth is not None:
                return depth
        raise BadInput(
            "no_depth",
            f"frame {self.name} has neither a sparse nor a gt depth map: expected "
            f"sparse/{self.name}.png or gt/{self.name}.png")


class Frames(Sequence[Sample]):
    """Frames that are read when they are asked for.

    Attributes:
        names: of all frames, known without reading them.
    """

    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        return self.read(range(len(self))[position])

    @abstractmethod
    def read(self, number: int) -> Sample:
        """The frame at a place from 0 to the length, less one."""

    @property
    def held_out(self) -> np.ndarray:
        """(N,) bool: frames that never train and may judge; here the last tenth.

        One piece at the end: neighbours in time look alike.
        """
        return np.arange(len(self)) >= len(self) - max(len(self) // 10, int(len(self) > 1))


class FramesFolder(Frames):
    """A folder with ``frames.json``, ``rgb/``, and ``sparse/`` or ``gt/`` or both."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = self._read_index()
        self.depth_scale = float(index["depth_scale"])
        self.entries: list[dict[str, Any]] = index["frames"]
        self.names = [str(entry["name"]) for entry in self.entries]

    def read(self, number: int) -> Sample:
        entry, name = self.entries[number], self.names[number]
        image = read_image(self._image_path(name))
        return Sample(
            name=name,
            image=image,
            sparse=self._depth("sparse", name, image.shape[:2]),
            truth=self._depth("gt", name, image.shape[:2]),
            camera=_camera(entry.get("camera"), name, self.folder / "frames.json"),
            stamp_ns=_stamp_ns(entry.get("stamp", 0.0), name, self.folder / "frames.json"),
        )

    def _read_index(self) -> dict[str, Any]:
        path = self.folder / "frames.json"
        if not path.is_file():
            raise BadInput(
                "dataset", f"{path} does not exist: a frames folder holds frames.json, rgb/ and "
                "sparse/ or gt/")
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as problem:
            raise BadInput("dataset", f"{path} is not valid JSON: {problem}") from problem
        scale = index.get("depth_scale") if isinstance(index, dict) else None
        if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not scale > 0:
            raise BadInput(
                "dataset", f"{path}: depth_scale is {scale!r}, expected a positive number "
                "(metres = value / depth_scale)")
        frames = index.get("frames")
        if not isinstance(frames, list) or not frames or not all(
                isinstance(entry, dict) and "name" in entry for entry in frames):
            raise BadInput(
                "dataset", f'{path}: expected "frames", a list of at least one {{"name": ...}}')
        return index

    def _image_path(self, name: str) -> Path:
        tried = [self.folder / "rgb" / (name + ending) for ending in IMAGE_ENDINGS]
        for path in tried:
            if path.is_file():
                return path
        raise BadInput(
            "dataset", f"frame {name} has no image: looked for "
            f"{', '.join(str(path) for path in tried)}")

    def _depth(self, kind: str, name: str, size: tuple[int, int]) -> np.ndarray | None:
        path = self.folder / kind / f"{name}.png"
        if not path.is_file():
            return None
        depth = read_depth(path, self.depth_scale)
        if depth.shape != size:
            raise BadInput(
                "size_mismatch", f"{path} is {depth.shape[1]}x{depth.shape[0]}, its image is "
                f"{size[1]}x{size[0]}: expected the same size")
        return depth


def open_dataset(folder: str | None, name: str | None) -> Sequence[Sample]:
    """A frames folder by its path, or a known dataset by its name; exactly one of the two."""
    if (folder is None) == (name is None):
        raise BadInput("dataset", "give exactly one of --data FOLDER and --dataset NAME")
    if name == "procedural":
        from sdim_ros.tools.scene_cache import ReservedScenes
        return ReservedScenes()
    return FramesFolder(folder) if folder is not None else [motorcycle()]


def open_source(source: SourceRecipe) -> Frames:
    """The frames of a recipe's source, other than rendered scenes.

    Raises:
        BadInput: nothing of that kind is there; names the files looked for and the remedy.
    """
    # Imported here: each of them needs the classes of this module, and packages of its own.
    if source.kind == "hypersim":
        from sdim_ros.tools.hypersim import Hypersim
        return Hypersim(source.folder)
    if source.kind == "virtual_kitti":
        from sdim_ros.tools.virtual_kitti import VirtualKitti
        return VirtualKitti(source.folder)
    if source.kind == "bag":
        from sdim_ros.tools.bag_frames import BagFrames
        return BagFrames(source.folder, source.topics, source.extrinsics)
    return FramesFolder(source.folder)


def frame_names(samples: Sequence[Sample]) -> list[str]:
    """The names of all frames, without reading those of a folder."""
    if isinstance(samples, Frames):
        return list(samples.names)
    return [sample.name for sample in samples]


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


def motorcycle() -> Sample:
    """The left view of Middlebury's Motorcycle with the depth of its structured light scan."""
    return motorcycle_stereo()[0]


def motorcycle_stereo() -> tuple[Sample, np.ndarray]:
    """Motorcycle and its right image, (H, W, 3) uint8 RGB."""
    try:
        from skimage.data import stereo_motorcycle
    except ImportError as problem:
        raise BadInput(
            "dataset", "the motorcycle scene comes with scikit-image, which is not installed: "
            "pip install scikit-image") from problem
    left, right, disparity = stereo_motorcycle()
    truth = disparity_to_depth(
        disparity, MOTORCYCLE_FOCAL_PX, MOTORCYCLE_BASELINE_M, MOTORCYCLE_DOFFS_PX)
    height, width = truth.shape
    camera = Camera(
        MOTORCYCLE_FOCAL_PX, MOTORCYCLE_FOCAL_PX, *MOTORCYCLE_CENTRE_PX, width, height)
    return Sample("motorcycle", left, None, truth, camera), right


def _camera(entry: dict[str, Any] | None, name: str, path: Path) -> Camera | None:
    if entry is None:
        return None
    try:
        focal_and_centre = [float(entry[key]) for key in ("fx", "fy", "cx", "cy")]
        return Camera(*focal_and_centre, int(entry["width"]), int(entry["height"]))
    except (KeyError, TypeError, ValueError) as problem:
        raise BadInput(
            "dataset", f"{path}: camera of frame {name} is {entry!r}, expected numbers for fx, "
            "fy, cx, cy, width, height") from problem


def _stamp_ns(stamp_s: Any, name: str, path: Path) -> int:
    try:
        return round(float(stamp_s) * 1e9)
    except (TypeError, ValueError, OverflowError) as problem:
        raise BadInput(
            "dataset", f"{path}: stamp of frame {name} is {stamp_s!r}, expected seconds as a "
            "number") from problem
