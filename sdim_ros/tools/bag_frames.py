"""Frames of a ROS bag: an image topic, and sparse depth as an image or as points.

Bags are read without ROS; a frame gets what the node with its default settings would get.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sdim_ros.core.config import InputSettings, ProjectionSettings, SyncSettings
from sdim_ros.core.projection import clean_depth, occlusion_filter, pose_matrix, project_points
from sdim_ros.core.types import BadInput, Camera
from sdim_ros.tools.datasets import Frames, Sample

# Encoding -> its channels in the order R, G, B.
COLOURS = {"rgb8": (3, [0, 1, 2]), "bgr8": (3, [2, 1, 0]), "rgba8": (4, [0, 1, 2]),
           "bgra8": (4, [2, 1, 0]), "mono8": (1, [0, 0, 0])}
# Encoding -> number type and units per metre (REP 118).
DEPTHS = {"32FC1": ("f4", 1.0), "16UC1": ("u2", 1000.0), "mono16": ("u2", 1000.0)}
POINT_TYPES = {7: "f4", 8: "f8"}  # of sensor_msgs/PointField


class BagFrames(Frames):
    """Images and the sparse depth that is nearest to them in time, by their stamps.

    The bag is read through once, to learn the stamps; frames are read when they are asked for.

    Args:
        bag: folder of a rosbag2, an .mcap file, or a .bag file of ROS 1.
        topics: ``image`` and ``sparse_depth``, or ``image``, ``camera_info`` and ``points``.
        extrinsics: pose of the points' sensor in the camera's optical frame, x y z qx qy qz qw;
            None = the points are in that frame.

    Raises:
        BadInput: the bag, a topic or a pair is missing; names what the bag has.
    """

    def __init__(self, bag: str | Path, topics: Mapping[str, str],
                 extrinsics: Sequence[float] | None = None) -> None:
        self.bag, self.topics = Path(bag), dict(topics)
        self.measured = "points" if "points" in topics else "sparse_depth"
        self.pose = pose_matrix(extrinsics) if extrinsics else None
        self._reader, self._process = None, 0
        images, depths = self._stamps("image"), self._stamps(self.measured)
        self.pairs = _paired(images, depths, round(SyncSettings().slop_s * 1e9))
        if not self.pairs:
            raise BadInput(
                "bag", f"{self.bag}: no image of {topics['image']} has a message of "
                f"{topics[self.measured]} within {SyncSettings().slop_s} s ({len(images)} and "
                f"{len(depths)} messages); expected stamps of one clock")
        self.names = [f"{stamp:019d}" for (stamp, _), _ in self.pairs]

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file, which cannot move to another process."""
        return {**self.__dict__, "_reader": None}

    def read(self, number: int) -> Sample:
        (stamp, image_at), (_, depth_at) = self.pairs[number]
        image = _colour(self._message("image", image_at), self.topics["image"])
        camera = self._camera(*image.shape[:2]) if "camera_info" in self.topics else None
        message, topic = self._message(self.measured, depth_at), self.topics[self.measured]
        if self.measured == "points":
            sparse = self._projected(_points(message, topic), camera)
        else:
            limits = InputSettings()
            sparse, _ = clean_depth(
                _depth(message, topic), limits.min_depth_m, limits.max_depth_m)
        if sparse.shape != image.shape[:2]:
            raise BadInput(
                "size_mismatch", f"{self.bag}: {topic} is {sparse.shape[1]}x{sparse.shape[0]}, "
                f"the image {image.shape[1]}x{image.shape[0]}: expected depth that is registered "
                "to the image")
        return Sample(self.names[number], image, sparse, None, camera, stamp)

    def _projected(self, points: np.ndarray, camera: Camera) -> np.ndarray:
        how = ProjectionSettings()
        sparse = project_points(points, camera, self.pose, how.min_range_m, how.max_range_m)
        return occlusion_filter(sparse, how.occlusion_window_px, how.occlusion_tolerance_m,
                                how.occlusion_tolerance_ratio)

    def _camera(self, height: int, width: int) -> Camera:
        """Intrinsics of the rectified image: from P where it is filled, else from K."""
        reader = self._open()
        _, _, data = next(reader.messages(self._connections("camera_info")))
        info = reader.deserialize(data, self._connections("camera_info")[0].msgtype)
        k, p = (getattr(info, name, getattr(info, name.upper(), None)) for name in "kp")
        fx, cx, fy, cy = (p[0], p[2], p[5], p[6]) if p[0] > 0 else (k[0], k[2], k[4], k[5])
        if (info.width, info.height) != (width, height):
            raise BadInput(
                "camera_size", f"{self.bag}: {self.topics['camera_info']} is for "
                f"{info.width}x{info.height}, the image is {width}x{height}: expected the "
                "camera_info of this image")
        return Camera(fx, fy, cx, cy, width, height)

    def _stamps(self, role: str) -> list[tuple[int, int]]:
        """(stamp, time in the bag) of every message, nanoseconds, by stamp."""
        reader, found = self._open(), []
        for connection, at, data in reader.messages(self._connections(role)):
            stamp = reader.deserialize(data, connection.msgtype).header.stamp
            nanoseconds = stamp.sec * 1_000_000_000 + stamp.nanosec
            found.append((nanoseconds or at, at))  # a stamp of zero was never set
        return sorted(found)

    def _message(self, role: str, at: int) -> Any:
        reader = self._open()
        connection, _, data = next(
            reader.messages(self._connections(role), start=at, stop=at + 1))
        return reader.deserialize(data, connection.msgtype)

    def _connections(self, role: str) -> list[Any]:
        reader = self._open()
        found = [c for c in reader.connections if c.topic == self.topics[role]]
        if not found or not any(c.msgcount for c in found):
            there = ", ".join(sorted(reader.topics)) or "none"
            raise BadInput(
                "bag", f"{self.bag} has no messages of {self.topics[role]}; its topics: {there}")
        return found

    def _open(self) -> Any:
        """The reader of this process: after a fork, file positions are shared with the parent."""
        if self._reader is None or self._process != os.getpid():
            from rosbags.highlevel import AnyReader, AnyReaderError
            from rosbags.typesys import Stores, get_typestore
            try:
                self._reader = AnyReader(
                    [self.bag], default_typestore=get_typestore(Stores.LATEST))
                self._reader.open()
            except (AnyReaderError, OSError) as problem:
                raise BadInput(
                    "bag", f"{self.bag} cannot be opened as a bag ({problem}): expected the "
                    "folder of a rosbag2, an .mcap or a .bag file") from problem
            self._process = os.getpid()
        return self._reader


def _paired(images: list[tuple[int, int]], depths: list[tuple[int, int]], slop_ns: int
            ) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Each image with the depth nearest in time, where that is within the slop."""
    stamps = np.array([stamp for stamp, _ in depths], np.int64)
    pairs = []
    for image in images:
        after = int(np.searchsorted(stamps, image[0]))
        near = min((i for i in (after - 1, after) if 0 <= i < len(stamps)),
                   key=lambda i: abs(int(stamps[i]) - image[0]), default=None)
        if near is not None and abs(int(stamps[near]) - image[0]) <= slop_ns:
            pairs.append((image, depths[near]))
    return pairs


def _colour(message: Any, topic: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an Image, or of a CompressedImage as JPEG or PNG."""
    if not hasattr(message, "encoding"):
        image = cv2.imdecode(np.asarray(message.data), cv2.IMREAD_COLOR)
        if image is None:
            raise BadInput("encoding", f"{topic}: a compressed image of format "
                           f"'{message.format}' cannot be decoded: expected JPEG or PNG")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if message.encoding not in COLOURS:
        raise BadInput("encoding", f"{topic}: image encoding '{message.encoding}': expected one "
                       f"of {', '.join(COLOURS)}; convert the topic with image_proc")
    channels, order = COLOURS[message.encoding]
    return np.ascontiguousarray(_pixels(message, topic, "u1", channels)[..., order])


def _depth(message: Any, topic: str) -> np.ndarray:
    """(H, W) float32 metres, invalid values as the sensor wrote them."""
    if getattr(message, "encoding", None) not in DEPTHS:
        seen = getattr(message, "encoding", "compressed")
        raise BadInput("encoding", f"{topic}: depth encoding '{seen}': expected 32FC1 in metres "
                       "or 16UC1 in millimetres")
    code, units_per_m = DEPTHS[message.encoding]
    return (_pixels(message, topic, code, 1)[..., 0] / np.float64(units_per_m)).astype(np.float32)


def _pixels(message: Any, topic: str, code: str, channels: int) -> np.ndarray:
    """(H, W, C) view of the message, rows taken ``step`` bytes apart."""
    stored = np.dtype(code).newbyteorder(">" if message.is_bigendian else "<")
    row = message.width * channels * stored.itemsize
    if message.step < row or len(message.data) < (message.height - 1) * message.step + row:
        raise BadInput("truncated", f"{topic}: {len(message.data)} bytes for "
                       f"{message.width}x{message.height} in rows of {message.step}: expected "
                       f"rows of {row} bytes or more; record the bag again")
    return np.ndarray((message.height, message.width, channels), stored,
                      np.ascontiguousarray(message.data),
                      strides=(message.step, channels * stored.itemsize, stored.itemsize))


def _points(message: Any, topic: str) -> np.ndarray:
    """x, y, z of a PointCloud2 as (N, 3) float64."""
    fields = {field.name: field for field in getattr(message, "fields", ())}
    if not all(name in fields and fields[name].datatype in POINT_TYPES for name in "xyz"):
        raise BadInput("fields", f"{topic}: fields {sorted(fields)}: expected a PointCloud2 with "
                       "x, y and z as FLOAT32 or FLOAT64")
    order = ">" if message.is_bigendian else "<"
    layout = np.dtype({
        "names": list("xyz"), "offsets": [fields[name].offset for name in "xyz"],
        "formats": [order + POINT_TYPES[fields[name].datatype] for name in "xyz"],
        "itemsize": message.point_step})
    if message.row_step < message.width * message.point_step or len(message.data) < (
            message.height * message.row_step):
        raise BadInput("truncated", f"{topic}: {len(message.data)} bytes for "
                       f"{message.width}x{message.height} points: expected rows of "
                       f"{message.width * message.point_step} bytes; record the bag again")
    cloud = np.ndarray((message.height, message.width), layout,
                       np.ascontiguousarray(message.data),
                       strides=(message.row_step, message.point_step)).ravel()
    return np.stack([cloud[name] for name in "xyz"], axis=1).astype(np.float64)
