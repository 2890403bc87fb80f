"""Poses come from TF at the stamps of cloud and image, and what is missing is named.

The buffer here has the interface of ``tf2_ros.Buffer``, which has no wheel on PyPI.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from sdim_ros.core.config import ProjectionSettings
from sdim_ros.core.types import BadInput
from sdim_ros.ros.transforms import Transforms

SETTINGS = ProjectionSettings(tf_timeout_s=0.25)


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
    buffer, settings = MovingRobot(), ProjectionSettings(fixed_frame="odom")
    pose = Transforms(buffer).pose(header("camera", 12), header("lidar", 11), settings)
    assert buffer.asked[0][2] == "odom"
    # In the second between them the camera drove 2 m away from the points.
    assert np.allclose(pose[:3, 3], [0, 0, -3])


def test_equal_frames_need_no_transform_and_no_tf():
    image = header("camera", 12)
    assert Transforms(None).pose(image, header("camera", 11), SETTINGS) is None
    assert Transforms(None).pose(image, image, ProjectionSettings(fixed_frame="odom")) is None


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


def test_the_reader_moves_a_cloud_by_tf():
    """Through the whole reader: a point on the LiDAR's x axis lands where TF says."""
    from sensor_msgs.msg import Image

    import ros_process
    from sdim_ros.core.config import Settings
    from sdim_ros.ros.frame_reader import FrameReader, Job, Stages
    from sdim_ros.ros.messages import cloud_message

    topics = {name: f"/{name}" for name in ("image", "camera_info", "points")}
    warned = []
    reader = FrameReader(topics, Transforms(MovingRobot()), lambda *text: warned.append(text))
    in_camera = np.array([[0.1, 0.2, 2.0]])
    in_lidar = MovingRobot.TURN.inv().apply(in_camera + [0, 0, 1.0])
    image: Image = ros_process.stamped(ros_process.colour_image(), 12 * 10**9, "camera")
    cloud = cloud_message(in_lidar.astype(np.float32), None, header("lidar", 12))
    info = ros_process.camera_info()
    job = Job(image, {"points": cloud}, info, None, Settings(), 0.0)
    frame = reader.read(job, Stages(0.0)).frame
    row = int(info.k[4] * 0.2 / 2 + info.k[5] + 0.5)
    col = int(info.k[0] * 0.1 / 2 + info.k[2] + 0.5)
    assert np.argwhere(frame.sparse > 0).tolist() == [[row, col]]
    assert frame.sparse[row, col] == pytest.approx(2.0, abs=1e-5) and not warned
    behind = cloud_message(-in_lidar.astype(np.float32), None, header("lidar", 12))
    reader.read(dataclasses.replace(job, sparse={"points": behind}), Stages(0.0))
    assert warned[0][:2] == ("/points", "few_inside") and "0 of 1 points" in warned[0][2]
