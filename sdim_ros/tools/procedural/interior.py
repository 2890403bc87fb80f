"""An empty room that is furnished piece by piece, and how a camera enters a scene."""

from __future__ import annotations

import numpy as np

from sdim_ros.core.types import Camera
from sdim_ros.tools.procedural.bank import TILES_PER_KIND, TextureBank
from sdim_ros.tools.procedural.furniture import BY_WALLS, PIECES
from sdim_ros.tools.procedural.meshes import box, lathe, plate, rotation
from sdim_ros.tools.procedural.scene import FORWARD, Light, Scene
from sdim_ros.tools.procedural.things import thing
from sdim_ros.tools.procedural.walls import ON_WALLS

# Turns a piece whose front is towards -y to each of the walls.
_BACK, _LEFT, _RIGHT = 0.0, 0.5 * np.pi, -0.5 * np.pi


def start(rng: np.random.Generator, bank: TextureBank, camera: Camera, position: np.ndarray,
          heading: float, pitch_mean: float, pitch_spread: float = 9.0) -> Scene:
    """A scene without bodies; degrees of pitch, a little roll."""
    pitch, roll = np.deg2rad([np.clip(rng.normal(pitch_mean, pitch_spread), -50, 25),
                              np.clip(rng.normal(0, 3), -9, 9)])
    scene = Scene(camera, position, rotation(heading, pitch, roll) @ FORWARD, rng, bank)
    scene.surroundings = bank.tile("clouds", int(rng.integers(TILES_PER_KIND)))
    return scene


class Room:
    """An empty room around the middle of its front wall's floor; y goes to the back wall."""

    def __init__(self, scene: Scene, wide: float, long: float, tall: float) -> None:
        self.scene, self.wide, self.long, self.tall = scene, wide, long, tall
        self.taken: list[tuple[np.ndarray, float]] = [(scene.position[:2], 0.5)]
        if scene.rng.random() < 0.5:  # dolls' houses and halls of giants
            scene.scale = np.exp(scene.rng.uniform(-0.5, 0.8))
        scene.room = np.array([[-wide / 2, -0.3, 0], [wide / 2, long, tall]])
        self._shell()

    def _shell(self) -> None:
        scene, rng = self.scene, self.scene.rng
        wide, long, tall = self.wide, self.long + 0.3, self.tall
        middle = self.long / 2 - 0.15
        scene.add(plate(wide, long), scene.look("floor"), (0, middle, 0))
        scene.add(plate(wide, long), scene.look("ceiling", fresh=True), (0, middle, tall),
                  casts=False)
        wall = scene.look("wall", fresh=True)
        upright = rotation(0, np.pi / 2)
        for end in (-0.3, self.long):
            scene.add(plate(wide, tall), wall, (0, end, tall / 2), upright, casts=False)
        for side in (-1, 1):
            look = wall if rng.random() < 0.65 else scene.look("wall", fresh=True)
            scene.add(plate(long, tall), look, (side * wide / 2, middle, tall / 2),
                      rotation(np.pi / 2, np.pi / 2), casts=False)
        if rng.random() < 0.5:  # skirting
            look, high = scene.look("wood"), rng.uniform(0.03, 0.12)
            for side in (-1, 1):
                scene.add(box((0.008, long / 2, high)), look, (side * wide / 2, middle, high))
            scene.add(box((wide / 2, 0.008, high)), look, (0, self.long, high))

    def _wall(self) -> tuple[np.ndarray, float]:
        """A place on the floor line of the back or a side wall, and the turn towards it."""
        rng = self.scene.rng
        if rng.random() < 0.45:
            return np.array([rng.uniform(-0.42, 0.42) * self.wide, self.long, 0]), _BACK
        side = rng.choice([-1, 1])
        place = np.array([side * self.wide / 2, rng.uniform(0.25, 0.95) * self.long, 0])
        return place, _LEFT if side < 0 else _RIGHT

    def decorate(self, number: int) -> None:
        """Pictures, windows, doors, curtains, boards, pipes, sockets on the walls."""
        for _ in range(number):
            place, turn = self._wall()
            with self.scene.at(place, turn):
                ON_WALLS[self.scene.rng.integers(len(ON_WALLS))](self.scene, self.tall)

    def spot(self, radius: float, near: float = 0.12) -> np.ndarray | None:
        """A free place on the floor that the camera may see, or None."""
        scene, rng = self.scene, self.scene.rng
        for _ in range(12):
            place = rng.uniform([-0.45 * self.wide, near * self.long],
                                [0.45 * self.wide, 0.95 * self.long])
            ahead = (np.append(place, 0.5) - scene.position) @ scene.attitude
            sideways = abs(ahead[0]) * scene.camera.fx / max(ahead[2], 0.1)
            if ahead[2] > 0.6 + radius and sideways < 0.65 * scene.camera.width and all(
                    np.linalg.norm(place - other) > 0.75 * (radius + size)
                    for other, size in self.taken):
                self.taken.append((place, radius))
                return np.append(place, 0.0)
        return None

    def line(self, share: float) -> None:
        """Furniture side by side along this share of the back and the side walls."""
        scene, rng = self.scene, self.scene.rng
        runs = [(_BACK, np.array([-self.wide / 2, self.long, 0]), np.array([1.0, 0, 0]),
                 self.wide)]
        for side, turn in ((-1, _LEFT), (1, _RIGHT)):
            runs.append((turn, np.array([side * self.wide / 2, 1.2, 0]), np.array([0, 1.0, 0]),
                         self.long - 1.6))
        for turn, corner, way, length in runs:
            along = rng.uniform(0.3, 1.0)
            while along < length - 0.4:
                if rng.random() < share:
                    with scene.at(corner + way * along, turn), scene.at((0, -0.38, 0)):
                        BY_WALLS[rng.integers(len(BY_WALLS))](scene)
                along += rng.uniform(1.0, 1.9)

    def furnish(self, number: int) -> None:
        """Furniture in the middle of the room."""
        scene, rng = self.scene, self.scene.rng
        for _ in range(number):
            place = self.spot(0.6)
            if place is not None:
                with scene.at(place, rng.uniform(0, 6.3)):
                    PIECES[rng.integers(len(PIECES))](scene)

    def litter(self, number: int) -> None:
        """Small things on the floor."""
        for _ in range(number):
            place = self.spot(0.2)
            if place is not None:
                with self.scene.at(place):
                    thing(self.scene, self.scene.rng.uniform(0.15, 0.7))

    def light(self) -> None:
        """Lamps on the ceiling or beside the camera, daylight from a side, and their colours."""
        scene, rng = self.scene, self.scene.rng
        scene.ambient = rng.uniform(0.04, 0.3) * rng.uniform(0.85, 1, 3)
        scene.sky, scene.ground = rng.uniform(0.3, 1.2) * np.ones(3), rng.uniform(0.05, 0.3, 3)
        shown = rng.random() < 0.5
        for order in range(rng.integers(1, 3)):
            place = rng.uniform([-0.45 * self.wide, 0.05 * self.long, 0.85 * self.tall],
                                [0.45 * self.wide, 0.95 * self.long, 0.96 * self.tall])
            power = rng.uniform(0.4, 1.3) * rng.uniform([1, 0.75, 0.5], 1)
            soft = np.exp(rng.uniform(np.log(0.6), np.log(7))) if order == 0 else 0.0
            if order == 0 and rng.random() < 0.2:  # the camera's own light
                place = scene.position + rng.normal(0, 0.12, 3)
            elif shown:
                self._fitting(place)
                place = place - [0, 0, 0.15]
            scene.lights.append(Light(place, power, rng.uniform(1.5, 5), soft * (
                rng.random() < 0.8)))

    def _fitting(self, place: np.ndarray) -> None:
        scene, rng = self.scene, self.scene.rng
        glow = scene.look("plastic", glow=3.0, bias=np.full(3, 0.9), tile=-1)
        if rng.random() < 0.5:
            scene.add(box((rng.uniform(0.1, 0.6), rng.uniform(0.08, 0.3), 0.03)), glow,
                      (place[0], place[1], self.tall - 0.03), casts=False)
        else:
            scene.add(lathe([0.12, 0.05, 0.02], [0, 0.1, 0.12], 12), glow, place, casts=False)
            scene.bars([[place, (place[0], place[1], self.tall)]], 0.006, scene.look("rubber"))
