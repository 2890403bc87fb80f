"""Procedural scenes: exact depth, the same every time, and varied."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.core.types import Camera
from sdim_ros.tools import scenes
from sdim_ros.tools.procedural.bank import TextureBank, training_bank
from sdim_ros.tools.procedural.meshes import box, plate, rotation, sphere
from sdim_ros.tools.procedural.patterns import COLOURED, MIXED
from sdim_ros.tools.procedural.picture import Exposure
from sdim_ros.tools.procedural.reserved import RESERVED
from sdim_ros.tools.procedural.rooms import ROOMS
from sdim_ros.tools.procedural.scene import Scene
from sdim_ros.tools.procedural.streets import STREETS
from sdim_ros.tools.scenes import render, render_reserved

CAMERA = Camera(50.0, 50.0, 31.5, 23.5, 64, 48)
BANK = TextureBank(0, MIXED, COLOURED)


def rays() -> np.ndarray:
    """Rays (48, 64, 3) of CAMERA with z = 1."""
    v, u = np.indices((48, 64))
    return np.stack([(u - 31.5) / 50, (v - 23.5) / 50, np.ones((48, 64))], -1)


def empty() -> Scene:
    """No bodies; a camera at the origin that looks along +z."""
    return Scene(CAMERA, np.zeros(3), np.eye(3), np.random.default_rng(0), BANK)


@pytest.fixture(scope="module")
def frames() -> list:
    return [render(seed, 96, 72) for seed in range(24)]


def test_a_plane_has_the_depth_of_the_closed_form():
    scene, turn = empty(), rotation(0.4, 0.3, -0.5)
    scene.add(plate(100, 100), scene.look("wall"), (0.1, -0.2, 5), turn)
    normal = turn[:, 2]
    np.testing.assert_allclose(Exposure(scene).depth,
                               normal @ [0.1, -0.2, 5] / (rays() @ normal), rtol=1e-10)


def test_a_fine_sphere_has_the_depth_of_the_closed_form():
    scene, center, radius = empty(), np.array([0.3, -0.2, 4.0]), 1.1
    scene.add(sphere(200, 300), scene.look("wall"), center, scale=radius)
    length = np.linalg.norm(rays(), axis=-1)
    along = rays() @ center / length
    reach = radius ** 2 - center @ center + along ** 2
    depth, inner = Exposure(scene).depth, reach > 0.01
    assert inner.sum() > 200 and np.isinf(depth[reach < -0.01]).all()
    expected = (along - np.sqrt(np.maximum(reach, 0))) / length
    np.testing.assert_allclose(depth[inner], expected[inner], rtol=1e-3)


def test_a_larger_world_only_multiplies_the_depth():
    depths = []
    for scale in (1.0, 2.5):
        scene = empty()
        scene.add(box((1, 1, 1)), scene.look("wall"), (0, 0, 4))
        scene.scale = scale
        depths.append(Exposure(scene).depth)
    np.testing.assert_allclose(depths[1], 2.5 * depths[0])


def test_a_thin_bar_is_seen_over_its_whole_length():
    scene = empty()
    scene.bars([[(-0.5, -9, 4), (-0.5, 9, 4)]], 0.05, scene.look("metal"))
    depth = Exposure(scene).depth
    assert (np.isfinite(depth).sum(1) >= 1).all()
    assert np.abs(depth[np.isfinite(depth)] - 4).max() <= 0.06


def test_the_nearer_body_hides_the_farther():
    scene = empty()
    scene.add(box((0.5, 0.5, 1)), scene.look("wall"), (0, 0, 4))
    scene.add(plate(100, 100), scene.look("wall"), (0, 0, 9))
    exposure = Exposure(scene)
    np.testing.assert_allclose(exposure.depth, np.where(exposure.part == 0, 3, 9))
    assert 0 < (exposure.part == 0).sum() < exposure.part.size


def test_sky_and_glass_are_not_measured():
    scene = empty()
    scene.add(plate(2, 2), scene.look("picture", known=False), (0, 0, 4))
    scene.add(plate(2, 2), scene.look("wall", fresh=True), (2, 0, 4))
    exposure = Exposure(scene)
    assert set(exposure.part[exposure.known]) == {1}
    assert set(exposure.part[~exposure.known]) == {-1, 0}


def test_a_model_is_placed_as_if_it_were_built_there():
    def build(scene: Scene) -> None:
        scene.add(box((0.3, 0.2, 0.1)), scene.look("paint", fresh=True))
        with scene.at((0, 0, 0.5), 0.3):
            scene.add(sphere(), scene.look("wood", fresh=True), scale=0.2)
    direct, copied = empty(), empty()
    with direct.at((0.2, 0.1, 3), 0.7):
        build(direct)
    model = copied.model(build)
    with copied.at((0.2, 0.1, 3), 0.7):
        copied.put(model)
    np.testing.assert_allclose(Exposure(copied).depth, Exposure(direct).depth)


def test_the_same_seed_gives_the_same_frame_and_another_seed_another(frames):
    training_bank.cache_clear()  # nothing may depend on what was rendered before
    image, depth, camera = render(3, 96, 72)
    np.testing.assert_array_equal(image, frames[3][0])
    np.testing.assert_array_equal(depth, frames[3][1])
    assert camera == frames[3][2]
    assert not np.array_equal(image, frames[4][0])


def test_frames_are_complete_and_within_the_stated_range(frames):
    for image, depth, camera in frames:
        assert image.shape == (72, 96, 3) and image.dtype == np.uint8
        assert depth.shape == (72, 96) and depth.dtype == np.float32
        known = depth[depth > 0]
        assert np.isfinite(depth).all() and len(known) >= 0.4 * depth.size
        assert known.min() >= scenes.NEAREST_M and known.max() <= scenes.FARTHEST_M
        assert (camera.width, camera.height) == (96, 72) and camera.fx == camera.fy
        assert image.std() > 4


def test_frames_vary_and_have_depth_edges(frames):
    medians = [np.median(depth[depth > 0]) for _, depth, _ in frames]
    assert max(medians) > 8 * min(medians)
    edges = [(np.abs(np.diff(np.log(np.maximum(depth, 0.1)), axis=1)) > 0.1).mean()
             for _, depth, _ in frames]
    assert np.median(edges) > 0.02
    assert any((depth == 0).mean() > 0.05 for _, depth, _ in frames)


@pytest.mark.parametrize("layout", [layout for layout, _ in (*ROOMS, *STREETS, *RESERVED)],
                         ids=lambda layout: layout.__name__)
def test_every_layout_fills_the_view(layout):
    for seed in range(3):
        camera = Camera(60.0, 60.0, 47.5, 35.5, 96, 72)
        exposure = Exposure(layout(np.random.default_rng(seed), BANK, camera))
        assert (exposure.part >= 0).mean() > 0.3
        assert len(np.unique(exposure.part)) > 5
        assert exposure.photograph().shape == (72, 96, 3)


def test_a_closed_room_has_no_holes():
    for layout, _ in ROOMS:
        camera = Camera(60.0, 60.0, 47.5, 35.5, 96, 72)
        exposure = Exposure(layout(np.random.default_rng(1), BANK, camera))
        assert (exposure.part >= 0).all()


def test_reserved_frames_are_like_training_frames_in_form_and_other_in_content(frames):
    for seed in range(4):
        image, depth, camera = render_reserved(seed, 96, 72)
        known = depth[depth > 0]
        assert image.shape == (72, 96, 3) and image.dtype == np.uint8 and depth.shape == (72, 96)
        assert known.min() >= scenes.NEAREST_M and known.max() <= scenes.FARTHEST_M
        assert not np.array_equal(depth, frames[seed][1]) and camera != frames[seed][2]
        np.testing.assert_array_equal(render_reserved(seed, 96, 72)[0], image)
