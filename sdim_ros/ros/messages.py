"""Between sensor messages and NumPy arrays, by their own description: encoding, step, endianness.

Nothing here guesses a unit or a layout; what cannot be read right is refused with BadInput.
"""

from __future__ import annotations

import array
import sys

import numpy as np
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from sdim_ros.core.types import BadInput, Camera
from sdim_ros.ros import compat

# Encoding -> its channels in the order R, G, B. 8UCn is OpenCV's habit: blue first.
COLOUR_ENCODINGS = {
    "rgb8": (3, [0, 1, 2]), "bgr8": (3, [2, 1, 0]), "8UC3": (3, [2, 1, 0]),
    "rgba8": (4, [0, 1, 2]), "bgra8": (4, [2, 1, 0]), "8UC4": (4, [2, 1, 0]),
    "mono8": (1, [0, 0, 0]), "8UC1": (1, [0, 0, 0]),
}
MM_PER_M = 1000.0
# Encoding -> number type and units per metre (REP 118); some drivers say mono16 for 16UC1.
DEPTH_ENCODINGS = {"32FC1": ("f4", 1), "16UC1": ("u2", MM_PER_M), "mono16": ("u2", MM_PER_M)}
CV_BRIDGE_PREFIXES = ("bayer_", "yuv", "uyvy", "yuyv", "nv2")

POINT_TYPES = {PointField.FLOAT32: "f4", PointField.FLOAT64: "f8"}


def stamp_ns(header: Header) -> int:
    """The stamp of a header in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def read_colour(message: Image, max_pixels: int) -> np.ndarray:
    """The image as (H, W, 3) uint8 RGB; a view of the message where the layout allows.

    Raises:
        BadInput: ``image_size``, ``encoding`` or ``truncated``.
    """
    _check_size(message, max_pixels)
    if message.encoding in COLOUR_ENCODINGS:
        channels, order = COLOUR_ENCODINGS[message.encoding]
        pixels = _pixels(message, np.dtype(np.uint8), channels)
        return pixels if order == [0, 1, 2] and channels == 3 else pixels[:, :, order]
    if message.encoding.lower().startswith(CV_BRIDGE_PREFIXES):
        return _through_cv_bridge(message)
    raise BadInput(
        "encoding", f"image encoding '{message.encoding}': expected one of "
        f"{', '.join(COLOUR_ENCODINGS)}; convert it with image_proc, or set the camera driver")


def read_depth(message: Image, max_pixels: int) -> np.ndarray:
    """The depth image as (H, W) float32 metres, the unit by its encoding alone.

    Invalid values stay as the sensor wrote them: 0, NaN, inf or negative.

    Raises:
        BadInput: ``image_size``, ``encoding`` or ``truncated``.
    """
    _check_size(message, max_pixels)
    if message.encoding not in DEPTH_ENCODINGS:
        raise BadInput(
            "encoding", f"depth encoding '{message.encoding}': expected 32FC1 in metres or 16UC1 "
            "in millimetres; publish one of these, a scale is never guessed")
    code, units_per_m = DEPTH_ENCODINGS[message.encoding]
    depth = _pixels(message, np.dtype(code), 1)[:, :, 0]
    if units_per_m == 1:
        return depth
    # Divided in float64 and rounded once: 1234 mm become the float32 that is nearest to 1.234 m.
    return (depth.astype(np.float64) / units_per_m).astype(np.float32)


def read_points(message: PointCloud2) -> np.ndarray:
    """x, y, z of every point as (N, 3) float64, rows with NaN where a point is invalid.

    Raises:
        BadInput: ``fields`` when x, y, z are missing or not floating point, ``truncated``.
    """
    fields = {field.name: field for field in message.fields}
    missing = [name for name in "xyz" if name not in fields]
    if missing or any(fields[name].datatype not in POINT_TYPES for name in "xyz"):
        seen = ", ".join(f"{name}:{field.datatype}" for name, field in fields.items()) or "none"
        raise BadInput(
            "fields", f"point cloud with fields (name:datatype) {seen}: expected x, y and z as "
            f"FLOAT32 ({PointField.FLOAT32}) or FLOAT64 ({PointField.FLOAT64})")
    order = ">" if message.is_bigendian else "<"
    types = {name: np.dtype(order + POINT_TYPES[fields[name].datatype]) for name in "xyz"}
    used = max(fields[name].offset + types[name].itemsize for name in "xyz")
    _check_rows(message, "point cloud", message.row_step,
                max(used, message.point_step) * message.width)
    if message.width * message.height == 0:
        return np.empty((0, 3))
    columns = [
        np.ndarray((message.height, message.width), types[name], buffer=message.data,
                   offset=fields[name].offset, strides=(message.row_step, message.point_step))
        for name in "xyz"]
    return np.stack([column.ravel() for column in columns], axis=1).astype(np.float64)


def read_camera(info: CameraInfo, width: int, height: int) -> Camera:
    """Intrinsics of the rectified image: from P where it is filled, else from K.

    Args:
        width, height: size of the image that the camera must fit, pixels.

    Raises:
        BadInput: ``uncalibrated`` or ``camera_size``.
    """
    if (info.width, info.height) != (width, height):
        raise BadInput(
            "camera_size", f"camera_info of {info.width}x{info.height} for an image of "
            f"{width}x{height}: expected the same size; publish the camera_info of this image")
    if not np.any(info.k):
        raise BadInput(
            "uncalibrated", "camera_info with K all zero: expected the matrix of a calibrated "
            "camera; calibrate it and have the driver publish the result")
    fx, cx, fy, cy = (info.p[0], info.p[2], info.p[5], info.p[6]) if info.p[0] > 0 else (
        info.k[0], info.k[2], info.k[4], info.k[5])
    return Camera(fx=fx, fy=fy, cx=cx, cy=cy, width=width, height=height)


def colour_message(image: np.ndarray, header: Header) -> Image:
    """An rgb8 image of (H, W, 3) uint8 RGB."""
    height, width, _ = image.shape
    message = Image(
        header=header, height=height, width=width, encoding="rgb8", is_bigendian=False,
        step=3 * width)
    message.data = _payload(np.ascontiguousarray(image))
    return message


def depth_message(depth: np.ndarray, header: Header, encoding: str) -> Image:
    """A depth image, or a confidence image, of (H, W) float32.

    Args:
        encoding: ``32FC1``: values as they are; ``16UC1``: metres to rounded millimetres, with 0
            for NaN and for what 16 bits cannot hold (over 65.535 m).
    """
    if encoding == "16UC1":
        scaled = np.rint(depth.astype(np.float64) * MM_PER_M)
        fits = (scaled >= 0) & (scaled <= np.iinfo(np.uint16).max)
        pixels = np.where(fits, scaled, 0).astype(np.uint16)
    else:
        pixels = np.ascontiguousarray(depth, np.float32)
    height, width = depth.shape
    message = Image(
        header=header, height=height, width=width, encoding=encoding,
        is_bigendian=sys.byteorder == "big", step=width * pixels.itemsize)
    message.data = _payload(pixels)
    return message


def cloud_message(points: np.ndarray, colours: np.ndarray | None, header: Header) -> PointCloud2:
    """An unorganised cloud without invalid points, colours in the field ``rgb``.

    Args:
        points: (N, 3) float32, metres, all finite.
        colours: (N, 3) uint8 RGB, or None.
    """
    names = ["x", "y", "z"] + (["rgb"] if colours is not None else [])
    packed = np.empty((len(points), len(names)), np.float32)
    packed[:, :3] = points
    if colours is not None:
        # Blue in the lowest byte: the layout that RViz and PCL read.
        red, green, blue = colours.astype(np.uint32).T
        packed.view(np.uint32)[:, 3] = (red << 16) | (green << 8) | blue
    step = 4 * len(names)
    message = PointCloud2(
        header=header, height=1, width=len(points), point_step=step, row_step=step * len(points),
        is_dense=True, is_bigendian=sys.byteorder == "big",
        fields=[PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
                for i, name in enumerate(names)])
    message.data = _payload(packed)
    return message


def camera_message(camera: Camera, header: Header) -> CameraInfo:
    """The camera info of a rectified image: no distortion, the intrinsics in K and in P."""
    matrix = camera.matrix()
    return CameraInfo(
        header=header, height=camera.height, width=camera.width, distortion_model="plumb_bob",
        d=[0.0] * 5, k=matrix.ravel(), r=np.eye(3).ravel(),
        p=np.hstack([matrix, np.zeros((3, 1))]).ravel())


def camera_info_message(info: CameraInfo, header: Header) -> CameraInfo:
    """The camera info again, under the header of the image that it goes with."""
    return CameraInfo(
        header=header, height=info.height, width=info.width,
        distortion_model=info.distortion_model, d=info.d, k=info.k, r=info.r, p=info.p,
        binning_x=info.binning_x, binning_y=info.binning_y, roi=info.roi)


def _payload(pixels: np.ndarray) -> array.array:
    # array.array is the one type that the generated messages take without a look at every byte.
    payload = array.array("B")
    payload.frombytes(memoryview(pixels).cast("B") if pixels.size else b"")
    return payload


def _check_size(message: Image, max_pixels: int) -> None:
    pixels = message.width * message.height
    if not 0 < pixels <= max_pixels:
        raise BadInput(
            "image_size", f"image of {message.width}x{message.height} pixels: expected more than "
            f"none and at most input.max_pixels = {max_pixels}; resize it or raise the limit")


def _check_rows(message: Image | PointCloud2, kind: str, step: int, row_bytes: int) -> None:
    """Refuse data that is shorter than its own description, before it is read.

    Args:
        step: bytes from one row to the next, as the message says.
        row_bytes: bytes of one row without padding, which the last row may lack.
    """
    needed = max(0, message.height - 1) * step + row_bytes
    if step < row_bytes or len(message.data) < needed:
        raise BadInput(
            "truncated", f"{kind} with {len(message.data)} bytes in {message.height} rows of "
            f"{step}: expected at least {needed} bytes in rows of {row_bytes} or more; "
            "the publisher cuts its data or describes it wrongly")


def _pixels(message: Image, dtype: np.dtype, channels: int) -> np.ndarray:
    """(H, W, C) in native byte order, rows taken ``step`` bytes apart."""
    size = dtype.itemsize * channels
    _check_rows(message, f"{message.encoding} image", message.step, message.width * size)
    stored = dtype.newbyteorder(">" if message.is_bigendian else "<")
    pixels = np.ndarray(
        (message.height, message.width, channels), stored, buffer=message.data,
        strides=(message.step, size, dtype.itemsize))
    return np.ascontiguousarray(pixels, dtype)


def _through_cv_bridge(message: Image) -> np.ndarray:
    bridge = compat.cv_bridge()
    if bridge is None:
        raise BadInput(
            "encoding", f"image encoding '{message.encoding}' needs cv_bridge, which cannot be "
            f"imported here: expected one of {', '.join(COLOUR_ENCODINGS)}; install cv_bridge or "
            "convert the image with image_proc")
    try:
        return np.ascontiguousarray(bridge.imgmsg_to_cv2(message, desired_encoding="rgb8"))
    except Exception as problem:  # cv_bridge raises errors of its own, of OpenCV and of NumPy
        raise BadInput(
            "encoding", f"image encoding '{message.encoding}': cv_bridge cannot convert it to "
            f"rgb8 ({problem}); expected one of {', '.join(COLOUR_ENCODINGS)}") from problem
