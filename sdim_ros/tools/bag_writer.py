"""Writes bags of ROS 2 that ros2 bag, Foxglove and this package read, without ROS."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from sdim_ros.core.sensor_data import FLOAT32, encode_depth, pack_points
from sdim_ros.core.types import BadInput, Camera

STORAGES = ("mcap", "sqlite3")
COMPRESSIONS = ("zstd",)
VERSION = 9  # of the metadata: Jazzy and later write it
S_NS = 1_000_000_000
LAST_STAMP_NS = 2**31 * S_NS  # seconds of a ROS time have 32 bits and a sign
BIG_ENDIAN = sys.byteorder == "big"


class BagWriter:
    """A new bag, to be used in a ``with`` block; times are those of the stamps.

    The bag appears at its path when the block ends. When it ends by an exception, Ctrl-C
    included, nothing is left; only a killed process leaves a folder, PATH.unfinished-XXXX.

    Args:
        path: folder of the new bag, which must not exist.
        storage: ``mcap`` or ``sqlite3``.
        compression: None or ``zstd``: of the chunks of an MCAP file, of each message in sqlite3.

    Raises:
        BadInput: ``bag`` when the path exists or cannot be written, by any method; else
            ``arguments``, ``image_shape``, ``encoding`` or ``stamp``.
    """

    def __init__(self, path: str | Path, storage: str = "mcap", compression: str | None = None
                 ) -> None:
        self.path, self.storage, self.compression = Path(path), storage, compression
        if storage not in STORAGES:
            raise BadInput("arguments", f"bag storage '{storage}': expected one of "
                           f"{', '.join(STORAGES)}")
        if compression is not None and compression not in COMPRESSIONS:
            raise BadInput("arguments", f"bag compression '{compression}': expected "
                           f"{', '.join(COMPRESSIONS)} or none")
        if os.path.lexists(self.path):
            raise BadInput("bag", f"{self.path} exists: a bag is never written over another; "
                           "choose a new path or remove it")
        self._rosbag2, typesys = _rosbags()
        self._store = typesys.get_typestore(typesys.Stores.ROS2_KILTED)
        self._types = self._store.types
        self._writer: Any = None
        self._connections: dict[str, Any] = {}
        self.counts: dict[str, int] = {}  # messages by topic

    def __enter__(self) -> BagWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(
                prefix=f"{self.path.name}.unfinished-", dir=self.path.parent))
        except OSError as problem:
            raise self._unwritable(problem) from problem
        self._unfinished = self._folder / self.path.name
        try:
            self._writer = self._opened()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            self._writer.__exit__(kind, problem, trace)
            if kind is None:
                os.rename(self._unfinished, self.path)
        except (OSError, sqlite3.Error) as failure:
            raise self._unwritable(failure) from failure
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def image(self, topic: str, stamp_ns: int, frame_id: str, rgb: np.ndarray) -> None:
        """Add an rgb8 image of (H, W, 3) uint8 RGB."""
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise BadInput("image_shape", f"{topic}: image of shape {rgb.shape} and type "
                           f"{rgb.dtype}: expected (H, W, 3) uint8 RGB")
        self._image(topic, stamp_ns, frame_id, rgb, "rgb8")

    def depth(self, topic: str, stamp_ns: int, frame_id: str, depth: np.ndarray,
              encoding: str = "32FC1") -> None:
        """Add a depth image of (H, W) metres; encodings as of `encode_depth`."""
        if depth.ndim != 2:
            raise BadInput("image_shape", f"{topic}: depth of shape {depth.shape}: expected "
                           "(H, W) metres")
        self._image(topic, stamp_ns, frame_id, encode_depth(depth, encoding), encoding)

    def camera_info(self, topic: str, stamp_ns: int, frame_id: str, camera: Camera) -> None:
        """Add the camera info of a rectified image: no distortion, intrinsics in K and in P."""
        matrix = camera.matrix()
        self._add(topic, "sensor_msgs/msg/CameraInfo", stamp_ns, dict(
            header=self._header(stamp_ns, frame_id), height=camera.height, width=camera.width,
            distortion_model="plumb_bob", d=np.zeros(5), k=matrix.ravel(), r=np.eye(3).ravel(),
            p=np.hstack([matrix, np.zeros((3, 1))]).ravel(), binning_x=0, binning_y=0,
            roi=self._types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)))

    def cloud(self, topic: str, stamp_ns: int, frame_id: str, points: np.ndarray,
              colours: np.ndarray | None = None) -> None:
        """Add a cloud.

        Args:
            points: (N, 3) metres, all finite; or organised (H, W, 3), NaN = unknown.
            colours: uint8 RGB of the same shape, or None.
        """
        if points.ndim not in (2, 3) or points.shape[-1] != 3 or (
                colours is not None and colours.shape != points.shape):
            raise BadInput("image_shape", f"{topic}: points of shape {points.shape}, colours of "
                           f"{np.shape(colours)}: expected (N, 3) or (H, W, 3) of both")
        packed, names = pack_points(points, colours)
        organised = points.ndim == 3
        height, width = points.shape[:2] if organised else (1, len(points))
        step = 4 * len(names)
        field = self._types["sensor_msgs/msg/PointField"]
        self._add(topic, "sensor_msgs/msg/PointCloud2", stamp_ns, dict(
            header=self._header(stamp_ns, frame_id), height=height, width=width,
            fields=[field(name, 4 * i, FLOAT32, 1) for i, name in enumerate(names)],
            is_bigendian=BIG_ENDIAN, point_step=step, row_step=step * width,
            data=_bytes(packed), is_dense=not organised))

    def raw(self, topic: str, msgtype: str, stamp_ns: int, cdr: bytes | memoryview) -> None:
        """Add a message that is serialised already, as it is.

        Args:
            msgtype: one of ROS's own, as ``sensor_msgs/msg/Image``.
            stamp_ns: time of the message in the bag, nanoseconds.
        """
        _check(topic, stamp_ns)
        if msgtype not in self._types:
            raise BadInput("bag", f"{topic}: messages of type {msgtype} are not known: expected "
                           "one of ROS's own types, as sensor_msgs/msg/Image")
        known = self._connections.get(topic)
        if known is not None and known.msgtype != msgtype:
            raise BadInput("bag", f"{topic} holds {known.msgtype}: expected no {msgtype} on the "
                           "same topic")
        try:
            if known is None:
                self._connections[topic] = self._writer.add_connection(
                    topic, msgtype, typestore=self._store)
            self._writer.write(self._connections[topic], stamp_ns, cdr)
        except (OSError, sqlite3.Error) as problem:
            raise self._unwritable(problem) from problem
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def _image(self, topic: str, stamp_ns: int, frame_id: str, pixels: np.ndarray,
               encoding: str) -> None:
        pixels = np.ascontiguousarray(pixels)
        self._add(topic, "sensor_msgs/msg/Image", stamp_ns, dict(
            header=self._header(stamp_ns, frame_id), height=pixels.shape[0],
            width=pixels.shape[1], encoding=encoding, is_bigendian=int(BIG_ENDIAN),
            step=pixels[:1].nbytes, data=_bytes(pixels)))

    def _add(self, topic: str, msgtype: str, stamp_ns: int, fields: dict[str, Any]) -> None:
        _check(topic, stamp_ns)
        message = self._types[msgtype](**fields)
        self.raw(topic, msgtype, stamp_ns, self._store.serialize_cdr(message, msgtype))

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        seconds, nanoseconds = divmod(int(stamp_ns), S_NS)
        return self._types["std_msgs/msg/Header"](
            self._types["builtin_interfaces/msg/Time"](seconds, nanoseconds), frame_id)

    def _opened(self) -> Any:
        """A writer of rosbags."""
        plugin = self._rosbag2.StoragePlugin[self.storage.upper()]
        writer = self._rosbag2.Writer(self._unfinished, version=VERSION, storage_plugin=plugin)
        if self.compression is not None:
            modes = self._rosbag2.CompressionMode
            writer.set_compression(
                modes.STORAGE if self.storage == "mcap" else modes.MESSAGE,
                self._rosbag2.CompressionFormat[self.compression.upper()])
        try:
            writer.open()
        except (OSError, sqlite3.Error) as problem:
            raise self._unwritable(problem) from problem
        return writer

    def _unwritable(self, problem: Exception) -> BadInput:
        return BadInput("bag", f"{self.path} cannot be written: {problem}; nothing of it is left")


def _check(topic: str, stamp_ns: int) -> None:
    if not topic.startswith("/"):
        raise BadInput("arguments", f"topic '{topic}': expected its full name, as /camera/image")
    if not 0 <= stamp_ns < LAST_STAMP_NS:
        raise BadInput("stamp", f"{topic}: time of {stamp_ns} ns: expected at least 0 and before "
                       "the year 2038")


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1).view(np.uint8)


def _rosbags() -> tuple[Any, Any]:
    """Imported when a bag is written; under apt's ROS it may not be there."""
    try:
        from rosbags import rosbag2, typesys
    except ImportError as problem:
        raise BadInput("bag", f"writing a bag needs rosbags ({problem}): pip install rosbags"
                       ) from problem
    return rosbag2, typesys
