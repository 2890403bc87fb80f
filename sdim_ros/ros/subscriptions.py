"""What the node listens to, by its settings, and what stands in the way of hearing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from stereo_msgs.msg import DisparityImage

from sdim_ros.core.config import SOURCES, InputSettings, sources_of
from sdim_ros.core.topics import INPUTS
from sdim_ros.ros.qos_overrides import QOS_OVERRIDES

QUEUE_DEPTH = 5


def topic_names(node: Node, settings: InputSettings) -> dict[str, str]:
    """The resolved topics to listen to, by role: image, camera infos and the wanted sources."""
    wanted = sources_of(settings.sources) or SOURCES
    suffixes = {"image": settings.image_transport, "sparse_depth": settings.depth_transport}
    names = {}
    for role, base in INPUTS.items():
        if role not in SOURCES or role in wanted:
            transport = suffixes.get(role, "raw")
            names[role] = node.resolve_topic_name(base) + (
                "" if transport == "raw" else f"/{transport}")
    if "sparse_depth" not in wanted:
        del names["sparse_camera_info"]
    return names


class Subscriptions:
    """The subscriptions of an active node, open from the start.

    Args:
        node: whose executor calls back.
        topics: of ``topic_names``.
        settings: the transports.
        on_message: takes the role and the message, from the executor's thread.
        warn: takes topic, reason and text.
        count: takes a reason and how many messages were lost on the way for it.
    """

    def __init__(
        self, node: Node, topics: dict[str, str], settings: InputSettings,
        on_message: Callable[[str, Any], None], warn: Callable[[str, str, str], None],
        count: Callable[[str, int], Any],
    ) -> None:
        self._node, self._on_message, self._warn, self._count = node, on_message, warn, count
        self._topics, self._open = topics, dict[str, Any]()
        image = Image if settings.image_transport == "raw" else CompressedImage
        depth = Image if settings.depth_transport == "raw" else CompressedImage
        self._types = {
            "image": image, "camera_info": CameraInfo, "sparse_depth": depth,
            "sparse_camera_info": CameraInfo, "points": PointCloud2, "disparity": DisparityImage}
        self.open()

    def open(self) -> None:
        """Listen to every topic, or to none where one of them fails."""
        try:
            for role, topic in self._topics.items():
                if role not in self._open:
                    self._open[role] = self._subscribe(self._types[role], role, topic)
        except Exception:
            self.close()  # nobody has this object, and those open would go on receiving
            raise

    def close_frames(self) -> None:
        """Listen to the camera infos alone: they are small, and may come only once."""
        self._close(role for role in self._topics if self._types[role] is not CameraInfo)

    def close(self) -> None:
        """Stop listening."""
        self._close(self._topics)

    def _close(self, roles: Iterable[str]) -> None:
        for role in roles:
            if role in self._open:
                self._node.destroy_subscription(self._open.pop(role))

    def _subscribe(self, kind: type, role: str, topic: str) -> Any:
        return self._node.create_subscription(
            kind, topic, lambda message: self._on_message(role, message),
            QoSProfile(depth=QUEUE_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT),
            qos_overriding_options=QOS_OVERRIDES,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=lambda event: self._warn(
                    topic, "incompatible_qos", incompatible_text("publisher", event)),
                message_lost=lambda event: self._on_lost(topic, event)))

    def _on_lost(self, topic: str, event: Any) -> None:
        self._count("lost_in_transport", event.total_count_change)
        self._warn(
            topic, "lost_in_transport", f"messages lost on the way here: {event.total_count}, "
            "expected none; with Fast DDS set FASTDDS_DEFAULT_PROFILES_FILE (Jazzy: "
            "FASTRTPS_DEFAULT_PROFILES_FILE) to config/fastdds_shm.xml of sdim_ros in every "
            "process, or have the sensor publish less often")


def incompatible_text(other: str, event: Any) -> str:
    """What an incompatible-QoS event says, for people.

    Args:
        other: the kind of the other end, ``publisher`` or ``subscriber``.
    """
    policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
    return (f"a {other} there has another QoS policy {policy}, so that nothing passes: expected "
            f"one that fits; set it there, or here by the parameter qos_overrides.<topic>."
            f"{'subscription' if other == 'publisher' else 'publisher'}.{policy}")


def describe_publishers(node: Node, topic: str) -> str:
    """How many publishers a topic has and what they offer, for people."""
    offered = Counter(
        f"{info.qos_profile.reliability.name} {info.qos_profile.durability.name}".lower()
        for info in node.get_publishers_info_by_topic(topic))
    if not offered:
        return "no publisher"
    return " and ".join(f"{count} publisher{'s' if count > 1 else ''} ({qos})"
                        for qos, count in offered.items()).replace("_", " ")
