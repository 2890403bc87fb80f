"""Light falls where it should, and the sensor makes a picture of it."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.core.types import Camera
from sdim_ros.tools.procedural.bank import TextureBank
from sdim_ros.tools.procedural.lighting import Lighting
from sdim_ros.tools.procedural.materials import PLAIN
from sdim_ros.tools.procedural.meshes import plate, rotation, sphere
from sdim_ros.tools.procedural.patterns import COLOURED, MIXED
from sdim_ros.tools.procedural.scene import FORWARD, Light, Scene, View
from sdim_ros.tools.procedural.sensor import photograph

CAMERA = Camera(60.0, 60.0, 39.5, 29.5, 80, 60)
SUN = np.array([0.0, 0.0, 1.0])


def floor_and_ball(lights: list[Light], ball: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Light (60, 80, 3) and world points (60, 80, 3) of a grey floor under a ball, from above."""
    bank = TextureBank(0, MIXED, COLOURED)
    looking_down = rotation(0, -0.9) @ FORWARD
    scene = Scene(CAMERA, np.array([0, -2.5, 4.0]), looking_down, np.random.default_rng(0), bank,
                  ambient=np.zeros(3), lights=lights)
    grey = scene.look("paint", tile=PLAIN, bias=np.full(3, 0.5), gloss=0.0, mirror=0.0)
    scene.add(plate(40, 40), grey)
    if ball:
        scene.add(sphere(16, 24), grey, (0, 0.5, 1.2), scale=0.6)
    geometry = scene.geometry()
    view = View(geometry, CAMERA)
    depth, face = view.cast()
    rays = view.rays()
    points = (rays * depth[..., None]) @ looking_down.T + scene.position
    seen = (rays * depth[..., None]).reshape(-1, 3)
    lighting = Lighting(scene, geometry, face.ravel(), seen)
    return lighting.radiance(face.ravel(), rays.reshape(-1, 3)).reshape(60, 80, 3), points


def test_a_matt_floor_under_the_sun_sends_back_its_share():
    slanted = np.array([0.6, 0.0, 0.8])
    light, _ = floor_and_ball([Light(slanted, np.array([1.0, 0.5, 0.25]))], ball=False)
    np.testing.assert_allclose(light, np.broadcast_to(
        0.5 * 0.8 * np.array([1.0, 0.5, 0.25]), light.shape), rtol=1e-4)


def test_a_lamp_gets_weaker_with_distance():
    light, points = floor_and_ball([Light(np.array([0, 0, 2.0]), np.ones(3), reach=2.0)],
                                   ball=False)
    way = np.array([0, 0, 2.0]) - points
    away = np.linalg.norm(way, axis=-1)
    expected = 0.5 * (way[..., 2] / away) * 2 / (1 + (away / 2.0) ** 2)
    np.testing.assert_allclose(light[..., 0], expected, rtol=1e-3)


def test_the_shadow_of_a_ball_lies_where_the_geometry_says():
    slanted = np.array([0.5, 0.0, 1.0])
    light, points = floor_and_ball([Light(slanted, np.ones(3), softness=0.5)])
    floor = points[..., 2] < 1e-6
    # The way to the sun passes the centre of the ball at this distance.
    offset = points - [0, 0.5, 1.2]
    way = slanted / np.linalg.norm(slanted)
    passing = np.linalg.norm(offset - (offset @ way)[..., None] * way, axis=-1)
    dark, bright = floor & (passing < 0.5), floor & (passing > 0.75)
    assert dark.sum() > 50 and bright.sum() > 1000
    assert (light[dark] < 0.01).mean() > 0.95
    assert (light[bright] > 0.3).mean() > 0.99


@pytest.mark.parametrize("lamp", [Light(SUN, np.ones(3)),
                                  Light(np.array([1.0, 1, 3]), np.ones(3), reach=3.0)])
def test_shadows_darken_and_never_lighten(lamp):
    shady = Light(lamp.place, lamp.power, lamp.reach, softness=2.0)
    open_light, shaded = floor_and_ball([lamp])[0], floor_and_ball([shady])[0]
    assert (shaded <= open_light + 1e-6).all()
    assert (shaded < 0.6 * open_light).mean() > 0.01


def test_the_sensor_gives_a_full_picture_of_any_light():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        light = rng.uniform(0, 10.0 ** rng.uniform(-3, 2), (30, 40, 3)).astype(np.float32)
        depth = np.where(rng.random((30, 40)) < 0.3, np.inf, rng.uniform(0.5, 80, (30, 40)))
        image = photograph(light, depth, rng)
        assert image.shape == (30, 40, 3) and image.dtype == np.uint8
        assert 10 < image.mean() < 245 and image.std() > 5


def test_the_sensor_survives_darkness_and_a_frame_of_sky():
    for seed in range(20):
        dark = photograph(np.zeros((30, 40, 3), np.float32), np.full((30, 40), 2.0),
                          np.random.default_rng(seed))
        assert dark.mean() < 40
        sky = photograph(np.ones((30, 40, 3), np.float32), np.full((30, 40), np.inf),
                         np.random.default_rng(seed))
        assert sky.mean() > 60
