"""A scene: bodies, materials, lights, surroundings, and who looks at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sdim_ros.core.types import Camera
from sdim_ros.tools.procedural.bank import TextureBank
from sdim_ros.tools.procedural.materials import Material, draw_material
from sdim_ros.tools.procedural.meshes import Mesh, join, rods, rotation
from sdim_ros.tools.procedural.raster import NOTHING, clip_near, rasterize

# Columns: right, down and forward of a camera that looks along +y.
FORWARD = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
NEAR_M = 0.05
# How much of the surfaces of a scene look like another one: depth edges without contrast.
ALIKE = 0.15


@dataclass
class Light:
    """A lamp, or the sun.

    Attributes:
        place: (3,) world axes, metres; of the sun only the direction counts.
        power: (3,) linear RGB.
        reach: distance in metres at which a lamp has half its power; inf for the sun.
        softness: radius of the border of its shadows in texels of the shadow map; 0 = no shadows.
    """

    place: np.ndarray
    power: np.ndarray
    reach: float = np.inf
    softness: float = 0.0


@dataclass(frozen=True)
class Geometry:
    """All triangles of a scene, in the axes of its camera.

    Attributes:
        points, normals: (V, 3) float64. uv: (V, 2) float64. faces: (F, 3) int64.
        part, material: (F,) the body and the material of a face.
        casts: (F,) whether it gives shadow.
    """

    points: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    part: np.ndarray
    material: np.ndarray
    casts: np.ndarray


@dataclass(frozen=True)
class Piece:
    """A placed body, or several of them as one.

    Attributes:
        material, part: one number for all faces, or (F,).
        casts: whether it gives shadow.
        main: the material that gives a model its colour.
    """

    mesh: Mesh
    material: int | np.ndarray
    part: int | np.ndarray = 0
    casts: bool = True
    main: int = 0


@dataclass
class Scene:
    """World axes: x right, y forward, z up, metres.

    Attributes:
        position, attitude: camera centre (3,) and camera-to-world rotation (3, 3).
        rng, bank: what the scene is drawn from.
        ambient: (3,) light from everywhere.
        sky, ground: (3,) light from above and below where no body is, and in mirrors.
        surroundings: tile that mirrors show, and whose clouds are in the sky.
        room: (2, 3) lowest and highest corner of the room, or None: corners are darker.
        scale: metres per unit; a larger world looks the same, so that only depth is multiplied.
    """

    camera: Camera
    position: np.ndarray
    attitude: np.ndarray
    rng: np.random.Generator
    bank: TextureBank
    ambient: np.ndarray = field(default_factory=lambda: np.full(3, 0.3))
    sky: np.ndarray = field(default_factory=lambda: np.full(3, 0.8))
    ground: np.ndarray = field(default_factory=lambda: np.full(3, 0.2))
    surroundings: int = 0
    room: np.ndarray | None = None
    scale: float = 1.0
    lights: list[Light] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)
    _pieces: list[Piece] = field(default_factory=list)
    _models: dict[Callable[[Scene], None], list[Piece]] = field(default_factory=dict)
    _center: np.ndarray = field(default_factory=lambda: np.zeros(3))
    _turn: np.ndarray = field(default_factory=lambda: np.eye(3))

    @property
    def yaw(self) -> float:
        """Turn about z of the present axes."""
        return float(np.arctan2(self._turn[1, 0], self._turn[0, 0]))

    @contextmanager
    def at(self, center: Sequence[float], turn: np.ndarray | float = 0.0) -> Iterator[None]:
        """What is added inside is placed in axes at this centre, turned by (3, 3) or a yaw."""
        before = self._center, self._turn
        if not isinstance(turn, np.ndarray):
            turn = rotation(float(turn))
        self._center = self._turn @ np.asarray(center, float) + self._center
        self._turn = self._turn @ turn
        yield
        self._center, self._turn = before

    def add(self, mesh: Mesh, material: int, center: Sequence[float] = (0, 0, 0),
            turn: np.ndarray | None = None, scale: float | Sequence[float] = 1.0,
            casts: bool = True) -> None:
        """Place a body of one material."""
        center = self._turn @ np.asarray(center, float) + self._center
        turn = self._turn if turn is None else self._turn @ turn
        self._pieces.append(Piece(mesh.placed(center, turn, scale), material, 0, casts))

    def model(self, build: Callable[[Scene], None]) -> Piece:
        """What a function would build at the origin; its first new material is the main one."""
        before, self._pieces, main = self._pieces, [], len(self.materials)
        frame, self._center, self._turn = (self._center, self._turn), np.zeros(3), np.eye(3)
        build(self)
        built, self._pieces = self._pieces, before
        self._center, self._turn = frame
        return replace(_joined(built), main=main)

    def put(self, model: Piece, scale: float = 1.0, main: int | None = None) -> None:
        """Place a model, with another main material if one is given."""
        material = model.material
        if main is not None:
            material = np.where(material == model.main, main, material)
        mesh = model.mesh.placed(self._center, self._turn, scale)
        self._pieces.append(Piece(mesh, material, model.part, model.casts))

    def one_of(self, variants: int, build: Callable[[Scene], None], scale: float = 1.0,
               family: str | None = None) -> None:
        """Place one of so many variants of what a function builds: a street has few kinds of car.

        With a family its main material is drawn from it, so that the variants differ in colour.
        """
        models = self._models.setdefault(build, [])
        pick = int(self.rng.integers(variants))
        if pick >= len(models):
            models.append(self.model(build))
        self.put(models[min(pick, len(models) - 1)], scale, self.look(family) if family else None)

    def bars(self, ends: Sequence[Any], radius: float | np.ndarray, material: int,
             sides: int = 6) -> None:
        """Straight bars between pairs of points, (N, 2, 3)."""
        ends = np.asarray(ends, float)
        self.add(rods(ends[:, 0], ends[:, 1], radius, sides), material)

    def look(self, family: str, fit: Sequence[float] | None = None, size: float | None = None,
             fresh: bool = False, **changes: Any) -> int:
        """The number of a material, at times one that the scene has already.

        Args:
            family, fit, size: as ``draw_material`` takes them.
            fresh: a new one in any case.
            changes: attributes to set on the new one.
        """
        if not (fresh or changes) and fit is None and self.materials and self.rng.random() < ALIKE:
            number = int(self.rng.integers(len(self.materials)))
            if self.materials[number].known and not self.materials[number].glow:
                return number
        material = draw_material(self.rng, self.bank, family, fit, size)
        self.materials.append(replace(material, **changes) if changes else material)
        return len(self.materials) - 1

    def geometry(self) -> Geometry:
        """Everything that was added."""
        casts = np.repeat([piece.casts for piece in self._pieces],
                          [len(piece.mesh.faces) for piece in self._pieces])
        whole = _joined(self._pieces)
        return Geometry((whole.mesh.points - self.position) @ self.attitude,
                        whole.mesh.normals @ self.attitude, whole.mesh.uv, whole.mesh.faces,
                        whole.part, whole.material, casts)


def _joined(pieces: Sequence[Piece]) -> Piece:
    """Pieces as one, with a material and a part for every face."""
    faces = [len(piece.mesh.faces) for piece in pieces]
    first, parts = 0, []
    for piece in pieces:
        parts.append(first + piece.part)
        first += int(np.max(piece.part)) + 1
    material, part = (np.concatenate([np.broadcast_to(value, count)
                                      for value, count in zip(values, faces)])
                      for values in ([piece.material for piece in pieces], parts))
    return Piece(join([piece.mesh for piece in pieces]), material, part)


class View:
    """A camera's projection of a geometry, cut at the near plane once and for all."""

    def __init__(self, geometry: Geometry, camera: Camera) -> None:
        self.camera = camera
        points, self.faces, self.source = clip_near(geometry.points, geometry.faces, NEAR_M)
        # Points behind the camera belong to no face that is left.
        self.nearness = 1 / np.maximum(points[:, 2], NEAR_M / 2)
        self.screen = (points[:, :2] * self.nearness[:, None] * [camera.fx, camera.fy]
                       + [camera.cx, camera.cy])

    def cast(self, shift: float = 0.0, more: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Planar depth (inf = nothing) and face (-1 = nothing), (H + more, W + more).

        Pixel (0, 0) of the result is ``shift`` pixels left of and above that of the camera.
        """
        nearness, face = rasterize(self.screen + shift, self.nearness, self.faces,
                                   self.camera.width + more, self.camera.height + more)
        with np.errstate(divide="ignore"):
            return 1 / nearness, np.append(self.source, NOTHING)[face]

    def rays(self, shift: float = 0.0, more: int = 0) -> np.ndarray:
        """Rays (H + more, W + more, 3) float64 with z = 1 of the same pixels."""
        v, u = np.indices((self.camera.height + more, self.camera.width + more)) - shift
        return np.stack([(u - self.camera.cx) / self.camera.fx,
                         (v - self.camera.cy) / self.camera.fy, np.ones_like(u)], -1)
