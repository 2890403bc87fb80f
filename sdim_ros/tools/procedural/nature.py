"""Trees, bushes, hedges, fences, rough ground; on the ground of the scene's present axes."""

from __future__ import annotations

import numpy as np

from sdim_ros.tools.procedural.meshes import (
    Mesh, grid, join, leaves, plate, rotation, sphere, tube)
from sdim_ros.tools.procedural.scene import Scene


def tree(scene: Scene, far: bool = False) -> None:
    """A tree: a bent trunk, branches, and a crown of leaves around dark lumps."""
    rng = scene.rng
    high, thick = rng.uniform(3.5, 12), rng.uniform(0.08, 0.3)
    crown, bark = rng.uniform(0.35, 0.6) * high, scene.look("bark")
    bend = np.cumsum(rng.normal(0, 0.12, (5, 2)), axis=0)
    spine = np.column_stack([bend - bend[0], np.linspace(0, 1, 5) * (high - 0.75 * crown)])
    scene.add(tube(spine, thick * np.linspace(1, 0.5, 5), 6), bark)
    greens = [scene.look("leaf", fresh=True), scene.look("leaf", fresh=True),
              scene.look("hedge", fresh=True)]
    clouds = 5 if far else int(rng.integers(6, 10))
    way = rng.normal(0, 1, (clouds, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    ends = spine[-1] + way * crown * [0.45, 0.45, 0.4] + [0, 0, 0.3 * crown]
    bare = rng.random() < 0.07
    if not far:
        scene.bars([[spine[rng.integers(2, 5)], end] for end in ends], 0.2 * thick, bark, 4)
    number, size = (45, 0.06 * crown) if far else (200, rng.uniform(0.03, 0.06) * crown)
    reach = crown * rng.uniform(0.3, 0.5, (clouds, 3))
    lumps, tufts = [], []
    for end, half in zip(ends, reach):
        lumps.append(ragged(rng, 0.65 * half).placed(end))
        tufts.append(leaves(rng, number // (6 if bare else 1), 1.1 * half, size).placed(end))
    if not bare:
        scene.add(join(lumps), greens[2])
    scene.add(join(tufts[::2]), greens[0])
    scene.add(join(tufts[1::2]), greens[1])


def ragged(rng: np.random.Generator, half: np.ndarray) -> Mesh:
    """A lump of small dents, as the inside of a bush is."""
    ball = sphere(5, 8)
    points = ball.points * half * rng.uniform(0.7, 1.15, (len(ball.points), 1))
    normals = ball.normals + rng.normal(0, 0.5, ball.normals.shape)
    return Mesh(points, normals, points[:, :2], ball.faces)


def far_tree(scene: Scene) -> None:
    """A tree of fewer, larger leaves."""
    tree(scene, far=True)


def grove(scene: Scene, far: bool) -> None:
    """One of the few trees of a scene, turned."""
    with scene.at((0, 0, 0), scene.rng.uniform(0, 6.3)):
        if far:
            scene.one_of(2, far_tree, scene.rng.uniform(0.7, 1.3))
        else:
            scene.one_of(2, tree, scene.rng.uniform(0.7, 1.3))


def thicket(scene: Scene) -> None:
    """The edge of a wood along x, 24 m long, for far away."""
    rng = scene.rng
    lumps, tufts = [], []
    for x in np.linspace(-11, 11, 7):
        half = rng.uniform([1.5, 1.2, 1.5], [2.6, 2.2, 4.5])
        place = np.array([x, rng.normal(0, 0.8), 0.9 * half[2]])
        lumps.append(ragged(rng, half).placed(place))
        tufts.append(leaves(rng, 40, 1.1 * half, rng.uniform(0.25, 0.45)).placed(place))
    scene.add(join(lumps), scene.look("hedge", fresh=True, size=3))
    scene.add(join(tufts), scene.look("leaf", fresh=True))


def conifer(scene: Scene) -> None:
    """A pointed tree of hanging layers."""
    rng, high = scene.rng, scene.rng.uniform(2, 12)
    wide = high * rng.uniform(0.12, 0.28)
    scene.bars([[(0, 0, 0), (0, 0, high)]], 0.02 * high, scene.look("bark"))
    look = scene.look("hedge", fresh=True)
    for share in np.linspace(0.12, 0.97, int(rng.integers(6, 12))):
        angle, outside = np.meshgrid(np.linspace(0, 2 * np.pi, 15), [0, 1.0])
        reach = wide * (1.05 - share) * (1 + 0.3 * np.cos(angle * 7 + share * 40)) * outside
        level = high * (share + 0.1 * (1 - outside)) - 0.1 * reach
        scene.add(grid(np.stack([reach * np.cos(angle), reach * np.sin(angle), level], -1)), look)


def bush(scene: Scene, size: float | None = None) -> None:
    """A bush of leaves around a lump."""
    rng = scene.rng
    half = (size or rng.uniform(0.3, 1.0)) * rng.uniform([0.7, 0.7, 0.6], [1.2, 1.2, 1.0])
    scene.add(ragged(rng, 0.85 * half), scene.look("hedge", fresh=True), (0, 0, 0.7 * half[2]))
    scene.add(leaves(rng, int(rng.integers(100, 400)), 1.05 * half, rng.uniform(0.04, 0.1)),
              scene.look("leaf", fresh=True), (0, 0, 0.7 * half[2]))


def hedge(scene: Scene, half: float) -> None:
    """A clipped hedge along x, rough all over."""
    rng, deep, high = scene.rng, scene.rng.uniform(0.25, 0.6), scene.rng.uniform(0.7, 2.2)
    across = np.array([[-1, 0], [-1, 0.35], [-1, 0.7], [-0.9, 1], [0, 1], [0.9, 1], [1, 0.7],
                       [1, 0.35], [1, 0]])
    x = np.linspace(-half, half, int(np.clip(half * 8, 6, 60)))
    points = np.empty((len(x), len(across), 3))
    points[..., 0] = x[:, None]
    points[..., 1:] = across * [deep, high] + rng.normal(0, 0.06, (len(x), len(across), 2))
    scene.add(grid(points), scene.look("hedge", fresh=True))


def fence(scene: Scene, half: float) -> None:
    """A fence or a wall along x: bars, boards, wires, a mesh, stones, a crash barrier."""
    rng, high = scene.rng, scene.rng.uniform(0.7, 1.8)
    look, kind = scene.look(str(rng.choice(["metal", "wood", "paint"]))), rng.integers(5)
    ends, thick = [], rng.uniform(0.008, 0.03)
    posts = np.arange(-half, half, rng.uniform(1.2, 3))
    scene.bars([[(x, 0, 0), (x, 0, high)] for x in posts], 2 * thick + 0.01, look, 5)
    if kind == 0:
        x = np.arange(-half, half, rng.uniform(0.1, 0.2))
        ends = [[(a, 0, 0.05), (a, 0, high)] for a in x] + [
            [(-half, 0, z), (half, 0, z)] for z in (0.15, 0.9 * high)]
    elif kind == 1:
        ends = [[(-half, 0, z), (half, 0, z)] for z in np.linspace(0.2, high, rng.integers(2, 6))]
    elif kind == 2:
        steps = np.arange(-half - high, half, 0.5)
        ends = [[(a, 0, 0), (a + high, 0, high)] for a in steps] + [
            [(a + high, 0, 0), (a, 0, high)] for a in steps]
    elif kind == 3:
        scene.add(plate(2 * half, high), scene.look(str(rng.choice(["wall", "wood"])), fresh=True),
                  (0, 0, high / 2), rotation(0, np.pi / 2))
    else:
        profile = np.array([[0, 0.4], [-0.05, 0.48], [0, 0.55], [-0.05, 0.64], [0, 0.72]])
        points = np.empty((2, 5, 3))
        points[..., 0], points[..., 1:] = np.array([[-half], [half]]), profile
        scene.add(grid(points), scene.look("metal"))
    if ends:
        scene.bars(ends, thick, look, 4)


def rough_ground(scene: Scene, wide: float, long: float, high: float) -> None:
    """A bumpy meadow of this size, whose near edge is at y = 0."""
    rng, parts = scene.rng, 24
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, parts) * wide, np.linspace(0, 1, parts) ** 2 * long)
    bumps = sum(np.sin(rng.normal(0, 0.5) * x + rng.normal(0, 0.5) * y + rng.uniform(0, 6))
                for _ in range(6))
    scene.add(grid(np.stack([x, y, high * (bumps / 6 + 0.5)], -1)),
              scene.look("grass", fresh=True))


def grass_tufts(scene: Scene, number: int, wide: float, long: float) -> None:
    """Blades in tufts on an area of this size, whose near edge is at y = 0."""
    rng = scene.rng
    foot = np.stack([rng.uniform(-wide / 2, wide / 2, number), rng.random(number) ** 2 * long,
                     np.zeros(number)], 1)
    tips = foot + rng.normal(0, 0.06, (number, 3)) + [0, 0, 0.15]
    scene.bars(np.stack([foot, tips], 1), 0.008, scene.look("leaf", fresh=True), 3)
