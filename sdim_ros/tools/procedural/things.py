"""Small things: what stands on tables and shelves, lies on floors and hangs on walls.

Every function builds one thing on the ground of the scene's present axes, about ``size`` metres
high or wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sdim_ros.tools.procedural.meshes import (
    blob, box, copies, cylinder, extrusion, grid, lathe, leaves, plate, ring, rods, rotation,
    sphere, superquadric, tube)
from sdim_ros.tools.procedural.scene import Scene


def carton(scene: Scene, size: float) -> None:
    """A box with print on it, at times open."""
    rng = scene.rng
    half = 0.5 * size * rng.uniform([0.4, 0.25, 0.4], [1.1, 0.8, 1.1])
    family = str(rng.choice(["package", "cardboard", "plastic", "paint", "wood"]))
    printed = family in ("package", "cardboard") and rng.random() < 0.7
    look = scene.look(family, fit=2 * half[[0, 2]] if printed else None)
    scene.add(box(half), look, (0, 0, half[2]))
    if rng.random() < 0.2:
        flap = rotation(0, rng.uniform(0.3, 1.4))
        for side in (-1, 1):
            with scene.at((0, side * half[1], 2 * half[2]), flap if side > 0 else flap.T):
                scene.add(plate(2 * half[0], half[1]), look, (0, side * half[1] / 2, 0))


def turned(scene: Scene, size: float) -> None:
    """A bottle, vase, cup, lamp base or bowl: any body from a lathe."""
    rng = scene.rng
    steps = int(rng.integers(4, 8))
    radius = size * rng.uniform(0.12, 0.4) * np.clip(
        1 + np.cumsum(rng.normal(0, 0.35, steps)) - 0.2, 0.15, 1.5)
    radius[0] *= rng.uniform(0.6, 1)
    height = size * np.sort(np.concatenate([[0, 1], rng.random(steps - 2)]))
    look = scene.look(str(rng.choice(["plastic", "package", "metal", "paint", "dark_glass"])))
    scene.add(lathe(np.concatenate([[0], radius]), np.concatenate([[0], height]), 12,
                    sharp=rng.random() < 0.4), look)
    if rng.random() < 0.5:  # closed by a lid
        scene.add(cylinder(radius[-1] * rng.uniform(0.9, 1.2), 0.05 * size, 12),
                  scene.look("plastic"), (0, 0, size * 1.03))
    elif rng.random() < 0.3:  # a handle
        scene.add(ring(0.25 * size, 0.03 * size, 12, 5), look, (radius.mean(), 0, 0.5 * size))


def bottle(scene: Scene, size: float) -> None:
    """A bottle with a label."""
    rng = scene.rng
    wide, neck = size * rng.uniform(0.1, 0.18), size * rng.uniform(0.03, 0.06)
    shoulder, top = size * rng.uniform(0.5, 0.7), size
    scene.add(lathe([0, wide, wide, wide, neck, neck, 0],
                    [0, 0, 0.05 * size, shoulder, 0.8 * size, top, top], 12),
              scene.look(str(rng.choice(["dark_glass", "plastic", "paint"]))))
    scene.add(cylinder(1.02 * wide, 0.3 * shoulder, 12), scene.look("package", size=2.5 * wide),
              (0, 0, 0.45 * shoulder))


def bowl(scene: Scene, size: float) -> None:
    """A bowl or basket, often with fruit."""
    rng = scene.rng
    wide, high = 0.5 * size, size * rng.uniform(0.15, 0.4)
    scene.add(lathe([0, 0.6 * wide, wide, 0.94 * wide, 0.5 * wide, 0],
                    [0, 0, high, high, 0.1 * high, 0.1 * high], 16), scene.look("plastic"))
    look = scene.look("plastic")
    for _ in range(rng.integers(0, 9)):
        place = rng.uniform(-0.5, 0.5, 2) * wide
        radius = wide * rng.uniform(0.2, 0.32)
        scene.add(sphere(6, 9), look if rng.random() < 0.7 else scene.look("plastic"),
                  (*place, high * 0.6 + radius * 0.5), scale=radius * rng.uniform(0.85, 1.1, 3))


def stack(scene: Scene, size: float) -> None:
    """Books or papers in a pile."""
    rng, level = scene.rng, 0.0
    for _ in range(rng.integers(1, 7)):
        half = 0.5 * size * rng.uniform([0.6, 0.5, 0.02], [1, 0.8, 0.16])
        with scene.at((*rng.normal(0, 0.03, 2) * size, level + half[2]), rng.normal(0, 0.2)):
            scene.add(box(half), scene.look(str(rng.choice(["package", "paper", "books"])),
                                            fit=2 * half[:2] if rng.random() < 0.6 else None))
        level += 2 * half[2]


def books(scene: Scene, size: float) -> None:
    """Books that stand side by side."""
    rng, left = scene.rng, -size
    while left < size:
        half = size * rng.uniform([0.02, 0.2, 0.3], [0.1, 0.35, 0.5])
        lean = rotation(0, 0, rng.normal(0, 0.15) * (rng.random() < 0.2))
        scene.add(box(half), scene.look("package" if rng.random() < 0.4 else "plastic"),
                  (left + half[0], 0, half[2]), lean)
        left += 2.05 * half[0] + (rng.random() < 0.1) * 0.2 * size


def screen(scene: Scene, size: float) -> None:
    """A monitor or a laptop."""
    rng = scene.rng
    half = 0.5 * size * np.array([1.0, 0.05, rng.uniform(0.5, 0.75)])
    case = scene.look("plastic", size=1)
    shown = scene.look("picture" if rng.random() < 0.5 else "dark_glass", fit=1.9 * half[[0, 2]],
                       glow=float(rng.choice([0, 0.8])))
    laptop = rng.random() < 0.4
    low = 0.02 * size if laptop else 0.15 * size
    if laptop:
        scene.add(box((half[0], 0.35 * size, 0.01 * size)), case, (0, -0.35 * size, 0.01 * size))
        scene.add(plate(1.8 * half[0], 0.4 * size), scene.look("paper"),
                  (0, -0.3 * size, 0.022 * size))
    else:
        scene.add(cylinder(0.2 * size, 0.01 * size), case, (0, 0, 0.01 * size))
        scene.bars([[(0, 0, 0), (0, 0, low + half[2])]], 0.03 * size, case)
    with scene.at((0, 0, low), rotation(0, rng.uniform(-0.4, 0.05))):
        scene.add(box(half), case, (0, 0, half[2]))
        scene.add(box((0.95 * half[0], half[1], 0.93 * half[2])), shown, (0, -0.003, half[2]))


def bag(scene: Scene, size: float) -> None:
    """A sack, a cushion, a bag with a handle, a crumpled heap."""
    rng = scene.rng
    half = 0.5 * size * rng.uniform([0.6, 0.3, 0.4], [1, 0.8, 1])
    look = scene.look(str(rng.choice(["fabric", "fabric", "plastic"])))
    body = (blob(rng, half, rng.uniform(0.1, 0.6)) if rng.random() < 0.6
            else superquadric(half, rng.uniform(0.3, 0.8)))
    scene.add(body, look, (0, 0, 0.9 * half[2]), rotation(0, 0, rng.normal(0, 0.2)))
    if rng.random() < 0.4:
        scene.add(ring(0.5 * half[0], 0.02 * size, 14, 5), look, (0, 0, 1.9 * half[2]))


def potted(scene: Scene, size: float) -> None:
    """A plant in a pot: a bush of leaves, or long blades."""
    rng = scene.rng
    pot, wide = size * rng.uniform(0.2, 0.35), size * rng.uniform(0.12, 0.25)
    scene.add(lathe([0, 0.75 * wide, wide, 0.85 * wide, 0], [0, 0, pot, pot, 0.9 * pot], 12),
              scene.look(str(rng.choice(["plastic", "paint", "cardboard"]))))
    green = [scene.look("leaf", fresh=True) for _ in range(2)]
    if rng.random() < 0.5:
        middle, spread = 0.65 * size, size * rng.uniform([0.2, 0.2, 0.25], [0.4, 0.4, 0.4])
        scene.bars([[(0, 0, pot), (*rng.normal(0, 0.05, 2) * size, middle)]], 0.015 * size,
                   scene.look("bark"))
        for look in green:
            scene.add(leaves(rng, int(rng.integers(40, 160)), spread,
                             size * rng.uniform(0.03, 0.1)), look, (0, 0, middle))
        return
    for number in range(int(rng.integers(6, 18))):
        heading, reach = rng.uniform(0, 6.3), size * rng.uniform(0.2, 0.7)
        share = np.linspace(0, 1, 6)
        spine = np.stack([reach * share * np.cos(heading), reach * share * np.sin(heading),
                          pot + (size - pot) * (share - share ** 3 * rng.uniform(0.2, 1.2))], 1)
        aside = np.array([-np.sin(heading), np.cos(heading), 0])
        width = size * rng.uniform(0.02, 0.07) * np.sin(np.pi * (0.12 + 0.86 * share))
        scene.add(grid(np.stack([spine - aside * width[:, None], spine + aside * width[:, None]],
                                1)), green[number % 2])


def lamp(scene: Scene, size: float) -> None:
    """A lamp with a shade on a foot."""
    rng = scene.rng
    metal = scene.look("metal")
    scene.add(cylinder(0.12 * size, 0.01 * size), metal, (0, 0, 0.01 * size))
    scene.bars([[(0, 0, 0), (0, 0, 0.8 * size)]], 0.012 * size, metal)
    top, low = size * rng.uniform(0.06, 0.15), size * rng.uniform(0.12, 0.22)
    scene.add(lathe([low, top], [0.72 * size, size], 16),
              scene.look("fabric", glow=float(rng.choice([0, 1.5]))))


def tool(scene: Scene, size: float) -> None:
    """Something of bars: a rack, a stand, a wire basket, a toy."""
    rng, half = scene.rng, 0.5 * size * scene.rng.uniform(0.3, 1, 3)
    points = rng.uniform(-1, 1, (int(rng.integers(4, 12)), 2, 3)) * half + [0, 0, half[2]]
    scene.bars(points, size * rng.uniform(0.01, 0.04), scene.look("metal"))
    if rng.random() < 0.5:
        radius = half[:2].mean()
        scene.add(ring(radius, 0.04 * size), scene.look("plastic"), (0, 0, radius))


def cable(scene: Scene, size: float) -> None:
    """A hose or cable that lies in bends."""
    rng = scene.rng
    turn = np.cumsum(np.cumsum(rng.normal(0, 0.25, 40)))
    path = np.cumsum(np.stack([np.cos(turn), np.sin(turn), 0 * turn], 1), 0) * size * 0.08
    radius = size * rng.uniform(0.008, 0.03)
    path[:, 2] = radius + 0.1 * size * np.clip(np.sin(turn * 0.7), 0, 1) * (rng.random() < 0.4)
    scene.add(tube(path - path.mean(0) * [1, 1, 0], radius, 5), scene.look("plastic"))


def cut_out(scene: Scene, size: float) -> None:
    """A flat piece of any outline: a star, a leaf, a gear, a toy, a bracket."""
    rng = scene.rng
    angle = np.linspace(0, 2 * np.pi, int(rng.integers(5, 28)), endpoint=False)
    radius = 0.5 * size * (1 + rng.uniform(0, 0.5) * np.cos(angle * rng.integers(2, 9)))
    outline = np.stack([radius * np.cos(angle) * rng.uniform(0.4, 1), radius * np.sin(angle)], 1)
    outline[:, 1] -= outline[:, 1].min()
    scene.add(extrusion(outline, size * rng.uniform(0.01, 0.2)), scene.look("plastic"), turn=
              rotation(rng.uniform(0, 3), 0))


def cloth(scene: Scene, size: float) -> None:
    """A rag or towel in folds."""
    rng = scene.rng
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 14), np.linspace(-0.5, 0.5, 14))
    folds = sum(np.sin(rng.normal(0, 9) * x + rng.normal(0, 9) * y + rng.uniform(0, 6))
                for _ in range(4))
    z = size * rng.uniform(0.02, 0.08) * (folds - folds.min())
    scene.add(grid(np.stack([x * size, y * size * rng.uniform(0.5, 1), z], -1)),
              scene.look("fabric"))


def pins(scene: Scene, size: float) -> None:
    """Many of one small thing: pencils in a mug, bottles in a row, balls, cubes."""
    rng, number = scene.rng, int(scene.rng.integers(4, 25))
    body = (sphere(5, 8), box((1, 1, 1)), cylinder(1, 1.5, 8), cylinder(0.3, 3, 6))[
        rng.integers(4)]
    unit = size * rng.uniform(0.04, 0.1)
    scale = np.tile(unit * rng.uniform(0.7, 1.3, (number, 1)), (1, 3))
    reach = np.abs(body.points[:, 2]).max()
    place = rng.uniform(-0.5, 0.5, (number, 3)) * size
    place[:, 2] = reach * scale[:, 2]
    turns = np.stack([rotation(angle) for angle in rng.uniform(0, 3, number)])
    half = number // 2
    for part in (slice(0, half), slice(half, number)):
        scene.add(copies(body, place[part], turns[part], scale[part]), scene.look("plastic"))


Thing = Callable[[Scene, float], None]
ANY: Sequence[Thing] = (carton, carton, turned, turned, bottle, bowl, stack, books, screen, bag,
                        potted, lamp, tool, cable, cut_out, cloth, pins)
STANDING: Sequence[Thing] = (carton, carton, turned, turned, bottle, bottle, stack, books, bag,
                             tool, cut_out, pins, bowl, potted)


def thing(scene: Scene, size: float, kinds: Sequence[Thing] = ANY) -> None:
    """One of the things, turned at random."""
    with scene.at((0, 0, 0), scene.rng.uniform(0, 6.3) if scene.rng.random() < 0.6
                  else scene.rng.normal(0, 0.1)):
        kinds[scene.rng.integers(len(kinds))](scene, size)


def hanging_wires(scene: Scene, start: np.ndarray, end: np.ndarray, radius: float, slack: float,
                  number: int = 1) -> None:
    """Sagging wires between two points."""
    look, share = scene.look("rubber"), np.linspace(0, 1, 9)
    for order in range(number):
        path = start + (end - start) * share[:, None]
        path[:, 2] -= slack * 4 * share * (1 - share) + 0.25 * order
        scene.add(rods(path[:-1], path[1:], radius, 4), look)
