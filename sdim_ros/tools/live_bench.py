"""Times the real node's own stages, in its process and over DDS, beside the edge-aware fill.

Needs ROS; imported only when ``sdim bench --node`` runs.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from sdim_ros.core import fill, sensor_data
from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.projection import depth_to_points, lidar_to_sparse
from sdim_ros.core.types import Frame, SdimError
from sdim_ros.ros import messages
from sdim_ros.tools.live import (
    NODE_COMMAND, PERIOD_NS, QOS, TIMEOUT_S, NodeProcess, environment, spin)

# What the node adds to the core: between the last message of a set and its results on the wire.
STAGES = ("pair", "decode", "rectify", "transform", "project", "pack", "publish")
CLOUD_POINTS = 30_000


def measure(
    frame: Frame, settings: Settings, frames: int, command: Sequence[str] = NODE_COMMAND,
) -> dict[str, Any]:
    """Play an image and a LiDAR cloud to the node and read its own timings.

    Args:
        frame: with its camera and a dense ``sparse``, of which ``CLOUD_POINTS`` points are drawn.
        settings: the node's.
        frames: results to wait for; medians are taken over the last 100 of them.
        command: starts the node.

    Returns:
        ``frame_ms`` of each of ``STAGES`` and their ``total``, and ``edge_aware_ms`` of the same
        image and cloud, timed between the frames.

    Raises:
        SdimError: the node ends, or gives nothing within a minute.
    """
    settings = with_values(settings, {"diagnostics.period_s": 0.1})
    cloud, edge_aware_ms = _cloud(frame), []
    sparse = lidar_to_sparse(cloud, frame.camera, None, settings.projection)
    with tempfile.TemporaryDirectory() as folder, environment(folder), \
            NodeProcess(command, settings, Path(folder) / "node.log") as process:
        context = rclpy.Context()
        rclpy.init(context=context)
        try:
            rig = _Rig(context, process)
            for number in range(frames):
                rig.send(frame, cloud, (number + 1) * PERIOD_NS)
                start = time.perf_counter()
                fill.edge_aware(sparse, frame.image)
                edge_aware_ms.append(1e3 * (time.perf_counter() - start))
            stages = rig.timings()
        finally:
            rclpy.shutdown(context=context)
    return {"frame_ms": {**stages, "total": sum(stages.values())},
            "edge_aware_ms": median(edge_aware_ms), "cloud_points": CLOUD_POINTS,
            "image": [frame.image.shape[1], frame.image.shape[0]], "frames": frames}


class _Rig:
    """A camera, a LiDAR and someone who looks at depth and cloud."""

    def __init__(self, context: rclpy.Context, process: NodeProcess) -> None:
        self.process, self.reports = process, {}
        node = Node("sdim_bench", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(node)
        self.publishers = {topic: node.create_publisher(kind, topic, QOS) for topic, kind in (
            ("camera_info", CameraInfo), ("points", PointCloud2), ("image", Image))}
        self.results: dict[str, int] = {}
        for topic, kind in (("depth/completed", Image), ("depth/points", PointCloud2)):
            node.create_subscription(kind, topic, lambda message, name=topic: self.results.update(
                {name: sensor_data.stamp_ns(message.header)}), QOS)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_report, QOS)

    def send(self, frame: Frame, cloud: np.ndarray, stamp_ns: int) -> None:
        """Publish one set, again and again until both results are there."""
        header = Header(frame_id="camera")
        header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        made = {"camera_info": messages.camera_message(frame.camera, header),
                "points": messages.cloud_message(cloud, None, header),
                "image": messages.colour_message(frame.image, header)}
        end_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end_s:
            for topic, message in made.items():
                self.publishers[topic].publish(message)
            if self._spin(lambda: set(self.results.values()) == {stamp_ns}
                          and len(self.results) == 2, TIMEOUT_S if self.results else 1.0):
                return
        raise self.process.problem(f"the node gave nothing within {TIMEOUT_S:.0f} s")

    def timings(self) -> dict[str, float]:
        """Median milliseconds of the node's stages, as its newest report has them."""
        self.reports.clear()
        if not self._spin(lambda: self.reports, TIMEOUT_S):
            raise self.process.problem("the node does not report on /diagnostics")
        return {stage: self.reports[stage] for stage in STAGES if stage in self.reports}

    def _on_report(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(": model"):
                self.reports |= {found[1]: float(pair.value) for pair in status.values
                                 if (found := re.fullmatch(r"(\w+) ms p50", pair.key))}

    def _spin(self, ready: Callable[[], Any], timeout_s: float) -> bool:
        return spin(self.executor, self.process, ready, timeout_s)


def _cloud(frame: Frame) -> np.ndarray:
    """Points of the frame's depth, (CLOUD_POINTS, 3) float32, in the optical frame."""
    points = depth_to_points(frame.sparse, frame.camera).reshape(-1, 3)
    points = points[np.isfinite(points[:, 2])]
    if len(points) < CLOUD_POINTS:
        raise SdimError(f"the scene has {len(points)} points: expected {CLOUD_POINTS}")
    return points[np.random.default_rng(0).choice(len(points), CLOUD_POINTS, replace=False)]
