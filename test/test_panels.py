"""Pictures of a frame: one colour means one depth, in all panels and in all frames."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from sdim_ros.tools.panels import frame_panels

SIZE = (60, 90)
GREY = 191


def frame(value=2.0, size=SIZE, points=40):
    """Image, sparse input and reference: one depth, drawn at some pixels."""
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, (*size, 3), dtype=np.uint8)
    reference = np.full(size, value, np.float32)
    sparse = np.zeros(size, np.float32)
    drawn = rng.choice(sparse.size, points, replace=False)
    sparse.flat[drawn] = value
    return image, sparse, reference


def opened(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(jpeg)).convert("RGB")).astype(int)


def panels(jpeg: bytes, columns: int = 2) -> list[np.ndarray]:
    """The panels of a picture, row by row: what is higher than a title or a colour bar."""
    page = opened(jpeg)
    found = []
    for column in range(columns):
        left = page.shape[1] * column // columns
        part = page[:, left:left + page.shape[1] // columns]
        rows = (part < 240).any(axis=2).mean(axis=1) > 0.9
        edges = np.flatnonzero(np.diff(np.concatenate([[0], rows, [0]]).astype(int)))
        found.append([part[a + 3:b - 3, 20:-20] for a, b in edges.reshape(-1, 2) if b - a > 100])
    assert len({len(each) for each in found}) == 1
    return [panel for row in zip(*found, strict=True) for panel in row]


def middle(panel: np.ndarray) -> np.ndarray:
    return np.median(panel.reshape(-1, 3), axis=0)


def test_one_scale_gives_equal_depths_one_colour_in_every_frame():
    image, sparse, reference = frame(2.0)
    far = np.full(SIZE, 8.0, np.float32)
    mixed = reference.copy()
    mixed[:, 45:] = 8.0
    both = panels(frame_panels(image, sparse, mixed, mixed, depth_range=(1, 9)))
    depth = both[2]
    blue, red = middle(depth[:, :200]), middle(depth[:, -200:])
    assert blue[2] > blue[0] + 60 and red[0] > red[2] + 60
    alone = panels(frame_panels(image, np.where(sparse > 0, far, 0), far, far,
                                depth_range=(1, 9)))
    assert np.abs(middle(alone[2]) - red).max() < 8


def test_both_errors_and_the_reference_share_the_scales_of_their_kind():
    image, sparse, reference = frame(2.0)
    ours, theirs = reference + 0.1, reference + 0.4
    found = panels(frame_panels(image, sparse, ours, reference, theirs,
                                depth_range=(1, 4), error_max=0.5))
    assert len(found) == 6
    assert np.abs(middle(found[2]) - middle(found[3])).max() < 40  # 2.1 m and 2.0 m
    small, large = middle(found[4]), middle(found[5])
    assert large.sum() > small.sum() + 150
    swapped = panels(frame_panels(image, sparse, theirs, reference, ours,
                                  depth_range=(1, 4), error_max=0.5))
    assert np.abs(middle(swapped[5]) - small).max() < 8


def test_unknown_depth_is_grey_and_an_error_of_zero_is_not():
    image, sparse, reference = frame()
    depth = reference.copy()
    depth[:, 45:] = np.nan
    dense, error = panels(frame_panels(image, sparse, depth, reference))[2:]
    for panel in (dense, error):
        assert np.abs(middle(panel[:, -200:]) - GREY).max() < 5
        assert np.abs(middle(panel[:, :200]) - GREY).max() > 40
    assert middle(error[:, :200]).max() < 20  # black: no error


def test_a_single_point_can_be_seen_in_the_input_and_on_the_image():
    image, sparse, reference = frame(points=1)
    on_image, alone, *_ = panels(frame_panels(
        np.full_like(image, 120), sparse, reference, reference, depth_range=(1, 9)))
    for panel, ground in ((alone, GREY), (on_image, 120)):
        coloured = (np.abs(panel - ground).max(axis=2) > 50).sum()
        assert coloured >= 60
        assert coloured < panel[..., 0].size / 20


@pytest.mark.parametrize("size, points", [
    ((60, 90), 0), ((90, 60), 500), ((40, 130), 1)])
def test_every_shape_and_density_gives_a_small_picture(size, points):
    image, sparse, reference = frame(3.0, size, points)
    depth = reference if points else np.full(size, np.nan, np.float32)
    jpeg = frame_panels(image, sparse, depth, reference, depth + 0.1)
    assert jpeg[:2] == b"\xff\xd8" and len(jpeg) <= 125_000
    width, height = Image.open(BytesIO(jpeg)).size
    assert 600 <= width <= 1200 and height > 0.5 * width


def test_the_noisiest_frame_still_fits_the_report():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)
    reference = rng.uniform(1, 9, (240, 320)).astype(np.float32)
    depth = rng.uniform(1, 9, (240, 320)).astype(np.float32)
    jpeg = frame_panels(image, reference, depth, reference, depth[::-1])
    assert len(jpeg) <= 150_000
