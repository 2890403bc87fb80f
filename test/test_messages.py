"""Messages are read by their own description, and what is wrong is refused by name."""

from __future__ import annotations

import array

import numpy as np
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from sdim_ros.core import sensor_data
from sdim_ros.core.calibration import read_camera
from sdim_ros.core.types import BadInput, Camera
from sdim_ros.ros import messages

LIMIT = 1_000_000
RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 7


def make_image(pixels: np.ndarray, encoding: str, *, padding: int = 0, big: bool = False) -> Image:
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<"))
    rows = stored.reshape(len(stored), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    return Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
                 is_bigendian=big, step=rows.shape[1], data=array.array("B", rows.tobytes()))


@pytest.mark.parametrize(("encoding", "pixels"), [
    ("rgb8", RGB),
    ("bgr8", RGB[:, :, ::-1]),
    ("8UC3", RGB[:, :, ::-1]),
    ("rgba8", np.dstack([RGB, np.full((2, 3), 255, np.uint8)])),
    ("bgra8", np.dstack([RGB[:, :, ::-1], np.full((2, 3), 255, np.uint8)])),
])
@pytest.mark.parametrize("padding", [0, 5])
def test_colour_encodings_give_the_same_rgb_values(encoding, pixels, padding):
    read = sensor_data.read_colour(make_image(pixels, encoding, padding=padding), LIMIT)
    assert np.array_equal(read, RGB)
    assert read.dtype == np.uint8


def test_grey_image_has_three_equal_channels():
    read = sensor_data.read_colour(make_image(RGB[:, :, 0], "mono8"), LIMIT)
    assert np.array_equal(read, np.dstack([RGB[:, :, 0]] * 3))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 6])
def test_depth_in_metres_and_millimetres_is_read_by_its_encoding(big, padding):
    metres = np.array([[1.234, 0.0, 65.535], [0.001, 7.5, 3.21]], np.float32)
    millimetres = np.rint(metres.astype(float) * 1000).astype(np.uint16)
    for message in (
        make_image(metres, "32FC1", padding=padding, big=big),
        make_image(millimetres, "16UC1", padding=padding, big=big),
        make_image(millimetres, "mono16", padding=padding, big=big),
    ):
        assert np.array_equal(sensor_data.read_depth(message, LIMIT), metres)


def test_invalid_float_depths_are_passed_on_for_the_core_to_count():
    depth = np.array([[np.nan, np.inf, -np.inf, -1.0]], np.float32)
    read = sensor_data.read_depth(make_image(depth, "32FC1"), LIMIT)
    assert np.array_equal(read, depth, equal_nan=True)


@pytest.mark.parametrize("encoding", ["rgb16", "32FC1", "", "nonsense"])
def test_unknown_colour_encoding_is_refused_with_the_accepted_list(encoding):
    message = make_image(RGB, "rgb8")
    message.encoding = encoding
    with pytest.raises(BadInput, match=f"'{encoding}'.*rgb8, bgr8.*mono8") as caught:
        sensor_data.read_colour(message, LIMIT)
    assert caught.value.reason == "encoding"


@pytest.mark.parametrize("encoding", ["rgb8", "8UC1", "64FC1"])
def test_unknown_depth_encoding_is_refused_and_never_scaled(encoding):
    message = make_image(RGB[:, :, 0], "8UC1")
    message.encoding = encoding
    with pytest.raises(BadInput, match="32FC1 in metres or 16UC1"):
        sensor_data.read_depth(message, LIMIT)


# Where a mosaic has each channel: of the pixels (0,0), (0,1), (1,0), (1,1).
MOSAICS = {"bayer_rggb8": (0, 1, 1, 2), "bayer_bggr8": (2, 1, 1, 0),
           "bayer_gbrg8": (1, 2, 0, 1), "bayer_grbg8": (1, 0, 2, 1)}


@pytest.mark.parametrize("encoding", MOSAICS)
def test_bayer_images_come_out_in_their_colour(encoding):
    mosaic = np.empty((6, 8), np.uint8)
    for at, channel in enumerate(MOSAICS[encoding]):
        mosaic[at // 2::2, at % 2::2] = (200, 120, 40)[channel]
    image = sensor_data.read_colour(make_image(mosaic, encoding, padding=3), LIMIT)
    assert (image == (200, 120, 40)).all()


@pytest.mark.parametrize("encoding", ["uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv21", "nv12"])
def test_yuv_images_come_out_in_their_colour(encoding):
    """Orange: Y 145, U 70, V 175 are about R 225, G 135, B 33 by BT.601."""
    y, u, v = 145, 70, 175
    if encoding.startswith("nv"):
        chroma = (v, u) if encoding == "nv21" else (u, v)
        rows = np.concatenate([np.full((4, 6), y), np.tile(chroma, (2, 3))]).astype(np.uint8)
        message = make_image(rows, encoding, padding=2)
        message.height = 4
    else:
        pair = (u, y, v, y) if encoding in ("uyvy", "yuv422") else (y, u, y, v)
        message = make_image(
            np.tile(pair, (4, 3)).astype(np.uint8).reshape(4, 6, 2), encoding, padding=2)
    image = sensor_data.read_colour(message, LIMIT)
    assert image.shape == (4, 6, 3)
    assert np.abs(image.astype(int) - (225, 135, 33)).max() <= 3


def test_mosaics_and_yuv_of_odd_size_are_refused():
    with pytest.raises(BadInput, match="3x2: expected even"):
        sensor_data.read_colour(make_image(RGB[:, :, 0], "bayer_rggb8"), LIMIT)


def test_truncated_data_is_refused_for_every_kind():
    colour, depth = make_image(RGB, "rgb8"), make_image(RGB[:, :, 0].astype("f4"), "32FC1")
    cloud = make_cloud(np.ones((2, 3)))
    for message, read in (
        (colour, lambda m: sensor_data.read_colour(m, LIMIT)),
        (depth, lambda m: sensor_data.read_depth(m, LIMIT)),
        (cloud, sensor_data.read_points),
    ):
        message.data = message.data[:-1]
        with pytest.raises(BadInput, match="expected at least") as caught:
            read(message)
        assert caught.value.reason == "truncated"


def test_step_smaller_than_a_row_is_refused():
    message = make_image(RGB, "rgb8")
    message.step = 8
    with pytest.raises(BadInput, match="rows of 8: expected .* rows of 9"):
        sensor_data.read_colour(message, LIMIT)


@pytest.mark.parametrize(("width", "height"), [(0, 2), (3, 0), (4_000_000_000, 4_000_000_000)])
def test_empty_and_huge_images_are_refused_before_anything_is_allocated(width, height):
    message = make_image(RGB, "rgb8")
    message.width, message.height = width, height
    for read in (sensor_data.read_colour, sensor_data.read_depth):
        with pytest.raises(BadInput, match=f"{width}x{height}.*max_pixels") as caught:
            read(message, LIMIT)
        assert caught.value.reason == "image_size"


def make_cloud(points: np.ndarray, *, code: str = "<f4", step: int = 0, offset: int = 0,
               height: int = 1, row_padding: int = 0) -> PointCloud2:
    big, size = code[0] == ">", np.dtype(code).itemsize
    step = step or offset + 3 * size
    width = len(points) // height
    rows = np.zeros((height, width * step + row_padding), np.uint8)
    for index, point in enumerate(points):
        row, col = divmod(index, width)
        start = col * step + offset
        rows[row, start:start + 3 * size] = np.frombuffer(point.astype(code).tobytes(), np.uint8)
    kind = PointField.FLOAT32 if size == 4 else PointField.FLOAT64
    return PointCloud2(
        height=height, width=width, point_step=step, row_step=rows.shape[1], is_bigendian=big,
        fields=[PointField(name=name, offset=offset + i * size, datatype=kind, count=1)
                for i, name in enumerate("xyz")],
        data=array.array("B", rows.tobytes()))


@pytest.mark.parametrize("layout", [
    {}, {"code": ">f4"}, {"code": "<f8"}, {"code": ">f8", "step": 31, "offset": 5},
    {"step": 19, "offset": 3}, {"height": 2, "row_padding": 7},
])
def test_clouds_are_read_by_their_field_table(layout):
    points = np.array([[1, 2, 3], [-1, 0.5, 8], [np.nan] * 3, [4, 5, 6]], float)
    read = sensor_data.read_points(make_cloud(points, **layout))
    assert np.array_equal(read, points, equal_nan=True)


def test_empty_cloud_gives_no_points():
    assert sensor_data.read_points(make_cloud(np.empty((0, 3)))).shape == (0, 3)


def test_cloud_without_z_or_with_integers_is_refused_with_its_fields():
    without, integers = make_cloud(np.ones((2, 3))), make_cloud(np.ones((2, 3)))
    without.fields = list(without.fields)[:2]
    integers.fields[2].datatype = PointField.INT32
    for cloud in (without, integers):
        with pytest.raises(BadInput, match="x:7, y:7.*expected x, y and z") as caught:
            sensor_data.read_points(cloud)
        assert caught.value.reason == "fields"


def test_a_camera_survives_the_way_there_and_back():
    camera = Camera(fx=10.0, fy=11.0, cx=1.25, cy=0.5, width=3, height=2)
    info = messages.camera_message(camera, Header(frame_id="camera"))
    assert info.header.frame_id == "camera" and not any(info.d)
    assert read_camera(info, 3, 2) == camera
    info.p[:] = 0
    assert read_camera(info, 3, 2) == camera


@pytest.mark.parametrize("image", [RGB, RGB[:, ::-1]])
def test_colour_messages_survive_the_way_there_and_back(image):
    message = messages.colour_message(image, Header(frame_id="camera"))
    assert isinstance(message.data, array.array) and message.header.frame_id == "camera"
    assert np.array_equal(sensor_data.read_colour(message, LIMIT), image)


def test_depth_messages_survive_the_way_there_and_back():
    depth = np.array([[1.5, np.nan, 65.5352], [70.0, 0.0004, 2.0004]], np.float32)
    header = Header(frame_id="camera")
    metres = messages.depth_message(depth, header, "32FC1")
    assert isinstance(metres.data, array.array)
    assert np.array_equal(sensor_data.read_depth(metres, LIMIT), depth, equal_nan=True)
    millimetres = messages.depth_message(depth, header, "16UC1")
    assert millimetres.header.frame_id == "camera" and millimetres.step == 6
    read = sensor_data.read_depth(millimetres, LIMIT)
    # Unknown, and over 65.535 m, are 0; nothing wraps around.
    assert np.allclose(read, [[1.5, 0, 65.535], [0, 0, 2.0]], atol=1e-6)


def test_cloud_messages_hold_the_points_and_the_colours_that_rviz_reads():
    points = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    cloud = messages.cloud_message(points, np.array([[1, 2, 3], [255, 0, 9]], np.uint8), Header())
    assert isinstance(cloud.data, array.array)
    assert np.array_equal(sensor_data.read_points(cloud), points)
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "rgb"]
    packed = np.frombuffer(cloud.data, np.uint32).reshape(2, 4)[:, 3]
    assert [hex(value) for value in packed] == ["0x10203", "0xff0009"]
    plain = messages.cloud_message(points, None, Header())
    assert plain.point_step == 12 and np.array_equal(sensor_data.read_points(plain), points)
    assert len(messages.cloud_message(points[:0], None, Header()).data) == 0


def test_clouds_are_read_alike_by_the_package_of_ros():
    point_cloud2 = pytest.importorskip(
        "sensor_msgs_py.point_cloud2", reason="sensor_msgs_py is not installed")
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    cloud = messages.cloud_message(points, np.full((50, 3), 7, np.uint8), Header())
    theirs = point_cloud2.read_points_numpy(cloud, ["x", "y", "z"])
    assert np.array_equal(theirs, points)
    made = point_cloud2.create_cloud_xyz32(Header(), points)
    assert np.array_equal(sensor_data.read_points(made), points)
