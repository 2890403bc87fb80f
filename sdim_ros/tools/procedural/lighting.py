"""How bright and of which colour the visible points of a scene are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdim_ros.tools.procedural.meshes import cross
from sdim_ros.tools.procedural.noise import TEXELS
from sdim_ros.tools.procedural.scene import Geometry, Light, Scene
from sdim_ros.tools.procedural.shadows import ShadowMap

# So many points at a time stay in the processor's cache.
_CHUNK = 8192


@dataclass(frozen=True)
class Surface:
    """N visible points, in the axes of the camera, float32.

    Attributes:
        points, normals, view: (N, 3); normals and view (towards the camera) have length 1.
        distance: (N,) from the camera.
        uv: (N, 2) metres along the surface.
        material: (N,) int.
        random: (N,) 0-1, the same for the same point.
    """

    points: np.ndarray
    normals: np.ndarray
    view: np.ndarray
    distance: np.ndarray
    uv: np.ndarray
    material: np.ndarray
    random: np.ndarray


class Lighting:
    """The light of a scene on the points that its camera sees.

    Args:
        faces: (N,) the faces that are seen, of which some may come several times.
        seen: (M, 3) some of the points, in the axes of the camera.
    """

    def __init__(self, scene: Scene, geometry: Geometry, faces: np.ndarray, seen: np.ndarray
                 ) -> None:
        self.scene, self.geometry = scene, geometry
        self.attitude = scene.attitude.astype(np.float32)
        self.materials = _MaterialTable(scene)
        above = Light(np.array([0.0, 0.0, 1.0]), np.ones(3), softness=6.0)
        self.above = ShadowMap(scene, geometry, seen, above, texels=144)
        self.shadows = [ShadowMap(scene, geometry, seen, lamp) if lamp.softness > 0 else None
                        for lamp in scene.lights]
        self._prepare(faces)

    def _prepare(self, faces: np.ndarray) -> None:
        """Small tables of the corners of the seen faces alone."""
        used = np.zeros(len(self.geometry.faces), bool)
        used[faces] = True
        kept = np.flatnonzero(used)
        self._place = np.cumsum(used) - 1
        corners = self.geometry.faces[kept]
        points = self.geometry.points[corners]
        a, b, c = (points[:, i] for i in range(3))
        # The share of a corner is the volume of the ray and the two others.
        crosses = np.stack([cross(b, c), cross(c, a), cross(a, b)], 1)
        self._volume = np.einsum("fc,fc->f", a, crosses[:, 0]).astype(np.float32)
        self._crosses = crosses.astype(np.float32)
        # Normals and texture coordinates of the corners side by side, (F, 3, 5).
        values = np.concatenate([self.geometry.normals, self.geometry.uv], 1).astype(np.float32)
        self._values = values[corners]
        self._material = self.geometry.material[kept]

    def radiance(self, faces: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """Light (N, 3) float32 along rays (N, 3) with z = 1 that meet the given faces (N,).

        Linear RGB, not limited to 1.
        """
        result = np.empty((len(faces), 3), np.float32)
        for start in range(0, len(faces), _CHUNK):
            part = slice(start, start + _CHUNK)
            result[part] = self._shade(self._surface(self._place[faces[part]], rays[part]))
        return result

    def _surface(self, place: np.ndarray, rays: np.ndarray) -> Surface:
        rays = rays.astype(np.float32)
        shares = np.einsum("nkc,nc->nk", self._crosses[place], rays)
        total = shares[:, 0] + shares[:, 1] + shares[:, 2]
        points = rays * (self._volume[place] / total)[:, None]
        shares /= total[:, None]
        values = np.einsum("nk,nkc->nc", shares, self._values[place])
        normals, uv = values[:, :3], values[:, 3:]
        distance = np.sqrt(_dot(points, points))
        view = points / -distance[:, None]
        # Both sides of a surface are shown: its normal is on ours.
        normals = normals * (np.where(_dot(normals, view) < 0, -1, 1)
                             / np.sqrt(_dot(normals, normals) + 1e-12))[:, None].astype(np.float32)
        random = np.sin(points @ np.array([127.1, 311.7, 74.7], np.float32)) * np.float32(43758.5)
        return Surface(points, normals, view, distance, uv, self._material[place],
                       random - np.floor(random))

    def _shade(self, surface: Surface) -> np.ndarray:
        table, scene = self.materials, self.scene
        colour = table.paint(scene, surface)
        gloss, mirror, glow = (values[surface.material] for values in (
            table.gloss, table.mirror, table.glow))
        rises = surface.normals @ self.attitude[2]
        light = scene.ambient.astype(np.float32) * (
            self._open_share(surface) * (np.float32(0.7) + np.float32(0.3) * rises))[:, None]
        glossy = np.flatnonzero(gloss > 0.04)
        shine = np.zeros((len(glossy), 3), np.float32)
        for lamp, shadow in zip(scene.lights, self.shadows):
            towards, arriving = self._towards(surface.points, lamp)
            if shadow is not None:
                arriving = arriving * shadow.open_share(surface.points, surface.normals,
                                                        surface.random)
            power = lamp.power.astype(np.float32)
            light += (arriving * np.maximum(_dot(surface.normals, towards), 0))[:, None] * power
            # Blinn and Phong's highlight: exp(-n (1 - c)) is c ** n, near enough, and faster.
            half = towards[glossy] + surface.view[glossy]
            half /= np.sqrt(_dot(half, half) + 1e-9)[:, None]
            peak = np.exp((_dot(surface.normals[glossy], half) - 1) * table.sharpness[
                surface.material[glossy]])
            shine += (peak * gloss[glossy] * arriving[glossy])[:, None] * power
        result = colour * (light + glow[:, None])
        result[glossy] += shine
        self._mirror(surface, mirror, result)
        return result

    def _towards(self, points: np.ndarray, lamp: Light) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors (N, 3) towards a lamp, and the share (N,) of its power that far away."""
        if np.isinf(lamp.reach):
            towards = lamp.place @ self.scene.attitude / np.linalg.norm(lamp.place)
            return (np.tile(towards.astype(np.float32), (len(points), 1)),
                    np.ones(len(points), np.float32))
        place = (lamp.place - self.scene.position) @ self.scene.attitude
        towards = place.astype(np.float32) - points
        away = np.sqrt(_dot(towards, towards)) + np.float32(1e-6)
        return towards / away[:, None], 2 / (1 + (away / np.float32(lamp.reach)) ** 2)

    def _open_share(self, surface: Surface) -> np.ndarray:
        """Share (N,) of the ambient light not blocked by what is above, or by a corner."""
        share = self.above.open_share(surface.points, surface.normals, surface.random)
        share = np.float32(0.35) + np.float32(0.65) * share
        if self.scene.room is not None:
            world = surface.points @ self.attitude.T + self.scene.position.astype(np.float32)
            normals = np.abs(surface.normals @ self.attitude.T)
            for axis, (low, high) in enumerate(self.scene.room.T.astype(np.float32)):
                away = np.minimum(world[:, axis] - low, high - world[:, axis]) / np.float32(0.3)
                # On the wall itself the distance is zero, but it does not darken itself.
                share *= 1 - 0.45 * (1 - normals[:, axis]) / (1 + away * away)
        return share

    def _mirror(self, surface: Surface, mirror: np.ndarray, result: np.ndarray) -> None:
        """Mix in what mirrors show: a blurred picture between sky and ground."""
        at = np.flatnonzero(mirror > 0.04)
        normals, view, share = surface.normals[at], surface.view[at], mirror[at]
        facing = np.maximum(_dot(normals, view), 0)
        share = share + (1 - share) * share * (1 - facing) ** 3
        way = (2 * facing[:, None] * normals - view) @ self.attitude.T
        result[at] += share[:, None] * (surroundings(self.scene, way, level=3) - result[at])


class _MaterialTable:
    """The attributes of all materials of a scene as arrays."""

    def __init__(self, scene: Scene) -> None:
        materials = scene.materials
        for name in ("gloss", "sharpness", "mirror", "glow"):
            setattr(self, name, np.array([getattr(m, name) for m in materials], np.float32))
        # What is plain looks up a tile as well, but nothing of it is mixed in.
        self.tile = np.array([max(m.tile, 0) for m in materials])
        self.bias = np.array([m.bias for m in materials], np.float32)
        mixing = np.array([m.mixing * (m.tile >= 0) for m in materials], np.float32)
        self.mixing = [np.ascontiguousarray(mixing[:, i]) for i in range(3)]
        size = np.array([m.size for m in materials])
        angle = np.array([m.angle for m in materials])
        self.smallest = size.min(1).astype(np.float32)
        turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], -1)
        # (4, M): factors of u and v for the first and the second texture coordinate.
        self.to_tile = (turn / np.repeat(size, 2, axis=1)).T.astype(np.float32).copy()
        self.offset = np.array([m.offset for m in materials]).T.astype(np.float32).copy()

    def paint(self, scene: Scene, surface: Surface) -> np.ndarray:
        """Colour (N, 3) of the points under white light."""
        material = surface.material
        slant = np.maximum(_dot(surface.normals, surface.view), np.float32(0.05))
        footprint = surface.distance / (np.float32(scene.camera.fx) * np.sqrt(slant))
        texels = np.log2(footprint * TEXELS / self.smallest[material])
        # A random choice between the two nearest levels hides where they change.
        level = np.maximum(texels + (surface.random - np.float32(0.3)), 0).astype(np.int64)
        u, v = surface.uv[:, 0], surface.uv[:, 1]
        first, second = (
            self.to_tile[2 * i][material] * u + self.to_tile[2 * i + 1][material] * v
            + self.offset[i][material] for i in (0, 1))
        texel = scene.bank.sample(self.tile[material], first, second, level)
        colour = self.bias[material]
        for channel, mixing in enumerate(self.mixing):
            colour += texel[:, channel, None] * mixing[material]
        return np.clip(colour, 0, 1)


def surroundings(scene: Scene, way: np.ndarray, level: int = 1) -> np.ndarray:
    """Light (N, 3) float32 from world directions (N, 3) in which nothing is."""
    rise = way[:, 2] / np.sqrt(_dot(way, way))
    around = np.arctan2(way[:, 0], way[:, 1]) / np.float32(np.pi)
    picture = scene.bank.sample(np.full(len(way), scene.surroundings), around, rise,
                                np.full(len(way), level))
    above = np.clip(rise * 6 + 0.5, 0, 1)[:, None]
    base = scene.ground + (scene.sky - scene.ground) * above
    return (base * (0.6 + 0.8 * picture)).astype(np.float32)


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.einsum("nc,nc->n", first, second)
