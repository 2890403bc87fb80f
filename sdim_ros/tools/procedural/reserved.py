"""Layouts of the scenes that are kept for evaluation; training never sees them."""

from __future__ import annotations

import numpy as np

from sdim_ros.core.types import Camera
from sdim_ros.tools.procedural.bank import TextureBank
from sdim_ros.tools.procedural.furniture import PIECES, bin_, clutter_on, heap
from sdim_ros.tools.procedural.interior import Room, start
from sdim_ros.tools.procedural.machines import contraption
from sdim_ros.tools.procedural.meshes import (
    Mesh, box, copies, cylinder, extrusion, join, plate, rotation, sphere, tube)
from sdim_ros.tools.procedural.people import person
from sdim_ros.tools.procedural.scene import Light, Scene
from sdim_ros.tools.procedural.streets import daylight
from sdim_ros.tools.procedural.things import ANY, hanging_wires, thing


def attic(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """A room under a roof: slopes to both sides, rafters, a beam, stored things."""
    wide, long, tall = rng.uniform([4, 5, 2.6], [6, 8, 3.4])
    position = np.array([rng.uniform(-0.6, 0.6), 0.3, rng.uniform(1.0, 1.6)])
    scene = start(rng, bank, camera, position, rng.normal(0, 0.25), -10)
    room = Room(scene, wide, long, tall)
    room.light()
    slope, knee = scene.look("wood", fresh=True), rng.uniform(0.5, 1.0)
    rafters, step = scene.look("wood", fresh=True), rng.uniform(0.6, 1.1)
    for side in (-1, 1):
        foot, top = np.array([side * wide / 2, 0, knee]), np.array([0.15 * side * wide, 0, tall])
        way = top - foot
        with scene.at((foot + top) / 2 + [0, long / 2, 0],
                      rotation(0, 0, side * np.arctan2(way[2], abs(way[0])))):
            scene.add(plate(np.linalg.norm(way), long + 0.6), slope, casts=False)
        scene.bars([[foot + [0, y, -0.06], top + [0, y, -0.06]]
                    for y in np.arange(0.4, long, step)], 0.06, rafters, 4)
    for y in np.arange(1.5, long, rng.uniform(1.8, 3)):
        scene.bars([[(-wide / 2, y, tall - 0.4), (wide / 2, y, tall - 0.4)],
                    [(0.1 * wide, y, 0), (0.1 * wide, y, tall - 0.4)]], 0.08, rafters, 4)
    room.furnish(int(rng.integers(3, 8)))
    room.litter(int(rng.integers(5, 12)))
    return scene


def warehouse(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """An aisle between high racks with pallets, drums and sacks."""
    wide, long, tall = rng.uniform([6, 14, 5], [9, 26, 8])
    position = np.array([rng.uniform(-0.6, 0.6), 0.4, rng.uniform(1.0, 2.4)])
    scene = start(rng, bank, camera, position, rng.normal(0, 0.2), -3, 6)
    room = Room(scene, wide, long, tall)
    room.light()
    aisle, deep = rng.uniform(1.1, 1.9), rng.uniform(0.45, 0.7)
    steel, beam, board = scene.look("paint"), scene.look("paint"), scene.look("wood")
    levels = np.arange(0.1, tall - 0.8, rng.uniform(1.2, 1.8))
    bays = np.arange(1.0, long - 1, rng.uniform(1.9, 2.7))
    goods = (_pallet, _drums, _sacks, _pallet)
    for side in (-1, 1):
        x = side * (aisle + deep)
        scene.bars([[(x + s * deep, y, 0), (x + s * deep, y, tall - 0.4)] for s in (-1, 1)
                    for y in bays], 0.05, steel, 4)
        for level in levels[1:]:
            scene.bars([[(x + s * deep, bays[0], level), (x + s * deep, bays[-1], level)]
                        for s in (-1, 1)], 0.05, beam, 4)
        for y, following in zip(bays[:-1], bays[1:]):
            for level in levels:
                if rng.random() < 0.75:
                    with scene.at((x, (y + following) / 2, level + 0.06)):
                        scene.add(box((deep * 0.95, 0.55, 0.06)), board)
                        scene.one_of(3, goods[rng.integers(4)], rng.uniform(0.8, 1.1))
    for _ in range(rng.integers(1, 5)):
        spot = room.spot(0.5)
        if spot is not None and abs(spot[0]) < aisle:
            with scene.at(spot, rng.uniform(0, 6)):
                (heap, bin_, person, contraption)[rng.integers(4)](scene)
    return scene


def _pallet(scene: Scene) -> None:
    for x in (-0.25, 0.25):
        for y in (-0.3, 0.25):
            high = scene.rng.uniform(0.2, 0.5)
            scene.add(box((0.22, 0.24, high)), scene.look("package", fit=(0.44, 2 * high)),
                      (x, y, high + 0.06))


def _drums(scene: Scene) -> None:
    look = scene.look("paint")
    for x, y in ((-0.28, -0.25), (0.28, -0.25), (0, 0.28)):
        scene.add(cylinder(0.25, 0.4, 14), look, (x, y, 0.46))


def _sacks(scene: Scene) -> None:
    for level in range(scene.rng.integers(1, 5)):
        with scene.at((0, 0, 0.15 + 0.18 * level), scene.rng.normal(0, 0.15)):
            scene.add(sphere(), scene.look("fabric"), scale=(0.5, 0.42, 0.11))


def stairwell(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """A flight of stairs up to a landing, with banisters, under a high ceiling."""
    wide, long, tall = rng.uniform([3, 5.5, 4.2], [5.5, 8, 6])
    position = np.array([rng.uniform(-0.3, 0.3) * wide, 0.3, rng.uniform(1.2, 1.8)])
    scene = start(rng, bank, camera, position, rng.normal(0, 0.25), 2, 7)
    room = Room(scene, wide, long, tall)
    room.light()
    steps, rise, run = int(rng.integers(8, 13)), rng.uniform(0.15, 0.2), rng.uniform(0.24, 0.3)
    half, left = rng.uniform(0.5, 0.9), rng.choice([-1, 1]) * rng.uniform(0.1, 0.25) * wide
    tread, metal = scene.look("floor", fresh=True), scene.look("metal")
    first = rng.uniform(1.6, 2.2)
    for order in range(steps):
        high = rise * (order + 1)
        scene.add(box((half, run / 2 + 0.01, high / 2)), tread,
                  (left, first + run * (order + 0.5), high / 2))
    end, top = first + run * steps, rise * steps
    scene.add(box((wide / 2, (long - end) / 2, 0.12)), tread, (0, (long + end) / 2, top - 0.1))
    for side in (-1, 1):
        x = left + side * half
        low, high = np.array([x, first, rise]), np.array([x, end, top])
        share = np.linspace(0, 1, steps)[:, None]
        feet = low + (high - low) * share
        scene.bars(np.stack([feet, feet + [0, 0, 0.9]], 1), 0.012, metal)
        scene.add(tube(np.stack([low, high]) + [0, 0, 0.92], 0.03, 8), metal)
    rail = np.arange(-wide / 2, wide / 2, 0.14)
    rail = rail[np.abs(rail - left) > half]
    scene.bars([[(x, end, top), (x, end, top + 0.9)] for x in rail], 0.012, metal)
    room.litter(int(rng.integers(2, 7)))
    room.furnish(int(rng.integers(1, 4)))
    with scene.at((rng.uniform(-0.4, 0.4) * wide, end + 0.6, top)):
        (person if rng.random() < 0.5 else bin_)(scene)
    return scene


def arcade(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """A square with columns, arches, a fountain, stalls under cloths, people."""
    position = np.array([rng.uniform(-2, 2), 0, rng.uniform(1.2, 2.2)])
    scene = start(rng, bank, camera, position, rng.normal(0, 0.3), -3, 5)
    daylight(scene)
    half, long = rng.uniform([6, 25], [14, 60])
    scene.add(plate(2 * half + 20, 2 * long), scene.look("pavement", fresh=True), (0, long / 2, 0))
    stone, high, step = scene.look("wall", fresh=True), rng.uniform(2.6, 4), rng.uniform(2.2, 3.4)
    wall, places = scene.look("wall", fresh=True), np.arange(1.5, long, step)
    arch = _arch(step, 0.35)
    for side in (-1, 1):
        feet = np.stack([np.full(len(places), side * half), places, 0 * places], 1)
        same = np.tile(np.eye(3), (len(places), 1, 1)), np.ones((len(places), 3))
        scene.add(copies(cylinder(0.22, high / 2, 12), feet + [0, 0, high / 2], *same), stone)
        scene.add(copies(box((0.32, 0.32, 0.12)), feet + [0, 0, high], *same), stone)
        for foot in feet:
            with scene.at(foot + [0, step / 2, high], 0.5 * np.pi):
                scene.add(arch, stone)
        scene.add(box((0.4, long / 2, 1.2)), wall, (side * half, long / 2, high + step / 2 + 1.3))
        scene.add(plate(long, high + 6), wall, (side * (half + 3.5), long / 2, high / 2 + 3),
                  rotation(0.5 * np.pi, 0.5 * np.pi))
    for _ in range(rng.integers(4, 10)):
        spot = rng.uniform([-0.75 * half, 4], [0.75 * half, 0.6 * long])
        with scene.at((*spot, 0), rng.uniform(0, 6)):
            (_stall, _stall, _fountain, _crowd, contraption)[rng.integers(5)](scene)
    hanging_wires(scene, np.array([-half, 8.0, high]), np.array([half, 10.0, high]), 0.02, 0.6, 2)
    return scene


def _arch(wide: float, half_depth: float) -> Mesh:
    """Half a ring of stone along x, its ends on the ground."""
    angle = np.linspace(0, np.pi, 12)
    inner, outer = 0.5 * wide - 0.25, 0.5 * wide
    bows = np.stack([np.cos(angle), np.sin(angle)], 1)
    strips = [extrusion(np.array([inner * bows[i], outer * bows[i], outer * bows[i + 1],
                                  inner * bows[i + 1]]), half_depth) for i in range(11)]
    return join(strips)


def _stall(scene: Scene) -> None:
    rng, high = scene.rng, scene.rng.uniform(2.0, 2.5)
    half = rng.uniform([0.9, 0.6], [1.6, 0.9])
    corners = np.array([[x, y, 0] for x in (-1, 1) for y in (-1, 1)]) * [*half, 0]
    scene.bars(np.stack([corners, corners + [0, 0, high]], 1), 0.03, scene.look("metal"))
    cloth = scene.look("fabric", fresh=True)
    for side in (-1, 1):
        with scene.at((0, side * half[1] * 0.6, high + 0.15), rotation(0, -side * 0.35)):
            scene.add(plate(2.2 * half[0], 1.35 * half[1]), cloth)
    scene.add(box((*half, 0.03)), scene.look("wood"), (0, 0, 0.8))
    clutter_on(scene, half, 0.83, int(rng.integers(5, 14)), 0.35, ANY)


def _fountain(scene: Scene) -> None:
    stone = scene.look("wall", fresh=True)
    scene.add(cylinder(1.6, 0.3, 20), stone, (0, 0, 0.3))
    scene.add(cylinder(0.25, 0.8, 12), stone, (0, 0, 1.0))
    scene.add(sphere(8, 14), stone, (0, 0, 1.9), scale=(0.5, 0.5, 0.25))


def _crowd(scene: Scene) -> None:
    for _ in range(scene.rng.integers(1, 4)):
        with scene.at((*scene.rng.normal(0, 0.8, 2), 0), scene.rng.uniform(0, 6)):
            scene.one_of(3, person)


def playground(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """A climbing frame, a slide, swings and scattered bodies on open ground, a wall behind."""
    position = np.array([rng.uniform(-1, 1), 0, rng.uniform(1.0, 2.0)])
    scene = start(rng, bank, camera, position, rng.normal(0, 0.25), -5, 6)
    daylight(scene)
    scene.add(plate(160, 160), scene.look("ground", fresh=True), (0, 60, 0))
    far = rng.uniform(12, 35)
    scene.add(box((40, 0.3, rng.uniform(1, 4))), scene.look("wall", fresh=True), (0, far, 0))
    for order in range(rng.integers(5, 11)):
        y = rng.uniform(3, far - 1)
        x = position[0] + rng.uniform(-0.5, 0.5) * y
        with scene.at((x, y, 0), rng.uniform(0, 6)):
            (_climbing_frame, _slide, _swing, _crowd, _toy, PIECES[order])[rng.integers(6)](scene)
    scene.lights.append(Light(np.array([0.3, -0.5, 1]), np.full(3, 0.1)))
    return scene


def _toy(scene: Scene) -> None:
    thing(scene, scene.rng.uniform(0.5, 1.5))


def _climbing_frame(scene: Scene) -> None:
    rng = scene.rng
    x, y, z = (np.arange(int(rng.integers(2, 5))) * 0.6 for _ in range(3))
    bars = [[(a, b, 0), (a, b, z[-1])] for a in x for b in y]
    bars += [[(a, 0, c), (a, y[-1], c)] for a in x for c in z]
    bars += [[(0, b, c), (x[-1], b, c)] for b in y for c in z]
    scene.bars(bars, rng.uniform(0.015, 0.035), scene.look("paint"))


def _slide(scene: Scene) -> None:
    high, long = scene.rng.uniform(1.2, 2.2), scene.rng.uniform(2, 3.5)
    metal = scene.look("paint")
    with scene.at((0, long / 2, high / 2), rotation(0, -np.arctan2(high, long))):
        scene.add(box((0.3, np.hypot(high, long) / 2, 0.02)), scene.look("metal"))
    scene.bars([[(s * 0.3, 0, high), (s * 0.3, long, 0.1)] for s in (-1, 1)]
               + [[(s * 0.3, -0.6, 0), (s * 0.3, 0, high)] for s in (-1, 1)]
               + [[(-0.3, -0.6 + 0.1 * i, high * i / 6), (0.3, -0.6 + 0.1 * i, high * i / 6)]
                  for i in range(6)], 0.03, metal)


def _swing(scene: Scene) -> None:
    look = scene.look("wood")
    scene.bars([[(s * 1.5, t * 0.6, 0), (s * 1.5, 0, 2.2)] for s in (-1, 1) for t in (-1, 1)]
               + [[(-1.5, 0, 2.2), (1.5, 0, 2.2)]], 0.05, look)
    for x in (-0.6, 0.6):
        sway = scene.rng.uniform(-0.6, 0.6)
        seat = np.array([x, 1.7 * np.sin(sway), 2.2 - 1.7 * np.cos(sway)])
        scene.bars([[seat + [s * 0.2, 0, 0], (x + s * 0.2, 0, 2.2)] for s in (-1, 1)], 0.008, look)
        scene.add(box((0.24, 0.1, 0.02)), scene.look("plastic"), seat)


RESERVED = ((attic, 0.25), (warehouse, 0.2), (stairwell, 0.2), (arcade, 0.2), (playground, 0.15))
