"""Frames of bags that are written as a robot's recorder writes them."""

from __future__ import annotations

import pickle
from multiprocessing import get_context

import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from test_compressed import depth_message

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.bag_frames import BagFrames
from sdim_ros.tools.datasets.catalogue import open_source
from sdim_ros.tools.training.data_recipe import SourceRecipe

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types
HEIGHT, WIDTH = 12, 16
K = np.array([20.0, 0, 8, 0, 20, 6, 0, 0, 1])
DEPTH_TOPICS = {"image": "/image", "sparse_depth": "/depth"}
POINT_TOPICS = {"image": "/image", "camera_info": "/camera_info", "points": "/points"}
FLOAT32 = 7


def header(seconds, frame="camera"):
    whole, rest = divmod(round(seconds * 1e9), 10**9)
    return TYPES["std_msgs/msg/Header"](
        stamp=TYPES["builtin_interfaces/msg/Time"](sec=whole, nanosec=rest), frame_id=frame)


def image_message(pixels, encoding, seconds, padding=0, bigendian=False):
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return TYPES["sensor_msgs/msg/Image"](
        header=header(seconds), height=pixels.shape[0], width=pixels.shape[1],
        encoding=encoding, is_bigendian=int(bigendian), step=rows.shape[1], data=rows.ravel())


def picture():
    """Red above, blue below, (H, W, 3) RGB."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:6, :, 0] = image[6:, :, 2] = 250
    return image


def millimetres():
    depth = np.zeros((HEIGHT, WIDTH), np.uint16)
    depth[3, 4] = 1234
    return depth


def info_message(seconds, width=WIDTH, p=np.zeros(12)):
    return TYPES["sensor_msgs/msg/CameraInfo"](
        header=header(seconds), height=HEIGHT, width=width, distortion_model="plumb_bob",
        d=np.zeros(5), k=K, r=np.eye(3).ravel(), p=np.array(p, float), binning_x=0, binning_y=0,
        roi=TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False))


def cloud_message(points, seconds):
    """x, y, z, intensity: 20 bytes a point, 4 of them unused."""
    packed = np.zeros(len(points), np.dtype(
        {"names": list("xyz"), "formats": ["<f4"] * 3, "offsets": [0, 4, 8], "itemsize": 20}))
    for name, column in zip("xyz", np.transpose(points)):
        packed[name] = column
    fields = [TYPES["sensor_msgs/msg/PointField"](name, offset, FLOAT32, 1)
              for name, offset in (("x", 0), ("y", 4), ("z", 8), ("intensity", 12))]
    return TYPES["sensor_msgs/msg/PointCloud2"](
        header=header(seconds), height=1, width=len(points), fields=fields, is_bigendian=False,
        point_step=20, row_step=20 * len(points), data=packed.view(np.uint8), is_dense=True)


def write_bag(path, *messages, plugin=StoragePlugin.MCAP):
    """Topic, message, seconds at which the recorder got it."""
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for topic, message, seconds in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], round(seconds * 1e9),
                         STORE.serialize_cdr(message, kind))
    return path


@pytest.fixture
def bag(tmp_path):
    """Two pairs, recorded late and in another order, and an image without depth."""
    return write_bag(
        tmp_path / "bag",
        ("/depth", image_message(millimetres(), "16UC1", 10.02), 20.0),
        ("/image", image_message(picture(), "rgb8", 10.0), 20.1),
        ("/image", image_message(picture(), "rgb8", 10.5), 20.2),
        ("/image", image_message(picture(), "rgb8", 11.0), 20.2),
        ("/depth", image_message(2 * millimetres(), "16UC1", 10.97), 20.3))


def test_images_get_the_depth_nearest_in_time_and_unpaired_ones_are_left_out(bag):
    first, second = BagFrames(bag, DEPTH_TOPICS)
    assert (first.stamp_ns, second.stamp_ns) == (10_000_000_000, 11_000_000_000)
    assert first.sparse[3, 4] == np.float32(1.234) and np.count_nonzero(first.sparse) == 1
    assert second.sparse[3, 4] == np.float32(2.468)
    assert first.truth is None and first.image.tolist() == picture().tolist()


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_both_storage_formats_are_read(tmp_path, plugin):
    path = write_bag(
        tmp_path / "bag", ("/image", image_message(picture(), "rgb8", 1.0), 1.0),
        ("/depth", image_message(millimetres(), "16UC1", 1.0), 1.0), plugin=plugin)
    frames = open_source(SourceRecipe("bag", folder=path, topics=DEPTH_TOPICS))
    assert len(frames) == 1 and frames[0].sparse[3, 4] == np.float32(1.234)


def test_bags_of_ros_1_are_read(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    types, messages = store.types, []
    for topic, encoding, pixels in (("/image", "rgb8", picture()),
                                    ("/depth", "16UC1", millimetres())):
        stamp = types["builtin_interfaces/msg/Time"](sec=1, nanosec=0)
        data = pixels.view(np.uint8).ravel()
        messages.append((topic, types["sensor_msgs/msg/Image"](
            types["std_msgs/msg/Header"](0, stamp, "camera"), HEIGHT, WIDTH, encoding, 0,
            data.size // HEIGHT, data)))
    with Writer1(tmp_path / "old.bag") as writer:
        for topic, message in messages:
            connection = writer.add_connection(topic, message.__msgtype__, typestore=store)
            writer.write(connection, 10**9, store.serialize_ros1(message, message.__msgtype__))
    sample = BagFrames(tmp_path / "old.bag", DEPTH_TOPICS)[0]
    assert sample.sparse[3, 4] == np.float32(1.234)
    assert sample.image.tolist() == picture().tolist()


@pytest.mark.parametrize("encoding, pixels", [
    ("bgr8", picture()[..., ::-1]),
    ("rgba8", np.dstack([picture(), np.zeros((HEIGHT, WIDTH), np.uint8)])),
])
def test_colours_become_rgb_whatever_the_encoding_and_padding(tmp_path, encoding, pixels):
    path = write_bag(
        tmp_path / "bag", ("/image", image_message(pixels, encoding, 1.0, padding=5), 1.0),
        ("/depth", image_message(millimetres(), "16UC1", 1.0, padding=3), 1.0))
    sample = BagFrames(path, DEPTH_TOPICS)[0]
    assert sample.image.tolist() == picture().tolist()
    assert sample.sparse[3, 4] == np.float32(1.234) and np.count_nonzero(sample.sparse) == 1


def test_compressed_images_are_decoded(tmp_path):
    _, png = cv2.imencode(".png", picture()[..., ::-1])
    message = TYPES["sensor_msgs/msg/CompressedImage"](header(1.0), "png", png.ravel())
    path = write_bag(tmp_path / "bag", ("/image", message, 1.0),
                     ("/depth", image_message(millimetres(), "16UC1", 1.0), 1.0))
    assert BagFrames(path, DEPTH_TOPICS)[0].image.tolist() == picture().tolist()


@pytest.mark.parametrize("codec", ["png", "rvl"])
def test_compressed_depth_is_decoded(tmp_path, codec):
    form = f"16UC1; compressedDepth {codec}"
    data = np.frombuffer(depth_message(millimetres(), form).data, np.uint8)
    path = write_bag(
        tmp_path / "bag", ("/image", image_message(picture(), "rgb8", 1.0), 1.0),
        ("/depth", TYPES["sensor_msgs/msg/CompressedImage"](header(1.0), form, data), 1.0),
        ("/image", image_message(picture(), "rgb8", 2.0), 2.0),
        ("/depth", TYPES["sensor_msgs/msg/CompressedImage"](header(2.0), "jpeg", data), 2.0))
    frames = BagFrames(path, DEPTH_TOPICS)
    assert frames[0].sparse[3, 4] == np.float32(1.234) and np.count_nonzero(frames[0].sparse) == 1
    with pytest.raises(BadInput, match="/depth: compressed depth of format 'jpeg': expected"):
        frames[1]


def test_float_depth_in_either_byte_order_is_in_metres_and_cleaned(tmp_path):
    depth = np.zeros((HEIGHT, WIDTH), np.float32)
    depth[0, :6] = np.nan, np.inf, -1, 2.5, 0.01, 400  # the last two are out of range
    path = write_bag(
        tmp_path / "bag", ("/image", image_message(picture(), "rgb8", 1.0), 1.0),
        ("/depth", image_message(depth.astype(">f4"), "32FC1", 1.0, bigendian=True), 1.0))
    sparse = BagFrames(path, DEPTH_TOPICS)[0].sparse
    assert sparse[0, 3] == 2.5 and np.count_nonzero(sparse) == 1


def test_points_are_projected_with_the_given_extrinsics(tmp_path):
    points = np.array([[3.0, 0, 0], [3.0, -0.3, 0], [np.nan, 0, 0]])  # LiDAR axes: x forward
    extrinsics = (0.0, 0.0, 0.5, 0.5, -0.5, 0.5, 0.5)  # x forward becomes z forward
    path = write_bag(
        tmp_path / "bag", ("/camera_info", info_message(0.5), 0.5),
        ("/image", image_message(picture(), "rgb8", 1.0), 1.0),
        ("/points", cloud_message(points, 1.01), 1.0))
    sample = BagFrames(path, POINT_TOPICS, extrinsics)[0]
    # x = 0.3 m to the right at 3.5 m: 20 * 0.3 / 3.5 = 1.7 pixels.
    assert np.argwhere(sample.sparse).tolist() == [[6, 8], [6, 10]]
    np.testing.assert_allclose(sample.sparse[6, [8, 10]], 3.5, rtol=1e-6)
    assert (sample.camera.fx, sample.camera.cx) == (20, 8)


def test_the_projection_matrix_wins_over_k_where_it_is_filled(tmp_path):
    path = write_bag(
        tmp_path / "bag",
        ("/camera_info", info_message(0.5, p=[10, 0, 7, 0, 0, 11, 5, 0, 0, 0, 1, 0]), 0.5),
        ("/image", image_message(picture(), "rgb8", 1.0), 1.0),
        ("/points", cloud_message([[0, 0, 2.0]], 1.0), 1.0))
    camera = BagFrames(path, POINT_TOPICS)[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (10, 11, 7, 5)


def test_a_copy_in_another_process_reads_the_same(bag):
    frames = BagFrames(bag, DEPTH_TOPICS)
    assert pickle.loads(pickle.dumps(frames))[1].sparse[3, 4] == np.float32(2.468)
    with get_context("fork").Pool(2) as pool:
        for sample in pool.map(frames.read, [0, 1, 0, 1]):
            assert sample.sparse[3, 4] in (np.float32(1.234), np.float32(2.468))


@pytest.mark.parametrize("message, named", [
    (image_message(picture(), "hsv8", 1.0), "image encoding 'hsv8'"),
    (image_message(picture()[:, :8], "rgb8", 1.0), "the image 8x12"),
])
def test_an_image_that_cannot_be_used_is_named(tmp_path, message, named):
    path = write_bag(tmp_path / "bag", ("/image", message, 1.0),
                     ("/depth", image_message(millimetres(), "16UC1", 1.0), 1.0))
    with pytest.raises(BadInput, match=named):
        BagFrames(path, DEPTH_TOPICS)[0]


def test_depth_in_an_unknown_unit_or_cut_short_is_refused(tmp_path):
    short = image_message(millimetres(), "16UC1", 2.0)
    short.data = short.data[:-40]
    path = write_bag(
        tmp_path / "bag", ("/image", image_message(picture(), "rgb8", 1.0), 1.0),
        ("/depth", image_message(millimetres().astype(np.uint8), "8UC1", 1.0), 1.0),
        ("/image", image_message(picture(), "rgb8", 2.0), 2.0), ("/depth", short, 2.0))
    frames = BagFrames(path, DEPTH_TOPICS)
    with pytest.raises(BadInput, match="depth encoding '8UC1': expected 32FC1"):
        frames[0]
    with pytest.raises(BadInput, match="344 bytes in 12 rows of 32"):
        frames[1]


def test_a_camera_of_another_size_is_refused(tmp_path):
    path = write_bag(
        tmp_path / "bag", ("/camera_info", info_message(0.5, width=32), 0.5),
        ("/image", image_message(picture(), "rgb8", 1.0), 1.0),
        ("/points", cloud_message([[0, 0, 2.0]], 1.0), 1.0))
    with pytest.raises(BadInput, match="32x12 for an image of 16x12"):
        BagFrames(path, POINT_TOPICS)[0]


def test_missing_bags_topics_and_pairs_are_named(bag, tmp_path):
    with pytest.raises(BadInput, match="nowhere cannot be opened as a bag"):
        BagFrames(tmp_path / "nowhere", DEPTH_TOPICS)
    with pytest.raises(BadInput, match=r"no messages of /lidar; its topics: /depth \(Image, 2\), "
                                       r"/image \(Image, 3\)"):
        BagFrames(bag, {**DEPTH_TOPICS, "sparse_depth": "/lidar"})
    apart = write_bag(
        tmp_path / "apart", ("/image", image_message(picture(), "rgb8", 1.0), 1.0),
        ("/depth", image_message(millimetres(), "16UC1", 2.0), 1.0))
    with pytest.raises(BadInput, match="within 0.05 s.*stamps of one clock"):
        BagFrames(apart, DEPTH_TOPICS)
