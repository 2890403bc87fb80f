"""Poses come from TF at the stamps of cloud and image, and what is missing is named.

The buffer here has the interface of ``tf2_ros.Buffer``, which has no wheel on PyPI.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

import ros_process
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from ros_process import FakeCompleter
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.types import BadInput
from sdim_ros.ros import compat
from sdim_ros.ros.node import CompletionNode
from sdim_ros.ros.transforms import Transforms

SETTINGS = with_values(Settings(), {"projection.tf_timeout_s": 0.25})
CARRIED = with_values(SETTINGS, {"projection.fixed_frame": "odom"})


def header(frame, seconds):
    return Header(frame_id=frame, stamp=Time(sec=seconds))


class MovingRobot:
    """A LiDAR turned and 1 m behind the camera, on a robot that drives at 2 m/s along z."""

    TURN = Rotation.from_euler("xyz", [0.1, -0.2, 0.3])

    def __init__(self):
        self.asked, self.cleared = [], 0

    def clear(self):
        self.cleared += 1

    def lookup_transform(self, target, source, time, timeout):
        self.asked.append((target, source, time.nanoseconds, timeout.nanoseconds))
        if source == "nowhere":
            raise LookupError('"nowhere" passed to lookupTransform does not exist')
        return self._pose([0, 0, -1.0])

    def lookup_transform_full(self, target, target_time, source, source_time, fixed, timeout):
        self.asked.append((target, source, fixed, timeout.nanoseconds))
        late_s = (target_time.nanoseconds - source_time.nanoseconds) / 1e9
        return self._pose([0, 0, -1.0 - 2 * late_s])

    def _pose(self, moved):
        found = TransformStamped()
        for name, value in zip("xyz", moved):
            setattr(found.transform.translation, name, float(value))
        for name, value in zip("xyzw", self.TURN.as_quat()):
            setattr(found.transform.rotation, name, float(value))
        return found


def test_the_pose_is_looked_up_at_the_stamp_of_the_cloud():
    buffer = MovingRobot()
    pose = Transforms(buffer).pose(header("camera", 12), header("lidar", 11), SETTINGS)
    assert buffer.asked == [("camera", "lidar", 11 * 10**9, 250_000_000)]
    assert np.allclose(pose[:3, :3], MovingRobot.TURN.as_matrix())
    assert np.allclose(pose[:, 3], [0, 0, -1, 1])


def test_a_fixed_frame_carries_the_points_to_the_time_of_the_image():
    buffer = MovingRobot()
    pose = Transforms(buffer).pose(header("camera", 12), header("lidar", 11), CARRIED)
    assert buffer.asked[0][2] == "odom"
    # In the second between them the camera drove 2 m away from the points.
    assert np.allclose(pose[:3, 3], [0, 0, -3])


def test_the_offset_of_the_stamps_moves_the_time_of_the_lookup():
    """A cloud stamped half a second before the moment that it shows."""
    buffer, settings = MovingRobot(), with_values(CARRIED, {"sync.offset_s": 0.5})
    pose = Transforms(buffer).pose(header("camera", 12), header("lidar", 11), settings)
    assert np.allclose(pose[:3, 3], [0, 0, -2])
    settings = with_values(SETTINGS, {"sync.offset_s": 0.5})
    Transforms(buffer).pose(header("camera", 12), header("lidar", 11), settings)
    assert buffer.asked[-1][2] == 11_500_000_000


def test_equal_frames_need_no_transform_and_no_tf():
    image = header("camera", 12)
    assert Transforms(None).pose(image, header("camera", 11), SETTINGS) is None
    assert Transforms(None).pose(image, image, CARRIED) is None


@pytest.mark.parametrize(("buffer", "words"), [
    (MovingRobot(), "'nowhere' to 'camera' within projection.tf_timeout_s = 0.25 s .*not exist"),
    (None, "frame 'nowhere', the image in 'camera': .*tf2_ros cannot be imported"),
], ids=["no such frame", "no tf2_ros"])
def test_a_missing_transform_is_refused_with_both_frames_and_the_remedy(buffer, words):
    with pytest.raises(BadInput, match=words) as caught:
        Transforms(buffer).pose(header("camera", 12), header("nowhere", 12), SETTINGS)
    assert caught.value.reason == "no_transform" and "projection.extrinsics" in str(caught.value)


def test_a_jump_of_time_empties_the_buffer():
    buffer = MovingRobot()
    Transforms(buffer).clear()
    Transforms(None).clear()
    assert buffer.cleared == 1


def test_a_bag_that_loops_without_a_clock_empties_the_buffer_once_in_each_round(peer, monkeypatch):
    buffer = MovingRobot()
    monkeypatch.setattr(compat, "tf_buffer", lambda node: buffer)
    node = CompletionNode(FakeCompleter, context=peer.context)
    peer.executor.add_node(node)
    try:
        assert node.start()
        peer.warm_up()
        assert buffer.cleared == 0
        for loops in range(3):
            for second in (100, 101, 102):
                sent = peer.send(
                    ros_process.colour_image(), ros_process.depth_image(ros_process.sparse_depth()),
                    time_ns=second * 10**9 + loops)
                assert peer.result_of(sent) is not None
            assert buffer.cleared == loops
    finally:
        peer.executor.remove_node(node)
        node.close()
        node.destroy_node()
