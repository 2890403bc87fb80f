"""Bags come back as they were written, by rosbags and by the real message types of ROS."""

from __future__ import annotations

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from sdim_ros.core import sensor_data
from sdim_ros.core.calibration import read_camera
from sdim_ros.core.types import BadInput, Camera
from sdim_ros.tools.bag_writer import BagWriter

STAMP_NS = 1_700_000_000_123_456_789
RGB = (np.arange(4 * 6 * 3, dtype=np.uint8) * 3).reshape(4, 6, 3)
DEPTH = np.array([[1.5, np.nan, 65.5352, 0], [70.0, 0.0004, 2.0004, -1]], np.float32)
CAMERA = Camera(fx=10.0, fy=11.0, cx=2.25, cy=0.5, width=6, height=4)
POINTS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
COLOURS = np.array([[1, 2, 3], [255, 0, 9]], np.uint8)
LIMIT = 10**6
KINDS = [("mcap", None), ("mcap", "zstd"), ("sqlite3", None), ("sqlite3", "zstd")]


def write(path, **how):
    """One message of every kind, and a copied one."""
    with BagWriter(path, **how) as bag:
        bag.image("/image", STAMP_NS + 2, "camera", RGB[:, ::-1])
        bag.camera_info("/camera_info", STAMP_NS + 3, "camera", CAMERA)
        bag.depth("/metres", STAMP_NS + 4, "camera", DEPTH)
        bag.depth("/millimetres", STAMP_NS + 5, "camera", DEPTH, "16UC1")
        bag.cloud("/points", STAMP_NS + 6, "lidar", POINTS)
        bag.cloud("/coloured", STAMP_NS + 7, "lidar", POINTS, COLOURS)
        bag.cloud("/organised", STAMP_NS + 8, "camera", np.stack([POINTS, POINTS * np.nan]))
    return path


def read_by_rosbags(path):
    with AnyReader([path]) as reader:
        return {connection.topic: (at, reader.deserialize(data, connection.msgtype))
                for connection, at, data in reader.messages()}


def read_by_ros(path):
    """The bytes of the bag as rclpy makes messages of them."""
    pytest.importorskip("rclpy")
    from rclpy.serialization import deserialize_message
    from sensor_msgs import msg

    with Reader(path) as reader:
        return {connection.topic: (at, deserialize_message(
                    bytes(data), getattr(msg, connection.msgtype.rsplit("/")[-1])))
                for connection, at, data in reader.messages()}


@pytest.mark.parametrize("read", [read_by_rosbags, read_by_ros])
@pytest.mark.parametrize("storage, compression", KINDS)
def test_messages_come_back_as_they_were_written(tmp_path, storage, compression, read):
    found = read(write(tmp_path / "bag", storage=storage, compression=compression))
    for at, message in found.values():
        assert sensor_data.stamp_ns(message.header) == at
    assert found["/image"][0] == STAMP_NS + 2
    messages = {topic: message for topic, (_, message) in found.items()}
    assert messages["/image"].header.frame_id == "camera"
    assert messages["/image"].encoding == "rgb8"
    assert np.array_equal(sensor_data.read_colour(messages["/image"], LIMIT), RGB[:, ::-1])
    assert read_camera(messages["/camera_info"], 6, 4) == CAMERA
    assert messages["/camera_info"].distortion_model == "plumb_bob"
    metres = sensor_data.read_depth(messages["/metres"], LIMIT)
    assert np.array_equal(metres, DEPTH, equal_nan=True)
    millimetres = sensor_data.read_depth(messages["/millimetres"], LIMIT)
    np.testing.assert_allclose(millimetres, [[1.5, 0, 65.535, 0], [0, 0, 2.0, 0]], atol=1e-6)
    assert np.array_equal(sensor_data.read_points(messages["/points"]), POINTS)
    assert messages["/points"].point_step == 12 and messages["/points"].is_dense
    colours = np.frombuffer(messages["/coloured"].data, np.uint32).reshape(2, 4)[:, 3]
    assert [hex(value) for value in colours] == ["0x10203", "0xff0009"]
    organised = messages["/organised"]
    assert (organised.height, organised.width, organised.is_dense) == (2, 2, False)


def test_bags_and_the_node_write_the_same_messages(tmp_path):
    pytest.importorskip("rclpy")
    from std_msgs.msg import Header

    from sdim_ros.ros import messages

    header = Header(frame_id="camera")
    found = read_by_ros(write(tmp_path / "bag"))
    for topic, theirs in {
        "/image": messages.colour_message(RGB[:, ::-1], header),
        "/camera_info": messages.camera_message(CAMERA, header),
        "/metres": messages.depth_message(DEPTH, header, "32FC1"),
        "/millimetres": messages.depth_message(DEPTH, header, "16UC1"),
        "/points": messages.cloud_message(POINTS, None, header),
        "/coloured": messages.cloud_message(POINTS, COLOURS, header),
    }.items():
        theirs.header = found[topic][1].header
        ours = {name: np.asarray(getattr(found[topic][1], name)).tolist()
                for name in theirs.get_fields_and_field_types() if name not in ("header", "roi")}
        assert ours == {name: np.asarray(getattr(theirs, name)).tolist() for name in ours}


def test_copied_messages_keep_their_bytes(tmp_path):
    source = write(tmp_path / "source")
    with Reader(source) as reader, BagWriter(tmp_path / "copy", "sqlite3") as bag:
        originals = [(c.topic, at, bytes(data)) for c, at, data in reader.messages()]
        for connection, at, data in reader.messages():
            bag.raw(connection.topic, connection.msgtype, at, data)
    with Reader(tmp_path / "copy") as reader:
        assert [(c.topic, at, bytes(data)) for c, at, data in reader.messages()] == originals


def test_a_failure_leaves_nothing_behind(tmp_path):
    for failure in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(failure), BagWriter(tmp_path / "bag") as bag:
            bag.image("/image", STAMP_NS, "camera", RGB)
            raise failure
        assert list(tmp_path.iterdir()) == []


def test_nothing_stands_at_the_path_until_the_bag_is_whole(tmp_path):
    with BagWriter(tmp_path / "sub" / "bag") as bag:
        bag.image("/image", STAMP_NS, "camera", RGB)
        (only,) = (tmp_path / "sub").iterdir()
        assert only.name.startswith("bag.unfinished-")
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["bag"]


def test_existing_paths_are_refused_and_kept(tmp_path):
    path = write(tmp_path / "bag")
    before = sorted((file.name, file.read_bytes()) for file in path.iterdir())
    with pytest.raises(BadInput, match="bag exists: a bag is never written over"):
        BagWriter(path)
    assert sorted((file.name, file.read_bytes()) for file in path.iterdir()) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="file/bag cannot be written"):
        BagWriter(tmp_path / "file" / "bag").__enter__()


@pytest.mark.parametrize("how, named", [
    ({"storage": "bag"}, "bag storage 'bag': expected one of mcap, sqlite3"),
    ({"compression": "lz4"}, "'lz4': expected zstd or none"),
])
def test_settings_that_do_not_exist_are_refused(tmp_path, how, named):
    with pytest.raises(BadInput, match=named):
        BagWriter(tmp_path / "bag", **how)


@pytest.mark.parametrize("write_one, named", [
    (lambda b: b.image("/i", 0, "c", RGB[:, :, 0]), r"/i: image of shape \(4, 6\)"),
    (lambda b: b.image("i", 0, "c", RGB), "topic 'i': expected its full name"),
    (lambda b: b.depth("/d", 0, "c", RGB), r"/d: depth of shape \(4, 6, 3\)"),
    (lambda b: b.depth("/d", 0, "c", DEPTH, "8UC1"), "depth encoding '8UC1'"),
    (lambda b: b.cloud("/p", 0, "c", POINTS, COLOURS[:1]), r"colours of \(1, 3\)"),
    (lambda b: b.image("/i", -1, "c", RGB), "time of -1 ns"),
    (lambda b: b.image("/i", 2**31 * 10**9, "c", RGB), "before the year 2038"),
    (lambda b: b.raw("/i", "my_msgs/msg/Mine", 0, b""), "type my_msgs/msg/Mine are not known"),
    (lambda b: (b.image("/i", 0, "c", RGB), b.cloud("/i", 0, "c", POINTS)),
     "/i holds sensor_msgs/msg/Image: expected no sensor_msgs/msg/PointCloud2"),
])
def test_messages_that_cannot_be_written_are_named(tmp_path, write_one, named):
    with pytest.raises(BadInput, match=named), BagWriter(tmp_path / "bag") as bag:
        write_one(bag)
