"""Furniture: tables, chairs, shelves, sofas, beds, cupboards, and what stands on them.

Every function builds one piece on the floor of the scene's present axes, its front towards -y.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdim_ros.tools.procedural.meshes import (
    blob, box, cylinder, grid, lathe, plate, ring, rotation, superquadric, tube)
from sdim_ros.tools.procedural.scene import Scene
from sdim_ros.tools.procedural.things import ANY, STANDING, Thing, potted, thing


def clutter_on(scene: Scene, reach: Sequence[float], level: float, number: int, size: float,
               kinds: Sequence[Thing] = ANY) -> None:
    """Some things on a board of half sizes ``reach`` at this height."""
    for _ in range(number):
        with scene.at((*(scene.rng.uniform(-0.85, 0.85, 2) * reach), level)):
            thing(scene, size * scene.rng.uniform(0.4, 1.3), kinds)


def table(scene: Scene, things: int | None = None) -> None:
    """A table: of four legs, of one foot, or of frames; square or round, often with a cloth."""
    rng = scene.rng
    half = rng.uniform([0.35, 0.3], [1.1, 0.6])
    high, thick = rng.uniform(0.4, 0.8), rng.uniform(0.01, 0.04)
    top, leg = scene.look("wood"), scene.look(str(rng.choice(["wood", "metal", "metal"])))
    if rng.random() < 0.25:
        scene.add(cylinder(half.mean(), thick, 24), top, (0, 0, high - thick))
        half = np.repeat(0.7 * half.mean(), 2)
    else:
        scene.add(box((*half, thick)), top, (0, 0, high - thick))
    if rng.random() < 0.25:
        scene.add(lathe([0.5 * half[1], 0.05, 0.04, 0.04], [0, 0.06, 0.1, high]), leg)
    else:
        inset = half * rng.uniform(0.8, 0.97)
        feet = np.array([[x, y, 0] for x in (-1, 1) for y in (-1, 1)]) * [*inset, 0]
        scene.bars(np.stack([feet * [*rng.uniform(0.85, 1.05, 2), 0],
                             feet + [0, 0, high - thick]], 1), rng.uniform(0.012, 0.04), leg,
                   int(rng.choice([4, 8])))
        if rng.random() < 0.4:
            scene.bars([[feet[0] + [0, 0, 0.1], feet[1] + [0, 0, 0.1]],
                        [feet[2] + [0, 0, 0.1], feet[3] + [0, 0, 0.1]]], 0.015, leg)
    if rng.random() < 0.15:
        _drape(scene, half * 1.02, high, rng.uniform(0.1, 0.5))
    clutter_on(scene, half, high, int(rng.integers(0, 9)) if things is None else things,
               rng.uniform(0.15, 0.4))


def _drape(scene: Scene, half: np.ndarray, high: float, hang: float) -> None:
    """A cloth over a board, hanging down in folds."""
    rng, count = scene.rng, 30
    x, y = np.meshgrid(*(np.linspace(-1, 1, count) * (side + hang) for side in half))
    over = np.maximum(np.abs(x) - half[0], 0), np.maximum(np.abs(y) - half[1], 0)
    drop = np.maximum(*over)
    folds = 0.03 * np.sin(9 * (x + y) / half.mean() + rng.uniform(0, 6)) * np.minimum(
        drop / 0.1, 1)
    points = np.stack([np.clip(x, -half[0], half[0]) + folds * (over[0] > 0),
                       np.clip(y, -half[1], half[1]) + folds * (over[1] > 0),
                       high + 0.005 - np.minimum(drop, high)], -1)
    scene.add(grid(points), scene.look("fabric"))


def chair(scene: Scene) -> None:
    """A chair: four legs, a swinging tube, or a foot with castors; with or without arms."""
    rng = scene.rng
    wide, deep, seat = rng.uniform([0.19, 0.19, 0.4], [0.26, 0.26, 0.5])
    back = seat + rng.uniform(0.3, 0.6)
    frame = scene.look(str(rng.choice(["metal", "metal", "wood"])))
    cover = scene.look(str(rng.choice(["fabric", "wood", "plastic"])))
    radius, lean = rng.uniform(0.008, 0.02), rng.uniform(0.02, 0.15)
    kind = rng.choice(["legs", "tube", "office"], p=[0.5, 0.25, 0.25])
    if kind == "tube":
        for side in (-wide, wide):
            path = [(side, deep + lean, back), (side, deep, seat), (side, -deep, seat),
                    (side, -deep - 0.03, 0.02), (side, deep, 0.02)]
            scene.add(tube(_rounded(path), radius, 6), frame)
        scene.bars([[(-wide, deep, 0.02), (wide, deep, 0.02)]], radius, frame)
    elif kind == "legs":
        feet = np.array([[x * wide, y * deep, 0] for x in (-1, 1) for y in (-1, 1)])
        tops = feet * [0.9, 0.9, 0] + [0, 0, seat]
        scene.bars(np.stack([feet, tops], 1), radius, frame)
        scene.bars([[(s * wide * 0.9, deep, seat), (s * wide * 0.9, deep + lean, back)]
                    for s in (-1, 1)], radius, frame)
    else:
        angle = np.arange(5) * 1.2566
        toes = np.stack([0.3 * np.cos(angle), 0.3 * np.sin(angle), 0 * angle + 0.04], 1)
        scene.bars(np.stack([toes, np.tile([0, 0, 0.1], (5, 1))], 1), 0.02, frame)
        scene.bars([[(0, 0, 0.08), (0, 0, seat)], [(0, deep, seat), (0, deep + lean, back)]],
                   0.025, frame)
    thick = rng.uniform(0.01, 0.05)
    body = superquadric if rng.random() < 0.6 else (lambda half, _: box(half))
    scene.add(body((wide, deep, thick), 0.35), cover, (0, 0, seat))
    _backrest(scene, wide, (deep, lean), (seat, back), frame, cover, thick)
    if rng.random() < 0.3:
        arm = seat + 0.2
        for x in (-wide, wide):
            scene.bars([[(x, -deep * 0.5, arm), (x, deep, arm + 0.02)],
                        [(x, -deep * 0.4, seat), (x, -deep * 0.4, arm)]], radius * 1.3, frame)


def _backrest(scene, wide, depth, height, frame, cover, thick) -> None:
    (deep, lean), (seat, back) = depth, height
    tilt = np.arctan2(lean, back - seat)
    with scene.at((0, deep, seat), rotation(0, -tilt)):
        tall = back - seat
        if scene.rng.random() < 0.3:  # slats
            places = np.linspace(-wide, wide, int(scene.rng.integers(4, 9)))
            scene.bars([[(x, 0, 0.05), (x, 0, tall)] for x in places], 0.008, frame)
            scene.bars([[(-wide, 0, tall), (wide, 0, tall)]], 0.015, frame)
        else:
            low = scene.rng.uniform(0.1, 0.6) * tall
            scene.add(superquadric((wide, thick * 0.7, (tall - low) / 2), 0.3), cover,
                      (0, 0, (tall + low) / 2))


def _rounded(path: Sequence[Sequence[float]], steps: int = 5) -> np.ndarray:
    """A polygon with its corners cut round."""
    path = np.asarray(path, float)
    points = [path[:1]]
    for before, corner, after in zip(path[:-2], path[1:-1], path[2:]):
        share = np.linspace(0, 1, steps)[:, None]
        start, end = corner + 0.25 * (before - corner), corner + 0.25 * (after - corner)
        points.append((1 - share) ** 2 * start + 2 * share * (1 - share) * corner
                      + share ** 2 * end)
    return np.concatenate([*points, path[-1:]])


def shelf(scene: Scene) -> None:
    """A rack full of things: posts or side walls, with or without a back."""
    rng = scene.rng
    half = rng.uniform([0.3, 0.12], [0.9, 0.3])
    levels = np.linspace(rng.uniform(0.03, 0.3), rng.uniform(1.0, 2.3), rng.integers(3, 7))
    look, radius = scene.look(str(rng.choice(["wood", "metal", "paint"]))), rng.uniform(0.01, 0.03)
    if rng.random() < 0.5:
        feet = np.array([[x, y, 0] for x in (-1, 1) for y in (-1, 1)]) * [*half, 0]
        scene.bars(np.stack([feet, feet + [0, 0, levels[-1]]], 1), radius, look, 4)
    else:
        for side in (-1, 1):
            scene.add(box((radius, half[1], levels[-1] / 2)), look,
                      (side * half[0], 0, levels[-1] / 2))
    if rng.random() < 0.4:
        scene.add(box((half[0], 0.01, levels[-1] / 2)), look, (0, half[1], levels[-1] / 2))
    full = rng.integers(1, 7)
    space = levels[1] - levels[0]
    for level in levels:
        scene.add(box((*half, 0.012)), look, (0, 0, level))
        clutter_on(scene, half, level + 0.012, int(rng.integers(0, full + 1)),
                   min(0.7 * space, 0.45), STANDING)


def cupboard(scene: Scene, wide: float | None = None, high: float | None = None,
             things: bool = True) -> None:
    """A row of doors and drawers with handles, and often things on it."""
    rng = scene.rng
    wide, high = wide or rng.uniform(0.5, 2.0), high or rng.uniform(0.4, 2.1)
    deep = rng.uniform(0.2, 0.35)
    look = scene.look(str(rng.choice(["wood", "paint", "plastic"])), size=1)
    handle = scene.look("metal")
    scene.add(box((wide / 2, deep - 0.02, high / 2)), scene.look("rubber"), (0, 0, high / 2))
    scene.add(box((wide / 2 + 0.01, deep, 0.015)), scene.look("wood"), (0, -0.01, high))
    columns, rows = max(1, round(wide / rng.uniform(0.4, 0.7))), int(rng.integers(1, 4))
    size = np.array([wide / columns, high / rows])
    grips = []
    for column in range(columns):
        for row in range(rows):
            x, z = (column + 0.5) * size[0] - wide / 2, (row + 0.5) * size[1]
            scene.add(box((size[0] / 2 - 0.004, 0.012, size[1] / 2 - 0.004)), look,
                      (x, -deep + 0.005, z))
            grip = x + (0 if rows > 1 else 0.4 * size[0] * (1 - 2 * (column % 2)))
            along = (0.08, 0, 0) if rows > 1 else (0, 0, 0.08)
            middle = np.array([grip, -deep - 0.03, z + 0.3 * size[1]])
            grips.append([middle - along, middle + along])
    if rng.random() < 0.7:
        scene.bars(grips, 0.006, handle)
    for side in (-1, 1):
        scene.add(box((0.01, deep, high / 2)), look, (side * wide / 2, 0, high / 2))
    if things and high < 1.4:
        clutter_on(scene, (wide / 2, deep), high + 0.015, int(rng.integers(0, 8)), 0.3)


def sofa(scene: Scene) -> None:
    """A sofa or armchair of cushions, with pillows."""
    rng = scene.rng
    seats, unit = int(rng.integers(1, 4)), rng.uniform(0.28, 0.36)
    wide, seat = seats * unit, rng.uniform(0.35, 0.45)
    round_ = rng.uniform(0.15, 0.5)
    look = scene.look("fabric")
    scene.add(superquadric((wide + 0.12, 0.42, seat / 2), 0.15), look, (0, 0, seat / 2))
    scene.add(superquadric((wide + 0.1, 0.12, 0.4), round_), look, (0, 0.36, seat + 0.1),
              rotation(0, -0.15))
    for side in (-1, 1):
        scene.add(superquadric((0.1, 0.42, 0.3), round_), look, (side * (wide + 0.1), 0, 0.35))
    for order in range(seats):
        x = (2 * order + 1 - seats) * unit
        scene.add(superquadric((unit, 0.36, 0.09), 0.4), look, (x, -0.06, seat + 0.04))
    for _ in range(rng.integers(0, 4)):
        scene.add(superquadric((0.22, 0.08, 0.22), 0.5), scene.look("fabric"),
                  (rng.uniform(-wide, wide), 0.15, seat + 0.28),
                  rotation(rng.normal(0, 0.3), -0.4, rng.normal(0, 0.3)))


def bed(scene: Scene) -> None:
    """A bed with a crumpled blanket and pillows."""
    rng, wide = scene.rng, scene.rng.uniform(0.45, 0.9)
    wood, cover = scene.look("wood"), scene.look("fabric")
    scene.add(box((wide, 1.0, 0.12)), wood, (0, 0, 0.2))
    scene.add(box((wide, 0.03, rng.uniform(0.3, 0.6))), wood, (0, 1.0, 0.4))
    scene.add(superquadric((wide * 0.98, 0.98, 0.14), 0.2), scene.look("fabric"), (0, 0, 0.4))
    x, y = np.meshgrid(np.linspace(-1, 1, 22), np.linspace(-1, 0.4, 24))
    folds = sum(np.sin(rng.normal(0, 5) * x + rng.normal(0, 5) * y + rng.uniform(0, 6))
                for _ in range(6))
    fall = np.maximum(np.abs(x) - 0.85, 0) * 2.2
    scene.add(grid(np.stack([x * wide * 1.05, y, 0.58 + 0.015 * folds - fall], -1)), cover)
    for side in (-0.45, 0.45):
        scene.add(superquadric((0.4 * wide, 0.2, 0.09), 0.5), scene.look("fabric"),
                  (side * wide, 0.75, 0.6), rotation(rng.normal(0, 0.2), 0.2))


def bench(scene: Scene) -> None:
    """A slatted bench with a back of boards."""
    rng = scene.rng
    wide, look = rng.uniform(0.5, 0.9), scene.look("wood")
    slats = [[(-wide, y, 0.45), (wide, y, 0.45)] for y in np.linspace(-0.2, 0.2, 5)]
    slats += [[(-wide, 0.25 + 0.1 * z, z), (wide, 0.25 + 0.1 * z, z)] for z in (0.6, 0.95)]
    posts = np.linspace(-wide, wide, int(rng.integers(3, 16)))
    slats += [[(x, 0.31, 0.6), (x, 0.345, 0.95)] for x in posts]
    scene.bars(slats, rng.uniform(0.012, 0.03), look, 4)
    scene.bars([[(s * wide, y, 0), (s * wide, y + 0.08 * (y > 0), 0.45 + 0.55 * (y > 0))]
                for s in (-1, 1) for y in (-0.2, 0.25)], 0.03, look, 4)


def ladder(scene: Scene) -> None:
    """A ladder, or a leaning frame of bars."""
    rng, high, wide = scene.rng, scene.rng.uniform(1.2, 2.4), scene.rng.uniform(0.15, 0.3)
    with scene.at((0, 0, 0), rotation(0, rng.uniform(-0.3, 0.3))):
        rungs = np.linspace(0.2, high - 0.1, int(rng.integers(4, 9)))
        scene.bars([[(-wide, 0, 0), (-wide, 0, high)], [(wide, 0, 0), (wide, 0, high)]]
                   + [[(-wide, 0, z), (wide, 0, z)] for z in rungs],
                   rng.uniform(0.01, 0.025), scene.look("metal"))


def heap(scene: Scene) -> None:
    """Boxes and bags on top of each other on the floor, or boards and pipes that lean."""
    rng, level = scene.rng, 0.0
    if rng.random() < 0.4:
        number = int(rng.integers(2, 9))
        feet = rng.uniform([-0.4, 0, 0], [0.4, 0, 0], (number, 3))
        tops = feet + rng.uniform([-0.2, 0.1, 0.8], [0.2, 0.4, 2.2], (number, 3))
        scene.bars(np.stack([feet, tops], 1), rng.uniform(0.01, 0.04), scene.look("wood"), 4)
        return
    for _ in range(rng.integers(1, 5)):
        half = rng.uniform([0.15, 0.12, 0.06], [0.45, 0.35, 0.25])
        with scene.at((*rng.normal(0, 0.05, 2), level), rng.normal(0, 0.3)):
            if rng.random() < 0.2:
                scene.add(blob(rng, half, 0.3), scene.look("fabric"), (0, 0, half[2]))
            else:
                scene.add(box(half), scene.look("cardboard", fit=2 * half[[0, 2]]
                                                if rng.random() < 0.5 else None), (0, 0, half[2]))
        level += 2 * half[2]


def bin_(scene: Scene) -> None:
    """A waste bin, a bucket, a barrel or a stool."""
    rng, high = scene.rng, scene.rng.uniform(0.3, 0.9)
    low, top = high * rng.uniform(0.25, 0.45, 2)
    scene.add(lathe([0, low, top, 0.92 * top, 0.9 * low, 0], [0, 0, high, high, 0.05, 0.05], 18),
              scene.look(str(rng.choice(["plastic", "metal", "paint"]))))
    if rng.random() < 0.3:
        scene.add(ring(top, 0.02), scene.look("metal"), (0, 0, high), rotation(0, np.pi / 2))


def rail(scene: Scene) -> None:
    """Banisters, a fence, a cage, a clothes rail: upright bars in a frame."""
    rng = scene.rng
    wide, high = rng.uniform(0.4, 1.4), rng.uniform(0.6, 1.8)
    look = scene.look(str(rng.choice(["metal", "wood", "paint"])))
    radius = rng.uniform(0.006, 0.02)
    places = np.linspace(-wide, wide, int(rng.integers(3, 22)))
    scene.bars([[(x, 0, 0), (x, 0, high)] for x in places], radius, look)
    scene.bars([[(-wide, 0, z), (wide, 0, z)] for z in (0.1 * high, high)], 1.6 * radius, look)


def plant(scene: Scene) -> None:
    """A large plant in a pot on the floor."""
    potted(scene, scene.rng.uniform(0.6, 1.8))


def rug(scene: Scene) -> None:
    """A carpet on the floor: an edge without depth."""
    half = scene.rng.uniform([0.5, 0.4], [1.6, 1.1])
    scene.add(plate(*(2 * half)), scene.look("fabric", size=scene.rng.uniform(0.3, 2)),
              (0, 0, 0.006))


# What stands in the middle of a room, and what along its walls.
PIECES = (table, table, chair, chair, chair, shelf, cupboard, sofa, bench, ladder, heap, bin_,
          rail, bed, plant)
BY_WALLS = (shelf, shelf, cupboard, cupboard, cupboard, heap, bench, ladder, table, sofa, bed,
            plant)
