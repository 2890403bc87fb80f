"""Sensor messages as NumPy arrays, by their own description: encoding, step, endianness.

A message is anything with the fields of its ROS type: one of rclpy, or one that rosbags read.
Nothing here guesses a unit or a layout; what cannot be read right is refused with BadInput.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from sdim_ros.core.projection import disparity_to_depth
from sdim_ros.core.types import BadInput

# Encoding -> its channels in the order R, G, B. 8UCn is OpenCV's habit: blue first.
COLOUR_ENCODINGS = {
    "rgb8": (3, [0, 1, 2]), "bgr8": (3, [2, 1, 0]), "8UC3": (3, [2, 1, 0]),
    "rgba8": (4, [0, 1, 2]), "bgra8": (4, [2, 1, 0]), "8UC4": (4, [2, 1, 0]),
    "mono8": (1, [0, 0, 0]), "8UC1": (1, [0, 0, 0]),
}
# What OpenCV makes RGB of: its code, channels and rows of the data for one row of the image.
# OpenCV names a Bayer pattern by the second row's second pixel, ROS by the first row's first.
CONVERTED_ENCODINGS = {
    "bayer_rggb8": (cv2.COLOR_BayerBG2RGB, 1, 1), "bayer_bggr8": (cv2.COLOR_BayerRG2RGB, 1, 1),
    "bayer_gbrg8": (cv2.COLOR_BayerGR2RGB, 1, 1), "bayer_grbg8": (cv2.COLOR_BayerGB2RGB, 1, 1),
    "uyvy": (cv2.COLOR_YUV2RGB_UYVY, 2, 1), "yuv422": (cv2.COLOR_YUV2RGB_UYVY, 2, 1),
    "yuyv": (cv2.COLOR_YUV2RGB_YUYV, 2, 1), "yuv422_yuy2": (cv2.COLOR_YUV2RGB_YUYV, 2, 1),
    "nv21": (cv2.COLOR_YUV2RGB_NV21, 1, 1.5), "nv12": (cv2.COLOR_YUV2RGB_NV12, 1, 1.5),
}
MM_PER_M = 1000.0
# Encoding -> number type and units per metre (REP 118); some drivers say mono16 for 16UC1.
DEPTH_ENCODINGS = {"32FC1": ("f4", 1), "16UC1": ("u2", MM_PER_M), "mono16": ("u2", MM_PER_M)}
FLOAT32, FLOAT64 = 7, 8  # of sensor_msgs/PointField
POINT_TYPES = {FLOAT32: "f4", FLOAT64: "f8"}


def stamp_ns(header: Any) -> int:
    """The stamp of a header in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def read_colour(message: Any, max_pixels: int) -> np.ndarray:
    """The image as (H, W, 3) uint8 RGB, contiguous.

    Raises:
        BadInput: ``image_size``, ``encoding`` or ``truncated``.
    """
    check_size(message, max_pixels)
    if message.encoding in COLOUR_ENCODINGS:
        channels, order = COLOUR_ENCODINGS[message.encoding]
        pixels = _pixels(message, np.dtype(np.uint8), channels)
        return np.ascontiguousarray(pixels[:, :, order])
    if message.encoding in CONVERTED_ENCODINGS:
        code, channels, rows = CONVERTED_ENCODINGS[message.encoding]
        if message.height % 2 or message.width % 2:
            raise BadInput(
                "encoding", f"{message.encoding} image of {message.width}x{message.height}: "
                "expected even numbers, its colours belong to pairs of pixels")
        pixels = _pixels(message, np.dtype(np.uint8), channels, int(message.height * rows))
        return cv2.cvtColor(pixels, code)
    raise BadInput(
        "encoding", f"image encoding '{message.encoding}': expected one of "
        f"{', '.join((*COLOUR_ENCODINGS, *CONVERTED_ENCODINGS))}; convert it with image_proc, or "
        "set the camera driver")


def read_depth(message: Any, max_pixels: int) -> np.ndarray:
    """The depth image as (H, W) float32 metres, the unit by its encoding alone.

    Invalid values stay as the sensor wrote them: 0, NaN, inf or negative.

    Raises:
        BadInput: ``image_size``, ``encoding`` or ``truncated``.
    """
    check_size(message, max_pixels)
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


def read_disparity(message: Any, max_pixels: int) -> np.ndarray:
    """Depth of a stereo_msgs/DisparityImage, (H, W) float32 metres, 0 = unknown.

    Disparities under ``min_disparity`` or outside of the valid window are unknown.

    Raises:
        BadInput: ``image_size``, ``encoding``, ``truncated`` or ``stereo_geometry``.
    """
    image = message.image
    check_size(image, max_pixels)
    if image.encoding != "32FC1":
        raise BadInput("encoding", f"disparity encoding '{image.encoding}': expected 32FC1, "
                       "pixels; use the disparity of stereo_image_proc")
    disparity = _pixels(image, np.dtype("f4"), 1)[:, :, 0]
    window = message.valid_window
    disparity = np.where(disparity >= message.min_disparity, disparity, 0)
    if window.width and window.height:
        inside = np.zeros(disparity.shape, bool)
        inside[window.y_offset:window.y_offset + window.height,
               window.x_offset:window.x_offset + window.width] = True
        disparity = np.where(inside, disparity, 0)
    # The baseline's sign tells which camera is meant; matchers write it either way.
    return disparity_to_depth(disparity, message.f, abs(message.t))


def read_points(message: Any) -> np.ndarray:
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
            f"FLOAT32 ({FLOAT32}) or FLOAT64 ({FLOAT64})")
    order = ">" if message.is_bigendian else "<"
    types = {name: np.dtype(order + POINT_TYPES[fields[name].datatype]) for name in "xyz"}
    used = max(fields[name].offset + types[name].itemsize for name in "xyz")
    _check_rows(message, "point cloud", message.row_step,
                max(used, message.point_step) * message.width, message.height)
    if message.width * message.height == 0:
        return np.empty((0, 3))
    columns = [
        np.ndarray((message.height, message.width), types[name], buffer=message.data,
                   offset=fields[name].offset, strides=(message.row_step, message.point_step))
        for name in "xyz"]
    return np.stack([column.ravel() for column in columns], axis=1).astype(np.float64)


def encode_depth(depth: np.ndarray, encoding: str) -> np.ndarray:
    """The pixels of a depth image, or a confidence image, of (H, W) float32.

    Args:
        encoding: ``32FC1``: values as they are, float32; ``16UC1``: metres to rounded
            millimetres, uint16, with 0 for NaN and for what 16 bits cannot hold (over 65.535 m).

    Raises:
        BadInput: ``encoding``.
    """
    if encoding == "32FC1":
        return depth.astype(np.float32, copy=False)
    if encoding != "16UC1":
        raise BadInput(
            "encoding", f"depth encoding '{encoding}': expected 32FC1 for metres or 16UC1 for "
            "millimetres")
    scaled = np.rint(depth.astype(np.float64) * MM_PER_M)
    fits = (scaled >= 0) & (scaled <= np.iinfo(np.uint16).max)
    return np.where(fits, scaled, 0).astype(np.uint16)


def pack_points(points: np.ndarray, colours: np.ndarray | None) -> tuple[np.ndarray, list[str]]:
    """The numbers of a cloud in the order of its fields, and their names; each is a FLOAT32.

    Args:
        points: (N, 3) or (H, W, 3), metres.
        colours: uint8 RGB of the same shape, or None.

    Returns:
        (N, F) or (H, W, F) float32, native byte order; the F names: x, y, z, perhaps rgb.
    """
    names = ["x", "y", "z"] + (["rgb"] if colours is not None else [])
    packed = np.empty((*points.shape[:-1], len(names)), np.float32)
    packed[..., :3] = points
    if colours is not None:
        # Blue in the lowest byte: the layout that RViz and PCL read.
        red, green, blue = np.moveaxis(colours.astype(np.uint32), -1, 0)
        packed.view(np.uint32)[..., 3] = (red << 16) | (green << 8) | blue
    return packed, names


def check_size(message: Any, max_pixels: int) -> None:
    """Refuse an image by its width and height, before anything of its size is allocated.

    Raises:
        BadInput: ``image_size``.
    """
    pixels = message.width * message.height
    if not 0 < pixels <= max_pixels:
        raise BadInput(
            "image_size", f"image of {message.width}x{message.height} pixels: expected more than "
            f"none and at most input.max_pixels = {max_pixels}; resize it or raise the limit")


def _check_rows(message: Any, kind: str, step: int, row_bytes: int, rows: int) -> None:
    """Refuse data that is shorter than its own description, before it is read.

    Args:
        step: bytes from one row to the next, as the message says.
        row_bytes: bytes of one row without padding, which the last row may lack.
        rows: of the data.
    """
    needed = max(0, rows - 1) * step + row_bytes
    if step < row_bytes or len(message.data) < needed:
        raise BadInput(
            "truncated", f"{kind} with {len(message.data)} bytes in {rows} rows of "
            f"{step}: expected at least {needed} bytes in rows of {row_bytes} or more; "
            "the publisher cuts its data or describes it wrongly")


def _pixels(message: Any, dtype: np.dtype, channels: int, rows: int | None = None) -> np.ndarray:
    """(rows, W, C) in native byte order, rows taken ``step`` bytes apart.

    Args:
        rows: of the data; None = as many as the image has.
    """
    size = dtype.itemsize * channels
    rows = message.height if rows is None else rows
    _check_rows(message, f"{message.encoding} image", message.step, message.width * size, rows)
    stored = dtype.newbyteorder(">" if message.is_bigendian else "<")
    pixels = np.ndarray(
        (rows, message.width, channels), stored, buffer=message.data,
        strides=(message.step, size, dtype.itemsize))
    return np.ascontiguousarray(pixels, dtype)
