"""What people look at shows the points where they are, near ones in front."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.core.views import doubted_over_image, points_over_image

IMAGE = np.full((240, 320, 3), 200, np.uint8)


def sparse_with(**points):
    sparse = np.zeros((240, 320), np.float32)
    for row, col, depth in points.values():
        sparse[row, col] = depth
    return sparse


def test_points_are_dots_of_their_depth_on_a_darker_image():
    picture = points_over_image(IMAGE, sparse_with(near=(50, 60, 1.0), far=(150, 200, 20.0)))
    assert picture.shape == IMAGE.shape and picture.dtype == np.uint8
    assert (picture[0, 0] == 100).all() and (IMAGE == 200).all()
    near, far = picture[50, 60].astype(int), picture[150, 200].astype(int)
    assert near[2] > near[0] and far[0] > far[2]  # blue is near, red is far
    assert (picture[51, 61] == near).all()


def test_the_near_one_of_two_overlapping_dots_is_in_front():
    picture = points_over_image(IMAGE, sparse_with(near=(50, 60, 1.0), far=(50, 61, 20.0)))
    assert (picture[50, 61] == picture[50, 60]).all()


def test_dots_at_the_border_and_no_dots_at_all_are_fine():
    corner = points_over_image(IMAGE, sparse_with(one=(0, 319, 2.0)))
    assert (corner[0, 319] != 100).any()
    assert (points_over_image(IMAGE, sparse_with()) == 100).all()


@pytest.mark.parametrize("image", [IMAGE, np.full((3, 240, 320), 200, np.uint8).transpose(1, 2, 0)],
                         ids=["rgb", "planes"])
def test_doubted_points_have_a_ring(image):
    sparse = sparse_with(good=(50, 60, 1.0), odd=(150, 200, 20.0))
    picture = doubted_over_image(image, sparse, np.array([150]), np.array([200]))
    ring = (picture == (255, 0, 255)).all(axis=2)
    rows, cols = np.nonzero(ring)
    assert ring.any() and abs(rows.mean() - 150) < 1 and abs(cols.mean() - 200) < 1
    assert not ring[150, 200]
