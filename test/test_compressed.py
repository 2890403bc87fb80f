"""Compressed images come out as they went in, or are refused before they are decoded."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sdim_ros.core.compressed import read_compressed_colour, read_compressed_depth
from sdim_ros.core.types import BadInput

LIMIT = 1_000_000
rng = np.random.default_rng(0)
SMOOTH = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48))


def message(form, data):
    return SimpleNamespace(format=form, data=np.frombuffer(bytes(data), np.uint8))


def picture(extension, pixels):
    return cv2.imencode(extension, pixels)[1].tobytes()


def depth_message(codes, form, codec=None, quantum=(0.0, 0.0)):
    """Codes (H, W) uint16 as compressed_depth_image_transport sends them."""
    body = rvl(codes) if "rvl" in form else picture(".png", codes)
    return message(form, struct.pack("<iff", 0, *quantum) + (body if codec is None else codec))


def rvl(codes):
    """RVL of Wilson 2017, number by number."""
    nibbles = []

    def write(number):
        while True:
            number, low = number >> 3, number & 7
            nibbles.append(low | (8 if number else 0))
            if not number:
                return

    flat, at, last = codes.ravel().tolist(), 0, 0
    while at < len(flat):
        for measured in (False, True):
            end = at
            while end < len(flat) and (flat[end] > 0) == measured:
                end += 1
            write(end - at)
            for value in flat[at:end] if measured else []:
                difference, last = value - last, value
                write(2 * difference if difference >= 0 else -2 * difference - 1)
            at = end
    nibbles += [0] * (-len(nibbles) % 8)
    words = np.array(nibbles, np.uint32).reshape(-1, 8) << np.arange(28, -4, -4, dtype=np.uint32)
    size = struct.pack("<ii", codes.shape[1], codes.shape[0])
    return size + np.bitwise_or.reduce(words, axis=1).astype("<u4").tobytes()


def test_png_colours_are_exact_and_jpeg_colours_close():
    bgr = SMOOTH[:, :, ::-1]
    exact = read_compressed_colour(
        message("bgr8; png compressed bgr8", picture(".png", bgr)), LIMIT)
    assert np.array_equal(exact, SMOOTH)
    close = read_compressed_colour(message("rgb8; jpeg compressed bgr8", picture(".jpg", bgr)),
                                   LIMIT)
    assert np.abs(close.astype(int) - SMOOTH).mean() < 4


def test_a_grey_picture_has_three_equal_channels():
    grey = read_compressed_colour(message("mono8; png", picture(".png", SMOOTH[:, :, 0])), LIMIT)
    assert np.array_equal(grey, SMOOTH[:, :, :1].repeat(3, axis=2))


@pytest.mark.parametrize("density", [0, 0.02, 0.5, 1])
@pytest.mark.parametrize("form", [
    "16UC1; compressedDepth", "16UC1; compressedDepth png", "16UC1; compressedDepth rvl",
    "mono16; compressedDepth png"])
def test_millimetres_survive_both_codecs(form, density):
    codes = rng.integers(1, 65536, (30, 41)) * (rng.random((30, 41)) < density)
    codes = codes.astype(np.uint16)
    depth = read_compressed_depth(depth_message(codes, form), LIMIT)
    assert depth.dtype == np.float32
    assert np.array_equal(np.rint(depth * 1000), codes)


@pytest.mark.parametrize("codec", ["png", "rvl"])
def test_float_depth_is_stored_as_inverse_depth(codec):
    """Codes = A / depth + B, as the transport's encoder writes them."""
    a, b = np.float32(1010.0), np.float32(-99.0)
    metres = rng.uniform(0.5, 10, (20, 30)).astype(np.float32)
    codes = np.rint(a / metres + b).astype(np.uint16)
    codes[3] = 0
    depth = read_compressed_depth(
        depth_message(codes, f"32FC1; compressedDepth {codec}", quantum=(a, b)), LIMIT)
    assert np.isnan(depth[3]).all()
    others = np.arange(20) != 3
    # Half a code is metres^2 / A / 2.
    assert (np.abs(depth - metres)[others] <= metres[others] ** 2 / a / 2 * 1.01).all()


@pytest.mark.parametrize("form", ["16UC1; jpeg compressed ", "jpeg", "rgb8; compressedDepth png",
                                  "16UC1; compressedDepth zstd", ""])
def test_depth_in_any_other_format_is_refused_by_name(form):
    with pytest.raises(BadInput, match=f"'{form}'.*never read") as caught:
        read_compressed_depth(depth_message(np.ones((4, 5), np.uint16), form), LIMIT)
    assert caught.value.reason == "encoding"


@pytest.mark.parametrize("codes", [(70000, 69999), (5, 65536)])
def test_numbers_that_no_16_bits_hold_are_damage_and_never_wrapped_to_a_depth(codes):
    data = bytes(12) + rvl(np.array([codes]))
    with pytest.raises(BadInput, match="pixel 0 of 2: the data are cut or damaged"):
        read_compressed_depth(message("16UC1; compressedDepth rvl", data), LIMIT)


@pytest.mark.parametrize(("form", "data", "words"), [
    ("16UC1; compressedDepth png", b"", "0 bytes"),
    ("16UC1; compressedDepth png", bytes(40), "cannot be decoded: expected PNG"),
    ("16UC1; compressedDepth png", bytes(12) + picture(".png", SMOOTH), "uint8 of shape"),
    ("16UC1; compressedDepth png", bytes(12) + picture(".jpg", SMOOTH), "expected PNG"),
    ("16UC1; compressedDepth rvl", bytes(12) + rvl(np.ones((9, 9), np.uint16))[:-4],
     r"ends at pixel \d+ of 81"),
    ("16UC1; compressedDepth rvl", bytes(12) + struct.pack("<ii", 9, 9), "pixel 0 of 81"),
    ("16UC1; compressedDepth rvl", bytes(12) + struct.pack("<ii", 9, -9), "pixels"),
    ("16UC1; compressedDepth rvl", bytes(12) + struct.pack("<ii", 99999, 99999), "pixels"),
])
def test_damaged_depth_is_refused_with_what_was_seen(form, data, words):
    with pytest.raises(BadInput, match=words):
        read_compressed_depth(message(form, data), LIMIT)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colours_of_16_bits_are_refused_as_nobody_says_how_many_are_used(channels):
    deep = np.full((4, 5, channels), 3000, np.uint16)
    with pytest.raises(BadInput, match="expected 8 bits a channel") as caught:
        read_compressed_colour(message("bgr16; png", picture(".png", deep)), LIMIT)
    assert caught.value.reason == "encoding"


@pytest.mark.parametrize("data", [b"", bytes(50), picture(".webp", SMOOTH),
                                  picture(".jpg", SMOOTH)[:30]])
def test_what_is_no_picture_is_refused_with_its_format(data):
    with pytest.raises(BadInput, match="format 'jpeg'.*JPEG or PNG") as caught:
        read_compressed_colour(message("jpeg", data), LIMIT)
    assert caught.value.reason == "encoding"


def test_a_picture_of_16_bits_is_refused():
    data = picture(".png", SMOOTH[:, :, 0].astype(np.uint16) * 200)
    with pytest.raises(BadInput, match="pixels of uint16: expected 8 bits"):
        read_compressed_colour(message("mono16; png compressed", data), LIMIT)


def test_a_picture_over_the_limit_is_refused_by_its_header():
    data = picture(".png", np.zeros((2000, 2000), np.uint8))
    with pytest.raises(BadInput, match="2000x2000 pixels.*1000000") as caught:
        read_compressed_colour(message("png", data), LIMIT)
    assert caught.value.reason == "image_size"
