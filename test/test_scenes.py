"""Procedural scenes: exact depth, the same every time, and varied."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.core.types import Camera
from sdim_ros.tools import scenes, textures
from sdim_ros.tools.raycast import BOX, CYLINDER, DOME, PLATE, SPHERE, intersect, rotation
from sdim_ros.tools.scenes import Scene, cast, render
from sdim_ros.tools.textures import random_material

CAMERA = Camera(50.0, 50.0, 31.5, 23.5, 64, 48)


def rays() -> np.ndarray:
    """Rays (48, 64, 3) of CAMERA with z = 1."""
    v, u = np.indices((48, 64))
    return np.stack([(u - 31.5) / 50, (v - 23.5) / 50, np.ones((48, 64))], -1)


def depth_of(shape: int, center: tuple, half: tuple, turn: np.ndarray | None = None) -> np.ndarray:
    """Depth (48, 64) of one part before a camera at the origin that looks along +z."""
    scene = Scene(CAMERA, np.zeros(3), np.eye(3))
    scene.add(shape, center, half, random_material(np.random.default_rng(0)), turn)
    return cast(scene)[0]


@pytest.fixture(scope="module")
def frames() -> list:
    return [render(seed, 96, 72) for seed in range(30)]


def test_a_plane_has_the_depth_of_the_closed_form():
    turn = rotation(0.4, 0.3, -0.5)
    depth = depth_of(PLATE, (0.1, -0.2, 5), (50, 50, 1), turn)
    normal = turn[:, 2]
    np.testing.assert_allclose(depth, normal @ [0.1, -0.2, 5] / (rays() @ normal), rtol=1e-12)


def test_a_sphere_has_the_depth_of_the_closed_form():
    center, radius = np.array([0.3, -0.2, 4.0]), 1.1
    depth = depth_of(SPHERE, center, (radius,) * 3, rotation(1, 2, 3))
    length = np.linalg.norm(rays(), axis=-1)
    along = rays() @ center / length
    reach = radius ** 2 - center @ center + along ** 2
    expected = np.where(reach > 0, (along - np.sqrt(np.maximum(reach, 0))) / length, np.inf)
    assert 200 < np.isfinite(depth).sum() < depth.size
    np.testing.assert_allclose(depth, expected, rtol=1e-10)


@pytest.mark.parametrize("shape", [BOX, CYLINDER, SPHERE])
def test_hits_lie_on_the_surface(shape):
    center, half, turn = np.array([0.2, 0.1, 5.0]), np.array([0.8, 1.3, 0.5]), rotation(1, 0.7, 2)
    depth = depth_of(shape, center, half, turn)
    seen = np.isfinite(depth)
    unit = (depth[seen][:, None] * rays()[seen] - center) @ turn / half
    radius = {BOX: np.abs(unit).max(1), SPHERE: np.linalg.norm(unit, axis=1),
              CYLINDER: np.maximum(np.hypot(unit[:, 0], unit[:, 1]), np.abs(unit[:, 2]))}[shape]
    assert seen.sum() > 150
    np.testing.assert_allclose(radius, 1, atol=1e-9)


@pytest.mark.parametrize(("shape", "expected"), [
    (PLATE, 4.0), (BOX, 3.0), (SPHERE, 3.0), (DOME, 5.0)])
def test_a_ray_along_the_axis_hits_at_the_known_place(shape, expected):
    hit = intersect(shape, np.array([0.0, 0, -4]), np.array([0.0, 0, 1]))
    assert hit == pytest.approx(expected)
    assert np.isinf(intersect(shape, np.array([3.0, 0, -4]), np.array([0.0, 0, 1])))


def test_rays_beside_a_cylinder_or_past_its_caps_miss():
    def hit(origin, direction):
        return intersect(CYLINDER, np.array(origin, float), np.array(direction, float))
    assert hit([-3, 0, 0], [1, 0, 0]) == pytest.approx(2)
    assert np.isinf(hit([-3, 1.01, 0], [1, 0, 0]))
    assert np.isinf(hit([-3, 0, 1.01], [1, 0, 0]))
    assert np.isinf(hit([-3, 0, 0], [-1, 0, 0]))


def test_a_thin_bar_is_seen_over_its_whole_length():
    scene = Scene(CAMERA, np.zeros(3), np.eye(3))
    material = random_material(np.random.default_rng(0))
    scene.bar(np.array([-0.5, -9.0, 4]), np.array([-0.5, 9.0, 4]), 0.05, material)
    depth = cast(scene)[0]
    assert (np.isfinite(depth).sum(1) >= 1).all()
    assert np.abs(depth[np.isfinite(depth)] - 4).max() <= 0.06


def test_points_of_one_wall_are_coplanar():
    depth = depth_of(PLATE, (0, 0, 6), (50, 50, 1), rotation(0.3, 0.6)).astype(np.float32)
    points = (depth[..., None] * rays()).reshape(-1, 3)
    assert np.linalg.svd(points - points.mean(0), full_matrices=False)[1][2] < 1e-4


def test_the_nearer_part_hides_the_farther():
    scene = Scene(CAMERA, np.zeros(3), np.eye(3))
    material = random_material(np.random.default_rng(0))
    scene.add(BOX, (0, 0, 4), (0.5, 0.5, 1), material)
    scene.add(PLATE, (0, 0, 9), (50, 50, 1), material)
    depth, index = cast(scene)
    np.testing.assert_allclose(depth, np.where(index == 0, 3, 9))
    assert 0 < (index == 0).sum() < index.size


def test_the_same_seed_gives_the_same_frame_and_another_seed_another(frames):
    image, depth, camera = render(3, 96, 72)
    np.testing.assert_array_equal(image, frames[3][0])
    np.testing.assert_array_equal(depth, frames[3][1])
    assert camera == frames[3][2]
    assert not np.array_equal(image, frames[4][0])


def test_frames_are_complete_and_within_the_stated_range(frames):
    for image, depth, camera in frames:
        assert image.shape == (72, 96, 3) and image.dtype == np.uint8
        assert depth.shape == (72, 96) and depth.dtype == np.float32
        assert depth.min() >= scenes.NEAREST_M and depth.max() <= scenes.FARTHEST_M
        assert (camera.width, camera.height) == (96, 72) and camera.fx == camera.fy
        assert image.std() > 4


def test_frames_vary_and_have_depth_edges(frames):
    medians = [np.median(depth) for _, depth, _ in frames]
    assert max(medians) > 8 * min(medians)
    edges = [(np.abs(np.diff(np.log(depth), axis=1)) > 0.1).mean() for _, depth, _ in frames]
    assert np.median(edges) > 0.01


def test_shadows_darken_and_never_lighten():
    scene = Scene(CAMERA, np.zeros(3), np.eye(3))
    material = random_material(np.random.default_rng(0), ("plain",))
    material.first, material.gloss = np.full(3, 0.5), 0
    scene.add(PLATE, (0, 0, 9), (50, 50, 1), material)
    scene.add(SPHERE, (0, 0, 6), (0.7, 0.7, 0.7), material)
    depth, index = cast(scene)
    lights = np.array([[-4.0, 0, 1, np.inf, 1, 1, 1]])
    bright, dark = (
        textures.shade(scene.parts, index, depth[..., None] * rays(), np.zeros(3), 1 / 50, lights,
                       np.full(3, 0.2), shadows) for shadows in (False, True))
    assert (dark <= bright + 1e-6).all()
    assert (dark[index == 0] < 0.7 * bright[index == 0]).any()
