"""Streets as a car or a robot sees them: road, verges, buildings, trees, traffic, sky."""

from __future__ import annotations

import numpy as np

from sdim_ros.core.types import Camera
from sdim_ros.tools.procedural.bank import TextureBank
from sdim_ros.tools.procedural.furniture import bench, bin_, heap, table
from sdim_ros.tools.procedural.interior import start
from sdim_ros.tools.procedural.machines import bicycle, motorbike
from sdim_ros.tools.procedural.meshes import box, copies, extrusion, plate, rotation, sphere
from sdim_ros.tools.procedural.nature import (
    bush, conifer, fence, grass_tufts, grove, hedge, rough_ground, thicket)
from sdim_ros.tools.procedural.people import person
from sdim_ros.tools.procedural.scene import Light, Scene
from sdim_ros.tools.procedural.things import hanging_wires
from sdim_ros.tools.procedural.vehicles import lights_in_a_box, lorry, vehicle

_ALONG = 0.5 * np.pi  # what is built along x, along the road


def daylight(scene: Scene) -> None:
    """Sun or an overcast sky, and their colours."""
    rng = scene.rng
    sunny = rng.random() < 0.7
    bright = rng.uniform(0.8, 2.2)
    scene.sky = bright * (np.array([0.55, 0.75, 1.0]) if rng.random() < 0.5 else np.ones(3)
                          ) * rng.uniform(0.8, 1.2, 3)
    scene.ground = rng.uniform(0.05, 0.3) * np.ones(3)
    scene.ambient = rng.uniform(0.2, 0.6) * np.array([0.9, 0.95, 1.0])
    place = np.array([*rng.normal(0, 1, 2), rng.uniform(0.35, 1.5)])
    tint = np.array([1.0, rng.uniform(0.8, 1), rng.uniform(0.6, 1)])
    power = rng.uniform(0.8, 2.5) if sunny else rng.uniform(0.0, 0.4)
    scene.lights.append(Light(place, power * tint, softness=rng.uniform(0.6, 2) if sunny else 7.0))


class Street:
    """A straight road along y, ``half`` wide to each side, with kerbs and pavements."""

    def __init__(self, scene: Scene, half: float, walk: float, level: float) -> None:
        self.scene, self.half, self.walk, self.level = scene, half, walk, level
        scene.add(plate(600, 600), scene.look(
            "grass" if scene.rng.random() < 0.5 else "ground", fresh=True), (0, 150, -0.03))
        scene.add(plate(2 * half, 330), scene.look("road", fresh=True), (0, 150, 0))
        pavement, stone = scene.look("pavement"), scene.look("pavement")
        if walk > 0:
            for side in (-1, 1):
                middle = side * (half + walk / 2)
                scene.add(box((walk / 2, 165, level)), pavement, (middle, 150, 0))
                scene.add(box((0.08, 165, level + 0.01)), stone, (side * half, 150, 0))
        self._markings()

    def _markings(self) -> None:
        scene, rng = self.scene, self.scene.rng
        paint = scene.look("plastic", bias=np.full(3, rng.uniform(0.5, 0.9)), tile=-1)
        lanes = np.linspace(-self.half, self.half, int(rng.integers(2, 5)))[1:-1]
        for x in lanes:
            pitch = rng.choice([0.0, 3.0, 6.0])
            starts = np.array([60.0]) if pitch == 0 else np.arange(0, 120, 2 * pitch)
            size = 140.0 if pitch == 0 else pitch
            marks = np.stack([np.full(len(starts), x), starts, np.full(len(starts), 0.012)], 1)
            scene.add(copies(plate(0.12, size), marks, np.tile(np.eye(3), (len(starts), 1, 1)),
                             np.ones((len(starts), 3))), paint, casts=False)
        if rng.random() < 0.2:  # a crossing
            y = rng.uniform(6, 30)
            for x in np.arange(-self.half + 0.4, self.half, 1.0):
                scene.add(plate(0.5, 3), paint, (x, y, 0.013), casts=False)
        if rng.random() < 0.25:  # rails
            x = rng.uniform(-0.6, 0.6) * self.half
            scene.add(plate(0.07, 300), scene.look("metal"), (x, 150, 0.014), casts=False)
            scene.add(plate(0.07, 300), scene.look("metal"), (x + 1.4, 150, 0.014), casts=False)

    def beside(self, low: float, high: float, near: float = 4, far: float = 55
               ) -> tuple[np.ndarray, int]:
        """A place on a side at this distance from the kerb, nearer ones more often."""
        rng, side = self.scene.rng, int(self.scene.rng.choice([-1, 1]))
        y = near + (far - near) * rng.random() ** 1.6
        return np.array([side * (self.half + rng.uniform(low, high)), y, self.level]), side

    def buildings(self, gap: float, back: tuple[float, float]) -> None:
        """Houses in a row on both sides."""
        scene, rng = self.scene, self.scene.rng
        for side in (-1, 1):
            along = rng.uniform(-5, 6)
            while along < 110 and rng.random() < 0.95:
                half = rng.uniform([3, 4, 2.5], [6, 9, 9])
                front = self.half + self.walk + rng.uniform(*back)
                with scene.at((side * (front + half[0]), along + half[1], 0)):
                    building(scene, half, -side, along < 25)
                along += 2 * half[1] + (rng.random() < gap) * rng.uniform(1, 15)

    def parked(self, number: int) -> None:
        """Vehicles along the kerbs."""
        scene, rng = self.scene, self.scene.rng
        for _ in range(number):
            side, y = rng.choice([-1, 1]), rng.uniform(2, 45)
            turn = rng.normal(0, 0.04) + np.pi * (rng.random() < 0.5)
            with scene.at((side * (self.half - 1.05), y, 0), turn):
                vehicle(scene, y < 16)

    def traffic(self, number: int) -> None:
        """Vehicles and riders on the lanes."""
        scene, rng = self.scene, self.scene.rng
        for _ in range(number):
            x, y = rng.uniform(-0.75, 0.75) * self.half, rng.uniform(6, 75)
            with scene.at((x, y, 0), rng.normal(0, 0.06) + np.pi * (x < 0)):
                if rng.random() < 0.12 and y < 30:
                    scene.one_of(1, rider)
                elif rng.random() < 0.15 and abs(x - scene.position[0]) > 1.6:
                    scene.one_of(2, lorry, family="paint")
                else:
                    vehicle(scene, y < 16)

    def green(self, number: int) -> None:
        """Trees, bushes, hedges, fences on the sides."""
        scene, rng = self.scene, self.scene.rng
        for _ in range(number):
            place, side = self.beside(0.6, self.walk + 7, 5, 70)
            far = place[1] > 18
            with scene.at(place, rng.uniform(0, 6)):
                pick = rng.integers(10)
                if pick < 5:
                    grove(scene, far)
                elif pick < 6:
                    scene.one_of(2, conifer, rng.uniform(0.6, 1.2))
                elif pick < 8:
                    scene.one_of(2, bush, rng.uniform(0.6, 1.4))
                else:
                    with scene.at((0, 0, 0), _ALONG - scene.yaw):
                        (hedge if pick == 8 else fence)(scene, rng.uniform(2, 9))

    def posts(self, number: int) -> None:
        """Lamp posts, signs, traffic lights, wires, bollards, bins, people."""
        scene, rng = self.scene, self.scene.rng
        for _ in range(number):
            place, side = self.beside(0.3, max(0.6, min(self.walk, 2.5)), 3, 45)
            with scene.at(place):
                _ALONG_KERBS[rng.integers(len(_ALONG_KERBS))](scene, side)

    def wires(self) -> None:
        """Poles with wires between them."""
        scene, rng = self.scene, self.scene.rng
        x, high = (self.half + 0.7) * rng.choice([-1, 1]), rng.uniform(5, 8)
        look, places = scene.look("wood"), np.arange(rng.uniform(2, 10), 90, rng.uniform(15, 30))
        feet = np.stack([np.full(len(places), x), places, np.zeros(len(places))], 1)
        tops = feet + [0, 0, high + 0.3]
        scene.bars(np.stack([feet, tops], 1), rng.uniform(0.06, 0.14), look, 8)
        for first, second in zip(feet[:-1], feet[1:]):
            hanging_wires(scene, first + [0, 0, high], second + [0, 0, high],
                          rng.uniform(0.01, 0.025), 0.5, 2)


def building(scene: Scene, half: np.ndarray, facing: int, near: bool) -> None:
    """A house around the present axes, its front towards x * facing."""
    rng = scene.rng
    wall = scene.look("facade", fresh=True, offset=np.zeros(2))
    scene.add(box(half), wall, (0, 0, half[2]))
    if rng.random() < 0.5:
        rise = rng.uniform(1, 3)
        outline = np.array([[-half[0] - 0.3, 0], [half[0] + 0.3, 0], [0, rise]])
        scene.add(extrusion(outline, half[1] + 0.2), scene.look("cardboard"),
                  (0, 0, 2 * half[2]))
    if not near:
        return
    front, frame = facing * half[0], scene.look("wall")
    pane = scene.look("dark_glass", fresh=True)
    step, floor = rng.uniform(1.8, 3.2), rng.uniform(2.6, 3.4)
    spots = np.array([(front, y, z) for y in np.arange(-half[1] + 1.2, half[1] - 0.8, step)
                      for z in np.arange(1.6, 2 * half[2] - 0.8, floor)])
    if len(spots) and rng.random() < 0.7:
        same = np.tile(np.eye(3), (len(spots), 1, 1)), np.ones((len(spots), 3))
        size = rng.uniform([0.4, 0.5], [0.8, 0.9])
        scene.add(copies(box((0.06, size[0] + 0.1, size[1] + 0.1)), spots, *same), frame)
        scene.add(copies(box((0.08, *size)), spots, *same), pane)
        scene.add(copies(box((0.2, size[0] + 0.15, 0.04)),
                         spots - [0, 0, size[1] + 0.1], *same), frame)
    if rng.random() < 0.4:  # balconies or an awning
        chosen = spots[rng.random(len(spots)) < 0.3]
        for y, z in chosen[:4, 1:]:
            scene.add(box((0.6, 0.9, 0.06)), frame, (front + facing * 0.6, y, z - 1))
            x = front + facing * 1.15
            bars = [[(x, y + s, z - 1), (x, y + s, z - 0.1)] for s in np.linspace(-0.9, 0.9, 10)]
            scene.bars(bars, 0.012, scene.look("metal"), 4)
    if rng.random() < 0.3:
        scene.add(box((0.7, half[1] * 0.7, 0.03)), scene.look("fabric"),
                  (front + facing * 0.7, 0, 2.7), rotation(0, 0, -0.3 * facing))


def rider(scene: Scene) -> None:
    """Somebody on two wheels, heading to +y."""
    with scene.at((0, 0, 0), _ALONG):
        (bicycle, motorbike)[scene.rng.integers(2)](scene)
    with scene.at((0, 0.3, 0.45), np.pi):
        person(scene, sits=True)


def _sign(scene: Scene, side: int) -> None:
    rng, high = scene.rng, scene.rng.uniform(1.8, 3)
    scene.bars([[(0, 0, 0), (0, 0, high)]], rng.uniform(0.02, 0.05), scene.look("metal"))
    wide = rng.uniform(0.2, 0.45)
    count = int(rng.choice([3, 4, 8, 24]))
    angle = np.arange(count) * 2 * np.pi / count + rng.choice([0, np.pi / count])
    outline = wide * np.stack([np.cos(angle), np.sin(angle)], 1)
    scene.add(extrusion(outline, 0.01), scene.look(
        str(rng.choice(["package", "paint", "picture"])), fit=(2.2 * wide, 2.2 * wide)),
        (0, -0.05, high - wide * 0.5), rotation(rng.normal(0, 0.2)))


def _lamp_post(scene: Scene, side: int) -> None:
    rng, high = scene.rng, scene.rng.uniform(4, 9)
    metal, reach = scene.look("metal"), scene.rng.uniform(0, 2.5)
    scene.bars([[(0, 0, 0), (0, 0, high)], [(0, 0, high), (-side * reach, 0, high + 0.3)]],
               rng.uniform(0.04, 0.1), metal, 8)
    scene.add(box((0.3, 0.12, 0.06)), metal, (-side * reach, 0, high + 0.25))


def _signals(scene: Scene, side: int) -> None:
    high = scene.rng.uniform(2.5, 5)
    scene.bars([[(0, 0, 0), (0, 0, high)]], 0.06, scene.look("metal"), 8)
    lights_in_a_box(scene, high - 0.5)


def _bollards(scene: Scene, side: int) -> None:
    rng = scene.rng
    look, high = scene.look(str(rng.choice(["paint", "metal"]))), rng.uniform(0.5, 1.1)
    places = [(0, y, 0) for y in np.arange(0, 12, rng.uniform(1.2, 2.5))]
    scene.bars([[p, (0, p[1], high)] for p in places], rng.uniform(0.04, 0.1), look, 8)
    if rng.random() < 0.4:
        for p, q in zip(places[:-1], places[1:]):
            hanging_wires(scene, np.add(p, [0, 0, high]).astype(float),
                          np.add(q, [0, 0, high]).astype(float), 0.015, 0.25)


def _person(scene: Scene, side: int) -> None:
    for _ in range(scene.rng.choice([1, 1, 2, 3])):
        with scene.at((*scene.rng.normal(0, 0.7, 2), 0), scene.rng.uniform(0, 6.3)):
            scene.one_of(2, person)


def _street_thing(scene: Scene, side: int) -> None:
    """A bench, a bin, a bicycle, a table, goods, a ball."""
    with scene.at((0, 0, 0), scene.rng.choice([_ALONG, -_ALONG]) + scene.rng.normal(0, 0.2)):
        (bench, bin_, bicycle, bicycle, table, heap, motorbike)[scene.rng.integers(7)](scene)


_ALONG_KERBS = (_sign, _sign, _lamp_post, _signals, _bollards, _person, _person, _street_thing)


def _horizon(scene: Scene) -> None:
    """Hills, and the edges of woods."""
    rng = scene.rng
    for _ in range(rng.choice([0, 3, 6, 10])):
        side, y = rng.choice([-1, 1]), rng.uniform(25, 95)
        with scene.at((side * rng.uniform(14, 40), y, 0), rng.uniform(0, 3)):
            scene.one_of(2, thicket, rng.uniform(0.7, 1.5))
    for _ in range(rng.integers(0, 5)):
        look = scene.look(str(rng.choice(["hedge", "grass", "facade"])), size=6, fresh=True)
        scene.add(sphere(8, 14), look, (rng.uniform(-80, 80), rng.uniform(90, 130), -3),
                  scale=rng.uniform([15, 6, 5], [50, 14, 18]))


def _set_off(rng: np.random.Generator, bank: TextureBank, camera: Camera, half: float) -> Scene:
    position = np.array([rng.uniform(-0.5, 0.6) * half, 0, rng.uniform(1.1, 2.3)])
    scene = start(rng, bank, camera, position, rng.normal(0, 0.25), -3, 5)
    daylight(scene)
    _horizon(scene)
    return scene


def city(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """A street between houses."""
    half = rng.uniform(3, 8)
    scene = _set_off(rng, bank, camera, half)
    street = Street(scene, half, rng.uniform(1.5, 5), rng.uniform(0.08, 0.18))
    street.buildings(0.35, (0, 3))
    street.parked(int(rng.integers(2, 10)))
    street.traffic(int(rng.integers(1, 7)))
    street.green(int(rng.integers(0, 7)))
    street.posts(int(rng.integers(4, 14)))
    if rng.random() < 0.5:
        street.wires()
    return scene


def suburb(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """A road between gardens and trees."""
    half = rng.uniform(2.5, 5)
    scene = _set_off(rng, bank, camera, half)
    street = Street(scene, half, rng.choice([0, rng.uniform(1, 2.5)]), rng.uniform(0.05, 0.15))
    if rng.random() < 0.7:
        street.buildings(0.9, (4, 12))
    for side in (-1, 1):
        if rng.random() < 0.6:
            with scene.at((side * (half + street.walk + rng.uniform(0.3, 2)), 20, 0), _ALONG):
                (hedge, fence, fence)[rng.integers(3)](scene, 20)
        if rng.random() < 0.3:
            with scene.at((side * (half + street.walk + 6), 2, 0)):
                rough_ground(scene, 11, 60, 0.5)
                grass_tufts(scene, 400, 10, 20)
    street.green(int(rng.integers(5, 16)))
    street.parked(int(rng.integers(1, 8)))
    street.traffic(int(rng.integers(0, 4)))
    street.posts(int(rng.integers(2, 9)))
    if rng.random() < 0.4:
        street.wires()
    return scene


def highway(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """A wide road with barriers, lorries, bridges, trees far away."""
    half = rng.uniform(7, 13)
    scene = _set_off(rng, bank, camera, half)
    street = Street(scene, half, 0, 0)
    for side in (-1, 1):
        with scene.at((side * (half + 0.4), 40, 0), _ALONG):
            fence(scene, 45)
    street.traffic(int(rng.integers(5, 15)))
    if rng.random() < 0.5:
        _bridge(scene, half)
    street.green(int(rng.integers(4, 14)))
    street.posts(int(rng.integers(2, 9)))
    return scene


def _bridge(scene: Scene, half: float) -> None:
    rng = scene.rng
    with scene.at((0, rng.uniform(15, 60), 0), rng.normal(0, 0.3)):
        look, high = scene.look("wall", fresh=True), rng.uniform(4.5, 7)
        scene.add(box((50, rng.uniform(2, 6), 0.5)), look, (0, 0, high))
        scene.bars([[(x, 0, 0), (x, 0, high)] for x in (-half - 1, 0, half + 1)], 0.6, look, 10)
        with scene.at((0, -2, high + 0.4)):
            fence(scene, 40)


def car_park(rng: np.random.Generator, bank: TextureBank, camera: Camera) -> Scene:
    """Rows of parked cars, near ones too, before whatever stands around."""
    half = rng.uniform(9, 16)
    scene = _set_off(rng, bank, camera, 2.0)
    street = Street(scene, half, rng.uniform(0.5, 3), 0.12)
    lane = rng.uniform(2.2, 3.5)
    for side in (-1, 1):
        for row in range(2):
            x, y = side * (lane + 2.4 + 5 * row), rng.uniform(-1, 4)
            while y < 38:
                if rng.random() < 0.75:
                    with scene.at((x, y, 0), _ALONG * rng.choice([-1, 1]) + rng.normal(0, 0.04)):
                        vehicle(scene, y < 14 and row == 0)
                y += rng.uniform(2.4, 2.9)
    street.buildings(0.5, (1, 6))
    street.green(int(rng.integers(2, 9)))
    for _ in range(rng.integers(0, 4)):
        with scene.at((rng.uniform(-0.8, 0.8) * lane, rng.uniform(4, 25), 0)):
            _person(scene, 1)
    return scene


STREETS = ((city, 0.4), (suburb, 0.3), (highway, 0.15), (car_park, 0.15))
