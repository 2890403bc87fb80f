"""Colour and depth images as they arrive: raw, or compressed for the way."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdim_ros.core.compressed import read_compressed_colour, read_compressed_depth
from sdim_ros.core.sensor_data import read_colour, read_depth


def read_colour_image(message: Any, max_pixels: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an Image or a CompressedImage.

    Raises:
        BadInput: ``image_size``, ``encoding`` or ``truncated``.
    """
    read = read_colour if _is_raw(message) else read_compressed_colour
    return read(message, max_pixels)


def read_depth_image(message: Any, max_pixels: int) -> np.ndarray:
    """(H, W) float32 metres of an Image or a CompressedImage of compressedDepth.

    Invalid values stay as the sensor wrote them: 0, NaN, inf or negative.

    Raises:
        BadInput: ``image_size``, ``encoding`` or ``truncated``.
    """
    read = read_depth if _is_raw(message) else read_compressed_depth
    return read(message, max_pixels)


def _is_raw(message: Any) -> bool:
    return hasattr(message, "encoding")  # a CompressedImage has a format
