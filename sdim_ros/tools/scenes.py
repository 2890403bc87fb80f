"""Procedural rooms, streets and clutter with exact depth, for training and tests.

Rays have z = 1 in the camera: the ray parameter is the planar depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from sdim_ros.core.types import Camera
from sdim_ros.tools.raycast import (
    BOX, CYLINDER, DOME, NEAR_M, PLATE, SPHERE, Part, intersect, rotation)
from sdim_ros.tools.textures import Material, random_material, sensor_look, shade

NEAREST_M, FARTHEST_M = 0.25, 125.0
# Columns: right, down and forward of a camera that looks along +y.
_FORWARD = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
_CORNERS = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(8, 3).astype(float)


@dataclass
class Scene:
    """Parts in world axes (x right, y forward, z up, metres), lights, and who looks at them.

    Attributes:
        position, attitude: camera centre (3,) and camera-to-world rotation (3, 3).
        lights, ambient: as ``shade`` takes them, (7,) each and (3,).
        scale: metres per unit; a larger world looks the same, so that only depth is multiplied.
    """

    camera: Camera
    position: np.ndarray
    attitude: np.ndarray
    parts: list[Part] = field(default_factory=list)
    lights: list[np.ndarray] = field(default_factory=list)
    ambient: np.ndarray = field(default_factory=lambda: np.full(3, 0.3))
    scale: float = 1.0

    def add(self, shape: int, center: Sequence[float], half: Sequence[float],
            material: Material, turn: np.ndarray | None = None) -> None:
        """Put one primitive into the scene."""
        self.parts.append(Part(int(shape), np.array(center, float), np.array(half, float),
                               np.eye(3) if turn is None else turn, material))

    def bar(self, start: np.ndarray, end: np.ndarray, radius: float, material: Material,
            shape: int = CYLINDER) -> None:
        """A round or square rod between two points."""
        length = np.linalg.norm(end - start)
        axis = (end - start) / length
        side = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
        side /= np.linalg.norm(side)
        turn = np.stack([side, np.cross(axis, side), axis], axis=1)
        self.add(shape, (start + end) / 2, (radius, radius, length / 2), material, turn)

    def look(self, rng: np.random.Generator, patterns: tuple[str, ...] = (),
             period: float = 0.3) -> Material:
        """A material: at times one that the scene has, for depth edges without contrast."""
        used = [part.material for part in self.parts if not part.material.glow]
        again = used and rng.random() < 0.2
        return used[rng.integers(len(used))] if again else random_material(rng, patterns, period)


def cast(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Planar depth (H, W) float64 (inf = nothing) and index of the part seen, (H, W)."""
    camera = scene.camera
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height) - camera.cy) / camera.fy
    depth = np.full((camera.height, camera.width), np.inf)
    index = np.zeros(depth.shape, np.int64)
    for number, part in enumerate(scene.parts):
        window = _window(scene, part)
        inverse = part.turn.T / part.half[:, None]
        origin, turn = inverse @ (scene.position - part.center), inverse @ scene.attitude
        direction = (turn[:, 0, None, None] * x[window[1]]
                     + (turn[:, 1, None] * y[window[0]] + turn[:, 2, None])[:, :, None])
        hit = intersect(part.shape, origin[:, None, None], direction)
        nearer = hit < depth[window]
        depth[window][nearer] = hit[nearer]
        index[window][nearer] = number
    return depth, index


def _window(scene: Scene, part: Part) -> tuple[slice, slice]:
    """Pixels that can see a part: the bounds of its projected corners."""
    corners = _CORNERS * part.half @ part.turn.T + part.center
    x, y, z = scene.camera.matrix() @ ((corners - scene.position) @ scene.attitude).T
    if z.max() <= NEAR_M:
        return slice(0), slice(0)
    if z.min() <= NEAR_M:  # a corner without a projection: look everywhere
        return slice(None), slice(None)
    columns = np.clip(x / z, 0, scene.camera.width).astype(int)
    rows = np.clip(y / z, 0, scene.camera.height).astype(int)
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def _photograph(scene: Scene, depth: np.ndarray, index: np.ndarray,
                rng: np.random.Generator) -> np.ndarray:
    """Image (H, W, 3) uint8 RGB of what ``cast`` found."""
    v, u = np.indices(depth.shape)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(scene.camera.matrix()).T
    points = (depth[..., None] * rays) @ scene.attitude.T
    return sensor_look(shade(scene.parts, index, points, scene.position, 1 / scene.camera.fx,
                             np.array(scene.lights), scene.ambient, rng.random() < 0.5), rng)


def _spot(scene: Scene, rng: np.random.Generator, near: float, far: float,
          spread: float = 0.5) -> np.ndarray:
    """A ground position (x, y, 0) that the camera looks at, roughly."""
    aside = rng.uniform(-spread, spread) * scene.camera.width / scene.camera.fx
    ray = scene.attitude @ [aside, 0, 1]
    return (scene.position + rng.uniform(near, far) * ray) * [1, 1, 0]


def _table(scene, rng, spot, size):
    wide, deep, high = size * rng.uniform([0.4, 0.3, 0.35], [1.0, 0.6, 0.9])
    turn, material = _rack(scene, rng, spot, size, (wide, deep), [high])
    if rng.random() < 0.5:  # a chair
        back = turn @ np.array([0, deep, high + wide * 0.5])
        scene.add(BOX, spot + back, (wide, 0.02 * size, wide * 0.5), material, turn)


def _shelf(scene, rng, spot, size):
    wide, deep, high = size * rng.uniform([0.4, 0.15, 1.2], [1.0, 0.3, 2.2])
    _rack(scene, rng, spot, size, (wide, deep), np.linspace(0.05, high, rng.integers(3, 6)))


def _rack(scene, rng, spot, size, reach, levels, posts=((-1, -1), (-1, 1), (1, -1), (1, 1))):
    """Boards on posts, with things on the boards."""
    turn, material = rotation(rng.uniform(0, 6.3)), scene.look(rng)
    radius, leg = size * rng.uniform(0.012, 0.04), rng.choice([BOX, CYLINDER])
    for post in posts:
        foot = spot + turn @ np.array([*(0.93 * np.multiply(post, reach)), 0])
        scene.bar(foot, foot + [0, 0, levels[-1]], radius, material, leg)
    for level in levels:
        scene.add(BOX, spot + [0, 0, level], (*reach, 0.025 * size), material, turn)
        for _ in range(rng.integers(0, 4)):
            place = turn @ np.array([*(rng.uniform(-0.8, 0.8, 2) * reach), 0])
            half = size * rng.uniform(0.04, 0.16, 3)
            scene.add(rng.choice([BOX, SPHERE, CYLINDER]), spot + place + [0, 0, level + half[2]],
                      half, scene.look(rng, period=0.08), turn)
    return turn, material


def _solid(scene, rng, spot, size):
    half = size * np.exp(rng.uniform(np.log(0.08), np.log(0.6), 3))
    if rng.random() < 0.25:
        half[1] = 0.02 * size
    turn = rotation(rng.uniform(0, 6.3), *(rng.uniform(-1.2, 1.2, 2) * (rng.random() < 0.4)))
    lift = rng.uniform(0, 1.2) * size * (rng.random() < 0.3)
    scene.add(rng.choice([BOX, BOX, SPHERE, CYLINDER]), spot + [0, 0, half[2] + lift], half,
              scene.look(rng), turn)


def _railing(scene, rng, spot, size):
    wide, high = size * rng.uniform([0.4, 0.6], [1.2, 1.4])
    posts = [(place, 0) for place in np.linspace(-1, 1, rng.integers(4, 14))]
    _rack(scene, rng, spot, size, (wide, 0.03 * size), [high], posts)


def _cable(scene, rng, spot, size):
    material, point = scene.look(rng, ("plain",)), spot + [0, 0, rng.uniform(0.5, 2.2)]
    radius, heading = size * rng.uniform(0.004, 0.015), rng.normal(0, 1, 3) * [1, 1, 0.3]
    for _ in range(rng.integers(4, 9)):
        heading += rng.normal(0, 0.5, 3)
        step = point + heading / np.linalg.norm(heading) * 0.3 * size
        scene.bar(point, step, radius, material)
        point = step


def _plant(scene, rng, spot, size):
    """A stem with many leaves, or a lamp, or a tree."""
    high, crown = size * rng.uniform(0.7, 1.6), rng.uniform(0.06, 0.3)
    scene.bar(spot, spot + [0, 0, high], size * rng.uniform(0.01, 0.06), scene.look(rng))
    leaves = scene.look(rng, ("blobs", "speckle", "fractal", "plain"), 0.1 * size)
    for _ in range(rng.choice([1, rng.integers(6, 16)])):
        place = spot + size * rng.normal(0, 1, 3) * [crown, crown, 1.5 * crown] + [0, 0, high]
        scene.add(SPHERE, place, size * rng.uniform(0.06, 0.26, 3), leaves,
                  rotation(*rng.uniform(0, 6, 3)))


FURNITURE = (_table, _table, _shelf, _solid, _solid, _solid, _railing, _cable, _plant)


def _clutter(scene: Scene, rng: np.random.Generator, spot: np.ndarray) -> None:
    """One object of many small parts: a frame of bars, plates, tanks, wheels with spokes."""
    turn = rotation(rng.uniform(0, 6.3), 0, rng.normal(0, 0.1))
    extent = rng.uniform([0.6, 0.1, 0.35], [1.2, 0.4, 0.7])
    middle = spot + [0, 0, extent[2] + 0.1]
    palette = [scene.look(rng, ("plain", "plain", "fractal", "stripes", "speckle"), 0.06)
               for _ in range(6)]

    def place(reach: float = 1.0) -> np.ndarray:
        return middle + turn @ (rng.uniform(-reach, reach, 3) * extent)

    for _ in range(rng.integers(10, 22)):
        scene.bar(place(), place(), rng.uniform(0.006, 0.03), palette[rng.integers(6)],
                  rng.choice([CYLINDER, CYLINDER, BOX]))
    for _ in range(rng.integers(8, 18)):
        scene.add(rng.choice([BOX, SPHERE, CYLINDER]), place(0.7), rng.uniform(0.02, 0.2, 3),
                  palette[rng.integers(6)], turn @ rotation(*rng.normal(0, 0.7, 3)))
    for side in rng.choice([-1, 1], rng.integers(0, 3), replace=False):
        radius, material = rng.uniform(0.2, 0.36), palette[rng.integers(6)]
        hub = spot + turn @ np.array([side * extent[0], 0, 0]) + [0, 0, radius]
        angles = np.linspace(0, 2 * np.pi, 19)
        rim = hub + radius * np.stack([np.cos(angles), 0 * angles, np.sin(angles)], 1) @ turn.T
        for start, end in zip(rim[:-1], rim[1:]):
            scene.bar(start, end, 0.1 * radius, material)
        for end in rim[:-1:rng.integers(1, 4)]:
            scene.bar(hub, end, 0.012 * radius + 0.002, palette[0])


def _indoor(rng: np.random.Generator, camera: Camera) -> Scene:
    kind = rng.choice(["room", "corridor", "clutter"], p=[0.5, 0.2, 0.3])
    low, high = {"room": ([3, 3.5], [8, 12]), "corridor": ([1.6, 6], [2.8, 12]),
                 "clutter": ([4, 3.5], [8, 6])}[kind]
    (wide, long), tall = rng.uniform(low, high), rng.uniform(2.3, 3.4)
    close = kind == "clutter"
    position = rng.uniform([-0.3 * wide, 0.3, 0.5], [0.3 * wide, 0.2 * long, 1.8 - 0.5 * close])
    heading = np.arctan2(position[0], 0.6 * long) + rng.normal(0, 0.3)
    pitch, roll = np.deg2rad(np.clip(rng.normal([-8, 0], [9, 3]), [-25, -8], [25, 8]))
    scene = Scene(camera, position, rotation(heading, pitch, roll) @ _FORWARD)
    _walls(scene, rng, wide, long, tall)
    for _ in range(rng.integers(0, 6) if close else rng.integers(6, 16)):
        spot = _spot(scene, rng, 2.8 if close else 1.1, 0.8 * long)
        spot[0] = np.clip(spot[0], -0.42 * wide, 0.42 * wide)
        spot[1] = np.clip(spot[1], 0.1 * long, 0.92 * long)
        FURNITURE[rng.integers(len(FURNITURE))](scene, rng, spot, rng.uniform(0.6, 1.2))
    if close:
        _clutter(scene, rng, _spot(scene, rng, 1.3, 2.8, spread=0.2))
    for _ in range(rng.integers(1, 4)):
        place = [rng.uniform(-0.45, 0.45) * wide, rng.uniform(0.05, 0.95) * long, 0.93 * tall]
        power = rng.uniform(0.4, 1.6) * rng.uniform(0.75, 1.0, 3)
        scene.lights.append(np.array([*place, rng.uniform(1.5, 5), *power]))
    scene.ambient = rng.uniform(0.08, 0.5) * rng.uniform(0.85, 1, 3)
    scene.scale = np.exp(rng.uniform(np.log(0.5), np.log(3)))
    return scene


def _walls(scene: Scene, rng: np.random.Generator, wide: float, long: float, tall: float) -> None:
    floor = random_material(rng, ("wood", "tiles", "fractal", "checker", "plain", "speckle"))
    wall = random_material(rng, ("plain",) * 5 + ("fractal", "stripes", "bricks", "speckle"))
    ceiling = random_material(rng, ("plain", "plain", "tiles"), 0.6)
    upright, sideways = rotation(0, np.pi / 2), rotation(0, 0, np.pi / 2)
    scene.add(PLATE, (0, long / 2, 0), (wide, long, 1), floor)
    scene.add(PLATE, (0, long / 2, tall), (wide, long, 1), ceiling)
    for end in (-0.3, long):
        scene.add(PLATE, (0, end, tall / 2), (wide, tall, 1), wall, upright)
    for side in (-1, 1):
        scene.add(PLATE, (side * wide / 2, long / 2, tall / 2), (tall, long, 1),
                  wall if rng.random() < 0.7 else random_material(rng), sideways)
    for _ in range(rng.integers(0, 7)):  # pictures, windows, cupboards on the walls
        across, half = rng.random() < 0.5, rng.uniform(0.15, 0.8, 2)
        picture, thick = random_material(rng, (), 0.15), rng.choice([0.004, 0.03, 0.25])
        picture.glow = rng.choice([0, 0, 0, 1.5])
        place = ((rng.uniform(-0.5, 0.5), 1) if across
                 else (rng.choice([-0.5, 0.5]), rng.uniform(0.2, 1)))
        scene.add(BOX, (place[0] * wide, place[1] * long, rng.uniform(0.4, 0.8) * tall),
                  (half[0], thick, half[1]) if across else (thick, *half), picture)
    for _ in range(rng.integers(0, 3)):  # pillars and corners
        scene.add(BOX, (rng.choice([-0.5, 0.5]) * wide, rng.uniform(0.3, 1) * long, 0),
                  (rng.uniform(0.1, 0.25) * wide, rng.uniform(0.1, 0.8), tall),
                  wall if rng.random() < 0.6 else random_material(rng))


def _street(rng: np.random.Generator, camera: Camera) -> Scene:
    position = np.array([rng.uniform(-2.5, 2.5), 0, rng.uniform(1.2, 2.6)])
    pitch, roll = np.deg2rad(np.clip(rng.normal([-2, 0], [6, 3]), [-25, -8], [25, 8]))
    scene = Scene(camera, position, rotation(rng.normal(0, 0.3), pitch, roll) @ _FORWARD)
    _horizon(scene, rng)
    road, curb = rng.uniform(3.5, 8), rng.uniform(0.08, 0.2)
    pavement = random_material(rng, ("tiles", "fractal", "plain"), 0.8)
    for side in (-1, 1):
        scene.add(BOX, (side * (road + 30), 60, 0), (30, 70, curb), pavement)
        along = rng.uniform(-8, 4)
        while along < 75 and rng.random() < 0.93:
            half, front = rng.uniform([3, 4, 2.5], [6, 9, 9]), road + rng.uniform(2, 9)
            scene.add(BOX, (side * (front + half[0]), along + half[1], half[2]), half,
                      random_material(rng, ("windows", "windows", "bricks", "plain"), 2))
            along += 2 * half[1] + rng.choice([0, 0, rng.uniform(1, 12)])
        poles = np.arange(rng.uniform(3, 9), 60, rng.uniform(8, 20))
        tops = [np.array([side * (road + 0.8), pole, rng.uniform(4, 8)]) for pole in poles]
        for top, following in zip(tops, tops[1:]):
            scene.bar(top * [1, 1, 0], top, rng.uniform(0.04, 0.12), pavement)
            scene.bar(top, following, rng.uniform(0.01, 0.03), pavement)
    for _ in range(rng.integers(3, 10)):
        _car(scene, rng, rng.choice([-1, 1]) * rng.uniform(0.35, 0.85) * road)
    for _ in range(rng.integers(4, 14)):
        across, along = rng.uniform([0.3, 4], [4, 50])
        spot = np.array([rng.choice([-1, 1]) * (road + across), along, curb])
        part = (_plant, _plant, _railing, _solid)[rng.integers(4)]
        part(scene, rng, spot, rng.uniform(1, 2 + 2 * (part is _plant)))
    return scene


def _horizon(scene: Scene, rng: np.random.Generator) -> None:
    """Sky, hills, ground, the line on the road and the sun."""
    sky = random_material(rng, ("fractal", "plain"), 90)
    sky.glow, sky.first = 1, rng.uniform([0.4, 0.5, 0.6], [0.8, 0.9, 1.0])
    sky.second, sky.gloss, sky.grain = sky.first * rng.uniform(0.7, 1.4), 0, 0
    scene.add(DOME, scene.position, [rng.uniform(80, 118)] * 3, sky)
    for _ in range(rng.integers(0, 4)):
        scene.add(SPHERE, (rng.uniform(-60, 60), rng.uniform(70, 85), -2),
                  rng.uniform([15, 6, 5], [45, 12, 20]), random_material(rng, ("blobs",), 6))
    ground = random_material(rng, ("fractal", "speckle"), 0.6)
    ground.first = 0.7 * ground.first.mean() + 0.3 * ground.first
    scene.add(PLATE, (0, 0, 0), (300, 300, 1), ground)
    line = random_material(rng, ("stripes",), 4)
    line.angle, line.first = np.pi / 2, np.full(3, 0.9)
    scene.add(PLATE, (0, 40, 0.005), (0.08, 60, 1), line)
    sun = scene.position + 1000 * np.array([*rng.normal(0, 1, 2), rng.uniform(0.4, 1.5)])
    scene.lights.append(np.array([*sun, np.inf] + [rng.uniform(0.2, 1.6)] * 3))
    scene.ambient = rng.uniform(0.3, 0.7) * np.array([0.9, 0.95, 1.0])


def _car(scene: Scene, rng: np.random.Generator, lane: float) -> None:
    place = np.array([lane, rng.uniform(5, 60), 0.0])
    turn = rotation(rng.normal(0, 0.06) + (np.pi / 2 if rng.random() < 0.1 else 0))
    paint, glass = random_material(rng, ("plain",)), random_material(rng, ("plain",))
    paint.gloss, glass.first = 0.6, np.full(3, 0.05)
    half = rng.uniform([0.8, 1.8, 0.3], [1.0, 2.4, 0.5])
    cabin, top = half * rng.uniform([0.88, 0.45, 0.7], [0.9, 0.7, 1.6]), 0.25 + 2 * half[2]
    scene.add(BOX, place + [0, 0, top - half[2]], half, paint, turn)
    scene.add(BOX, place + [0, 0, top + 0.9 * cabin[2]], cabin, glass, turn)
    scene.add(BOX, place + [0, 0, top + 1.85 * cabin[2]], cabin * [1, 0.9, 0.06], paint, turn)
    for x, y in ((-1, -0.6), (-1, 0.6), (1, -0.6), (1, 0.6)):
        scene.add(CYLINDER, place + turn @ (half * [x, y, 0]) + [0, 0, 0.32], (0.32, 0.32, 0.12),
                  glass, turn @ rotation(0, 0, np.pi / 2))


def render(seed: int, width: int = 320, height: int = 240
           ) -> tuple[np.ndarray, np.ndarray, Camera]:
    """One training frame: the same seed and size give the same frame.

    Returns:
        The image (H, W, 3) uint8 RGB; its exact planar depth (H, W) float32, 0.25-125 m; camera.
    """
    for attempt in count():
        rng = np.random.default_rng([seed, attempt])
        focal, shift = width * rng.uniform(0.6, 1.5), rng.normal(0, 0.01, 2)
        camera = Camera(focal, focal, (width - 1) / 2 + width * shift[0],
                        (height - 1) / 2 + height * shift[1], width, height)
        scene = (_indoor if rng.random() < 0.8 else _street)(rng, camera)
        depth, index = cast(scene)
        metres = (depth * scene.scale).astype(np.float32)
        shares = np.bincount(index.ravel()) / index.size
        low, high = np.percentile(metres[::4, ::4], [5, 95])
        # Neither too close nor endless, not one surface alone, not flat.
        if (metres.min() >= NEAREST_M and metres.max() <= FARTHEST_M and shares.max() < 0.6
                and (shares > 0.002).sum() >= 6 and high > 1.5 * low):
            return _photograph(scene, depth, index, rng), metres, camera
