"""The messages of one moment as a frame: decoded, rectified, projected, merged.

A message is any object with the fields of its ROS type: it may come from a node or from a bag.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sdim_ros.core.calibration import (
    Rectifier, is_distorted, is_rescaled, numbers, read_camera)
from sdim_ros.core.config import Settings
from sdim_ros.core.images import read_colour_image, read_depth_image
from sdim_ros.core.projection import (
    lidar_to_sparse, nearest_of, pose_matrix, reproject_depth, scatter_resize)
from sdim_ros.core.sensor_data import read_disparity, read_points, stamp_ns
from sdim_ros.core.types import BadInput, Camera, Frame

LEAST_INSIDE = 0.01  # share of a cloud's points; fewer in the image look like a wrong pose


class Poses(Protocol):
    """Where sensors sit in the camera's frame."""

    def pose(self, image: Any, sensor: Any, settings: Settings) -> np.ndarray | None:
        """The (4, 4) pose of the sensor in the image's frame; None = they are the same.

        Args:
            image, sensor: headers of the two messages.

        Raises:
            BadInput: ``no_transform``.
        """


class BadMessage(BadInput):
    """A BadInput that knows the topic it came from."""

    def __init__(self, topic: str, problem: BadInput) -> None:
        super().__init__(problem.reason, str(problem))
        self.topic = topic


@dataclass(frozen=True)
class Job:
    """All that one frame needs, settings included: they cannot change half way.

    Attributes:
        image: as it arrived, raw or compressed.
        sparse: messages by source, one or more of ``config.SOURCES``; none = the image alone.
        info: of the image.
        sparse_info: of the sparse depth image, where it has one of its own.
        settings: in force when the set was complete.
        paired_at_s: then, by ``time.perf_counter``.
    """

    image: Any
    sparse: Mapping[str, Any]
    info: Any
    sparse_info: Any | None
    settings: Settings
    paired_at_s: float


@dataclass(frozen=True)
class Reading:
    """A frame, and what goes out with its results.

    Attributes:
        header: of the image.
        info: the driver's, where it still fits the frame; None = write one for `frame.camera`.
    """

    frame: Frame
    header: Any
    info: Any | None


class Stages:
    """A stopwatch: milliseconds from one stage's end to the next."""

    def __init__(self, start_s: float) -> None:
        self.ms: dict[str, float] = {}
        self._last_s = start_s

    def ended(self, stage: str) -> None:
        """The stage took since the end of the one before; one that comes again adds up."""
        now_s = time.perf_counter()
        self.ms[stage] = self.ms.get(stage, 0.0) + (now_s - self._last_s) * 1e3
        self._last_s = now_s


@contextmanager
def blaming(topic: str) -> Iterator[None]:
    """What is refused in here names the topic."""
    try:
        yield
    except BadInput as problem:
        raise BadMessage(topic, problem) from problem


class FrameReader:
    """Reads jobs. One thread uses it at a time.

    Args:
        topics: resolved name by ``image``, ``camera_info`` and source, for reports.
        poses: where sensors sit.
        warn: takes topic, reason and text of what looks wrong but can be used.
    """

    def __init__(self, topics: Mapping[str, str], poses: Poses,
                 warn: Callable[[str, str, str], None]) -> None:
        self._topics, self._poses, self._warn = topics, poses, warn
        self._rectifiers: dict[str, tuple[Any, Rectifier]] = {}
        self._told: set[tuple[str, str]] = set()

    def read(self, job: Job, stages: Stages) -> Reading:
        """The frame of a job.

        Raises:
            BadMessage: a message cannot be used.
        """
        limit, header = job.settings.input.max_pixels, job.image.header
        with blaming(self._topics["image"]):
            image = read_colour_image(job.image, limit)
        stages.ended("decode")
        height, width = image.shape[:2]
        self._doubt_frames(job)
        with blaming(self._topics["camera_info"]):
            rectifier = self._rectifier_of(job, width, height)
            camera = rectifier.camera if rectifier else read_camera(job.info, width, height)
            rescaled = is_rescaled(job.info, width, height)
            if rescaled:
                self._warn_once(
                    "camera_info", "rescaled",
                    f"it is of {job.info.width}x{job.info.height}, the image {width}x{height}: "
                    "taken as scaled as a whole; where it is cropped, have the driver fill roi "
                    "and binning")
        if rectifier:
            image = rectifier.image(image)
            stages.ended("rectify")
        maps = []
        for source, message in job.sparse.items():
            with blaming(self._topics[source]):
                depth = getattr(self, f"_{source}")(message, job, camera, rectifier, stages)
                _check_registered(depth, camera)
                maps.append(depth)
        sparse = nearest_of(maps) if maps else np.zeros((height, width), np.float32)
        frame = Frame(image=image, sparse=sparse, camera=camera, stamp_ns=stamp_ns(header))
        stages.ended("project")
        return Reading(frame, header, None if rectifier or rescaled else job.info)

    def _points(self, message: Any, job: Job, camera: Camera, _: Rectifier | None,
                stages: Stages) -> np.ndarray:
        points = read_points(message)
        stages.ended("decode")
        settings = job.settings.projection
        if settings.extrinsics:
            pose = pose_matrix(settings.extrinsics)
        else:
            if not message.header.frame_id:
                self._warn_once(
                    "points", "no_frame", "cloud without header.frame_id: expected the frame of "
                    "the LiDAR, to find its pose in TF; have the driver fill it, or set "
                    "projection.extrinsics")
            pose = self._pose(message, job)
            stages.ended("transform")
        sparse = lidar_to_sparse(points, camera, pose, settings)
        inside = np.count_nonzero(sparse)
        if inside < LEAST_INSIDE * len(points):
            self._warn(
                self._topics["points"], "few_inside", f"only {inside} of {len(points)} points "
                "are seen in the image: expected far more; check projection.extrinsics or TF "
                "(optical frame: z forward) and projection.min_range_m")
        return sparse

    def _sparse_depth(self, message: Any, job: Job, camera: Camera,
                      rectifier: Rectifier | None, stages: Stages) -> np.ndarray:
        depth = read_depth_image(message, job.settings.input.max_pixels)
        stages.ended("decode")
        if job.sparse_info is None:
            if message.header.frame_id != job.image.header.frame_id:
                self._warn(
                    self._topics["sparse_depth"], "frame", f"depth in frame "
                    f"'{message.header.frame_id}' is taken as registered to the image in "
                    f"'{job.image.header.frame_id}': expected the same frame, or the depth's own "
                    f"intrinsics on {self._topics['sparse_camera_info']}")
            fits = rectifier and depth.shape == (camera.height, camera.width)
            return rectifier.sparse(depth) if fits else depth
        height, width = depth.shape
        with blaming(self._topics["sparse_camera_info"]):
            if rectifier:
                bent = self._rectifier_for("sparse", job.sparse_info, width, height)
                own, depth = bent.camera, bent.sparse(depth)
            else:
                own = read_camera(job.sparse_info, width, height)
        pose = self._pose(message, job)
        if own == camera and pose is None:
            return depth
        return reproject_depth(depth, own, camera, pose)

    def _disparity(self, message: Any, job: Job, camera: Camera, _: Rectifier | None,
                   stages: Stages) -> np.ndarray:
        if message.header.frame_id != job.image.header.frame_id:
            raise BadInput(
                "frame", f"disparity in frame '{message.header.frame_id}' for an image in "
                f"'{job.image.header.frame_id}': expected the rectified image of the same (left) "
                "camera; for another camera publish the stereo depth as points")
        depth = read_disparity(message, job.settings.input.max_pixels)
        stages.ended("decode")
        height, width = depth.shape
        # A matcher may work on smaller images of the same view; their size is rounded.
        if abs(width * camera.height - height * camera.width) >= max(camera.height, camera.width):
            raise BadInput(
                "size_mismatch", f"disparity of {width}x{height} for an image of "
                f"{camera.width}x{camera.height}: expected the same ratio of width to height, so "
                "the same view; have the matcher take the whole image")
        size = (camera.height, camera.width)
        return depth if depth.shape == size else scatter_resize(depth, size)

    def _pose(self, message: Any, job: Job) -> np.ndarray | None:
        """Where a sensor sits in the image's frame; None = they are the same."""
        pose = self._poses.pose(job.image.header, message.header, job.settings)
        frame_id = job.image.header.frame_id
        if pose is not None and "optical" not in frame_id:
            self._warn_once(
                "image", "no_optical_frame", f"TF places depth in the image's frame '{frame_id}', "
                "whose name does not say 'optical': expected a frame with x right, y down and z "
                "forward; where z points up, have the driver name the optical frame")
        return pose

    def _doubt_frames(self, job: Job) -> None:
        """Name frames that are missing or do not fit together."""
        frame_id, of_info = job.image.header.frame_id, job.info.header.frame_id
        if not frame_id:
            self._warn_once(
                "image", "no_frame", "image without header.frame_id: expected the camera's "
                "optical frame, since depth and cloud go out under it; have the driver fill it")
        if of_info and of_info != frame_id:
            self._warn_once(
                "camera_info", "frame", f"it is of frame '{of_info}', the image of '{frame_id}': "
                "expected the intrinsics of the camera that took the image; check the topic")

    def _rectifier_of(self, job: Job, width: int, height: int) -> Rectifier | None:
        """What makes the image that of a pinhole camera, where the settings want it."""
        if job.settings.input.rectify:
            return self._rectifier_for("image", job.info, width, height)
        if is_distorted(job.info):
            self._warn_once(
                "camera_info", "distortion", "the lens has distortion: nothing is to be done "
                "where the image is rectified already, else set input.rectify")
        return None

    def _warn_once(self, role: str, reason: str, text: str) -> None:
        """Of what may be right, and then is right for every frame."""
        if (role, reason) not in self._told:
            self._told.add((role, reason))
            self._warn(self._topics[role], reason, text)

    def _rectifier_for(self, camera: str, info: Any, width: int, height: int) -> Rectifier:
        """The rectifier of one of the cameras, made anew only when its info changes."""
        roi = info.roi
        key = (width, height, info.width, info.height, info.distortion_model,
               *(tuple(numbers(info, name)) for name in "dkrp"), info.binning_x, info.binning_y,
               roi.x_offset, roi.y_offset, roi.width, roi.height)
        if self._rectifiers.get(camera, (None,))[0] != key:
            self._rectifiers[camera] = (key, Rectifier(info, width, height))
        return self._rectifiers[camera][1]


def _check_registered(depth: np.ndarray, camera: Camera) -> None:
    if depth.shape != (camera.height, camera.width):
        raise BadInput(
            "size_mismatch", f"depth of {depth.shape[1]}x{depth.shape[0]} for an image of "
            f"{camera.width}x{camera.height}: expected the same height and width; register the "
            "depth to the image, or publish its own camera_info beside it")
