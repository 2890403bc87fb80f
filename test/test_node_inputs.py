"""Every kind of input over real DDS: what the robot publishes, the node understands."""

from __future__ import annotations

import re
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

import ros_process
from ros_process import HEIGHT, WIDTH, NodeProcess
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool
from stereo_msgs.msg import DisparityImage

from sdim_ros.core.sensor_data import read_colour, read_depth
from sdim_ros.ros.messages import cloud_message

LIMIT = 10_000_000
FAST_REPORTS = {"diagnostics.period_s": 0.1}


def depth_of(message):
    return read_depth(message, LIMIT)


def compressed(form, data):
    message = CompressedImage(format=form)
    message.data.frombytes(bytes(data))
    return message


def disparity_image(disparity, focal_px=100.0, baseline_m=0.1):
    message = DisparityImage(
        image=ros_process.depth_image(disparity), f=focal_px, t=baseline_m,
        min_disparity=0.5, max_disparity=64.0)
    return message


def first_result(peer, *pairs):
    """Send until a result comes: discovery is over on both sides. None when none does."""
    peer.spin_until(lambda: peer.result_of(peer.send_each(*pairs), 0.5) is not None, 30)
    return peer.results[-1] if peer.results else None


def dropped(peer, reason):
    return int(peer.diagnosed("inputs").get(f"dropped: {reason}", 0))


def test_compressed_images_and_depth_are_read_from_their_own_topics(peer):
    parameters = {"input.image_transport": "compressed", "input.depth_transport": "compressedDepth"}
    codes = (ros_process.sparse_depth() * 1000).astype(np.uint16)
    picture = np.full((HEIGHT, WIDTH, 3), (30, 20, 10), np.uint8)  # blue, green, red
    with NodeProcess(parameters=parameters) as node:
        image = peer.publisher(CompressedImage, "image/compressed")
        depth = peer.publisher(CompressedImage, "sparse_depth/image/compressedDepth")
        overlay = peer.record("debug/overlay", Image)
        result = first_result(
            peer, (peer.info, ros_process.camera_info()),
            (depth, compressed("16UC1; compressedDepth png",
                               bytes(12) + cv2.imencode(".png", codes)[1].tobytes())),
            (image, compressed("bgr8; png compressed bgr8", cv2.imencode(".png", picture)[1])))
        assert result is not None, node.log()
        assert peer.spin_until(lambda: overlay)
    assert set(np.unique(depth_of(result))) == {2.5, 5.0}
    assert read_colour(overlay[0], LIMIT)[-1, 0].tolist() == [5, 10, 15]


def test_disparity_of_the_same_camera_becomes_depth(peer):
    disparity = np.zeros((HEIGHT, WIDTH), np.float32)
    disparity[6, 8], disparity[12, 16] = 4.0, 0.4  # 2.5 m, and under min_disparity
    with NodeProcess(parameters=FAST_REPORTS) as node:
        publisher = peer.publisher(DisparityImage, "disparity")
        peer.warm_up()
        sent = peer.send_each(
            (publisher, disparity_image(disparity)), (peer.info, ros_process.camera_info()),
            (peer.image, ros_process.colour_image()))
        result = peer.result_of(sent)
        assert result is not None, node.log()
        assert np.unique(depth_of(result)).tolist() == [2.5]
        other = disparity_image(disparity)
        other.header.frame_id = "right_camera_optical"
        peer.send_each((publisher, other), (peer.image, ros_process.colour_image()))
        assert peer.spin_until(lambda: dropped(peer, "frame") == 1), node.log()
        assert re.search("/disparity: .*'right_camera_optical'.*points", node.log())


@pytest.mark.parametrize("first", ["info", "depth"])
def test_depth_of_a_smaller_camera_is_reprojected_with_its_own_camera_info(peer, first):
    small = np.zeros((HEIGHT // 2, WIDTH // 2), np.float32)
    small[3, 4] = 2.0
    with NodeProcess() as node:
        peer.warm_up()
        info = peer.publisher(CameraInfo, "sparse_depth/camera_info")

        def publish_info():
            info.publish(ros_process.camera_info(HEIGHT // 2, WIDTH // 2))

        if first == "info":
            publish_info()
            peer.spin_until(lambda: False, 0.3)
        sent = peer.send(ros_process.colour_image(), ros_process.depth_image(small))
        if first == "depth":
            assert peer.result_of(sent, 0.5) is None
        # Again and again, as a driver does: the node may know of the publisher later than it of
        # the node, and what is published before that is lost.
        assert peer.spin_until(
            lambda: (publish_info(), peer.result_of(sent, 0.2))[-1] is not None), node.log()
        result = peer.result_of(sent)
    assert np.unique(depth_of(result)).tolist() == [2.0]


def test_several_sources_make_one_frame_and_the_nearest_depth_counts(peer):
    # 2 m and 4 m in the middle row; the stereo pair sees 1 m where the LiDAR sees 2 m.
    camera = ros_process.camera_info()
    fx, cx, cy = camera.k[0], camera.k[2], camera.k[5]
    lidar = np.array([[(col - cx) / fx * z, (12 - cy) / fx * z, z]
                      for col, z in ((4, 2.0), (20, 4.0))], np.float32)
    disparity = np.zeros((HEIGHT, WIDTH), np.float32)
    disparity[12, 4] = 10.0  # 1 m
    parameters = {"input.sources": "points,disparity", "output.min_confidence": 0.9,
                  "sync.timeout_s": 1.0, **FAST_REPORTS}
    with NodeProcess(parameters=parameters) as node:
        stereo = peer.publisher(DisparityImage, "disparity")
        image, info = ros_process.colour_image(), ros_process.camera_info()
        result = first_result(
            peer, (peer.info, info), (stereo, disparity_image(disparity)),
            (peer.cloud, cloud_message(lidar, None, image.header)), (peer.image, image))
        assert result is not None, node.log()
        assert peer.sparse.get_subscription_count() == 0
        both = depth_of(result)
        assert both[12, 4] == pytest.approx(1.0) and both[12, 20] == pytest.approx(4.0)
        # The stereo pair falls silent: the image goes on with the LiDAR alone.
        sent = peer.send_each((peer.info, info), (peer.image, image),
                              (peer.cloud, cloud_message(lidar, None, image.header)))
        result = peer.result_of(sent)
        assert result is not None, node.log()
        assert depth_of(result)[12, 4] == pytest.approx(2.0)
        assert peer.spin_until(lambda: int(peer.diagnosed("sync").get("timed out", 0)) >= 1)


def test_an_image_alone_is_answered_where_the_user_wants_that(peer):
    parameters = {"sync.timeout_s": 0.2, "input.on_empty_sparse": "answer", **FAST_REPORTS}
    with NodeProcess(parameters=parameters) as node:
        peer.warm_up()
        confidence = peer.record("depth/confidence", Image)
        sent = peer.send_each((peer.info, ros_process.camera_info()),
                              (peer.image, ros_process.colour_image()))
        assert peer.result_of(sent) is not None, node.log()
        assert peer.spin_until(lambda: confidence)
        assert (depth_of(confidence[-1]) == 0).all()


def test_a_raw_image_is_rectified_and_its_camera_info_says_so(peer):
    info = ros_process.camera_info()
    info.d = [-0.3, 0.1, 0.0, 0.0, 0.0]
    with NodeProcess(parameters={"input.rectify": True}) as node:
        infos = peer.record("depth/camera_info", CameraInfo)
        peer.warm_up()
        depth = np.zeros((HEIGHT, WIDTH), np.float32)
        depth[2, 3] = 3.0  # near a corner, where the lens bends most
        sent = peer.send(ros_process.colour_image(), ros_process.depth_image(depth), info=info)
        assert peer.result_of(sent) is not None, node.log()
        assert peer.spin_until(lambda: infos and list(infos[-1].d) == [0.0] * 5), node.log()
        assert peer.set_parameters(input__rectify=False).successful
        assert peer.result_of(peer.send(
            ros_process.colour_image(), ros_process.depth_image(depth), info=info)) is not None
        assert re.search("/camera_info: .*distortion.*input.rectify", node.log())
        assert peer.spin_until(lambda: list(infos[-1].d) == list(info.d))


def test_a_cloud_in_another_frame_without_a_transform_is_dropped_with_both_frames(peer):
    cloud = cloud_message(np.ones((5, 3), np.float32), None, Image().header)
    cloud.header.frame_id = "velodyne"
    with NodeProcess(parameters={"projection.tf_timeout_s": 0.1, **FAST_REPORTS}) as node:
        peer.warm_up()
        peer.send_each((peer.cloud, cloud), (peer.image, ros_process.colour_image()))
        assert peer.spin_until(lambda: dropped(peer, "no_transform") == 1), node.log()
        assert re.search("/points: .*'velodyne'.*'camera_optical'.*projection.extrinsics",
                         node.log()), node.log()
        assert peer.result_of(peer.send_good()) is not None


def test_old_images_are_dropped_before_the_model_sees_them(peer):
    with NodeProcess(parameters={**FAST_REPORTS}) as node:
        peer.warm_up()
        assert peer.set_parameters(input__max_age_s=5.0).successful
        peer.send_good()  # the peer's stamps are of 1970
        assert peer.spin_until(lambda: dropped(peer, "too_old") == 1), node.log()
        now_ns = peer.node.get_clock().now().nanoseconds
        sent = peer.send(ros_process.colour_image(),
                         ros_process.depth_image(ros_process.sparse_depth()), time_ns=now_ns)
        assert peer.result_of(sent) is not None, node.log()


def test_the_rate_of_results_can_be_limited(peer):
    with NodeProcess(parameters={**FAST_REPORTS, "output.max_rate_hz": 2.0}):
        peer.warm_up()
        peer.spin_until(lambda: False, 0.6)

        def left_out():
            return int(peer.diagnosed("sync").get("over output.max_rate_hz", 0))

        before, left_before, started = len(peer.results), left_out(), time.monotonic()
        for _ in range(20):  # about 10 Hz
            peer.send_good()
            peer.spin_until(lambda: False, 0.1)
        most = 2 * (time.monotonic() - started) + 2
        assert peer.spin_until(
            lambda: len(peer.results) - before + left_out() - left_before == 20)
        assert 2 <= len(peer.results) - before <= most and left_out() > left_before


def test_nothing_is_computed_while_nobody_listens_or_the_node_is_disabled(peer):
    with NodeProcess(parameters=FAST_REPORTS) as node:
        peer.warm_up()
        for enable, words in ((False, "disabled"), (True, "ok")):
            response = peer.call(SetBool, "/completion_node/enable", SetBool.Request(data=enable))
            assert response.success
            assert peer.spin_until(lambda w=words: w in peer.diagnosed("sync")["message"])
            assert bool(peer.image.get_subscription_count()) == enable or peer.spin_until(
                lambda e=enable: bool(peer.image.get_subscription_count()) == e)
        peer.warm_up()
        peer.node.destroy_subscription(next(
            s for s in peer.node.subscriptions if s.topic_name == "/depth/completed"))
        done = int(peer.diagnosed("worker")["done"])

        def unheard():
            peer.send_good()
            peer.spin_until(lambda: False, 0.1)
            return int(peer.diagnosed("sync").get("nobody listens", 0)) >= 3

        assert peer.spin_until(unheard), node.log()
        # One or two frames may pass before the node notices.
        assert int(peer.diagnosed("worker")["done"]) <= done + 3


def test_a_subscriber_with_another_qos_is_reported_by_topic_and_policy(peer):
    with NodeProcess() as node:
        peer.warm_up()
        peer.node.create_subscription(
            Image, "depth/confidence", print,
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        assert peer.spin_until(lambda: re.search(
            "/depth/confidence: a subscriber there has another QoS policy durability", node.log())
        ), node.log()
        assert peer.result_of(peer.send_good()) is not None


def test_a_publisher_with_another_qos_is_reported_by_topic_and_policy(peer):
    name = "qos_overrides./image.subscription.reliability"
    with NodeProcess(parameters={name: "reliable"}) as node:
        peer.warm_up()
        peer.node.create_publisher(Image, "image", QoSProfile(
            depth=1, reliability=ros_process.ReliabilityPolicy.BEST_EFFORT))
        assert peer.spin_until(lambda: re.search(
            "/image: a publisher there has another QoS policy reliability", node.log())
        ), node.log()


def test_outputs_for_people_and_planners_are_built_when_wanted(peer):
    parameters = {"points.organized": True, "points.stride_px": 2, "points.max_range_m": 3.0}
    with NodeProcess(parameters=parameters) as node:
        peer.warm_up()
        clouds = peer.record("depth/points", ros_process.PointCloud2)
        normals = peer.record("depth/normals", Image)
        doubted = peer.record("debug/doubted", Image)
        assert peer.spin_until(lambda: (peer.send_good(), peer.spin_until(
            lambda: clouds and normals and doubted, 0.3))[1]), node.log()
    cloud = clouds[-1]
    assert (cloud.height, cloud.width, cloud.is_dense) == (HEIGHT // 2, WIDTH // 2, False)
    z = np.frombuffer(cloud.data, "<f4").reshape(HEIGHT // 2, WIDTH // 2, 4)[:, :, 2]
    assert np.nanmax(z) == 2.5 and np.isnan(z).any()  # 5 m is out of range
    vectors = np.frombuffer(normals[-1].data, "<f4").reshape(HEIGHT, WIDTH, 3)
    assert normals[-1].encoding == "32FC3"
    assert np.allclose(vectors[2, 2], (0, 0, -1), atol=1e-5)  # a flat piece facing the camera
    assert read_colour(doubted[-1], LIMIT).shape == (HEIGHT, WIDTH, 3)


def test_depth_of_another_size_without_its_own_camera_info_is_refused_by_its_topic(peer):
    parameters = {"input.sources": "points,sparse_depth", **FAST_REPORTS}
    small = ros_process.depth_image(ros_process.sparse_depth(HEIGHT // 2, WIDTH // 2))
    cloud = cloud_message(np.ones((5, 3), np.float32), None, Image().header)
    with NodeProcess(parameters=parameters) as node:
        for _ in range(100):
            peer.send_each((peer.info, ros_process.camera_info()), (peer.cloud, cloud),
                           (peer.sparse, small), (peer.image, ros_process.colour_image()))
            if peer.spin_until(lambda: dropped(peer, "size_mismatch"), 0.2):
                break
        assert re.search("/sparse_depth/image: depth of 16x12 for an image of 32x24", node.log())
