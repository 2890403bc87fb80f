"""Layouts of rooms: furnished ones, halls, corridors, workshops, desks seen from near."""

from __future__ import annotations

import numpy as np

from sdim_ros.core.types import Camera
from sdim_ros.tools.procedural.bank import TextureBank
from sdim_ros.tools.procedural.furniture import chair, clutter_on, rug, table
from sdim_ros.tools.procedural.interior import Room, start
from sdim_ros.tools.procedural.machines import bicycle, contraption, motorbike
from sdim_ros.tools.procedural.meshes import box
from sdim_ros.tools.procedural.people import person
from sdim_ros.tools.procedural.scene import Scene
from sdim_ros.tools.procedural.things import cable, hanging_wires


def room(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """A furnished room of any use."""
    wide, long, tall = rng.uniform([2.6, 3.2, 2.3], [7, 9, 3.4])
    place = _enter(rng, bank, camera, wide, long, tall)
    place.decorate(int(rng.integers(3, 12)))
    place.line(rng.uniform(0.2, 0.9))
    place.furnish(int(rng.integers(3, 10)))
    place.litter(int(rng.integers(0, 7)))
    if rng.random() < 0.4:
        spot = place.spot(0.8)
        if spot is not None:
            with place.scene.at(spot):
                rug(place.scene)
    if rng.random() < 0.2:
        _crowd(place, 1)
    return place.scene


def hall(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """A room with many of one table and chair: a canteen, a class, a meeting room."""
    wide, long, tall = rng.uniform([4, 5, 2.5], [9, 14, 4])
    place = _enter(rng, bank, camera, wide, long, tall)
    place.decorate(int(rng.integers(3, 10)))
    place.line(rng.uniform(0, 0.5))
    scene, turn = place.scene, rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05)
    for _ in range(rng.integers(2, 6)):
        spot = place.spot(1.0)
        if spot is None:
            continue
        with scene.at(spot, turn):
            table(scene)
            for _ in range(rng.integers(1, 5)):
                side = rng.choice([-1, 1])
                with scene.at((rng.uniform(-0.8, 0.8), side * -0.75, 0),
                              np.pi * (side < 0) + rng.normal(0, 0.3)):
                    scene.one_of(1, chair)
    place.litter(int(rng.integers(0, 5)))
    _crowd(place, int(rng.integers(0, 3)))
    return scene


def corridor(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """A long narrow room with doors, pipes and posts."""
    wide, long, tall = rng.uniform([1.4, 7, 2.2], [3, 22, 3.2])
    place = _enter(rng, bank, camera, wide, long, tall)
    scene = place.scene
    place.decorate(int(rng.integers(6, 16)))
    place.furnish(int(rng.integers(0, 5)))
    if rng.random() < 0.5:  # beams
        look, step = scene.look("wood"), rng.uniform(1, 3)
        for y in np.arange(1, long, step):
            scene.add(box((wide / 2, 0.08, rng.uniform(0.05, 0.12))), look, (0, y, tall))
    if rng.random() < 0.5:
        hanging_wires(scene, np.array([0.4 * wide, 0, tall - 0.1]),
                      np.array([0.4 * wide, long, tall - 0.1]), 0.012, 0.1,
                      int(rng.integers(1, 4)))
    _crowd(place, int(rng.integers(0, 2)))
    return scene


def workshop(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """A machine or a heap of things before full shelves: a garage, a cellar, a lab."""
    wide, long, tall = rng.uniform([4, 3.6, 2.3], [8, 6.5, 3.2])
    place = _enter(rng, bank, camera, wide, long, tall, pitch=-9)
    scene = place.scene
    place.line(rng.uniform(0.5, 1))
    place.decorate(int(rng.integers(2, 8)))
    ahead = scene.attitude[:2, 2] / np.linalg.norm(scene.attitude[:2, 2])
    spot = scene.position[:2] + rng.uniform(1.7, 2.8) * ahead
    place.taken.append((spot, 0.9))
    subject = (motorbike, motorbike, bicycle, contraption, contraption, table)[rng.integers(6)]
    turn = rng.choice([0, np.pi]) + rng.normal(0, 0.5)
    middle = 0.65 if subject in (motorbike, bicycle) else 0.0
    with scene.at((*spot, 0), turn), scene.at((-middle, 0, 0)):
        subject(scene)
    place.litter(int(rng.integers(1, 7)))
    for _ in range(rng.integers(0, 3)):
        with scene.at((*rng.uniform([-0.4 * wide, 1], [0.4 * wide, long]), 0)):
            cable(scene, rng.uniform(0.5, 1.5))
    return scene


def desk(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """Things on a table, seen from near."""
    wide, long, tall = rng.uniform([2.5, 2.5, 2.4], [6, 6, 3])
    high, half = rng.uniform(0.4, 0.9), rng.uniform([0.6, 0.35], [1.3, 0.8])
    position = np.array([0, 0.2, high + rng.uniform(0.25, 0.8)])
    scene = start(rng, bank, camera, position, rng.normal(0, 0.3), -28, 10)
    place = Room(scene, wide, long, tall)
    place.light()
    scene.add(box((*half, 0.02)), scene.look("wood"), (0, 0.55 + half[1], high - 0.02))
    scene.bars([[(s * half[0], 0.55 + half[1], 0), (s * half[0], 0.55 + half[1], high)]
                for s in (-0.9, 0.9)], 0.03, scene.look("metal"))
    with scene.at((0, 0.55 + half[1], 0)):
        clutter_on(scene, half, high, int(rng.integers(12, 32)), 0.22)
    place.decorate(int(rng.integers(2, 7)))
    place.line(rng.uniform(0, 0.6))
    place.furnish(int(rng.integers(0, 4)))
    return scene


def _enter(rng: np.random.Generator, bank: TextureBank, camera: Camera, wide: float, long: float,
           tall: float, pitch: float = -10) -> Room:
    """A lit room with the camera near its front wall, looking at its middle."""
    position = rng.uniform([-0.35 * wide, 0.2, 0.6], [0.35 * wide, 0.25 * long, 1.8])
    heading = np.arctan2(position[0], 0.5 * long) + rng.normal(0, 0.3)
    place = Room(start(rng, bank, camera, position, heading, pitch), wide, long, tall)
    place.light()
    return place


def _crowd(place: Room, number: int) -> None:
    for _ in range(number):
        spot = place.spot(0.4, near=0.25)
        if spot is not None:
            with place.scene.at(spot, place.scene.rng.uniform(0, 6.3)):
                person(place.scene)


ROOMS = ((room, 0.4), (hall, 0.12), (corridor, 0.13), (workshop, 0.2), (desk, 0.15))
