"""Projection: what is measured lands on the right pixel, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.core.projection import (
    clean_depth,
    depth_to_points,
    finite_points,
    nearest_of,
    reproject_depth,
    disparity_to_depth,
    occlusion_filter,
    pose_matrix,
    project_points,
    scatter_resize,
)
from sdim_ros.core.types import BadInput, BadSetting, Camera

CAMERA = Camera(fx=100.0, fy=50.0, cx=4.0, cy=3.0, width=10, height=8)


def test_cleaning_keeps_the_range_with_both_ends_and_counts_the_rest() -> None:
    depth = np.array(
        [[np.nan, np.inf, -np.inf, -1.0], [0.0, 0.05, 0.1, 5.0], [250.0, 251.0, -0.5, 0.0]],
        np.float32)
    before = depth.copy()
    sparse, counts = clean_depth(depth, 0.1, 250.0)
    assert sparse.dtype == np.float32
    np.testing.assert_array_equal(
        sparse, np.array([[0, 0, 0, 0], [0, 0, 0.1, 5], [250, 0, 0, 0]], np.float32))
    assert counts == {"not_finite": 3, "negative": 2, "range": 2}
    np.testing.assert_array_equal(depth, before)


def test_cleaning_a_clean_map_is_bit_exact_and_a_copy() -> None:
    depth = np.random.default_rng(0).uniform(1, 9, (20, 30)).astype(np.float32)
    sparse, counts = clean_depth(depth, 0.1, 250.0)
    np.testing.assert_array_equal(sparse, depth)
    assert not np.shares_memory(sparse, depth)
    assert set(counts.values()) == {0}


def test_point_lands_on_the_pixel_worked_out_by_hand() -> None:
    # u = 100 * 0.2 / 10 + 4 = 6, v = 50 * -0.4 / 10 + 3 = 1
    sparse = project_points(np.array([[0.2, -0.4, 10.0]]), CAMERA, None, 0.1, 250.0)
    assert sparse.dtype == np.float32
    assert sparse[1, 6] == 10.0
    assert np.count_nonzero(sparse) == 1


def test_point_belongs_to_the_nearest_pixel_centre() -> None:
    for u, col in [(6.49, 6), (6.51, 7), (-0.49, 0), (9.49, 9)]:
        points = np.array([[(u - 4.0) / 100.0, 0.0, 1.0]])
        assert project_points(points, CAMERA, None, 0.1, 250.0)[3, col] == 1.0
    for u in (-0.51, 9.51, 1e30):
        points = np.array([[(u - 4.0) / 100.0, 0.0, 1.0]])
        assert not project_points(points, CAMERA, None, 0.1, 250.0).any()


def test_nearest_point_wins_in_any_order() -> None:
    points = np.array([[0, 0, 7.0], [0, 0, 3.0], [0, 0, 5.0]])
    for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        assert project_points(points[order], CAMERA, None, 0.1, 250.0)[3, 4] == 3.0


def test_points_behind_on_or_out_of_range_never_appear() -> None:
    points = np.array([[0, 0, -5.0], [0, 0, 0.0], [1, 1, 0.0], [0, 0, 0.05], [0, 0, 251.0]])
    assert not project_points(points, CAMERA, None, 0.1, 250.0).any()
    with np.errstate(all="raise"):
        assert not project_points(points[:3], CAMERA, None, 0.0, 250.0).any()


def test_points_that_are_not_finite_are_ignored() -> None:
    points = np.array([[np.nan, 0, 5], [0, np.inf, 5], [0, 0, np.nan], [0, 0, 5]], np.float32)
    sparse = project_points(points, CAMERA, None, 0.1, 250.0)
    assert np.count_nonzero(sparse) == 1
    assert sparse[3, 4] == 5.0


def test_empty_cloud_gives_an_empty_map() -> None:
    assert not project_points(np.empty((0, 3)), CAMERA, None, 0.1, 250.0).any()


def test_wrong_cloud_shape_is_refused_with_its_shape() -> None:
    with pytest.raises(BadInput, match=r"\(5, 4\)") as caught:
        project_points(np.zeros((5, 4)), CAMERA, None, 0.1, 250.0)
    assert caught.value.reason == "cloud_shape"


def test_extrinsics_place_the_sensor_in_the_optical_frame() -> None:
    # A LiDAR with x forward, y left, z up, 0.5 m above the camera.
    lidar_in_camera = pose_matrix([0, -0.5, 0, 0.5, -0.5, 0.5, 0.5])
    np.testing.assert_allclose(
        lidar_in_camera[:3, :3], [[0, -1, 0], [0, 0, -1], [1, 0, 0]], atol=1e-12)
    # 10 m ahead, 0.2 m to the right, level with the camera: the hand-worked pixel's column.
    sparse = project_points(np.array([[10.0, -0.2, -0.5]]), CAMERA, lidar_in_camera, 0.1, 250.0)
    assert sparse[3, 6] == 10.0


def test_quaternion_is_normalised_and_in_xyzw_order() -> None:
    half = np.sqrt(0.5)
    turned = pose_matrix([1, 2, 3, 0, 0, 2 * half, 2 * half])  # 90 degrees about z
    np.testing.assert_allclose(turned @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-12)


@pytest.mark.parametrize(
    "values", [[0] * 7, [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, np.nan, 1], []])
def test_values_that_are_no_pose_are_refused(values: list[float]) -> None:
    with pytest.raises(BadSetting, match="expected 7 finite numbers"):
        pose_matrix(values)


def test_million_points_agree_with_painting_from_far_to_near() -> None:
    x, y, z = (np.random.default_rng(1).normal(size=(1_000_000, 3)) * [2.0, 2.0, 20.0]).T
    sparse = project_points(np.stack([x, y, z], axis=1), CAMERA, None, 0.1, 50.0)
    expected = np.zeros((8, 10), np.float32)
    cols, rows = np.round(100 * x / z + 4).astype(int), np.round(50 * y / z + 3).astype(int)
    seen = (z >= 0.1) & (z <= 50) & (rows >= 0) & (rows < 8) & (cols >= 0) & (cols < 10)
    for row, col, depth in sorted(zip(rows[seen], cols[seen], z[seen]), key=lambda p: -p[2]):
        expected[row, col] = depth
    np.testing.assert_array_equal(sparse, expected)


def test_occluded_point_is_dropped_and_the_nearer_kept() -> None:
    sparse = np.zeros((20, 20), np.float32)
    sparse[10, 10], sparse[10, 12], sparse[10, 17] = 2.0, 8.0, 8.0
    filtered = occlusion_filter(sparse, 7, 1.5, 0.0)
    assert filtered[10, 10] == 2.0  # in front
    assert filtered[10, 12] == 0.0  # 2 px away: inside of the window of 7
    assert filtered[10, 17] == 8.0  # 7 px away: outside
    assert sparse[10, 12] == 8.0  # the input is untouched


def test_window_reaches_three_pixels_when_it_is_seven_wide() -> None:
    for gap, kept in [(3, 0.0), (4, 8.0)]:
        sparse = np.zeros((9, 20), np.float32)
        sparse[4, 5], sparse[4, 5 + gap] = 2.0, 8.0
        assert occlusion_filter(sparse, 7, 1.5, 0.0)[4, 5 + gap] == kept


def test_occlusion_tolerance_is_metres_plus_a_share_of_the_nearer_depth() -> None:
    # limit = 10 + 1.5 + 0.1 * 10 = 12.5
    for far, kept in [(12.4, True), (12.6, False)]:
        sparse = np.array([[10.0, far]], np.float32)
        assert (occlusion_filter(sparse, 3, 1.5, 0.1)[0, 1] > 0) == kept


@pytest.mark.parametrize("window_px", [0, 1])
def test_occlusion_filter_can_be_switched_off(window_px: int) -> None:
    sparse = np.array([[1.0, 200.0]], np.float32)
    np.testing.assert_array_equal(occlusion_filter(sparse, window_px, 0.0, 0.0), sparse)


def test_smooth_surface_survives_the_occlusion_filter_bit_exact() -> None:
    rng = np.random.default_rng(2)
    plane = np.linspace(5, 9, 60, dtype=np.float32)[None].repeat(40, axis=0)
    sparse = np.where(rng.random(plane.shape) < 0.2, plane, 0).astype(np.float32)
    np.testing.assert_array_equal(occlusion_filter(sparse, 7, 1.5, 0.0), sparse)


def test_disparity_gives_the_depth_worked_out_by_hand() -> None:
    disparity = np.array([[20.0, 50.0]], np.float32)
    np.testing.assert_allclose(disparity_to_depth(disparity, 1000, 0.2), [[10.0, 4.0]])
    np.testing.assert_allclose(disparity_to_depth(disparity, 1000, 0.2, 30.0), [[4.0, 2.5]])


def test_invalid_disparities_give_zero_also_with_an_offset() -> None:
    disparity = np.array([[0.0, -1.0, np.nan, np.inf, 5.0]], np.float32)
    depth = disparity_to_depth(disparity, 1000, 0.2, 30.0)
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth[0, :4], 0.0)
    assert depth[0, 4] > 0
    assert not disparity_to_depth(disparity, 1000, 0.2, -30.0).any()


@pytest.mark.parametrize("focal,baseline", [(0, 0.1), (100, -0.1), (np.nan, 0.1), (100, np.inf)])
def test_uncalibrated_stereo_is_refused(focal: float, baseline: float) -> None:
    with pytest.raises(BadInput) as caught:
        disparity_to_depth(np.ones((2, 2)), focal, baseline)
    assert caught.value.reason == "stereo_geometry"


@pytest.mark.parametrize("stride", [1, 3])
def test_points_project_back_to_the_pixels_they_came_from(stride: int) -> None:
    depth = np.random.default_rng(3).uniform(1, 20, (8, 10)).astype(np.float32)
    points = depth_to_points(depth, CAMERA, stride)
    assert points.dtype == np.float32
    assert points.shape == (-(-8 // stride), -(-10 // stride), 3)
    expected = np.zeros_like(depth)
    expected[::stride, ::stride] = depth[::stride, ::stride]
    back = project_points(points.reshape(-1, 3), CAMERA, None, 0.1, 250)
    np.testing.assert_array_equal(back, expected)


def test_unknown_near_and_far_pixels_have_no_point_and_colours_match() -> None:
    depth = np.full((8, 10), np.nan, np.float32)
    depth[1, 2], depth[3, 4], depth[5, 6], depth[7, 8] = 2.0, 30.0, 0.0, np.inf
    depth[7, 9], depth[6, 1] = 5.0, 0.5
    image = np.arange(8 * 10 * 3, dtype=np.uint8).reshape(8, 10, 3)
    points = depth_to_points(depth, CAMERA, 1, 1.0, 20.0)
    assert np.isnan(points).all(axis=2).sum() == 78
    finite, colours = finite_points(points, image)
    np.testing.assert_array_equal(finite[:, 2], [2.0, 5.0])
    np.testing.assert_array_equal(colours, [image[1, 2], image[7, 9]])


def test_cloud_of_another_size_than_the_camera_is_refused() -> None:
    with pytest.raises(BadInput, match=r"\(4, 4\)") as caught:
        depth_to_points(np.ones((4, 4), np.float32), CAMERA)
    assert caught.value.reason == "size_mismatch"


def test_shrinking_scatters_and_the_nearest_wins() -> None:
    sparse = np.zeros((4, 6), np.float32)
    sparse[0, 0], sparse[1, 1], sparse[3, 5] = 9.0, 4.0, 7.0
    small = scatter_resize(sparse, (2, 3))
    np.testing.assert_array_equal(small, np.array([[4, 0, 0], [0, 0, 7]], np.float32))


def test_growing_moves_each_point_to_its_centre_and_invents_none() -> None:
    sparse = np.array([[3.0, 0.0], [0.0, 5.0]], np.float32)
    large = scatter_resize(sparse, (6, 6))
    assert np.count_nonzero(large) == 2
    assert (large[1, 1], large[4, 4]) == (3.0, 5.0)


def test_resize_to_the_same_size_is_bit_exact() -> None:
    rng = np.random.default_rng(4)
    sparse = np.where(rng.random((13, 17)) < 0.3, rng.random((13, 17)), 0).astype(np.float32)
    np.testing.assert_array_equal(scatter_resize(sparse, (13, 17)), sparse)


@pytest.mark.parametrize("size", [(5, 7), (60, 80), (100, 41)])
def test_resized_values_are_measured_ones(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    sparse = np.where(rng.random((60, 80)) < 0.1, rng.random((60, 80)), 0).astype(np.float32)
    resized = scatter_resize(sparse, size)
    assert resized.shape == size
    assert set(resized[resized > 0]) <= set(sparse[sparse > 0])
    assert resized[resized > 0].min() == sparse[sparse > 0].min()


def test_depth_of_another_camera_lands_where_this_one_sees_it() -> None:
    """A second camera of twice the focal length, 0.2 m to the left."""
    rng = np.random.default_rng(5)
    source = Camera(100.0, 100.0, 31.5, 23.5, 64, 48)
    depth = np.where(rng.random((48, 64)) < 0.05, rng.uniform(1, 5, (48, 64)), 0)
    depth = depth.astype(np.float32)
    pose = np.eye(4)
    pose[0, 3] = -0.2
    target = Camera(200.0, 200.0, 63.5, 47.5, 128, 96)
    moved = reproject_depth(depth, source, target, pose)
    points = depth_to_points(depth, source).reshape(-1, 3)
    expected = project_points(points - np.array([0.2, 0, 0]), target, None, 0, 99)
    np.testing.assert_array_equal(moved, expected)
    assert 0 < (moved > 0).sum() <= (depth > 0).sum()
    same = reproject_depth(depth, source, source, None)
    np.testing.assert_array_equal(same, depth)


def test_of_several_maps_the_nearest_measurement_counts() -> None:
    lidar = np.array([[2, 0, np.nan, 4, 0]], np.float32)
    stereo = np.array([[3, 5, 6, np.inf, -1]], np.float32)
    np.testing.assert_array_equal(nearest_of([lidar, stereo]), [[2, 5, 6, 4, 0]])
    assert nearest_of([stereo]) is stereo
