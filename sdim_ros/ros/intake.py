"""From messages to jobs: what arrives, what belongs together, and what need not be computed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from sdim_ros.core.config import SOURCES, Settings, sources_of
from sdim_ros.core.first_infos import OWN_INFO, FirstInfos
from sdim_ros.core.frame_reader import Job
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.core.synchronizer import FrameSynchronizer
from sdim_ros.core.types import BadInput
from sdim_ros.ros import compat
from sdim_ros.ros.diagnostics import Health
from sdim_ros.ros.subscriptions import Subscriptions, describe_publishers

FUTURE_S = 10.0  # clocks of two machines differ by less
UNHEARD_S = 5.0  # who looks at one topic after the other comes back sooner


class Intake:
    """What an active node does with its inputs. All methods belong to the executor's thread.

    Args:
        node: whose executor calls back.
        topics: resolved names by role, as ``subscriptions.topic_names`` gives them.
        settings: in force at the start.
        health: where messages and drops are counted.
        submit: takes each complete job; must return at once.
        is_wanted: whether somebody listens to a result.
        on_jump: told when the stamps of the inputs jump back.
    """

    def __init__(
        self, node: Node, topics: dict[str, str], settings: Settings, health: Health,
        submit: Callable[[Job], Any], is_wanted: Callable[[], bool],
        on_jump: Callable[[], None],
    ) -> None:
        self._node, self._topics, self._settings = node, topics, settings
        self._health, self._submit, self._is_wanted = health, submit, is_wanted
        self._skipped: Counter[str] = Counter()
        self._infos = FirstInfos(
            self._send, lambda _: health.drops.count("no_camera_info"),
            lambda: node.count_publishers(topics[OWN_INFO]) > 0)
        self._last_submit_s = -float("inf")
        self._sync = FrameSynchronizer(
            settings.sync, self._on_frame, self._on_frame_error,
            topics={role: topic for role, topic in topics.items()
                    if role == "image" or role in SOURCES},
            together=sources_of(settings.input.sources),
            describe_publishers=lambda topic: describe_publishers(node, topic), on_jump=on_jump,
            synchronizer=compat.Synchronizer, filter_type=compat.Filter, stamp_type=Time)
        self._subscriptions: Subscriptions | None = None
        self._is_resting = False
        self.listen()

    @property
    def why_not_listening(self) -> str | None:
        """Why images and depth are not subscribed, else None."""
        if self._subscriptions is None:
            return "disabled by the service ~/enable"
        if self._is_resting:
            return "nobody listens to any output: images and depth are not subscribed"
        return None

    @property
    def counters(self) -> Counter[str]:
        """What became of the images before the worker got them."""
        return self._sync.counters + self._skipped

    def listen(self) -> None:
        """Subscribe to the inputs; nothing happens when that is done already."""
        if self._subscriptions is None:
            self._begin()
            self._subscriptions = Subscriptions(
                self._node, self._topics, self._settings.input, self._on_message,
                self._health.drops.warn, self._health.drops.count)

    def close(self) -> None:
        """Stop listening."""
        self._infos.drop()
        if self._subscriptions is not None:
            self._subscriptions.close()
        self._subscriptions, self._is_resting = None, False

    def reconfigure(self, settings: Settings) -> None:
        """Use other settings from the next message on."""
        self._settings = settings
        self._sync.reconfigure(settings.sync)

    def reset(self) -> None:
        """Time has jumped: what waits is of another time."""
        self._infos.drop()
        self._sync.reset()

    def check(self) -> None:
        """Let images go on that wait too long, and say what is missing; now and then."""
        if self._subscriptions is not None:
            self._rest_or_return(self._subscriptions)
        if self.why_not_listening:
            return
        self._sync.expire()
        self._infos.expire()
        waited_s = time.monotonic() - self._listening_since_s
        warn_after_s = self._settings.sync.warn_after_s
        if "camera_info" not in self._infos.latest and waited_s >= warn_after_s:
            self._infos.drop()
            self._health.drops.warn(
                self._topics["camera_info"], "no_camera_info", f"no message for {waited_s:.0f} s: "
                "expected the intrinsics of the image; frames are dropped until it comes, check "
                "that it is published and its name")
        elif complaint := self.complaint():
            self._health.drops.warn("sync", "no_pairs", complaint)

    def complaint(self) -> str | None:
        """Why nothing comes together, else None."""
        return None if self.why_not_listening else self._sync.complaint()

    def _begin(self) -> None:
        self._listening_since_s = self._wanted_at_s = time.monotonic()
        self._sync.restart()

    def _rest_or_return(self, subscriptions: Subscriptions) -> None:
        """Images whose depth nobody wants need not travel."""
        if self._is_wanted():
            self._wanted_at_s = time.monotonic()
            if self._is_resting:
                self._is_resting = False
                self._begin()
                subscriptions.open()
        elif not self._is_resting and time.monotonic() - self._wanted_at_s >= UNHEARD_S:
            self._is_resting = True
            subscriptions.close_frames()
            self._infos.drop()
            self._sync.restart()  # what waits there would wait for ever

    def _on_message(self, role: str, message: Any) -> None:
        topic = self._topics[role]
        self._health.count_message(topic)
        if isinstance(message, CameraInfo):
            self._infos.add_info(role, message)
            return
        try:
            self._doubt_future(topic, message)
            self._sync.add(role, message)
        except BadInput as problem:
            self._health.drops.add(topic, problem.reason, str(problem))

    def _doubt_future(self, topic: str, message: Any) -> None:
        now_ns = self._node.get_clock().now().nanoseconds  # 0 before the first /clock
        ahead_s = (stamp_ns(message.header) - now_ns) / 1e9
        if now_ns and ahead_s > FUTURE_S:
            self._health.drops.warn(
                topic, "future", f"stamp of {ahead_s:.0f} s in the future: expected the present; "
                "are the clocks of the machines in step, does use_sim_time fit?")

    def _on_frame(self, image: Image, sparse: Mapping[str, Any]) -> None:
        depth = sparse.get("sparse_depth")
        if isinstance(depth, Image) and depth.encoding == "mono16":
            self._node.get_logger().warning(
                f"{self._topics['sparse_depth']}: encoding mono16 is read as 16UC1, millimetres; "
                "have the driver say 16UC1", once=True)
        self._infos.add(image, sparse)

    def _send(self, image: Image, sparse: Mapping[str, Any]) -> None:
        now_s, rate_hz = time.monotonic(), self._settings.output.max_rate_hz
        if not self._is_wanted():
            self._skipped["nobody listens"] += 1
        elif rate_hz and now_s - self._last_submit_s < 1 / rate_hz:
            self._skipped["over output.max_rate_hz"] += 1
        else:
            self._last_submit_s = now_s
            self._submit(Job(
                image, sparse, self._infos.latest["camera_info"],
                self._infos.latest.get(OWN_INFO), self._settings, time.perf_counter()))

    def _on_frame_error(self, problem: Exception) -> None:
        self._health.drops.add(
            self._topics["image"], "exception", f"{type(problem).__name__}: {problem}")
