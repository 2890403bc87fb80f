"""NumPy arrays as sensor messages."""

from __future__ import annotations

import array
import sys

import numpy as np
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from sdim_ros.core.frame_reader import Reading
from sdim_ros.core.sensor_data import encode_depth, pack_points
from sdim_ros.core.types import Camera


def colour_message(image: np.ndarray, header: Header) -> Image:
    """An rgb8 image of (H, W, 3) uint8 RGB."""
    return _image_message(image, header, "rgb8")


def depth_message(depth: np.ndarray, header: Header, encoding: str) -> Image:
    """A depth image, or a confidence image, of (H, W) float32; encodings as of `encode_depth`."""
    return _image_message(encode_depth(depth, encoding), header, encoding)


def normals_message(normals: np.ndarray, header: Header) -> Image:
    """An image of (H, W, 3) float32 vectors, 32FC3: x, y, z, NaN = unknown."""
    return _image_message(normals.astype(np.float32, copy=False), header, "32FC3")


def cloud_message(points: np.ndarray, colours: np.ndarray | None, header: Header) -> PointCloud2:
    """A cloud, colours in the field ``rgb``.

    Args:
        points: (N, 3) float32, metres, all finite; or organised (H, W, 3), NaN = unknown.
        colours: uint8 RGB of the same shape, or None.
    """
    packed, names = pack_points(points, colours)
    organised = points.ndim == 3
    height, width = points.shape[:2] if organised else (1, len(points))
    step = 4 * len(names)
    message = PointCloud2(
        header=header, height=height, width=width, point_step=step, row_step=step * width,
        is_dense=not organised, is_bigendian=sys.byteorder == "big",
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


def camera_info_message(reading: Reading) -> CameraInfo:
    """The camera info of a frame, under the header of its image."""
    info = reading.info
    if info is None:
        return camera_message(reading.frame.camera, reading.header)
    return CameraInfo(
        header=reading.header, height=info.height, width=info.width,
        distortion_model=info.distortion_model, d=info.d, k=info.k, r=info.r, p=info.p,
        binning_x=info.binning_x, binning_y=info.binning_y, roi=info.roi)


def _image_message(pixels: np.ndarray, header: Header, encoding: str) -> Image:
    """An image of (H, W) or (H, W, C) in the number type of the encoding."""
    pixels = np.ascontiguousarray(pixels)
    message = Image(
        header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
        is_bigendian=sys.byteorder == "big", step=pixels[:1].nbytes)
    message.data = _payload(pixels)
    return message


def _payload(pixels: np.ndarray) -> array.array:
    # array.array is the one type that the generated messages take without a look at every byte.
    payload = array.array("B")
    payload.frombytes(memoryview(pixels).cast("B") if pixels.size else b"")
    return payload
