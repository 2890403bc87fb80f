"""Sparse patterns measure where a sensor would, and err as it would."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sdim_ros.core.types import BadSetting
from sdim_ros.tools.training import sparse_patterns
from sdim_ros.tools.training.data_recipe import PATTERNS, PatternRecipe
from sdim_ros.tools.training.sparse_patterns import measure

HEIGHT, WIDTH = 120, 160
SEEDS = range(12)
# A box of 60x60 pixels at 1 m before a wall at 4 m.
BOX = np.s_[30:90, 50:110]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Bright texture everywhere."""
    return np.random.default_rng(0).integers(60, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def depth() -> np.ndarray:
    wall = np.full((HEIGHT, WIDTH), 4, np.float32)
    wall[BOX] = 1
    return wall


def draws(depth: np.ndarray, image: np.ndarray, pattern: str, noise: float = 0.0,
          **settings: object) -> list[np.ndarray]:
    recipe = PatternRecipe({pattern: 1.0}, noise=noise, **settings)
    return [measure(depth, image, np.random.default_rng(seed), recipe) for seed in SEEDS]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_without_noise_every_point_is_the_true_depth_of_its_pixel(pattern, depth, image):
    for sparse in draws(depth, image, pattern):
        assert sparse.dtype == np.float32 and 0 < np.count_nonzero(sparse) < sparse.size
        assert (sparse[sparse > 0] == depth[sparse > 0]).all()


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_same_generator_gives_the_same_points_and_the_input_stays(
        pattern, noise, depth, image):
    before = depth.copy(), image.copy()
    first, again = (draws(depth, image, pattern, noise) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert any((a != b).any() for a, b in zip(first, first[1:]))
    np.testing.assert_array_equal(depth, before[0])
    np.testing.assert_array_equal(image, before[1])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_nothing_is_measured_where_depth_is_unknown(pattern, depth, image):
    half = depth.copy()
    half[:, :80] = 0
    assert not any(sparse[:, :80].any() for sparse in draws(half, image, pattern))
    assert not any(s.any() for s in draws(np.zeros_like(depth), image, pattern, 1.0))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_known_pixel_is_measured_by_every_pattern(pattern, depth, image):
    one = np.zeros_like(depth)
    one[60, 80] = 2
    assert all((sparse == one).all() for sparse in draws(one, image, pattern))


def test_random_counts_are_log_uniform_from_the_smallest_to_the_largest(depth, image):
    recipe = PatternRecipe({"random": 1.0}, points=(5, 500), noise=0.0)
    rng = np.random.default_rng(0)
    counts = [np.count_nonzero(measure(depth, image, rng, recipe)) for _ in range(400)]
    assert min(counts) == 5 and 450 < max(counts) <= 500
    # Half of all counts lie below the geometric mean, 50.
    assert 0.4 < np.mean(np.array(counts) < 50) < 0.6


def test_lidar_points_lie_on_8_to_64_lines(depth, image):
    counts = []
    for sparse in draws(depth, image, "lines"):
        rows = np.flatnonzero(sparse[:, 76:84].any(axis=1))
        # Lines bend and roll little within 8 columns: neighbouring rows are one line.
        counts.append(1 + np.count_nonzero(np.diff(rows) > 1))
    assert min(counts) < 16 and max(counts) > 20 and max(counts) <= 64


def test_lidar_lines_may_leave_the_upper_part_empty(depth, image):
    first = [np.flatnonzero(sparse.any(axis=1))[0] for sparse in draws(depth, image, "lines")]
    assert min(first) < 12 and max(first) > 30


def test_lidar_loses_points_on_dark_surfaces(depth, image):
    dark = image.copy()
    dark[:, 80:] = 0
    left, right = np.sum([[np.count_nonzero(s[:, :80]), np.count_nonzero(s[:, 80:])]
                          for s in draws(depth, dark, "lines")], axis=0)
    assert 0.5 * left < right < 0.9 * left


def test_corners_lie_at_corners(depth):
    squares = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    corners = [(r, c) for r in (30, 70) for c in (40, 100)]
    for row, col in corners:
        squares[row:row + 20, col:col + 30] = 255
    squares = cv2.GaussianBlur(squares, (3, 3), 0)
    ends = np.array([(r + dr, c + dc) for r, c in corners for dr in (0, 19) for dc in (0, 29)])
    for sparse in draws(depth, squares, "corners"):
        at = np.argwhere(sparse)
        # ORB also finds corners in small copies of the image, a few pixels off.
        assert np.abs(at[:, None] - ends).max(axis=-1).min(axis=1).max() <= 8


def test_stereo_has_holes_without_texture_and_left_of_near_objects(depth, image):
    plain = image.copy()
    plain[:, 130:] = 128
    found = np.sum([sparse > 0 for sparse in draws(depth, plain, "stereo")], axis=0)
    assert not found[:, 136:].any()
    beside_left, beside_right = found[32:88, 49], found[32:88, 110]
    assert beside_left.sum() < 0.2 * beside_right.sum()


def test_tiles_leave_whole_blocks_empty(depth, image):
    emptiest = []
    for sparse in draws(depth, image, "tiles", points=(1500, 2000)):
        blocks = (sparse > 0).reshape(10, 12, 10, 16).any(axis=(1, 3))
        emptiest.append(1 - blocks.mean())
    # 1500 random points of 19200 leave none of these 100 blocks empty by chance.
    assert min(emptiest) > 0.03 and max(emptiest) > 0.3


@pytest.mark.parametrize("pattern", PATTERNS)
def test_noise_is_small_and_outliers_are_few(pattern, image):
    flat = np.full((HEIGHT, WIDTH), 3, np.float32)

    def wrong(outliers: float) -> tuple[float, float]:
        error = np.concatenate([np.abs(s[s > 0] / 3 - 1) for s in
                                draws(flat, image, pattern, 1.0, outliers=outliers)])
        return np.median(error), np.mean(error > 0.12)

    assert wrong(0.0)[1] == 0
    median, share = wrong(0.05)
    assert 0.001 < median < 0.02 and 0.001 < share < 0.05


def test_a_sensor_beside_the_camera_sees_through_near_objects(depth, image):
    through = 0
    for sparse in draws(depth, image, "random", 1.0, outliers=0.0, points=(2000, 2000)):
        inside = sparse[36:84, 56:104]  # farther from the edge than any registration error
        through += np.count_nonzero(inside > 3)
        outside = sparse.copy()
        outside[24:96, 44:116] = 0
        assert not ((outside > 0) & (outside < 3)).any()
    assert through > 20


def test_points_are_a_few_pixels_off_at_most(depth, image):
    moved = 0
    for sparse in draws(depth, image, "random", 1.0, outliers=0.0, points=(2000, 2000)):
        near = np.argwhere((sparse > 0) & (sparse < 2))
        moved += np.count_nonzero(depth[tuple(near.T)] > 2)
        assert near[:, 0].min() >= 24 and near[:, 0].max() < 96
    assert moved > 20


def test_of_points_that_land_on_one_pixel_the_nearest_stays(depth, image, monkeypatch):
    monkeypatch.setattr(sparse_patterns, "_misplaced", lambda rows, cols, *_: (0 * rows, 0 * cols))
    for sparse in draws(depth, image, "random", 1.0, outliers=0.0, points=(500, 500)):
        assert np.count_nonzero(sparse) == 1 and 0.8 < sparse[0, 0] < 1


@pytest.mark.parametrize("settings, named", [
    ({"shares": {"spiral": 1.0}}, "data.patterns is {'spiral': 1.0}"),
    ({"shares": {}}, "data.patterns is {}"),
    ({"shares": {"random": 0.0}}, "not all 0"),
    ({"shares": {"random": 1.0, "lines": -1.0}}, "0 or more"),
    ({"shares": {"random": 1.0}, "points": (0, 5)}, "data.points"),
    ({"shares": {"random": 1.0}, "points": (9, 5)}, "data.points"),
    ({"shares": {"random": 1.0}, "noise": 1.5}, "data.noise is 1.5"),
    ({"shares": {"random": 1.0}, "outliers": -0.1}, "data.outliers is -0.1"),
])
def test_a_senseless_recipe_names_key_and_value(settings, named):
    with pytest.raises(BadSetting) as error:
        PatternRecipe(**settings)
    assert named in str(error.value)
