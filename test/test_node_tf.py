"""The node with the real tf2_ros: clouds are placed by the transforms of a robot that drives."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

import ros_process
from geometry_msgs.msg import TransformStamped
from ros_process import NodeProcess
from scipy.spatial.transform import Rotation

from sdim_ros.core.sensor_data import read_depth
from sdim_ros.ros.messages import cloud_message

try:
    import tf2_ros
except ImportError:
    tf2_ros = None

pytestmark = pytest.mark.skipif(tf2_ros is None, reason="tf2_ros is not installed")

# LiDAR x, y, z are forward, left, up; the camera's are right, down, forward.
LIDAR_TO_OPTICAL = Rotation.from_matrix([[0, -1, 0], [0, 0, -1], [1, 0, 0]])
FAST_REPORTS = {"diagnostics.period_s": 0.1}


def transform(parent, child, moved, turned=Rotation.identity(), time_ns=0):
    found = ros_process.stamped(TransformStamped(child_frame_id=child), time_ns, parent)
    for name, value in zip("xyz", moved):
        setattr(found.transform.translation, name, float(value))
    for name, value in zip("xyzw", turned.as_quat()):
        setattr(found.transform.rotation, name, float(value))
    return found


def ahead(metres):
    """One point on the LiDAR's x axis."""
    cloud = cloud_message(np.array([[metres, 0, 0]], np.float32), None, ros_process.Image().header)
    cloud.header.frame_id = "lidar"
    return cloud


@pytest.fixture
def static(peer):
    """The rig: the LiDAR sits 0.5 m behind the camera, both on base_link."""
    broadcaster = tf2_ros.StaticTransformBroadcaster(peer.node)
    broadcaster.sendTransform([
        transform("base_link", "camera_optical", (0.5, 0, 1), LIDAR_TO_OPTICAL.inv()),
        transform("base_link", "lidar", (0, 0, 1))])
    return broadcaster


def depth_of(peer, cloud, image_ns, cloud_ns):
    cloud.header.stamp.sec, cloud.header.stamp.nanosec = divmod(cloud_ns, 10**9)
    peer.info.publish(ros_process.stamped(ros_process.camera_info(), image_ns))
    peer.cloud.publish(cloud)
    peer.image.publish(ros_process.stamped(ros_process.colour_image(), image_ns))
    result = peer.result_of(image_ns, 3)
    return None if result is None else float(np.nanmin(read_depth(result, 10**6)))


def test_a_cloud_is_placed_by_static_transforms(peer, static):
    with NodeProcess(parameters=FAST_REPORTS) as node:
        peer.warm_up()
        now = peer.next_ns()
        assert peer.spin_until(lambda: depth_of(peer, ahead(4.5), now, now)), node.log()
        later = peer.next_ns()
        assert depth_of(peer, ahead(4.5), later, later) == pytest.approx(4.0), node.log()


def test_points_are_carried_along_a_fixed_frame_to_the_time_of_the_image(peer, static):
    """The robot drives forward at 10 m/s; the image is 0.04 s younger than the cloud."""
    moving = tf2_ros.TransformBroadcaster(peer.node)
    start = 5 * 10**9

    def drive():
        for step in range(20):
            time_ns = start + step * 10_000_000
            moving.sendTransform(transform("odom", "base_link", (step / 10, 0, 0), time_ns=time_ns))

    parameters = {**FAST_REPORTS, "projection.fixed_frame": "odom"}
    with NodeProcess(parameters=parameters) as node:
        peer.warm_up()
        cloud_ns, image_ns = start + 50_000_000, start + 90_000_000
        assert peer.spin_until(lambda: (drive(), depth_of(
            peer, ahead(4.5), image_ns, cloud_ns))[1]), node.log()
        assert depth_of(peer, ahead(4.5), image_ns + 10**7, cloud_ns) == pytest.approx(
            4.0 - 0.5, abs=1e-4), node.log()


def test_a_bag_that_loops_without_a_clock_is_placed_by_its_transforms_in_every_round(peer, static):
    """tf2 ignores what is 10 s older than the newest it has, so for ever after a loop."""
    moving = tf2_ros.TransformBroadcaster(peer.node)
    start = 5 * 10**9

    def play(second):
        """The nearest depth of a set at this second; the robot is 1 m further each second."""
        time_ns = start + second * 10**9
        moving.sendTransform(
            transform("odom", "base_link", (second, 0, 0), time_ns=time_ns - 40_000_000))
        moving.sendTransform(transform("odom", "base_link", (second, 0, 0), time_ns=time_ns))
        peer.spin_until(lambda: False, 0.2)
        return depth_of(peer, ahead(4.5), time_ns, time_ns - 30_000_000)

    parameters = {**FAST_REPORTS, "projection.fixed_frame": "odom", "projection.tf_timeout_s": 0.5}
    with NodeProcess(parameters=parameters) as node:
        peer.warm_up()
        assert peer.spin_until(lambda: play(1)), node.log()
        for second in (20, 40):
            assert play(second) == pytest.approx(4.0), node.log()
        play(1)  # the set that jumps may come after its transforms, which are lost then
        assert peer.spin_until(lambda: int(peer.diagnosed("sync").get("resets", 0)) == 1)
        for second in (2, 3):
            assert play(second) == pytest.approx(4.0), node.log()


def test_a_frame_outside_of_the_tree_is_dropped_with_both_names(peer, static):
    lost = ahead(4.5)
    lost.header.frame_id = "velodyne"
    with NodeProcess(parameters=FAST_REPORTS) as node:
        peer.warm_up()
        now = peer.next_ns()
        assert peer.spin_until(
            lambda: depth_of(peer, lost, now, now) is None
            and "dropped: no_transform" in peer.diagnosed("inputs")), node.log()
        assert "'velodyne' to 'camera_optical' within projection.tf_timeout_s" in node.log()
        assert peer.result_of(peer.send_good()) is not None
