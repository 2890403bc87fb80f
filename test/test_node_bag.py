"""A recorded drive played to the node, twice: every set comes back, the loop does not stop it."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

import ros_process
from rclpy.serialization import serialize_message
from ros_process import HEIGHT, WIDTH, NodeProcess
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from stereo_msgs.msg import DisparityImage

from sdim_ros.core.sensor_data import read_depth
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.ros.messages import cloud_message

SETS, PERIOD_NS, START_NS = 20, 100_000_000, 1_700_000_000_000_000_000


def depth_at(number):
    return ros_process.depth_image(ros_process.sparse_depth(metres=1 + number / 10))


def cloud_at(number):
    camera = ros_process.camera_info()
    z = np.float32(1 + number / 10)
    x = (4 - camera.k[2]) / camera.k[0] * z
    y = (6 - camera.k[5]) / camera.k[4] * z
    return cloud_message(np.array([[x, y, z]], np.float32), None, ros_process.Image().header)


def disparity_at(number):
    disparity = np.zeros((HEIGHT, WIDTH), np.float32)
    disparity[6, 4] = 100 * 0.1 / (1 + number / 10)
    return DisparityImage(image=ros_process.depth_image(disparity), f=100.0, t=0.1,
                          min_disparity=0.5, max_disparity=64.0)


KINDS = {
    "sparse_depth/image": ("sensor_msgs/msg/Image", depth_at),
    "points": ("sensor_msgs/msg/PointCloud2", cloud_at),
    "disparity": ("stereo_msgs/msg/DisparityImage", disparity_at),
}


def record(path, topic, storage):
    """Two seconds of image, camera info and depth of one kind, as a robot would record them."""
    store = get_typestore(Stores.ROS2_KILTED)
    kind, depth = KINDS[topic]
    makers = {"image": ("sensor_msgs/msg/Image", lambda _: ros_process.colour_image()),
              "camera_info": ("sensor_msgs/msg/CameraInfo", lambda _: ros_process.camera_info()),
              topic: (kind, depth)}
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections = {name: writer.add_connection(f"/{name}", kind, typestore=store)
                       for name, (kind, _) in makers.items()}
        for number in range(SETS):
            time_ns = START_NS + number * PERIOD_NS
            for name, (_, make) in makers.items():
                message = ros_process.stamped(make(number), time_ns)
                writer.write(connections[name], time_ns, serialize_message(message))


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3],
                         ids=["mcap", "sqlite3"])
@pytest.mark.parametrize("topic", KINDS)
def test_a_bag_that_loops_gives_every_result_in_both_rounds(peer, tmp_path, topic, storage):
    record(tmp_path / "bag", topic, storage)
    with AnyReader([tmp_path / "bag"]) as reader:
        recorded = [(c.topic.lstrip("/"), time_ns, raw) for c, time_ns, raw in reader.messages()]
    publishers = {"image": peer.image, "camera_info": peer.info, "points": peer.cloud,
                  "sparse_depth/image": peer.sparse}
    with NodeProcess(parameters={"diagnostics.period_s": 0.1}) as node:
        if topic == "disparity":
            publishers[topic] = peer.publisher(DisparityImage, topic)
        peer.warm_up()
        for round_number in (1, 2):
            begun = time.monotonic()
            for name, time_ns, raw in recorded:
                publishers[name].publish(raw)
                if name == recorded[-1][0]:  # the set is complete
                    peer.spin_until(lambda n=time_ns, r=round_number: [
                        stamp_ns(m.header) for m in peer.results].count(n) == r, 5)
            assert time.monotonic() - begun < 60
        # A second result of the warm-up may come late.
        results = [m for m in peer.results if stamp_ns(m.header) >= START_NS]
        log = node.log()
    once = [START_NS + number * PERIOD_NS for number in range(SETS)]
    assert [stamp_ns(message.header) for message in results] == once + once, log
    nearest = [np.nanmin(read_depth(message, 10**6)) for message in results[:SETS]]
    assert nearest == pytest.approx([1 + number / 10 for number in range(SETS)], rel=1e-5)
