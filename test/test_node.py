"""The node in its own process over real DDS: what goes in comes out, once, under its stamp."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

import ros_process
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from ros_process import HEIGHT, WIDTH, NodeProcess
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from sdim_ros.core.sensor_data import read_depth, read_points
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.ros.messages import cloud_message

LIMIT = 10_000_000


def messages_of(image_size=(HEIGHT, WIDTH), **options):
    return (ros_process.colour_image(*image_size),
            ros_process.depth_image(ros_process.sparse_depth(*image_size), **options))


def stamps(recorded, since_ns):
    """The stamps of the messages after warm-up, in the order of arrival."""
    return [ns for ns in (stamp_ns(message.header) for message in recorded) if ns >= since_ns]


def test_fifty_pairs_give_fifty_results_with_their_stamps_and_frame(peer):
    others = [peer.record("depth/camera_info", CameraInfo), peer.record("depth/confidence", Image)]
    with NodeProcess() as node:
        peer.warm_up()
        sent = []
        for _ in range(50):
            sent.append(peer.send_good())
            assert peer.result_of(sent[-1]) is not None, node.log()
        peer.spin_until(lambda: all(stamps(other, sent[0]) == sent for other in others))
    for recorded in (peer.results, *others):
        assert stamps(recorded, sent[0]) == sent
        assert {message.header.frame_id for message in recorded} == {"camera_optical"}
    depth, confidence = read_depth(peer.results[-1], LIMIT), read_depth(others[1][-1], LIMIT)
    given = ros_process.sparse_depth()
    assert np.array_equal(depth[given > 0], given[given > 0])
    assert set(np.unique(depth)) == {2.5, 5.0}
    assert np.array_equal(confidence, np.where(given > 0, 1, 0.5))
    assert list(others[0][-1].k) == list(ros_process.camera_info().k)


def test_large_outputs_reach_best_effort_and_reliable_subscribers_without_loss(peer):
    """100 depth images of 1.2 MB at 20 Hz, with the shipped shared-memory profile."""
    best_effort = peer.record(
        "depth/completed", Image, name="best effort", reliability=ReliabilityPolicy.BEST_EFFORT)
    image, sparse = messages_of((480, 640))
    with NodeProcess() as node:
        peer.warm_up()
        sent, start = [], time.monotonic()
        for i in range(100):
            sent.append(peer.send(image, sparse))
            # A noisy machine may need longer than 0.05 s: this counts losses on the way out, so
            # the next image waits until the node has taken this one.
            peer.spin_until(lambda i=i: time.monotonic() >= start + (i + 1) / 20)
            assert peer.result_of(sent[-1]) is not None, node.log()
        peer.spin_until(lambda: len(stamps(best_effort, sent[0])) == 100, 5)
    assert len(peer.results[-1].data) == 480 * 640 * 4
    for recorded in (peer.results, best_effort):
        assert stamps(recorded, sent[0]) == sent


def test_lidar_cloud_is_projected_with_the_extrinsics(peer):
    # The LiDAR sits 0.5 m behind the camera. Its x, y, z point forward, left and up: z, -x and -y
    # of the camera.
    extrinsics = [0.0, 0.0, -0.5, 0.5, -0.5, 0.5, 0.5]
    lidar = np.array([[4.5, 0.0, 0.0], [8.5, 0.0, 0.0], [-3.0, 0.0, 0.0]], np.float32)
    with NodeProcess(parameters={"projection.extrinsics": extrinsics}) as node:
        peer.warm_up()
        sent = peer.send(ros_process.colour_image(), cloud_message(lidar, None, _header()))
        result = peer.result_of(sent)
        assert result is not None, node.log()
    # The nearer of the two points in front of the camera, at 4 m, hides the other.
    assert np.array_equal(np.unique(read_depth(result, LIMIT)), [4.0])


def test_a_cloud_comes_as_soon_as_somebody_listens(peer):
    with NodeProcess(parameters={"points.stride_px": 4}) as node:
        peer.warm_up()
        assert peer.result_of(peer.send_good()) is not None
        clouds = peer.record("depth/points", PointCloud2)
        assert peer.spin_until(lambda: (peer.send_good(), peer.spin_until(
            lambda: clouds, 0.3))[1]), node.log()
    points = read_points(clouds[-1])
    assert len(points) == WIDTH * HEIGHT // 16 and np.isfinite(points).all()
    # Pixel (row 0, col 0) lies at depth 2.5 m: x = (0 - cx) / fx * z.
    assert points[0] == pytest.approx([-1.25, -0.9375, 2.5])
    assert clouds[-1].header.frame_id == "camera_optical"


def test_parameters_take_effect_at_the_next_frame(peer):
    with NodeProcess():
        peer.warm_up()
        assert peer.set_parameters(output__encoding="16UC1").successful
        result = peer.result_of(peer.send_good())
        assert result.encoding == "16UC1"
        assert set(np.frombuffer(result.data, "<u2")) == {2500, 5000}
        assert peer.set_parameters(output__min_confidence=0.6).successful
        depth = read_depth(peer.result_of(peer.send_good()), LIMIT)
        assert np.array_equal(depth, ros_process.sparse_depth())
        rejected = peer.set_parameters(output__encoding="mono8")
        assert not rejected.successful and "32FC1, 16UC1" in rejected.reason
        assert peer.result_of(peer.send_good()).encoding == "16UC1"
        rejected = peer.set_parameters(model__checkpoint="/else")
        assert not rejected.successful and "cleanup" in rejected.reason


def test_a_parameter_that_changes_during_a_frame_waits_for_the_next_one(peer):
    with NodeProcess(FAKE_DELAY_S="1.0", parameters={"diagnostics.period_s": 0.1}) as node:
        peer.warm_up()
        assert peer.worker_is("idle")
        during = peer.send_good()
        assert peer.worker_is("busy"), node.log()
        assert peer.set_parameters(output__encoding="16UC1").successful
        assert peer.result_of(during).encoding == "32FC1"
        assert peer.result_of(peer.send_good()).encoding == "16UC1"


def test_input_qos_can_be_overridden_by_a_parameter(peer):
    name = "qos_overrides./image.subscription.reliability"
    with NodeProcess(parameters={name: "reliable"}):
        peer.warm_up()
        [image] = [e for e in peer.node.get_subscriptions_info_by_topic("/image")]
        [info] = [e for e in peer.node.get_subscriptions_info_by_topic("/camera_info")]
    assert image.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_output_qos_can_be_overridden_by_a_parameter(peer):
    name = "qos_overrides./depth/completed.publisher"
    with NodeProcess(parameters={f"{name}.durability": "transient_local", f"{name}.depth": 2}):
        peer.warm_up()
        [depth] = peer.node.get_publishers_info_by_topic("/depth/completed")
        [other] = peer.node.get_publishers_info_by_topic("/depth/confidence")
    assert depth.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert other.qos_profile.durability == DurabilityPolicy.VOLATILE


def test_newest_frame_wins_when_the_model_is_slow(peer):
    with NodeProcess(FAKE_DELAY_S="0.4", parameters={"diagnostics.period_s": 0.1}):
        peer.warm_up()
        peer.worker_is("idle")
        sent = []
        for _ in range(10):
            sent.append(peer.send_good())
            peer.spin_until(lambda: False, 0.02)
        assert peer.result_of(sent[-1]) is not None
        assert len(stamps(peer.results, sent[0])) < 5
        assert peer.spin_until(lambda: int(peer.diagnosed("worker").get("replaced", 0)) >= 6)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["idle", "computing", "loading"])
def test_signals_end_the_node_with_0_at_any_moment(peer, signal_number, moment):
    environment = {
        "idle": {}, "computing": {"FAKE_DELAY_S": "30"}, "loading": {"FAKE_LOAD_S": "30"}}[moment]
    with NodeProcess(parameters={"diagnostics.period_s": 0.1}, **environment) as node:
        if moment == "idle":
            peer.warm_up()
        elif moment == "computing":
            assert peer.keep_busy(), node.log()
        else:
            assert peer.spin_until(
                lambda: "completion_node" in peer.node.get_node_names(), 30)
        code = node.stop(signal_number)
        log = node.log()
    assert code == 0, log
    assert "Traceback" not in log


def test_second_interrupt_during_shutdown_leaves_no_traceback(peer):
    # A frame that takes long holds the shutdown up, so that more signals come in its midst.
    with NodeProcess(FAKE_DELAY_S="30", parameters={"diagnostics.period_s": 0.1}) as node:
        assert peer.keep_busy(), node.log()
        sent = 0
        while node.process.poll() is None and sent < 400:
            node.process.send_signal(signal.SIGINT)
            sent += 1
            time.sleep(0.05)
        assert node.process.wait(5) == 0 and sent > 2
        assert "Traceback" not in node.log()


def test_bad_start_parameters_end_the_process_with_one_line_that_lists_them():
    with NodeProcess(parameters={"queries.budget": -1, "fill.method": "magic"}) as node:
        assert node.process.wait(20) == 2
        [line] = node.log().splitlines()
    assert "queries.budget" in line and "fill.method='magic'" in line


def test_broken_parameter_file_ends_the_process_without_a_traceback(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("/**:\n  ros__parameters: [\n")
    with NodeProcess("--params-file", str(broken)) as node:
        assert node.process.wait(20) == 2
        log = node.log()
    assert str(broken) in log and "Traceback" not in log


def test_unknown_ros_arguments_end_the_process_with_2_and_are_named_as_that():
    with NodeProcess("--bad") as node:
        assert node.process.wait(20) == 2
        assert "unknown ROS arguments: ['--bad']" in node.log()


def _header():
    return Image().header
