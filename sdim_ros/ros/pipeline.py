"""One pair of messages on its way through the core and out again. Runs on the worker thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from sdim_ros.core.config import ProjectionSettings, Settings
from sdim_ros.core.projection import (
    depth_to_points, occlusion_filter, pose_matrix, project_points)
from sdim_ros.core.sensor_data import read_camera, read_depth, read_points
from sdim_ros.core.types import BadInput, Camera, DenseDepth, Frame, Stats
from sdim_ros.core.worker import Ticket
from sdim_ros.ros.messages import (
    camera_info_message, cloud_message, depth_message, read_colour, stamp_ns)


class Completer(Protocol):
    """What the node needs of the core's completer; tests put a fake in its place."""

    description: str

    def reconfigure(self, settings: Settings) -> None:
        """Use other settings from the next frame on."""

    def complete(self, frame: Frame, *, beat: Callable[[], None] | None = None) -> DenseDepth:
        """Complete one frame; ``beat``, called again and again, may raise to end it early."""


class BadMessage(BadInput):
    """A BadInput that knows the topic it came from."""

    def __init__(self, topic: str, problem: BadInput) -> None:
        super().__init__(problem.reason, str(problem))
        self.topic = topic


@dataclass(frozen=True)
class Topics:
    """Resolved names of the inputs, for reports."""

    image: str
    camera_info: str
    sparse_depth: str
    points: str

    def of(self, sparse: Image | PointCloud2) -> str:
        """Where this kind of sparse depth arrives."""
        return self.sparse_depth if isinstance(sparse, Image) else self.points


@dataclass(frozen=True)
class Job:
    """All that one frame needs, settings included: they cannot change half way."""

    image: Image
    sparse: Image | PointCloud2
    info: CameraInfo
    settings: Settings
    paired_at_s: float


@dataclass(frozen=True)
class Outputs:
    """The publishers of one result."""

    depth: Publisher
    camera_info: Publisher
    confidence: Publisher
    points: Publisher

    def __iter__(self) -> Iterator[Publisher]:
        return iter((self.depth, self.camera_info, self.confidence, self.points))


class Pipeline:
    """Job in, published messages out.

    Args:
        completer: used by the worker's threads alone. A thread that was abandoned in mid-frame
            leaves it at its next beat; until then a new thread may work beside it.
        outputs: where results go; nothing is built for an output without a listener.
        may_publish: asked right before publishing, beside the worker's ticket.
        on_result: takes the statistics and the milliseconds by stage of every published frame.
    """

    def __init__(
        self, completer: Completer, topics: Topics, outputs: Outputs,
        may_publish: Callable[[], bool],
        on_result: Callable[[Stats, dict[str, float]], None],
    ) -> None:
        self._completer, self._topics, self._outputs = completer, topics, outputs
        self._settings: Settings | None = None  # those that the completer was given last
        self._may_publish, self._on_result = may_publish, on_result

    def run(self, job: Job, ticket: Ticket) -> None:
        """Complete one pair and publish the result under the header of its image.

        Raises:
            BadMessage: an input cannot be used.
            ModelFailed: what the model gave cannot be used.
            Abandoned: nobody waits for the result any more.
        """
        stages = _Stages(job.paired_at_s)
        stages.ended("pair")
        frame = self._read(job, stages)
        if self._settings is not job.settings:
            self._completer.reconfigure(job.settings)
            self._settings = job.settings
        with _blaming(self._topics.of(job.sparse)):
            dense = self._completer.complete(frame, beat=ticket.beat)
        stages.ended("complete")
        messages = self._pack(job, frame, dense)
        stages.ended("pack")
        if ticket.is_current and self._may_publish():
            for publisher, message in messages:
                publisher.publish(message)
            stages.ended("publish")
            self._on_result(dense.stats, {**dense.stats.ms, **stages.ms})

    def _read(self, job: Job, stages: _Stages) -> Frame:
        limits = job.settings.input
        with _blaming(self._topics.image):
            image = read_colour(job.image, limits.max_pixels)
        with _blaming(self._topics.camera_info):
            camera = read_camera(job.info, job.image.width, job.image.height)
        with _blaming(self._topics.of(job.sparse)):
            if isinstance(job.sparse, Image):
                sparse = read_depth(job.sparse, limits.max_pixels)
                stages.ended("decode")
            else:
                points = read_points(job.sparse)
                stages.ended("decode")
                sparse = project(points, camera, job.settings.projection)
                stages.ended("project")
            return Frame(image=image, sparse=sparse, camera=camera,
                         stamp_ns=stamp_ns(job.image.header))

    def _pack(self, job: Job, frame: Frame, dense: DenseDepth) -> list[tuple[Publisher, Any]]:
        header, settings, out = job.image.header, job.settings, self._outputs
        depth = dense.confident(settings.output.min_confidence)
        builders = {
            out.camera_info: lambda: camera_info_message(job.info, header),
            out.depth: lambda: depth_message(depth, header, settings.output.encoding),
            out.confidence: lambda: depth_message(dense.confidence, header, "32FC1"),
            out.points: lambda: cloud_message(*depth_to_points(
                depth, frame.camera, settings.points.stride_px, settings.points.max_range_m,
                frame.image), header),
        }
        return [(publisher, build()) for publisher, build in builders.items()
                if publisher.get_subscription_count() > 0]


def project(points: np.ndarray, camera: Camera, settings: ProjectionSettings) -> np.ndarray:
    """A LiDAR cloud as sparse depth of the image, hidden points removed.

    Args:
        points: (N, 3), metres, in the sensor's frame.

    Returns:
        (H, W) float32, metres, 0 = unknown.
    """
    extrinsics = pose_matrix(settings.extrinsics) if settings.extrinsics else None
    sparse = project_points(
        points, camera, extrinsics, settings.min_range_m, settings.max_range_m)
    return occlusion_filter(
        sparse, settings.occlusion_window_px, settings.occlusion_tolerance_m,
        settings.occlusion_tolerance_ratio)


class _Stages:
    """A stopwatch: milliseconds from one stage's end to the next."""

    def __init__(self, start_s: float) -> None:
        self.ms: dict[str, float] = {}
        self._last_s = start_s

    def ended(self, stage: str) -> None:
        now_s = time.perf_counter()
        self.ms[stage] = (now_s - self._last_s) * 1e3
        self._last_s = now_s


@contextmanager
def _blaming(topic: str) -> Iterator[None]:
    try:
        yield
    except BadInput as problem:
        raise BadMessage(topic, problem) from problem
