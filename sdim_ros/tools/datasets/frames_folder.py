"""The frames folder: the format of this package's own tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sdim_ros.core.types import BadInput, Camera
from sdim_ros.tools.datasets.files import read_image, read_registered_depth
from sdim_ros.tools.datasets.frames import Frames, Sample

IMAGE_ENDINGS = (".jpg", ".png", ".jpeg")


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
            stamp_ns=_stamp_ns(entry, name, self.folder / "frames.json"),
            has_sensor=(self.folder / "sparse").is_dir(),
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
        return read_registered_depth(path, self.depth_scale, size)


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


def _stamp_ns(entry: dict[str, Any], name: str, path: Path) -> int:
    """Of ``stamp_ns``, which is exact, else of ``stamp`` in seconds; 0 = unknown."""
    stamp_s, exact = entry.get("stamp", 0.0), entry.get("stamp_ns")
    if exact is not None and (not isinstance(exact, int) or isinstance(exact, bool)):
        raise BadInput("dataset", f"{path}: stamp_ns of frame {name} is {exact!r}, expected "
                       "nanoseconds as a whole number")
    try:
        return round(float(stamp_s) * 1e9) if exact is None else exact
    except (TypeError, ValueError, OverflowError) as problem:
        raise BadInput(
            "dataset", f"{path}: stamp of frame {name} is {stamp_s!r}, expected seconds as a "
            "number") from problem
