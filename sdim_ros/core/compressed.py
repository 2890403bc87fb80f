"""Compressed images: JPEG and PNG, and the formats of compressed_depth_image_transport.

A message is anything with the fields of ``sensor_msgs/CompressedImage``. The depth formats follow
github.com/ros-perception/image_transport_plugins; RVL is Wilson, "Fast Lossless Depth Image
Compression", 2017.
"""

from __future__ import annotations

import io
import struct
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from sdim_ros.core.sensor_data import MM_PER_M, check_size
from sdim_ros.core.types import BadInput

# Before the picture: the format's number and the two parameters of the quantisation.
_CONFIG = struct.Struct("<iff")
_RVL_SIZE = struct.Struct("<II")  # columns, rows
_PICTURES = ("JPEG", "PNG")


def read_compressed_colour(message: Any, max_pixels: int) -> np.ndarray:
    """The image of a CompressedImage, JPEG or PNG, as (H, W, 3) uint8 RGB.

    Raises:
        BadInput: ``encoding`` or ``image_size``.
    """
    data = bytes(message.data)
    what = f"compressed image of format '{message.format}'"
    _check_picture(data, what, _PICTURES, max_pixels)
    # A camera's intrinsics are those of the pixels as they are stored.
    how = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_ANYDEPTH
    image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    if image is None:
        raise BadInput("encoding", f"{what} is damaged: expected a whole JPEG or PNG; check the "
                       "link to the publisher")
    if image.dtype != np.uint8:
        raise BadInput("encoding", f"{what} has pixels of {image.dtype}: expected 8 bits a "
                       "channel; which of 16 bits are used is not said")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_compressed_depth(message: Any, max_pixels: int) -> np.ndarray:
    """The depth image of a compressedDepth message as (H, W) float32 metres.

    Its ``format`` names the encoding and the codec: ``16UC1; compressedDepth png``, where the
    codec may lack (png) or be ``rvl``. Depths of 32FC1 are stored as inverse depth in 16 bits;
    what was invalid is NaN there, and 0 in 16UC1.

    Raises:
        BadInput: ``encoding``, ``truncated`` or ``image_size``.
    """
    encoding, _, transport = (part.strip() for part in message.format.partition(";"))
    name, *codec = transport.split() or [""]
    if (encoding not in ("16UC1", "mono16", "32FC1") or name != "compressedDepth"
            or codec not in ([], ["png"], ["rvl"])):
        raise BadInput(
            "encoding", f"compressed depth of format '{message.format}': expected '16UC1; "
            "compressedDepth png', or 32FC1, or rvl; JPEG changes depths and is never read, use "
            "the topic of the transport compressedDepth")
    data = bytes(message.data)
    if len(data) < _CONFIG.size + _RVL_SIZE.size:
        raise BadInput("truncated", f"compressed depth of {len(data)} bytes: expected a header "
                       f"of {_CONFIG.size} and an image; check the link to the publisher")
    _, quantum_a, quantum_b = _CONFIG.unpack_from(data)
    decode = _decode_rvl if codec == ["rvl"] else _decode_png
    codes = decode(data[_CONFIG.size:], max_pixels)
    if encoding != "32FC1":
        return (codes.astype(np.float64) / MM_PER_M).astype(np.float32)
    depth = np.full(codes.shape, np.nan, np.float32)
    measured = codes > 0
    depth[measured] = quantum_a / (codes[measured] - np.float64(quantum_b))
    return depth


def _check_picture(data: bytes, what: str, formats: tuple[str, ...], max_pixels: int) -> None:
    """Refuse by the header alone, before anything of the picture's size is allocated."""
    try:
        with Image.open(io.BytesIO(data), formats=formats) as picture:
            check_size(picture, max_pixels)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as problem:
        raise BadInput("encoding", f"{what} cannot be decoded: expected {' or '.join(formats)}; "
                       "set the publisher's codec") from problem


def _decode_png(data: bytes, max_pixels: int) -> np.ndarray:
    """(H, W) uint16."""
    _check_picture(data, "compressed depth of codec png", ("PNG",), max_pixels)
    codes = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if codes is None or codes.ndim != 2 or codes.dtype != np.uint16:
        seen = "a damaged file" if codes is None else f"{codes.dtype} of shape {codes.shape}"
        raise BadInput("encoding", f"compressed depth whose PNG holds {seen}: expected one "
                       "channel of 16 bits; check that the topic is the one of compressedDepth")
    return codes


def _decode_rvl(data: bytes, max_pixels: int) -> np.ndarray:
    """(H, W) uint16.

    The stream is numbers of 3 bits a nibble, the high bit set where one goes on: how many zeros,
    how many measured pixels, then the zigzag difference of each of those from the one before.
    """
    width, height = _RVL_SIZE.unpack_from(data)
    check_size(SimpleNamespace(width=width, height=height), max_pixels)
    numbers = _numbers(data[_RVL_SIZE.size:])
    flat = np.zeros(width * height, np.uint16)
    at = position = last = 0
    while position < flat.size and at + 1 < len(numbers):
        zeros, count = int(numbers[at]), int(numbers[at + 1])
        start, end = position + zeros, position + zeros + count
        zigzag = numbers[at + 2:at + 2 + count]
        if end > flat.size or len(zigzag) < count:
            break
        run = last + np.cumsum((zigzag >> 1) ^ -(zigzag & 1))
        if count and not 0 <= run.min() <= run.max() <= np.iinfo(np.uint16).max:
            break  # no depth of 16 bits, and there is no checksum that would tell
        flat[start:end] = run
        last = int(run[-1]) if count else last
        at, position = at + 2 + count, end
    if position != flat.size:
        raise BadInput("truncated", f"compressed depth of codec rvl ends at pixel {position} of "
                       f"{flat.size}: the data are cut or damaged; check the link to the publisher")
    return flat.reshape(height, width)


def _numbers(data: bytes) -> np.ndarray:
    """The numbers of an RVL stream, (N,) int64; whatever follows the last whole one is left."""
    words = np.frombuffer(data[:len(data) // 4 * 4], "<u4")
    # The first nibble is the highest of its word.
    nibbles = (words[:, None] >> np.arange(28, -4, -4, dtype=np.uint32) & 15).ravel()
    ends = np.flatnonzero(nibbles < 8)
    starts = np.concatenate([[0], ends + 1])[:-1]
    lengths = ends - starts + 1
    numbers = np.zeros(len(ends), np.int64)
    # A number of 16 bits and its sign fit into 6 nibbles, a run of a whole image into 11.
    for digit in range(min(int(lengths.max(initial=0)), 11)):
        longer = lengths > digit
        low = nibbles[starts[longer] + digit].astype(np.int64) & 7
        numbers[longer] |= low << (3 * digit)
    return numbers
