"""Hypersim: synthetic indoor scenes with dense depth, in the folders that its authors publish.

M. Roberts et al., "Hypersim: A Photorealistic Synthetic Dataset for Holistic Indoor Scene
Understanding", ICCV 2021, https://github.com/apple/ml-hypersim
"""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np

from sdim_ros.core.types import BadInput, Camera
from sdim_ros.tools.datasets.files import import_h5py, read_image
from sdim_ros.tools.datasets.frames import Frames, Sample

CAMERAS_FILE = "metadata_camera_parameters.csv"
SPLIT_FILE = "metadata_images_split_scene_v1.csv"
# The camera of most scenes: 60 degrees wide, 4:3. Others have a tilted or shifted film plane.
STANDARD_00, STANDARD_22, TOLERANCE = np.tan(np.pi / 6), -1.0, 0.01
LAYOUT = ("ai_XXX_YYY/images/scene_cam_ZZ_final_preview/frame.IIII.tonemap.jpg and "
          "ai_XXX_YYY/images/scene_cam_ZZ_geometry_hdf5/frame.IIII.depth_meters.hdf5")

Matrix = tuple[tuple[float, ...], ...]


class Hypersim(Frames):
    """The frames of all scenes in a folder whose camera has no strong tilt or shift.

    The published distances to the camera's centre become planar depth. The table of cameras,
    ``contrib/mikeroberts3000/metadata_camera_parameters.csv`` of the authors' repository, must
    lie in the folder. Where their ``metadata_images_split_scene_v1.csv`` lies there too, its
    partition ``val`` is held out and ``test`` is left out; else every tenth scene is held out.

    Raises:
        BadInput: no frames or no table, or h5py is not installed; names the remedy.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        _h5py()
        self.cameras = _cameras(self.folder / CAMERAS_FILE)
        partitions = _partitions(self.folder / SPLIT_FILE)
        scenes = [path.name for path in sorted(self.folder.glob("ai_???_???"))]
        self.dropped = [scene for scene in scenes if scene not in self.cameras]
        found = [(scene, *frame) for scene in scenes if scene in self.cameras
                 for frame in _complete_frames(self.folder / scene / "images")]
        self.frames = [f for f in found if partitions.get(f[0]) != "test"]
        if not self.frames:
            raise BadInput(
                "dataset", f"{self.folder} holds no frames of Hypersim ({len(scenes)} scenes, "
                f"{len(self.dropped)} of them with a tilted camera): expected {LAYOUT}")
        self.names = ["/".join(frame) for frame in self.frames]
        kept = sorted({frame[0] for frame in self.frames})
        held = [s for s in kept if partitions.get(s) == "val"] if partitions else kept[9::10]
        self._held_out = np.isin([frame[0] for frame in self.frames], held)

    @property
    def held_out(self) -> np.ndarray:
        """(N,) bool: whole scenes, where there are enough; else the last tenth of the frames."""
        return self._held_out if self._held_out.any() else super().held_out

    def read(self, number: int) -> Sample:
        scene, camera, frame = self.frames[number]
        images = self.folder / scene / "images"
        image = read_image(images / f"scene_{camera}_final_preview" / f"{frame}.tonemap.jpg")
        path = images / f"scene_{camera}_geometry_hdf5" / f"{frame}.depth_meters.hdf5"
        distance = _read_distance(path)
        if distance.shape != image.shape[:2]:
            raise BadInput(
                "size_mismatch", f"{path} is {distance.shape[1]}x{distance.shape[0]}, its image "
                f"is {image.shape[1]}x{image.shape[0]}: expected the same size")
        rays = self.cameras[scene]
        height, width = distance.shape
        return Sample(self.names[number], image, None,
                      distance * _cosines(rays, height, width), _camera(rays, height, width))


def _cameras(path: Path) -> dict[str, Matrix]:
    """Scene -> the (3, 3) matrix M that gives the ray M (u, v, 1) of a place in the image.

    u and v run from -1 to 1, to the right and up; the ray is in axes x right, y up, z backward.
    Scenes with a tilt-shift camera are left out: their depth is not that of a pinhole camera.
    """
    if not path.is_file():
        raise BadInput(
            "dataset", f"{path} does not exist: download it from "
            "https://github.com/apple/ml-hypersim/tree/main/contrib/mikeroberts3000")
    cameras = {}
    for row in _rows(path, "scene_name", "M_cam_from_uv_00", "M_cam_from_uv_22"):
        try:
            rays = tuple(tuple(float(row[f"M_cam_from_uv_{i}{j}"]) for j in range(3))
                         for i in range(3))
        except (KeyError, TypeError, ValueError) as problem:
            raise BadInput(
                "dataset", f"{path}: scene {row['scene_name']} has no matrix M_cam_from_uv of "
                "numbers; download the file again") from problem
        if max(abs(rays[0][0] - STANDARD_00), abs(rays[2][2] - STANDARD_22)) <= TOLERANCE:
            cameras[row["scene_name"]] = rays
    return cameras


def _partitions(path: Path) -> dict[str, str]:
    """Scene -> train, val or test; empty where the table is not there."""
    if not path.is_file():
        return {}
    return {row["scene_name"]: row["split_partition_name"]
            for row in _rows(path, "scene_name", "split_partition_name")
            if row["split_partition_name"]}


def _rows(path: Path, *columns: str) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        missing = set(columns) - set(table.fieldnames or ())
        if missing:
            raise BadInput(
                "dataset", f"{path} has no column {', '.join(sorted(missing))}: download the "
                "file again from https://github.com/apple/ml-hypersim")
        return list(table)


def _complete_frames(images: Path) -> list[tuple[str, str]]:
    """(cam_ZZ, frame.IIII) of all frames that have both files; a few lack their depth."""
    frames = []
    for folder in sorted(images.glob("scene_cam_??_final_preview")):
        camera = folder.name[len("scene_"):-len("_final_preview")]
        depth_folder = images / f"scene_{camera}_geometry_hdf5"
        pictures = {path.name.removesuffix(".tonemap.jpg")
                    for path in folder.glob("frame.????.tonemap.jpg")}
        depths = {path.name.removesuffix(".depth_meters.hdf5")
                  for path in depth_folder.glob("frame.????.depth_meters.hdf5")}
        frames += [(camera, frame) for frame in sorted(pictures & depths)]
    return frames


def _read_distance(path: Path) -> np.ndarray:
    """(H, W) float32 metres from the camera's centre, 0 = unknown (NaN and inf in the file)."""
    try:
        with _h5py().File(path) as file:
            distance = file["dataset"][:].astype(np.float32)
    except (OSError, KeyError, ValueError, TypeError) as problem:
        raise BadInput(
            "depth_file", f"{path} cannot be read ({problem}): expected an HDF5 file with a "
            "dataset named 'dataset'; download the scene again") from problem
    if distance.ndim != 2:
        raise BadInput("depth_file", f"{path} holds {distance.shape}: expected (H, W) distances")
    return np.where(np.isfinite(distance) & (distance > 0), distance, np.float32(0))


@lru_cache(maxsize=64)
def _cosines(rays: Matrix, height: int, width: int) -> np.ndarray:
    """(H, W) float32: planar depth of one metre of distance at each pixel."""
    u = (2 * np.arange(width) + 1) / width - 1
    v = 1 - (2 * np.arange(height) + 1) / height
    uv = np.stack([*np.meshgrid(u, v), np.ones((height, width))], axis=-1)
    directions = uv @ np.array(rays).T
    return (-directions[..., 2] / np.linalg.norm(directions, axis=-1)).astype(np.float32)


def _camera(rays: Matrix, height: int, width: int) -> Camera:
    """The pinhole camera of these rays; what is left of a tilt is neglected."""
    (m00, _, m02), (_, m11, m12), (_, _, m22) = rays
    return Camera(
        fx=-m22 / m00 * width / 2, fy=-m22 / m11 * height / 2,
        cx=(width - 1) / 2 - m02 / m00 * width / 2,
        cy=(height - 1) / 2 + m12 / m11 * height / 2, width=width, height=height)


def _h5py() -> ModuleType:
    return import_h5py("Hypersim's depth files")
