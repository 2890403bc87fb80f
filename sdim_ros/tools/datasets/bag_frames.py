"""Frames of a ROS bag: an image topic, and sparse depth as an image or as points.

Bags are read without ROS. Depth images must be registered to the image, and points come with the
pose of their sensor: TF in the bag is not read (``sdim replay`` reads it).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdim_ros.core.calibration import read_camera
from sdim_ros.core.config import InputSettings, ProjectionSettings, SyncSettings
from sdim_ros.core.images import read_colour_image, read_depth_image
from sdim_ros.core.projection import clean_depth, lidar_to_sparse, pose_matrix
from sdim_ros.core.sensor_data import read_points, stamp_ns
from sdim_ros.core.types import BadInput, Camera
from sdim_ros.tools.bags.reading import Bag
from sdim_ros.tools.datasets.frames import Frames, Sample


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
        self._reader: Bag | None = None
        self._process = 0
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
        limits = InputSettings()
        image = self._of("image", read_colour_image, self._message("image", image_at),
                         limits.max_pixels)
        camera = self._camera(*image.shape[:2]) if "camera_info" in self.topics else None
        message, topic = self._message(self.measured, depth_at), self.topics[self.measured]
        if self.measured == "points":
            points = self._of("points", read_points, message)
            sparse = lidar_to_sparse(points, camera, self.pose, ProjectionSettings())
        else:
            depth = self._of("sparse_depth", read_depth_image, message, limits.max_pixels)
            sparse, _ = clean_depth(depth, limits.min_depth_m, limits.max_depth_m)
        if sparse.shape != image.shape[:2]:
            raise BadInput(
                "size_mismatch", f"{self.bag}: {topic} is {sparse.shape[1]}x{sparse.shape[0]}, "
                f"the image {image.shape[1]}x{image.shape[0]}: expected depth that is registered "
                "to the image")
        return Sample(self.names[number], image, sparse, None, camera, stamp)

    def _camera(self, height: int, width: int) -> Camera:
        """Intrinsics of the rectified image: from P where it is filled, else from K."""
        self._check("camera_info")
        info = self._open().first(self.topics["camera_info"])
        if info is None:
            raise BadInput("bag", f"{self.bag}: no message of {self.topics['camera_info']} can be "
                           "read: expected sensor_msgs/CameraInfo")
        return self._of("camera_info", read_camera, info, width, height)

    def _of(self, role: str, read: Callable[..., Any], *message: Any) -> Any:
        """What ``read`` makes of a message; its complaints name bag and topic."""
        try:
            return read(*message)
        except BadInput as problem:
            raise BadInput(problem.reason,
                           f"{self.bag}: {self.topics[role]}: {problem}") from problem

    def _stamps(self, role: str) -> list[tuple[int, int]]:
        """(stamp, time in the bag) of every message, nanoseconds, by stamp."""
        self._check(role)
        return sorted((stamp_ns(message.header) or at, at)  # a stamp of zero was never set
                      for _, at, message in self._open().messages([self.topics[role]]))

    def _message(self, role: str, at: int) -> Any:
        topic = self.topics[role]
        for _, _, message in self._open().messages([topic], at, at + 1):
            return message
        raise BadInput("bag", f"{self.bag}: the message of {topic} at {at} ns cannot be read any "
                       "more: expected the bag as it was when it was opened")

    def _check(self, role: str) -> None:
        bag = self._open()
        if self.topics[role] not in bag.topics:
            raise BadInput("bag", f"{self.bag} has no messages of {self.topics[role]}; its "
                           f"topics: {bag.describe()}")

    def _open(self) -> Bag:
        """The bag of this process: after a fork, file positions are shared with the parent."""
        if self._reader is None or self._process != os.getpid():
            self._reader, self._process = Bag(self.bag), os.getpid()
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
