"""Writes frames folders."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from sdim_ros.core.types import BadInput
from sdim_ros.core.whole_files import write_text
from sdim_ros.tools.datasets.files import write_depth_png, write_png
from sdim_ros.tools.datasets.frames import Sample, file_name

MOST = np.iinfo(np.uint16).max
# Millimetres, KITTI's unit, centimetres: up to 65, 256 and 655 m.
SCALES = (1000.0, 256.0, 100.0)
INDEX_PERIOD_S = 2.0


def exact_scale(sample: Sample) -> float:
    """The finest usual scale: one that keeps every depth of a frame as it is, or that fits it."""
    depths = [depth[depth > 0].astype(np.float64) for depth in maps(sample).values()]
    for scale in SCALES:
        if all(_is_exact(depth * scale) for depth in depths):
            return scale
    return fitting_scale(sample)


def fitting_scale(sample: Sample) -> float:
    """The finest usual scale at which the farthest depth of a frame fits into 16 bits."""
    farthest = max((float(depth.max(initial=0)) for depth in maps(sample).values()), default=0.0)
    return next((scale for scale in SCALES if round(farthest * scale) <= MOST), SCALES[-1])


def maps(sample: Sample) -> dict[str, np.ndarray]:
    """The depth maps that a frame has, by their folder."""
    both = {"sparse": sample.sparse, "gt": sample.truth}
    return {kind: depth for kind, depth in both.items() if depth is not None}


class FramesWriter:
    """A new frames folder, to be used in a ``with`` block.

    However the block ends, frames.json lists the frames that are complete. Images are PNG, so
    that they come back as they are.

    Args:
        folder: does not exist, or is empty.

    Attributes:
        lost: pixels that are too far for 16 bits, by the frame's name; they are unknown there.

    Raises:
        BadInput: ``out`` when the folder holds something or cannot be written, by any method.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.lost: dict[str, int] = {}
        self.scale = SCALES[0]
        self._entries: dict[str, dict[str, Any]] = {}
        self._written_s = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(self.folder.iterdir()):
                raise BadInput("out", f"{self.folder} is not empty: frames are never written over "
                               "others; choose a new folder or empty it")
        except OSError as problem:
            raise self._unwritable(problem) from problem

    def __enter__(self) -> FramesWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._entries:
            self._write_index()

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, scale: float) -> None:
        """Write what follows with this scale; what was written before is not listed any more."""
        self.scale, self.lost, self._entries = scale, {}, {}
        (self.folder / "frames.json").unlink(missing_ok=True)

    def add(self, sample: Sample) -> None:
        """Write one frame; folders in its name become a part of the file's name."""
        name = file_name(sample.name)
        if name in self._entries:
            raise BadInput("name", f"two frames are named {name}: expected different names")
        try:
            for kind in ("rgb", *maps(sample)):
                (self.folder / kind).mkdir(exist_ok=True)
        except OSError as problem:
            raise self._unwritable(problem) from problem
        write_png(self.folder / "rgb" / f"{name}.png", sample.image)
        lost = sum(write_depth_png(self.folder / kind / f"{name}.png", depth, self.scale)
                   for kind, depth in maps(sample).items())
        if lost:
            self.lost[name] = lost
        self._entries[name] = _entry(name, sample)
        if time.monotonic() - self._written_s > INDEX_PERIOD_S:
            self._write_index()

    def _write_index(self) -> None:
        index = {"depth_scale": self.scale, "frames": list(self._entries.values())}
        path = self.folder / "frames.json"
        try:
            write_text(path, json.dumps(index, indent=1) + "\n")
        except OSError as problem:
            raise self._unwritable(problem) from problem
        self._written_s = time.monotonic()

    def _unwritable(self, problem: OSError) -> BadInput:
        return BadInput("out", f"{self.folder} cannot be written: {problem}")


def _entry(name: str, sample: Sample) -> dict[str, Any]:
    """One frame of frames.json."""
    entry: dict[str, Any] = {"name": name}
    if sample.stamp_ns:
        # Seconds of today as a float are exact to a quarter of a microsecond only.
        entry |= {"stamp": sample.stamp_ns / 1e9, "stamp_ns": sample.stamp_ns}
    if sample.camera is not None:
        entry["camera"] = asdict(sample.camera)
    return entry


def _is_exact(values: np.ndarray) -> bool:
    """Whether these are whole numbers of 16 bits, but for the rounding of a float32."""
    return bool((values <= MOST + 0.5).all() and (np.abs(values - np.rint(values)) < 0.01).all())
