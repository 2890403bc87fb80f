"""A replay gives what the live node gives, bit by bit, for the same messages."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from bag_recorder import cloud, colour, info, moments, points_of, record, stamp_of
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from ros_process import NodeProcess
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.tools import cli

POSE = (0.02, -0.1, 0.05, 0.0, 0.0, 0.0, 1.0)
SETTINGS = {"queries.budget": 60, "fill.calibration_points": 20, "fill.folds": 2,
            "input.rectify": "true", "points.stride_px": 1}
OUTPUTS = {"depth/completed": Image, "depth/confidence": Image, "depth/points": PointCloud2,
           "depth/camera_info": CameraInfo}


def bent_info(number):
    """A lens with distortion, so that both must rectify alike."""
    message = info(number)
    message.d[:] = [-0.05, 0.01, 0.001, 0, 0]
    return message


def late_cloud(number):
    return cloud(stamp_of(number) + 20_000_000, points_of(number), "lidar")


def test_a_replay_equals_the_live_node_bit_by_bit(peer, tmp_path, one_thread):
    """Real node, real model, another process: image, cloud and raw lens through DDS."""
    bag = record(tmp_path / "bag", moments(
        3, image=colour, camera_info=bent_info, points=late_cloud))
    pose = ", ".join(map(str, POSE))
    with AnyReader([bag]) as reader:
        recorded = [(c.topic, time_ns, raw) for c, time_ns, raw in reader.messages()]
    publishers = {"/image": peer.image, "/camera_info": peer.info, "/points": peer.cloud}
    for topic, kind in OUTPUTS.items():
        if topic != "depth/completed":
            peer.record(topic, kind)
    with NodeProcess(parameters=SETTINGS | {"projection.extrinsics": f"[{pose}]"},
                     command=["-m", "sdim_ros.ros.process"]) as node:
        peer.warm_up()
        peer.info.publish(next(raw for topic, _, raw in recorded if topic == "/camera_info"))
        peer.spin_until(lambda: False, 0.3)  # topics are not ordered among each other
        for number in range(3):
            for topic, time_ns, raw in recorded:
                if time_ns == stamp_of(number):
                    publishers[topic].publish(raw)
            assert peer.spin_until(
                lambda n=number: all(stamp_of(n) in stamps(peer.received[t]) for t in OUTPUTS),
                30), node.log()
    values = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    assert cli.main(["replay", str(bag), "--out", str(tmp_path / "out"), "--extrinsics", pose,
                     *values]) == 0
    with AnyReader([tmp_path / "out" / "completed"]) as reader:
        replayed = [(c.topic.lstrip("/"), raw) for c, _, raw in reader.messages()]
    assert len(replayed) == 3 * len(OUTPUTS)
    for topic, raw in replayed:
        message = deserialize_message(raw, OUTPUTS[topic])
        live = next(m for m in peer.received[topic]
                    if stamp_ns(m.header) == stamp_ns(message.header))
        assert message == live, topic


def stamps(messages):
    return [stamp_ns(message.header) for message in messages]
