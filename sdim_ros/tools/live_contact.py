"""Finds the completion node, learns its settings, and sees to it that it hears every topic.

Needs ROS; imported only when ``sdim replay --live`` runs.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock

from sdim_ros.core.config import Settings, leaves, with_values
from sdim_ros.core.topics import INPUTS, TRANSPORTS
from sdim_ros.core.types import SdimError
from sdim_ros.tools.bags.reading import Bag
from sdim_ros.tools.bags.tf_tree import MOVING, STATIC
from sdim_ros.tools.bags.topics import COMPRESSED
from sdim_ros.tools.live import HEARD, QOS, Link, Watched
from sdim_ros.tools.live_figures import Played

NAMES = (*INPUTS.values(), *HEARD)  # as the node calls its topics
TICK_S = 0.01  # of /clock
LOAD_S, FIND_S, HEAR_S, ANSWER_S = 300.0, 15.0, 15.0, 15.0
PROBE, PROBE_S, SETTLE_S = "camera_info", 0.2, 0.3
# What latches poses, as tf2's own broadcasters do.
LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MANY = QoSProfile(depth=100)


@dataclass(frozen=True)
class Plan:
    """What is played to whom.

    Attributes:
        topics: of the bag by role, as ``choose_topics`` gives them.
        node: full name of the completion node.
        remaps: full topics by the names that the node has for them, where they are others.
        rate: seconds of the bag in one second.
        limit: most images; None = all.
        needs_poses: whether a node with these settings needs the bag's transforms; raises
            BadInput where it cannot get them.
        hide: takes a depth image and the settings and gives an image that lacks the points which
            judge; None = nothing is hidden.
    """

    topics: Mapping[str, str]
    node: str
    remaps: Mapping[str, str]
    rate: float
    limit: int | None
    needs_poses: Callable[[Settings], bool]
    hide: Callable[[Any, Settings], Any] | None

    def topic(self, name: str) -> str:
        """The full name of a topic that the node calls ``name``."""
        return self.remaps.get(name, f"{self.node.rpartition('/')[0]}/{name}")


class RunningNode:
    """A node that somebody else has started.

    Args:
        name: its full name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_there: Callable[[], bool] = lambda: True
        self._looked_s = 0.0

    def check(self) -> None:
        """Look for it in the graph, now and then."""
        if time.monotonic() - self._looked_s > 1.0:
            self._looked_s = time.monotonic()
            if not self.is_there():
                raise SdimError(f"the node {self.name} is gone")

    def problem(self, what: str) -> SdimError:
        return SdimError(f"{what}; it is {self.name}, whose own log may say more")


class Contact(Link):
    """Camera, sensors and clock of a bag, with the completion node at the other end.

    Args:
        context: of rclpy, initialised.
        process: of the completion node.
        plan: what is played.
        bag: where it comes from.
        played: gets what the node reports of itself.
    """

    def __init__(self, context: rclpy.Context, process: Watched, plan: Plan, bag: Bag,
                 played: Played) -> None:
        super().__init__("sdim_replay", context, process)
        self.plan, self.bag, self.played = plan, bag, played
        self.reports = 0
        self.poses: dict[str, Any] = {}
        self.began_s: float | None = None  # until then /clock stands still
        self._ticked_s = 0.0
        self._trouble: str | None = None
        self._is_probed = False
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_report, QOS)
        self._clock = self.node.create_publisher(Clock, "/clock", QOS)
        # That of the probes last, see `connect`.
        self.publishers = {role: self._publisher(role) for role in sorted(
            plan.topics, key=lambda role: role == PROBE)}

    def ask_settings(self) -> Settings:
        """Those of a node that runs already; whether it follows /clock goes to ``played``."""
        client = self.node.create_client(GetParameters, f"{self.plan.node}/get_parameters")
        # Its name and its services become known by different ways, in any order.
        if not self.spin(lambda: client.service_is_ready() and self._is_there(), FIND_S):
            raise SdimError(f"there is no node {self.plan.node}: expected one of those in the "
                            f"ROS graph, {self._nodes()}; is ROS_DOMAIN_ID that of the node?")
        self.process.is_there = self._is_there
        # A list that is not set empties the whole answer.
        known = tuple(leaves(Settings()))
        lists = [leaf.name for leaf in known if isinstance(leaf.value, tuple)]
        plain = ["use_sim_time", *(leaf.name for leaf in known if leaf.name not in lists)]
        values = dict(zip(plain, self._ask(client, plain)))
        if not values:
            raise SdimError(f"{self.plan.node} lacks parameters that a completion_node of this "
                            "version has: expected one of the same version; name another node")
        values |= {name: tuple(*self._ask(client, [name])) for name in lists}
        self.played.use_sim_time = bool(values.pop("use_sim_time"))
        if self.played.use_sim_time and self.node.count_publishers("/clock") > 1:
            raise SdimError("somebody else publishes /clock: expected nobody, since the bag sets "
                            "the time; stop it")
        return with_values(Settings(), values)

    def _ask(self, client: Any, names: list[str]) -> list[Any]:
        """The values of parameters; none where one of them is not set."""
        answer = client.call_async(GetParameters.Request(names=names))
        self.wait(answer.done, "tell its parameters", ANSWER_S)
        return [parameter_value_to_python(value) for value in answer.result().values]

    def connect(self, settings: Settings) -> None:
        """Wait until the node is loaded and hears every topic.

        A publisher knows of its subscriber a little before the subscriber knows of it, and what
        a best-effort subscriber misses in between is gone. So camera infos, which take no image's
        place, are sent until the node counts one. Their publisher was made last: the node then
        knows the others as well.

        Args:
            settings: of the node.

        Raises:
            BadInput: the node cannot get the transforms that it needs.
        """
        if self.plan.needs_poses(settings):
            kind = _message_type("tf2_msgs/msg/TFMessage")
            self.poses = {topic: self.node.create_publisher(kind, topic, qos)
                          for topic, qos in ((STATIC, LATCHED), (MOVING, MANY))}
        is_running = isinstance(self.process, RunningNode)
        self.wait(self._reported, "report on /diagnostics", ANSWER_S if is_running else LOAD_S)
        if not self.spin(self._is_heard, HEAR_S):
            raise self.process.problem(self._who_is_missing())
        end_s = time.monotonic() + ANSWER_S
        self._is_probed = False
        while not self._is_probed:
            if time.monotonic() > end_s:
                raise self.process.problem(
                    f"the node did not count a {PROBE} within {ANSWER_S:.0f} s")
            for _, _, _, probe in islice(self.bag.serialized([self.plan.topics[PROBE]]), 1):
                self.publishers[PROBE].publish(bytes(probe))
            self.spin(lambda: self._is_probed, PROBE_S)
        if self.poses:
            for _, _, _, raw in self.bag.serialized([STATIC]):  # they are for all times
                self.poses[STATIC].publish(bytes(raw))
        self.serve(SETTLE_S)
        self.played.before = self.played.after

    def spin(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """As any link does; the clock goes on meanwhile."""
        def ready_now() -> bool:
            self._tick()
            return ready()
        return super().spin(ready_now, timeout_s)

    def _publisher(self, role: str) -> Any:
        kind = self.bag.topics[self.plan.topics[role]].kind
        topic = self.plan.topic(INPUTS[role])
        if kind == COMPRESSED:
            topic += f"/{TRANSPORTS[role]}"
        return self.node.create_publisher(_message_type(kind), topic, QOS)

    def _reported(self) -> bool:
        if self._trouble is not None:
            raise self.process.problem(f"the node cannot use its model: {self._trouble}")
        return self.reports > 0

    def _is_heard(self) -> bool:
        inputs = [*self.publishers.values(), *self.poses.values()]
        return all(p.get_subscription_count() for p in inputs) and all(
            self.node.count_publishers(self.plan.topic(name)) for name in HEARD)

    def _who_is_missing(self) -> str:
        deaf = [p.topic_name for p in (*self.publishers.values(), *self.poses.values())
                if not p.get_subscription_count()]
        mute = [topic for name in HEARD
                if not self.node.count_publishers(topic := self.plan.topic(name))]
        where, _, name = self.plan.node.rpartition("/")
        heard = self.node.get_subscriber_names_and_types_by_node(name, where or "/")
        return (f"nobody listens to {', '.join(deaf) or 'nothing'}, nobody publishes "
                f"{', '.join(mute) or 'nothing'}: expected the node to be active and to do both "
                f"(it listens to {', '.join(topic for topic, _ in heard) or 'nothing'}); name "
                "its topics with --remap, or its input.*_transport by that of the bag")

    def _is_there(self) -> bool:
        where, _, name = self.plan.node.rpartition("/")
        return (name, where or "/") in self.node.get_node_names_and_namespaces()

    def _nodes(self) -> str:
        names = sorted(f"{where.rstrip('/')}/{name}"
                       for name, where in self.node.get_node_names_and_namespaces()
                       if name != self.node.get_name())
        return ", ".join(names) or "no other node"

    def serve(self, seconds: float) -> None:
        """Take what comes for so long, at least once; the clock goes on."""
        end_s = time.monotonic() + seconds
        while True:
            self._tick()
            self.process.check()
            left_s = end_s - time.monotonic()
            self.executor.spin_once(timeout_sec=max(0.0, min(left_s, TICK_S)))
            if left_s <= TICK_S and time.monotonic() >= end_s:
                return

    def _tick(self) -> None:
        """Publish the time of the bag, which stands still before it is played."""
        now_s = time.monotonic()
        if not self.played.use_sim_time or now_s - self._ticked_s < TICK_S:
            return
        self._ticked_s = now_s
        gone_s = 0.0 if self.began_s is None else (now_s - self.began_s) * self.plan.rate
        sec, nanosec = divmod(self.bag.start_ns + round(gone_s * 1e9), 10**9)
        self._clock.publish(Clock(clock=Time(sec=sec, nanosec=nanosec)))

    def _on_report(self, message: DiagnosticArray) -> None:
        name = self.plan.node.lstrip("/")
        tasks = {status.name.removeprefix(f"{name}: "): status for status in message.status
                 if status.hardware_id == name}
        if not tasks:
            return  # of another node
        self.reports += 1
        self.played.after = {task: {pair.key: pair.value for pair in status.values}
                             for task, status in tasks.items()}
        # Of the time since the report before, which may be shorter than that between two probes.
        heard_hz = self.played.after.get("inputs", {}).get(
            f"{self.publishers[PROBE].topic_name} Hz", "0")
        self._is_probed = self._is_probed or float(heard_hz) > 0
        model = tasks["model"]
        self._trouble = model.message if model.level == DiagnosticStatus.ERROR else None
        self.played.model = model.message


def _message_type(kind: str) -> type:
    """The class of ``package/msg/Name``."""
    package, _, name = kind.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)
