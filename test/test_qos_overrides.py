"""A QoS override that cannot be used is refused at the start, and nothing half made goes on."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.qos import QoSProfile
from ros_process import NodeProcess

from sdim_ros.core.config import InputSettings
from sdim_ros.core.types import BadSetting
from sdim_ros.ros.outputs import Outputs
from sdim_ros.ros.parameters import NodeParameters
from sdim_ros.ros.qos_overrides import QOS_OVERRIDES
from sdim_ros.ros.subscriptions import Subscriptions, topic_names

POINTS = "qos_overrides./points.subscription"
COMPLETED = "qos_overrides./depth/completed.publisher"


@pytest.fixture
def node_of():
    """Makes a node with parameters as they are given on a command line."""
    made = []

    def make(**parameters: Any) -> rclpy.node.Node:
        context = rclpy.Context()
        given = (part for name, value in parameters.items() for part in ("-p", f"{name}:={value}"))
        rclpy.init(context=context, args=["--ros-args", *given])
        made.append(rclpy.create_node("owner", context=context, enable_rosout=False))
        return made[-1]

    yield make
    for node in made:
        node.destroy_node()
        rclpy.shutdown(context=node.context)


@pytest.mark.parametrize("autostart", [True, False])
def test_bad_overrides_end_the_process_with_2_and_one_line_that_lists_them(autostart):
    with NodeProcess(parameters={
            f"{POINTS}.reliability": "bogus", f"{COMPLETED}.depth": -1, "queries.budget": -1,
            "autostart": autostart}) as node:
        assert node.process.wait(20) == 2
        [line] = node.log().splitlines()
    assert (f"{POINTS}.reliability='bogus': expected one of system_default, reliable, "
            "best_effort, best_available;") in line
    assert f"{COMPLETED}.depth=-1: expected a whole number from 0 to 2147483647;" in line
    assert "queries.budget" in line


@pytest.mark.parametrize("policy, value, expected", [
    ("reliability", "unknown", "'unknown': expected one of system_default, reliable"),
    ("reliability", "5", "5: expected one of"),
    ("durability", "[a, b]", "['a', 'b']: expected one of system_default, transient_local"),
    ("history", "keep", "'keep': expected one of system_default, keep_last, keep_all"),
    ("depth", "many", "'many': expected a whole number"),
    ("depth", "true", "True: expected a whole number"),
    ("depth", "2147483648", "2147483648: expected a whole number"),
])
def test_values_that_rclpy_cannot_use_are_refused_by_name(node_of, policy, value, expected):
    node = node_of(**{f"{POINTS}.{policy}": value})
    with pytest.raises(BadSetting) as refused:
        NodeParameters(node, lambda: False, print)
    assert f"{POINTS}.{policy}={expected}" in str(refused.value)


@pytest.mark.parametrize("policy, value", [
    ("reliability", "best_available"), ("reliability", "RELIABLE"), ("durability", "volatile"),
    ("history", "keep_all"), ("depth", "2147483647"), ("deadline", "[1, 2]")])
def test_values_that_rclpy_can_use_and_policies_that_are_not_read_are_accepted(
        node_of, policy, value):
    node = node_of(**{f"{POINTS}.{policy}": value})
    NodeParameters(node, lambda: False, print)
    assert topic_names(node, InputSettings())["points"] in subscribed(node)


def subscribed(node: rclpy.node.Node) -> list[str]:
    """Listens as an active node does; the topics."""
    topics = topic_names(node, InputSettings())
    before = set(node.subscriptions)
    Subscriptions(node, topics, InputSettings(), print, print, print)
    return [made.topic_name for made in node.subscriptions if made not in before]


def test_where_one_subscription_fails_none_goes_on_receiving(node_of):
    node = node_of(**{f"{POINTS}.reliability": "bogus"})
    before = len(list(node.subscriptions))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="bogus"):
            subscribed(node)
    assert len(list(node.subscriptions)) == before


def test_where_one_publisher_fails_none_is_left(node_of):
    node = node_of(**{f"{COMPLETED}.durability": "bogus"})
    before = len(list(node.publishers))

    def create(kind: type, topic: str) -> Any:
        return node.create_publisher(
            kind, topic, QoSProfile(depth=1), qos_overriding_options=QOS_OVERRIDES)

    for _ in range(2):
        with pytest.raises(RuntimeError, match="bogus"):
            Outputs(create, node.destroy_publisher)
    assert len(list(node.publishers)) == before
