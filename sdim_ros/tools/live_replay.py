"""Plays the messages of a bag to the real node over DDS, as a robot would, and records its results.

Needs ROS; imported only when ``sdim replay --live`` runs. The time of the bag is that of the node:
``/clock`` goes from the first message on at the pace that is asked for, and the node follows it
(use_sim_time), so the age of an image counts in the bag's time. What the node measures by a steady
clock stays in seconds of the wall: sync.timeout_s, output.max_rate_hz, projection.tf_timeout_s.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rclpy

from sdim_ros.core.config import Settings
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.core.types import BadInput, SdimError
from sdim_ros.tools.bag_writer import BagWriter
from sdim_ros.tools.bags.reading import Bag, store
from sdim_ros.tools.bags.tf_tree import MOVING
from sdim_ros.tools.live import HEARD, NODE_COMMAND, NodeProcess, Watched, environment
from sdim_ros.tools.live_contact import Contact, Plan, RunningNode
from sdim_ros.tools.live_figures import Played, count_of

STUCK_S = 60.0  # without a change of its counts the node will not do any more


def play(plan: Plan, settings: Settings | None, bag: Bag, writer: BagWriter, played: Played,
         log: Path, tell: Callable[[float | None], None]
         ) -> tuple[Settings | None, BaseException | None]:
    """Play a bag to a node.

    Args:
        settings: of a node that is started for it; None = ``plan.node`` runs already.
        writer: gets the results.
        played: is filled while it goes on, so that what is done is there whatever happens.
        log: file for the output of the node that is started.
        tell: told how many seconds of the bag are over; None = the node is not ready yet.

    Returns:
        The node's settings, None where they are not known, and what ended it early: Ctrl-C, or an
        SdimError with the last lines of the node's log.

    Raises:
        BadInput: ``bag``: the results cannot be written.
    """
    tell(None)
    try:
        with ExitStack() as opened:
            ros_log = opened.enter_context(tempfile.TemporaryDirectory())
            opened.enter_context(environment(ros_log, is_private=settings is not None))
            process: Watched = RunningNode(plan.node) if settings is None else \
                opened.enter_context(NodeProcess(
                    NODE_COMMAND, settings, log, ("-p", "use_sim_time:=true")))
            context = rclpy.Context()
            rclpy.init(context=context)
            opened.callback(rclpy.shutdown, context=context)
            player = Player(context, process, plan, bag, played, writer)
            settings = player.settings = settings or player.ask_settings()
            player.connect(settings)
            player.play(tell)
            player.finish()
    except BadInput as problem:
        if problem.reason == "bag":
            raise
        return settings, problem
    except (KeyboardInterrupt, SdimError) as problem:
        return settings, problem
    return settings, None


class Player(Contact):
    """Publishes a bag and records what comes back.

    Args:
        context, process, plan, bag: as of ``Contact``.
        played: is filled while it goes on, so that what is done is there whatever happens.
        writer: gets the results.

    Attributes:
        settings: of the node.
    """

    def __init__(self, context: rclpy.Context, process: Watched, plan: Plan, bag: Bag,
                 played: Played, writer: BagWriter) -> None:
        super().__init__(context, process, plan, bag, played)
        self.settings = Settings()
        self._writer = writer
        self.listen({name: plan.topic(name) for name in HEARD}, self._on_output)

    def play(self, tell: Callable[[float | None], None]) -> None:
        """Publish everything at its time.

        Args:
            tell: told how many seconds of the bag are over.
        """
        plan, played = self.plan, self.played
        roles: dict[str, list[str]] = {}
        for role, topic in plan.topics.items():
            roles.setdefault(topic, []).append(role)
        wanted = {*roles, *([MOVING] if self.poses else [])}
        played.first_s = self.began_s = time.monotonic()
        for topic, time_ns, message, raw in self.bag.serialized(wanted):
            is_image = "image" in roles.get(topic, ())
            if is_image and sum(played.images.values()) == plan.limit:
                break
            due_s = (time_ns - self.bag.start_ns) / 1e9 / plan.rate
            self.serve(self.began_s + due_s - time.monotonic())
            played.behind_s = max(played.behind_s, time.monotonic() - self.began_s - due_s)
            played.until_ns = time_ns
            if topic == MOVING:
                self.poses[MOVING].publish(bytes(raw))
            for role in roles.get(topic, ()):
                self._send(role, message, raw)
            tell((time_ns - self.bag.start_ns) / 1e9)

    def finish(self) -> None:
        """Wait for the results of all that was sent, and for the node's last word on the rest."""
        if self.settings.sync.timeout_s:
            self.serve(self.settings.sync.timeout_s + 1)
        since_s, seen = time.monotonic(), None
        patience_s = STUCK_S + self.settings.worker.watchdog_s
        while time.monotonic() - since_s < patience_s:
            reports = self.reports
            self.spin(lambda n=reports: self.reports >= n + 2, patience_s)
            now = (sum(self.played.results.values()), *self._counts())
            if now == seen and self._is_idle():
                break
            if now != seen:
                since_s, seen = time.monotonic(), now
        self.played.is_settled = self.reports > 0

    def _send(self, role: str, message: Any, raw: bytes) -> None:
        played = self.played
        if role == "sparse_depth" and self.plan.hide is not None:
            hidden = self.plan.hide(message, self.settings)
            raw = store().serialize_cdr(hidden, hidden.__msgtype__)
        now_s = time.monotonic()
        if role == "image":
            played.add_image(stamp_ns(message.header), now_s)
            played.last_sent_s = now_s
        self.publishers[role].publish(bytes(raw))
        played.sent[role] += 1

    def _counts(self) -> tuple[int, ...]:
        after = self.played.after
        return tuple(count_of(after, "worker", name) for name in (
            "submitted", "replaced", "done", "failed", "discarded")) + (
            count_of(after, "sync", "images"),)

    def _is_idle(self) -> bool:
        submitted, *ended, _ = self._counts()
        return submitted == sum(ended)

    def _on_output(self, name: str, time_ns: int, raw: bytes) -> None:
        if time_ns not in self.played.images:
            return  # of somebody else's image
        if name == "depth/completed":
            self.played.add_result(time_ns, time.monotonic())
        kind = HEARD[name]
        self._writer.raw(f"/{name}", f"sensor_msgs/msg/{kind.__name__}", time_ns, raw)
