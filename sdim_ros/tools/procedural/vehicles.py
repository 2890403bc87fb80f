"""Cars, vans, lorries and buses on the ground of the scene's present axes, heading to +y."""

from __future__ import annotations

import numpy as np

from sdim_ros.tools.procedural.meshes import (
    Mesh, box, copies, cylinder, grid, join, lathe, ring, rotation, sphere, superquadric)
from sdim_ros.tools.procedural.scene import Scene

_AXLE = rotation(0, 0, np.pi / 2)  # a lathe's axis from z to x
_UPRIGHT = rotation(0, 0.5 * np.pi)


def _wheels(scene: Scene, places: np.ndarray, radius: float, wide: float, detail: bool) -> None:
    """Wheels at (N, 3) hubs, their outer sides away from x = 0."""
    number = len(places)
    turns, ones = np.tile(_AXLE, (number, 1, 1)), np.ones((number, 3))
    tyre = cylinder(radius, wide, 14 if detail else 8)
    scene.add(copies(tyre, places, turns, ones), scene.look("rubber", fresh=True))
    if not detail:
        return
    side = np.sign(places[:, :1])
    rim = lathe([0, 0.2 * radius, 0.25 * radius, 0.66 * radius, 0.68 * radius],
                [0.1 * wide, 0.1 * wide, 0, 0.02, 0.06], 10)
    scene.add(copies(rim, places + side * [0.9 * wide, 0, 0], turns,
                     ones * np.hstack([ones[:, :2], side])), scene.look("metal"))


def _loft(sections: np.ndarray) -> Mesh:
    """A skin over sections (S, K, 3), with flat ends and an edge at every station."""
    # A station that comes twice has one normal towards either side.
    ends = [grid(np.stack([outline[:len(outline) // 2], outline[::-1][:len(outline) // 2]]))
            for outline in (sections[0], sections[-1])]
    return join([grid(np.repeat(sections, 2, axis=0)[1:-1]), *ends])


def car(scene: Scene, detail: bool = True) -> None:
    """A passenger car of any build: hood, cabin of glass, pillars, roof, tail."""
    rng = scene.rng
    long, wide, high = rng.uniform([1.75, 0.8, 1.35], [2.45, 0.95, 1.75])
    ground, belt = rng.uniform(0.16, 0.26), rng.uniform(0.82, 1.02)
    estate = rng.random() < 0.55
    paint = scene.look("paint", fresh=True)
    glass, dark = scene.look("dark_glass", fresh=True), scene.look("rubber", fresh=True)
    hood, tail = belt - rng.uniform(0.02, 0.2), belt - (0 if estate else rng.uniform(0, 0.12))
    back_foot = -long + (0.12 if estate else rng.uniform(0.4, 0.7))
    front_foot = long - rng.uniform(0.85, 1.2)
    stations = np.array([-long, -0.96 * long, back_foot, front_foot, 0.85 * long, long])
    tops = np.array([0.8 * tail, tail, belt, belt, hood, 0.78 * hood])
    widths = wide * np.array([0.9, 0.97, 1, 1, 0.97, 0.84])
    sections = []
    for y, top, half in zip(stations, tops, widths):
        side = np.array([[0.92, ground], [1.0, ground + 0.12], [1.0, 0.7 * top],
                         [0.95, top - 0.02], [0.8, top]])
        outline = np.concatenate([side, side[::-1] * [-1, 1]])
        sections.append(np.stack([outline[:, 0] * half, np.full(10, y), outline[:, 1]], 1))
    scene.add(_loft(np.array(sections)), paint)
    _cabin(scene, (back_foot, front_foot), wide, (belt, high), estate, paint, glass)
    radius = rng.uniform(0.29, 0.36)
    axles = np.array([-0.6 * long, 0.62 * long]) + rng.normal(0, 0.05, 2)
    hubs = np.array([[s * (wide - 0.09), y, radius] for s in (-1, 1) for y in axles])
    arches = hubs + np.sign(hubs[:, :1]) * [0.075, 0, 0]
    scene.add(copies(lathe([0, radius * 1.18], [0, 0], 12), arches, np.tile(_AXLE, (4, 1, 1)),
                     np.ones((4, 3))), dark)
    _wheels(scene, hubs + np.sign(hubs[:, :1]) * [0.03, 0, 0], radius, 0.11, detail)
    _signals(scene, long, 0.72 * wide, 0.66 * belt, detail)
    scene.add(box((0.9 * wide, long + 0.02, 0.08)), dark, (0, 0, ground + 0.03))
    if detail:
        for side in (-1, 1):
            scene.add(superquadric((0.1, 0.06, 0.07), 0.6, 4, 6), paint,
                      (side * (wide + 0.08), front_foot - 0.25, belt + 0.06))
            x = side * (wide + 0.004)
            scene.bars([[(x, y, ground + 0.15), (x, y, belt)] for y in (front_foot - 0.15, 0.0)],
                       0.006, dark, 4)


def _cabin(scene: Scene, feet: tuple[float, float], wide: float, height: tuple[float, float],
           estate: bool, paint: int, glass: int) -> None:
    rng, (back, front), (belt, top) = scene.rng, feet, height
    low, roof = 0.94 * wide, rng.uniform(0.7, 0.82) * wide
    back_top = back + (rng.uniform(0.05, 0.3) if estate else rng.uniform(0.4, 0.7))
    front_top = front - rng.uniform(0.5, 0.8)
    bottom = np.array([[-low, back, belt], [-low, front, belt], [low, front, belt],
                       [low, back, belt]])
    above = np.array([[-roof, back_top, top], [-roof, front_top, top], [roof, front_top, top],
                      [roof, back_top, top]])
    for i in range(4):
        j = (i + 1) % 4
        scene.add(grid(np.array([[bottom[i], bottom[j]], [above[i], above[j]]])), glass)
    middle = (back_top + front_top) / 2
    scene.add(superquadric((roof * 1.03, (front_top - back_top) / 2 + 0.04, 0.045), 0.25, 6, 12),
              paint, (0, middle, top - 0.02))
    share = rng.uniform(0.4, 0.6)
    between = [[ends[i] + (ends[j] - ends[i]) * share for ends in (bottom, above)]
               for i, j in ((0, 1), (3, 2))]
    scene.bars([*zip(bottom, above), *between], 0.035, paint, 5)


def _signals(scene: Scene, long: float, wide: float, level: float, detail: bool) -> None:
    """Lamps and number plates at both ends."""
    rng, on = scene.rng, scene.rng.random() < 0.4
    red = scene.look("paint", bias=np.array([0.5, 0.01, 0.01]), tile=-1, glow=2.0 * on)
    white = scene.look("metal", bias=np.full(3, 0.8), tile=-1, glow=float(rng.choice([0, 0, 2])))
    half = rng.uniform([0.08, 0.03, 0.05], [0.2, 0.05, 0.14])
    body = superquadric(half, 0.4, 4, 6) if detail else box(half)
    for side in (-1, 1):
        scene.add(body, red, (side * wide, -long + 0.01, level + 0.12))
        scene.add(body, white, (side * wide, long - 0.06, level))
    if detail:
        plate_look = scene.look("paper", fit=(0.5, 0.12))
        for end in (-1, 1):
            scene.add(box((0.26, 0.01, 0.06)), plate_look, (0, end * (long + 0.015), level - 0.06))


def van(scene: Scene, long: float | None = None) -> None:
    """A van or a bus: a rounded box with rows of windows."""
    rng = scene.rng
    half = rng.uniform([0.9, 2.2, 0.8], [1.05, 3.0, 1.2])
    half[1] = long / 2 if long else half[1]
    half[2] = half[2] + 0.4 if long else half[2]
    middle = half[2] + 0.3
    paint = scene.look("paint" if rng.random() < 0.7 else "package", fresh=True)
    glass = scene.look("dark_glass", fresh=True)
    scene.add(superquadric(half, 0.12, 8, 16), paint, (0, 0, middle))
    level, tall = middle + 0.4 * half[2], 0.32 * half[2]
    for end in (-1, 1):
        scene.add(box((0.8 * half[0], 0.02, tall)), glass, (0, end * (half[1] + 0.0), level))
    sides = np.arange(-half[1] + 0.7, half[1] - 0.3, rng.uniform(0.9, 1.4))
    kept = sides if long or rng.random() < 0.4 else sides[-1:]
    panes = np.array([[s * half[0], y, level] for s in (-1, 1) for y in kept])
    scene.add(copies(box((0.012, 0.4, tall)), panes, np.tile(np.eye(3), (len(panes), 1, 1)),
                     np.ones((len(panes), 3))), glass)
    hubs = np.array([[s * (half[0] - 0.1), y, 0.36] for s in (-1, 1)
                     for y in (-0.6 * half[1], 0.62 * half[1])])
    _wheels(scene, hubs, 0.36, 0.13, True)
    _signals(scene, half[1], 0.8 * half[0], 0.75, True)


def lorry(scene: Scene) -> None:
    """A cab with a box, a tarpaulin, a tank or a flat bed behind it."""
    rng = scene.rng
    long, wide, high = rng.uniform([3.5, 1.1, 1.0], [7.5, 1.28, 1.5])
    bed, paint = rng.uniform(0.9, 1.2), scene.look("paint", fresh=True)
    frame, dark = scene.look("metal"), scene.look("rubber", fresh=True)
    front = long / 2 + 0.2
    scene.add(superquadric((wide * 0.97, 1.0, 1.15), 0.18), paint, (0, front + 0.9, 1.75))
    glass = scene.look("dark_glass", fresh=True)
    scene.add(box((0.85 * wide, 0.02, 0.38)), glass, (0, front + 1.9, 2.1))
    for side in (-1, 1):
        scene.add(box((0.015, 0.4, 0.35)), glass, (side * wide * 0.97, front + 1.1, 2.1))
    scene.add(box((0.35 * wide, long / 2 + 1.5, 0.15)), dark, (0, 0.6, bed - 0.2))
    kind = rng.choice(["box", "tarpaulin", "tank", "flat"])
    if kind == "box":
        half = np.array([wide, long / 2, high])
        look = scene.look("package" if rng.random() < 0.5 else "paint", fit=2 * half[1:])
        scene.add(box(half), look, (0, 0, bed + high))
        scene.bars([[(x, -long / 2 - 0.02, bed), (x, -long / 2 - 0.02, bed + 2 * high)]
                    for x in (-0.95 * wide, -0.02, 0.02, 0.95 * wide)], 0.02, frame)
    elif kind == "tarpaulin":
        y, across = np.meshgrid(np.linspace(-1, 1, 20), np.linspace(0, np.pi, 13))
        bulge = 0.03 * np.sin(y * 25)
        points = np.stack([-np.cos(across) * wide, y * long / 2,
                           bed + np.clip(3 * np.sin(across), 0, 1) * 2 * high + bulge], -1)
        points[..., 0] = np.clip(points[..., 0] * 1.5, -wide, wide) + bulge
        cover = scene.look("fabric", fresh=True)
        scene.add(grid(points), cover)
        scene.add(box((wide, 0.02, high)), cover, (0, -long / 2, bed + high))
        scene.add(box((wide * 1.01, long / 2, 0.3)), frame, (0, 0, bed + 0.2))
    elif kind == "tank":
        profile = np.array([0, 0.7, 0.95, 1, 1, 0.95, 0.7, 0]) * high
        along = np.array([-1, -0.99, -0.93, -0.85, 0.85, 0.93, 0.99, 1]) * long / 2
        scene.add(lathe(profile, along, 20), scene.look("package", size=3.0, mirror=0.25,
                                                         gloss=1.0), (0, 0, bed + high), _UPRIGHT)
        scene.add(copies(ring(high * 1.01, 0.03, 20, 4), np.array(
            [[0, y, bed + high] for y in np.linspace(-0.4, 0.4, 4) * long]),
            np.tile(np.eye(3), (4, 1, 1)), np.ones((4, 3))), frame)
    else:
        scene.add(box((wide, long / 2, 0.08)), frame, (0, 0, bed))
        for _ in range(rng.integers(1, 7)):
            half = rng.uniform([0.2, 0.3, 0.2], [0.6, 1.0, 0.7])
            scene.add(box(half), scene.look("cardboard"),
                      (rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4) * long, bed + half[2]))
    hubs = np.array([[s * (wide - 0.15), y, 0.48] for s in (-1, 1)
                     for y in (-long / 2 + 0.8, -long / 2 + 2.0, front + 0.9)])
    _wheels(scene, hubs, 0.48, 0.15, True)
    scene.bars([[(-wide, -long / 2, 0.55), (wide, -long / 2, 0.55)]], 0.06, scene.look(
        "paint", tile=-1), 4)
    _signals(scene, long / 2, 0.85 * wide, 0.75, True)
    if rng.random() < 0.5:  # side guards
        scene.bars([[(s * wide, -0.2 * long, z), (s * wide, 0.45 * long, z)] for s in (-1, 1)
                    for z in (0.5, 0.75)], 0.04, frame, 4)


def bus(scene: Scene) -> None:
    """A bus or a tram car."""
    van(scene, scene.rng.uniform(8, 14))


def simple_car(scene: Scene) -> None:
    """A car for far away."""
    car(scene, detail=False)


def vehicle(scene: Scene, near: bool = True) -> None:
    """Any vehicle, mostly cars; a scene has a few models in many colours."""
    pick = scene.rng.random()
    if pick < 0.7 or not near:
        scene.one_of(2, car if near else simple_car, family="paint")
    else:
        scene.one_of(1, (van, van, lorry, bus)[scene.rng.integers(4)], family="paint")


def lights_in_a_box(scene: Scene, level: float) -> None:
    """Traffic lights that face -y."""
    scene.add(box((0.14, 0.1, 0.4)), scene.look("rubber"), (0, 0, level))
    lit = scene.rng.integers(3)
    for order, tint in enumerate(([0.9, 0.05, 0.02], [0.9, 0.6, 0.02], [0.05, 0.8, 0.3])):
        look = scene.look("paint", tile=-1, bias=np.array(tint) * (0.1 + 0.9 * (order == lit)),
                          glow=3.0 * (order == lit))
        scene.add(sphere(5, 8), look, (0, -0.09, level + 0.26 * (1 - order)), scale=0.09)
