"""Nobody listens, so nothing travels: the node leaves its inputs and takes them up again."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from ros_process import NodeProcess, Peer
from sensor_msgs.msg import Image

PARAMETERS = {"diagnostics.period_s": 0.1, "sync.warn_after_s": 1.0}


def heard(peer: Peer) -> list[int]:
    """How many listen to image, depth image and cloud."""
    return [p.get_subscription_count() for p in (peer.image, peer.sparse, peer.cloud)]


def leave(peer: Peer, topic: str) -> None:
    [listener] = [s for s in peer.node.subscriptions if s.topic_name == topic]
    peer.node.destroy_subscription(listener)


def send_until(peer: Peer, condition, timeout_s: float = 20.0) -> bool:
    """A pair ten times a second until the condition holds."""
    def step():
        peer.send_good()
        peer.spin_until(lambda: False, 0.1)
        return condition()

    return peer.spin_until(step, timeout_s)


def test_inputs_are_left_without_a_listener_and_the_first_frame_after_it_returns_is_completed(
        peer):
    with NodeProcess(parameters=PARAMETERS) as node:
        peer.warm_up()
        leave(peer, "/depth/completed")
        assert send_until(peer, lambda: heard(peer) == [0, 0, 0]), node.log()
        assert peer.info.get_subscription_count() == 1
        log_start = len(node.log())
        assert peer.spin_until(lambda: "nobody listens" in peer.diagnosed("sync")["message"])
        peer.spin_until(lambda: False, 2.0)  # longer than the patience for a pair
        assert peer.diagnosed("sync")["level"] == 0 and len(node.log()) == log_start, node.log()
        peer.record("depth/completed", Image)
        assert peer.spin_until(lambda: heard(peer) == [1, 1, 1]), node.log()
        peer.spin_until(lambda: False, 0.5)  # a publisher knows of its subscriber a little before
        assert peer.result_of(peer.send_good()) is not None, node.log()
        assert peer.spin_until(lambda: peer.diagnosed("sync")["message"] == "ok")


def test_a_listener_of_any_output_is_enough(peer):
    with NodeProcess(parameters=PARAMETERS) as node:
        peer.warm_up()
        confidence = peer.record("depth/confidence", Image)
        assert send_until(peer, lambda: confidence)
        leave(peer, "/depth/completed")
        assert not send_until(peer, lambda: heard(peer) != [1, 1, 1], 7), node.log()
