"""Every bad input is dropped, counted and logged once, and the next good frame works."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

import ros_process
from ros_process import HEIGHT, WIDTH, NodeProcess, Peer
from sensor_msgs.msg import CameraInfo

from sdim_ros.core.sensor_data import read_depth
from sdim_ros.ros.messages import cloud_message

FAST_REPORTS = {"diagnostics.period_s": 0.1}


@pytest.fixture(scope="module")
def running():
    """One node for all faults: each must leave it able to serve the next."""
    with Peer() as peer, NodeProcess(parameters=FAST_REPORTS) as node:
        peer.warm_up()
        yield peer, node
        assert node.process.poll() is None, node.log()


def good_image():
    return ros_process.colour_image()


def good_depth():
    return ros_process.depth_image(ros_process.sparse_depth())


def changed(message, **values):
    for name, value in values.items():
        setattr(message, name, value)
    return message


def empty_cloud():
    return cloud_message(np.empty((0, 3), np.float32), None, good_image().header)


def cloud_behind():
    return cloud_message(np.full((5, 3), -2, np.float32), None, good_image().header)


def cloud_without_z():
    cloud = cloud_message(np.ones((5, 3), np.float32), None, good_image().header)
    cloud.fields = list(cloud.fields)[:2]
    return cloud


# name: (image, sparse, camera_info, reason counted, topic and words of the log line)
FAULTS = {
    "colour encoding": (
        lambda: changed(good_image(), encoding="hsv8"), good_depth, None,
        "encoding", "/image: .*'hsv8'.*expected one of rgb8"),
    "depth encoding": (
        good_image, lambda: changed(good_depth(), encoding="8UC1"), None,
        "encoding", "/sparse_depth/image: .*'8UC1'.*expected 32FC1"),
    "truncated image": (
        lambda: changed(good_image(), data=good_image().data[:-9]), good_depth, None,
        "truncated", "/image: .*with 2295 bytes.*expected at least 2304"),
    "truncated depth": (
        good_image, lambda: changed(good_depth(), data=good_depth().data[:40]), None,
        "truncated", "/sparse_depth/image: .*with 40 bytes.*expected at least 3072"),
    "no pixels": (
        lambda: changed(good_image(), width=0), good_depth, None,
        "image_size", "/image: .*0x24.*input.max_pixels"),
    "depth of another size": (
        good_image, lambda: ros_process.depth_image(ros_process.sparse_depth(12, 16)), None,
        "size_mismatch", "/sparse_depth/image: .*expected the same height and width"),
    "zero points": (
        good_image, lambda: ros_process.depth_image(np.zeros((HEIGHT, WIDTH))), None,
        "no_points", "/sparse_depth/image: .*expected at least 1"),
    "only invalid points": (
        good_image, lambda: ros_process.depth_image(np.full((HEIGHT, WIDTH), np.nan)), None,
        "no_points", None),
    "empty cloud": (good_image, empty_cloud, None, "no_points", "/points: "),
    "cloud behind the camera": (good_image, cloud_behind, None, "no_points", None),
    "cloud without z": (
        good_image, cloud_without_z, None, "fields", "/points: .*expected x, y and z"),
    "camera_info all zero": (
        good_image, good_depth, lambda: CameraInfo(width=WIDTH, height=HEIGHT),
        "uncalibrated", "/camera_info: .*K all zero.*calibrate"),
    "camera_info of another size": (
        good_image, good_depth, lambda: ros_process.camera_info(HEIGHT, 2 * WIDTH),
        "camera_size", "/camera_info: .*64x24 for an image of 32x24"),
    "model raises": (
        lambda: ros_process.colour_image(first=ros_process.RAISE), good_depth, None,
        "exception", "frame lost.*RuntimeError: the fake was told to raise"),
    "model gives rubbish": (
        lambda: ros_process.colour_image(first=ros_process.FAIL), good_depth, None,
        "model_failed", "frame lost: the fake was told to fail"),
}


def dropped(peer: Peer, reason: str) -> int:
    return int(peer.diagnosed("inputs").get(f"dropped: {reason}", 0))


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_is_dropped_counted_and_logged_and_the_next_good_frame_works(running, fault):
    peer, node = running
    image, sparse, info, reason, line = FAULTS[fault]
    before, log_start = dropped(peer, reason), len(node.log())
    sent = peer.send(image(), sparse(), info=info and info())
    assert peer.spin_until(lambda: dropped(peer, reason) == before + 1), node.log()
    assert peer.result_of(sent, timeout_s=0) is None
    if line is not None:
        assert re.search(line, node.log()[log_start:]), node.log()[log_start:]
    assert peer.result_of(peer.send_good()) is not None, node.log()


def test_zero_stamps_are_dropped(running):
    peer, node = running
    before = dropped(peer, "zero_stamp")
    peer.send(good_image(), good_depth(), time_ns=0)
    assert peer.spin_until(lambda: dropped(peer, "zero_stamp") == before + 2), node.log()
    assert re.search("/image: message with the stamp 0.*driver", node.log())
    assert peer.result_of(peer.send_good()) is not None


def test_repeated_faults_are_all_counted_but_logged_once(running):
    peer, node = running
    before, log_start = dropped(peer, "model_failed"), len(node.log())
    peer.spin_until(lambda: False, 5.1)  # so that the last line of this kind is old
    started = time.monotonic()
    for i in range(10):
        peer.send(ros_process.colour_image(first=ros_process.FAIL), good_depth())
        assert peer.spin_until(lambda i=i: dropped(peer, "model_failed") == before + i + 1)
    most = 1 + (time.monotonic() - started) // 5  # a line every five seconds
    assert 1 <= node.log()[log_start:].count("told to fail") <= most < 10


def test_padded_rows_and_big_endian_data_are_read_right(running):
    peer, _ = running
    expected = ros_process.sparse_depth(metres=3.25)
    rows = np.pad(expected.astype(">f4").view(np.uint8), ((0, 0), (0, 12)))
    message = changed(ros_process.depth_image(expected), is_bigendian=True, step=rows.shape[1])
    del message.data[:]
    message.data.frombytes(rows.tobytes())
    depth = read_depth(peer.result_of(peer.send(good_image(), message)), 10**6)
    assert np.array_equal(depth[expected > 0], expected[expected > 0])


def test_millimetres_and_metres_give_the_same_result(running):
    peer, node = running
    millimetres = (ros_process.sparse_depth() * 1000).astype(np.uint16)
    for encoding in ("16UC1", "mono16"):
        message = ros_process.depth_image(millimetres, encoding)
        depth = read_depth(peer.result_of(peer.send(good_image(), message)), 10**6)
        assert set(np.unique(depth)) == {2.5, 5.0}
    assert "/sparse_depth/image: encoding mono16 is read as 16UC1, millimetres" in node.log()


def test_invalid_depths_are_cleaned_and_counted_and_the_rest_is_used(running):
    peer, _ = running

    def cleaned(reason):
        return int(peer.diagnosed("model").get(f"cleaned: {reason}", 0))

    before = {reason: cleaned(reason) for reason in ("not_finite", "negative", "range")}
    depth = ros_process.sparse_depth()
    depth[0, :5] = [np.nan, np.inf, -np.inf, -3.0, 5000.0]
    result = read_depth(peer.result_of(
        peer.send(good_image(), ros_process.depth_image(depth))), 10**6)
    assert set(np.unique(result)) == {2.5, 5.0}
    assert peer.spin_until(lambda: {
        reason: cleaned(reason) - count for reason, count in before.items()
    } == {"not_finite": 3, "negative": 1, "range": 1})


def test_zero_points_are_answered_with_confidence_0_when_asked_for(running):
    peer, _ = running
    assert peer.set_parameters(input__on_empty_sparse="answer").successful
    sent = peer.send(good_image(), ros_process.depth_image(np.zeros((HEIGHT, WIDTH))))
    assert np.isnan(read_depth(peer.result_of(sent), 10**6)).all()
    assert peer.set_parameters(input__on_empty_sparse="skip").successful


def test_pairs_come_again_within_1_s_after_time_jumps_back(running):
    peer, _ = running
    late = 1_000_000_000_000
    assert peer.result_of(peer.send(good_image(), good_depth(), time_ns=late)) is not None
    for i in range(12):  # images without partners fill the queue with late stamps
        peer.image.publish(ros_process.stamped(good_image(), late + i * 10**8))
    peer.spin_until(lambda: False, 0.2)
    assert peer.result_of(peer.send_good(), timeout_s=1.0) is not None


def test_a_changed_camera_is_used_from_the_next_frame_on(running):
    peer, _ = running
    infos = peer.record("depth/camera_info", CameraInfo)
    other = ros_process.camera_info()
    other.k[0] = other.p[0] = 77.0
    for info, fx in ((other, 77.0), (ros_process.camera_info(), 32.0)):
        assert peer.spin_until(lambda info=info, fx=fx: (
            peer.send(good_image(), good_depth(), info=info),
            peer.spin_until(lambda: infos and infos[-1].k[0] == fx, 0.3))[1], 5)
