"""What the real node holds in memory in every state; ``python test/test_node_memory.py`` tells it.
"""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from soak import resident_mb  # first: without pytest it makes a ROS graph of its own

import ros_process
from ros_process import NodeProcess, Peer

HEIGHT, WIDTH, FRAMES = 480, 640, 3


def measured(peer: Peer) -> dict[str, float]:
    """MB of the node with the embedded model, by state, each after the one before."""
    image = ros_process.colour_image(HEIGHT, WIDTH)
    depth = ros_process.depth_image(ros_process.sparse_depth(HEIGHT, WIDTH))
    with NodeProcess(command=["-m", "sdim_ros.ros.process"],
                     parameters={"autostart": False, "queries.preset": "fast"}) as node:
        assert peer.spin_until(lambda: peer.state() == "unconfigured", 60), node.log()
        mb = {"unconfigured": resident_mb(node.process.pid)}
        assert peer.transition("configure", 90), node.log()
        mb["inactive"] = resident_mb(node.process.pid)
        assert peer.transition("activate")
        assert peer.spin_until(peer.image.get_subscription_count, 20)
        for _ in range(FRAMES):
            assert peer.spin_until(
                lambda: peer.result_of(peer.send(image, depth), 10) is not None, 60), node.log()
        mb["active"] = resident_mb(node.process.pid)
        assert peer.transition("deactivate") and peer.transition("cleanup")
        mb["cleaned up"] = resident_mb(node.process.pid)
    return mb


def test_only_a_configured_node_holds_the_libraries_of_the_model(peer):
    mb = measured(peer)
    assert mb["unconfigured"] < mb["inactive"] / 2
    assert mb["cleaned up"] <= mb["active"] + 10
    assert mb["active"] < 1500


if __name__ == "__main__":
    with Peer() as opened:
        for name, megabytes in measured(opened).items():
            print(f"{name:12s} {megabytes:6.0f} MB")
