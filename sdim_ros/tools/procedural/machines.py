"""Bicycles, motorbikes and other machines of many small and thin parts.

They stand on the ground of the scene's present axes and head towards +x; metres.
"""

from __future__ import annotations

import numpy as np

from sdim_ros.tools.procedural.meshes import (
    Mesh, blob, box, cylinder, grid, lathe, ring, rods, rotation, sphere, superquadric, tube)
from sdim_ros.tools.procedural.scene import Scene

_SIDEWAYS = rotation(0, np.pi / 2)  # a lathe's axis from z to y


def wheel(scene: Scene, center: tuple[float, float, float], radius: float, tyre: float,
          spokes: int, metal: int, rubber: int) -> None:
    """A wheel around y: tyre, rim, hub, and thin or broad spokes."""
    rng = scene.rng
    scene.add(ring(radius - tyre, tyre, 28, 8), rubber, center)
    rim = radius - 2 * tyre
    scene.add(ring(rim, 0.35 * tyre + 0.004, 28, 6), metal, center)
    scene.add(cylinder(0.14 * radius, max(0.7 * tyre, 0.02), 12), metal, center, _SIDEWAYS)
    angle = np.arange(spokes) * 2 * np.pi / spokes + rng.uniform(0, 6)
    ends = np.stack([np.cos(angle), 0 * angle, np.sin(angle)], 1)
    width = 0.0025 if spokes > 12 else rng.uniform(0.01, 0.03)
    aside = [0, 0.03, 0] * np.where(np.arange(spokes) % 2, 1, -1)[:, None]
    scene.add(rods(0.1 * radius * ends + aside, rim * ends, width, 5), metal, center)
    if rng.random() < 0.5:  # a brake disc
        scene.add(cylinder(0.5 * radius, 0.004, 20), metal,
                  np.add(center, [0, 1.2 * tyre * rng.choice([-1, 1]), 0]), _SIDEWAYS)


def bicycle(scene: Scene) -> None:
    """A bicycle of tubes."""
    rng = scene.rng
    radius, long = rng.uniform(0.24, 0.36), rng.uniform(0.9, 1.1)
    paint, metal = scene.look("paint", fresh=True), scene.look("metal")
    rubber, dark = scene.look("rubber"), scene.look("plastic")
    back, front = np.array([0, 0, radius]), np.array([long, 0, radius])
    for center in (back, front):
        wheel(scene, tuple(center), radius, 0.02, int(rng.integers(16, 32)), metal, rubber)
    crank, seat = np.array([0.42, 0, radius - 0.03]), np.array([0.3, 0, radius + 0.45])
    head, low = np.array([long - 0.2, 0, radius + 0.5]), np.array([long - 0.14, 0, radius + 0.35])
    frame = [[crank, seat], [crank, low], [seat - [0, 0, 0.08], head], [head, low], [crank, back],
             [seat, back]]
    scene.bars(frame, 0.017, paint)
    scene.bars([[low + [0, s * 0.05, 0], front + [0, s * 0.05, 0]] for s in (-1, 1)], 0.011, paint)
    grip = head + [-0.02, 0, 0.12]
    scene.bars([[head, grip], [grip - [0, 0.28, 0], grip + [0, 0.28, 0]]], 0.013, metal)
    scene.bars([[seat, seat + [-0.03, 0, 0.12]]], 0.013, metal)
    scene.add(superquadric((0.13, 0.06, 0.03), 0.7, 6, 10), dark, seat + [-0.04, 0, 0.14])
    scene.add(cylinder(0.09, 0.004, 14), metal, crank + [0, 0.05, 0], _SIDEWAYS)
    scene.bars([[crank + [0, s * 0.08, 0], crank + [0.1 * s, s * 0.08, -0.14 * s]]
                for s in (-1, 1)], 0.01, metal)


def motorbike(scene: Scene) -> None:
    """A motorbike: tank, seat, engine with fins, fork, exhausts, lamps, cables."""
    rng = scene.rng
    radius, tyre = rng.uniform(0.28, 0.36), rng.uniform(0.05, 0.08)
    long, rake = rng.uniform(1.3, 1.55), rng.uniform(0.3, 0.6)
    paint, metal = scene.look("paint", fresh=True), scene.look("metal", fresh=True)
    dark, rubber = scene.look("plastic"), scene.look("rubber", fresh=True)
    back, front = np.array([0, 0, radius]), np.array([long, 0, radius])
    spokes = int(rng.choice([5, 6, 10, 28]))
    for center in (back, front):
        wheel(scene, tuple(center), radius, tyre, spokes, metal, rubber)
    head = np.array([long - rake - 0.02, 0, radius + rng.uniform(0.5, 0.65)])
    scene.bars([[front + [0, s * 0.1, 0], head + [0, s * 0.1, 0.05]] for s in (-1, 1)], 0.022,
               metal, 8)
    scene.bars([[front + [0.03, s * 0.1, 0], front + [-rake * 0.45, s * 0.1, 0.36]]
                for s in (-1, 1)], 0.03, dark, 8)
    for center in (front, back):
        _fender(scene, center, radius + 0.05, tyre + 0.02, paint)
    tank = np.array([long - rake - 0.38, 0, radius + 0.47])
    scene.add(superquadric((0.3, 0.15, 0.13), rng.uniform(0.5, 0.9)), paint, tank,
              rotation(0, 0, rng.uniform(-0.1, 0.25)))
    seat = np.array([0.18, 0, radius + 0.4])
    scene.add(superquadric((0.24, 0.14, 0.07), 0.5), dark, seat + [0.16, 0, -0.03],
              rotation(0, 0, -0.1))
    scene.add(superquadric((0.2, 0.12, 0.07), 0.6), dark, seat + [-0.18, 0, 0.04],
              rotation(0, 0, 0.15))
    scene.bars([[back + [0, s * 0.11, 0], back + [0.2, s * 0.11, 0.36]] for s in (-1, 1)], 0.028,
               metal, 8)
    scene.bars([[head, tank + [0.1, 0, -0.1]], [tank - [0.1, 0, 0.1], seat],
                [head, (0.7 * long, 0, radius)], [(0.3, 0, radius), seat],
                [(0.3, 0, radius), (0.7 * long, 0, radius)], [(0.3, 0.08, radius), back]], 0.025,
               dark, 7)
    _engine(scene, np.array([0.52 * long, 0, radius + 0.08]), metal, dark)
    _exhaust(scene, long, radius, metal)
    _steering(scene, head, metal, dark)
    scene.add(superquadric((0.03, 0.05, 0.03), 0.6, 6, 10), scene.look(
        "paint", bias=np.array([0.6, 0.02, 0.02])), back + [-0.2, 0, 0.38])
    scene.bars([[(0.35, 0.1, radius - 0.05), (0.4, rng.choice([-0.25, 0.25]), 0.02)]], 0.012, dark)
    for _ in range(rng.integers(3, 9)):  # cables
        start, end = head + rng.normal(0, 0.1, 3), tank + rng.normal(0, 0.2, 3) * [1.5, 0.7, 1.5]
        middle = (start + end) / 2 + rng.normal(0, 0.1, 3)
        share = np.linspace(0, 1, 8)[:, None]
        path = (1 - share) ** 2 * start + 2 * share * (1 - share) * middle + share ** 2 * end
        scene.add(tube(path, 0.005, 4), rubber)


def _fender(scene: Scene, center: np.ndarray, radius: float, wide: float, look: int) -> None:
    """A bent sheet over a wheel."""
    start = scene.rng.uniform(0.1, 0.7)
    angle, across = np.meshgrid(np.linspace(start, start + scene.rng.uniform(1.2, 2.3), 12),
                                np.linspace(-1, 1, 7), indexing="ij")
    reach = radius * (1 - 0.12 * across ** 2)
    scene.add(grid(np.stack([reach * np.cos(angle), wide * across, reach * np.sin(angle)], -1)),
              look, center)


def _engine(scene: Scene, middle: np.ndarray, metal: int, dark: int) -> None:
    rng = scene.rng
    scene.add(superquadric((0.2, 0.14, 0.13), 0.4), metal, middle - [0, 0, 0.08])
    for side in (-1, 1):
        scene.add(cylinder(rng.uniform(0.08, 0.13), 0.03, 16), metal,
                  middle + [rng.uniform(-0.05, 0.1), side * 0.14, -0.08], _SIDEWAYS)
    for lean in ((0.0,), (-0.4, 0.4))[rng.integers(2)]:
        with scene.at(middle, rotation(0, 0, lean)):
            for level in np.linspace(0.05, 0.27, int(rng.integers(4, 9))):
                scene.add(box((0.1, 0.12, 0.008)), metal, (0, 0, level))
            scene.add(box((0.075, 0.09, 0.12)), dark, (0, 0, 0.15))
    for _ in range(rng.integers(3, 9)):
        half = rng.uniform(0.015, 0.06, 3)
        body: Mesh = (box(half), sphere(6, 9).placed(scale=half), blob(rng, half))[rng.integers(3)]
        scene.add(body, metal if rng.random() < 0.6 else dark,
                  middle + rng.normal(0, 0.12, 3) * [1.3, 0.9, 1])


def _exhaust(scene: Scene, long: float, radius: float, metal: int) -> None:
    for side in ((-1,), (1,), (-1, 1))[scene.rng.integers(3)]:
        path = np.array([[0.62 * long, 0.05 * side, radius + 0.2],
                         [0.7 * long, 0.08 * side, radius + 0.15],
                         [0.72 * long, 0.12 * side, radius - 0.05],
                         [0.6 * long, 0.15 * side, radius - 0.13],
                         [0.4 * long, 0.16 * side, radius - 0.13],
                         [0.38 * long, 0.16 * side, radius - 0.12], [0.0, 0.17 * side, radius],
                         [-0.05, 0.17 * side, radius]])
        thick = np.array([1, 1, 1, 1, 1.1, 1.9, 1.9, 1.2]) * scene.rng.uniform(0.02, 0.028)
        scene.add(tube(path, thick, 9), metal)


def _steering(scene: Scene, head: np.ndarray, metal: int, dark: int) -> None:
    rng = scene.rng
    rise, back, wide = rng.uniform([0.05, 0.0, 0.28], [0.25, 0.25, 0.4])
    for side in (-1, 1):
        grip = head + [-back, side * wide, rise]
        bend = head + [0, side * 0.15, rise]
        scene.bars([[head + [0, side * 0.05, 0.02], bend], [bend, grip]], 0.013, metal)
        scene.bars([[bend + 0.5 * (grip - bend), grip]], 0.018, dark)
        mirror = grip + [0.05, 0, rng.uniform(0.1, 0.2)]
        scene.bars([[bend, mirror]], 0.006, metal)
        scene.add(superquadric((0.01, 0.06, 0.04), 0.6, 6, 10), dark, mirror)
        signal = head + [0.08, side * 0.2, -0.05]
        scene.bars([[head, signal]], 0.008, metal)
        scene.add(sphere(6, 9), scene.look("paint", bias=np.array([0.9, 0.35, 0.02])), signal,
                  scale=0.035)
    lamp = head + [0.12, 0, -0.02]
    scene.add(lathe([0, 0.06, 0.09, 0.09], [-0.08, -0.06, 0, 0.03], 16), metal, lamp,
              rotation(0, 0, np.pi / 2))
    scene.add(sphere(6, 12), scene.look("metal", mirror=0.8), lamp + [0.01, 0, 0],
              scale=(0.04, 0.08, 0.08))
    scene.add(cylinder(0.045, 0.04, 12), dark, head + [0.02, 0.06, 0.1], rotation(0, 0, 0.6))


def contraption(scene: Scene) -> None:
    """A machine that nobody has seen: bars, plates, tanks and wheels in a frame."""
    rng = scene.rng
    extent = rng.uniform([0.3, 0.15, 0.3], [0.9, 0.5, 0.8])
    palette = [scene.look(str(rng.choice(["metal", "metal", "paint", "plastic", "rubber"])))
               for _ in range(5)]

    def place(reach: float = 1.0) -> np.ndarray:
        return rng.uniform(-reach, reach, 3) * extent + [0, 0, extent[2] + 0.05]

    for look in palette[:3]:
        ends = [[place(), place()] for _ in range(rng.integers(3, 10))]
        scene.bars(ends, rng.uniform(0.005, 0.03), look, int(rng.choice([4, 8])))
    for _ in range(rng.integers(6, 18)):
        half = np.exp(rng.uniform(np.log(0.03), np.log(0.22), 3))
        body = (box(half), cylinder(half[0], half[2], 14), blob(rng, half),
                superquadric(half, rng.uniform(0.2, 0.9), 8, 12))[rng.integers(4)]
        scene.add(body, palette[rng.integers(5)], place(0.8), rotation(*rng.normal(0, 0.6, 3)))
    for _ in range(rng.integers(0, 4)):
        path = np.stack([place() for _ in range(4)])
        share = np.linspace(0, 1, 12)[:, None]
        bent = ((1 - share) ** 3 * path[0] + 3 * share * (1 - share) ** 2 * path[1]
                + 3 * share ** 2 * (1 - share) * path[2] + share ** 3 * path[3])
        scene.add(tube(bent, rng.uniform(0.006, 0.03), 6), palette[rng.integers(5)])
    for _ in range(rng.integers(0, 3)):
        radius = rng.uniform(0.1, 0.35)
        with scene.at(place() * [1, 1, 0] + [0, 0, radius], rng.uniform(0, 3)):
            wheel(scene, (0, 0, 0), radius, radius * rng.uniform(0.06, 0.2),
                  int(rng.choice([5, 8, 24])), palette[0], palette[4])
