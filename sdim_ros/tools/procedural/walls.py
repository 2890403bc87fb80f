"""What hangs on walls or stands in them: pictures, windows, doors, curtains, boards, pipes.

Every function builds one piece where the scene's present axes touch the floor at a wall; the
room is towards -y and ``tall`` metres high.
"""

from __future__ import annotations

import numpy as np

from sdim_ros.tools.procedural.furniture import clutter_on, cupboard
from sdim_ros.tools.procedural.meshes import box, grid
from sdim_ros.tools.procedural.scene import Scene


def picture(scene: Scene, tall: float) -> None:
    """A picture or poster, flat or on a board, with or without a frame."""
    half, rng = scene.rng.uniform([0.15, 0.15], [0.7, 0.6]), scene.rng
    thick = rng.choice([0.003, 0.02, 0.04])
    with scene.at((0, 0, rng.uniform(0.4, 0.7) * tall)):
        scene.add(box((half[0], thick, half[1])), scene.look("picture", fit=2 * half))
        if rng.random() < 0.5:
            wide = rng.uniform(0.01, 0.04)
            corner = [(-half[0], 0, -half[1]), (half[0], 0, -half[1]), (half[0], 0, half[1]),
                      (-half[0], 0, half[1])]
            scene.bars([[corner[i], corner[(i + 1) % 4]] for i in range(4)], wide,
                       scene.look("wood"), 4)


def window(scene: Scene, tall: float) -> None:
    """A bright pane that no sensor measures, or a blind, in a frame of bars."""
    rng, half = scene.rng, scene.rng.uniform([0.3, 0.4], [0.9, 0.65])
    pane = scene.look("picture", fit=2 * half, glow=rng.uniform(0.5, 3), known=rng.random() < 0.4)
    frame = scene.look("wood" if rng.random() < 0.5 else "ceiling")
    with scene.at((0, -0.01, min(0.55 * tall, tall - half[1] - 0.1))):
        scene.add(box((half[0], 0.005, half[1])), pane, casts=False)
        across = np.linspace(-half[0], half[0], int(rng.integers(2, 5)))
        up = np.linspace(-half[1], half[1], int(rng.integers(2, 4)))
        scene.bars([[(x, 0, -half[1]), (x, 0, half[1])] for x in across]
                   + [[(-half[0], 0, z), (half[0], 0, z)] for z in up], 0.03, frame, 4)
        scene.add(box((half[0] + 0.05, 0.1, 0.015)), frame, (0, 0, -half[1]))
        if rng.random() < 0.3:  # a blind
            slats = np.arange(-half[1], half[1], 0.04)
            scene.bars([[(-half[0], -0.05, z), (half[0], -0.05, z)] for z in slats], 0.016,
                       frame, 4)


def door(scene: Scene, tall: float) -> None:
    """A door in its frame, at times ajar."""
    rng = scene.rng
    wide, high = rng.uniform(0.4, 0.5), min(2.05, tall - 0.1)
    leaf, frame = scene.look(str(rng.choice(["wood", "paint", "metal"]))), scene.look("wood")
    scene.add(box((wide + 0.06, 0.015, high / 2 + 0.03)), frame, (0, 0, high / 2))
    hinge = rng.choice([-1, 1])
    with scene.at((hinge * wide, -0.02, 0), rng.choice([0, 0, hinge * rng.uniform(0, 1.4)])):
        scene.add(box((wide, 0.02, high / 2)), leaf, (-hinge * wide, 0, high / 2))
        if rng.random() < 0.6:
            for level in (0.27, 0.72):
                scene.add(box((0.7 * wide, 0.008, 0.2 * high)), leaf,
                          (-hinge * wide, -0.02, level * high))
        knob = np.array([-hinge * 1.85 * wide, -0.07, 1.02])
        scene.bars([[knob, knob + [hinge * 0.12, 0, 0]], [knob, knob + [0, 0.06, 0]]], 0.01,
                   scene.look("metal"))


def curtain(scene: Scene, tall: float) -> None:
    """A curtain in folds on its rod."""
    rng = scene.rng
    wide, folds = rng.uniform(0.2, 0.8), int(rng.integers(4, 14))
    x = np.linspace(-wide, wide, 8 * folds)
    wave = rng.uniform(0.02, 0.06) * np.sin(np.arange(len(x)) * np.pi / 4)
    rows = np.array([0.02, rng.uniform(0.3, 0.7), 0.95]) * tall
    points = np.stack([np.stack([x + rng.normal(0, 0.02), wave - 0.1 + rng.normal(0, 0.01),
                                 0 * x + z], -1) for z in rows])
    scene.add(grid(points), scene.look("fabric"))
    scene.bars([[(-wide - 0.1, -0.1, rows[-1]), (wide + 0.1, -0.1, rows[-1])]], 0.015,
               scene.look("metal"))


def board(scene: Scene, tall: float) -> None:
    """A shelf board on the wall, full of things, or a cupboard that hangs."""
    rng, half = scene.rng, scene.rng.uniform([0.3, 0.1], [0.8, 0.18])
    with scene.at((0, -half[1], rng.uniform(0.5, 0.65) * tall)):
        if rng.random() < 0.5:
            scene.add(box((*half, 0.012)), scene.look("wood"))
            clutter_on(scene, half, 0.012, int(rng.integers(1, 8)), 0.3)
        else:
            cupboard(scene, 2 * half[0], rng.uniform(0.35, 0.7), things=False)


def pipes(scene: Scene, tall: float) -> None:
    """Pipes up the wall and along it."""
    rng = scene.rng
    ends = []
    for _ in range(rng.integers(1, 4)):
        x, z = rng.uniform(-0.4, 0.4), rng.uniform(0.1, 0.9) * tall
        ends += [[(x, -0.05, 0), (x, -0.05, tall)]] if rng.random() < 0.5 else [
            [(-1.2, -0.05, z), (1.2, -0.05, z)]]
    scene.bars(ends, rng.uniform(0.008, 0.05), scene.look("metal"), 8)


def radiator(scene: Scene, tall: float) -> None:
    """A radiator of ribs."""
    rng, wide, high = scene.rng, scene.rng.uniform(0.3, 0.8), scene.rng.uniform(0.2, 0.35)
    look, places = scene.look("paint"), np.arange(-wide, wide, rng.uniform(0.04, 0.1))
    scene.bars([[(x, -0.08, 0.12), (x, -0.08, 0.12 + 2 * high)] for x in places], 0.025, look, 6)
    scene.bars([[(-wide, -0.08, z), (wide, -0.08, z)] for z in (0.14, 0.1 + 2 * high)], 0.025,
               look)


ON_WALLS = (picture, picture, picture, window, door, curtain, board, pipes, radiator)
