"""What the node publishes; a message is built only where somebody listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rclpy.publisher import Publisher
from sensor_msgs import msg
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from sdim_ros.core.config import Settings
from sdim_ros.core.frame_reader import Reading
from sdim_ros.core.normals import surface_normals
from sdim_ros.core.projection import coloured_points
from sdim_ros.core.topics import OUTPUTS
from sdim_ros.core.types import DenseDepth
from sdim_ros.core.views import doubted_over_image, points_over_image
from sdim_ros.ros.messages import (
    camera_info_message, cloud_message, colour_message, depth_message, normals_message)

TOPICS: dict[str, type] = {topic: getattr(msg, kind) for topic, kind in OUTPUTS.items()}


class Outputs:
    """The publishers of one node, all of them or none where one fails.

    Args:
        create: makes a publisher of a message type and topic.
        destroy: takes one that is not wanted any more.
    """

    def __init__(self, create: Callable[[type, str], Publisher],
                 destroy: Callable[[Publisher], Any]) -> None:
        self._publishers, self._destroy = dict[str, Publisher](), destroy
        try:
            for topic, kind in TOPICS.items():
                self._publishers[topic] = create(kind, topic)
        except Exception:
            self.close()  # nobody has this object
            raise

    def __iter__(self) -> Iterator[Publisher]:
        return iter(self._publishers.values())

    def close(self) -> None:
        """Destroy every publisher; from then on there is none."""
        # Another dictionary: a worker that was given up may still go through this one.
        publishers, self._publishers = self._publishers, {}
        for publisher in publishers.values():
            self._destroy(publisher)

    def any_listener(self) -> bool:
        """Whether somebody listens to any of them."""
        return any(publisher.get_subscription_count() for publisher in self)

    def messages(self, reading: Reading, dense: DenseDepth, settings: Settings
                 ) -> list[tuple[Publisher, Any]]:
        """The messages of one result, under the header of its image."""
        build = _Builder(reading, dense, settings)
        return [(publisher, getattr(build, topic.replace("/", "_"))())
                for topic, publisher in self._publishers.items()
                if publisher.get_subscription_count() > 0]


class _Builder:
    """One method for each topic."""

    def __init__(self, reading: Reading, dense: DenseDepth, settings: Settings) -> None:
        self._reading, self._frame, self._header = reading, reading.frame, reading.header
        self._dense, self._settings = dense, settings
        self._depth = dense.confident(settings.output.min_confidence)

    def depth_camera_info(self) -> CameraInfo:
        return camera_info_message(self._reading)

    def depth_completed(self) -> Image:
        return depth_message(self._depth, self._header, self._settings.output.encoding)

    def depth_confidence(self) -> Image:
        return depth_message(self._dense.confidence, self._header, "32FC1")

    def depth_points(self) -> PointCloud2:
        points, colours = coloured_points(
            self._depth, self._frame.image, self._frame.camera, self._settings.points)
        return cloud_message(points, colours, self._header)

    def depth_normals(self) -> Image:
        return normals_message(surface_normals(self._depth, self._frame.camera), self._header)

    def debug_overlay(self) -> Image:
        picture = points_over_image(self._frame.image, self._frame.sparse)
        return colour_message(picture, self._header)

    def debug_doubted(self) -> Image:
        picture = doubted_over_image(
            self._frame.image, self._frame.sparse, *self._dense.doubted)
        return colour_message(picture, self._header)
