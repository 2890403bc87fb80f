"""Triangle meshes of simple bodies: grids, boxes, lathes, extrusions, tubes, rods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Mesh:
    """Triangles with what shading needs.

    Attributes:
        points, normals: (V, 3) float64, metres; normals have any length.
        uv: (V, 2) float64, metres along the surface.
        faces: (F, 3) int64, of either orientation: both sides of a surface are shown.
    """

    points: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    faces: np.ndarray

    def placed(self, center: Sequence[float] = (0, 0, 0), turn: np.ndarray | None = None,
               scale: float | Sequence[float] = 1.0) -> Mesh:
        """Scaled along its own axes, then turned by (3, 3), then moved."""
        points, normals, uv = self.points, self.normals, self.uv
        if not (isinstance(scale, float) and scale == 1.0):
            scale = np.asarray(scale, float)
            points, normals, uv = points * scale, normals / scale, uv * np.mean(scale)
        if turn is not None:
            points, normals = points @ turn.T, normals @ turn.T
        return Mesh(points + center, normals, uv, self.faces)


def rotation(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Turn about z, then x, then y (radians), (3, 3) float64."""
    turned = np.eye(3)
    for angle, axis in ((yaw, 2), (pitch, 0), (roll, 1)):
        if angle == 0:
            continue
        cosine, sine = np.cos(angle), np.sin(angle)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[[i, j], [i, j]] = cosine
        step[i, j], step[j, i] = -sine, sine
        turned = turned @ step
    return turned


def cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cross product along the last axis: np.cross takes longer to begin than to compute."""
    (a, b, c), (d, e, f) = np.moveaxis(first, -1, 0), np.moveaxis(second, -1, 0)
    return np.stack([b * f - c * e, c * d - a * f, a * e - b * d], -1)


def join(meshes: Sequence[Mesh]) -> Mesh:
    """Several meshes as one."""
    shifts = np.cumsum([0] + [len(mesh.points) for mesh in meshes[:-1]])
    return Mesh(*(np.concatenate([getattr(mesh, name) for mesh in meshes])
                  for name in ("points", "normals", "uv")),
                np.concatenate([mesh.faces + shift for mesh, shift in zip(meshes, shifts)]))


def copies(mesh: Mesh, centers: np.ndarray, turns: np.ndarray, scales: np.ndarray) -> Mesh:
    """N placed copies of one mesh as one: centers (N, 3), turns (N, 3, 3), scales (N, 3)."""
    number, size = len(centers), len(mesh.points)
    points = np.einsum("nij,nvj->nvi", turns, mesh.points * scales[:, None]) + centers[:, None]
    normals = np.einsum("nij,nvj->nvi", turns, mesh.normals / scales[:, None])
    shifts = np.arange(number)[:, None, None] * size
    return Mesh(points.reshape(-1, 3), normals.reshape(-1, 3),
                (mesh.uv * scales.mean(1)[:, None, None]).reshape(-1, 2),
                (mesh.faces + shifts).reshape(-1, 3))


@lru_cache(maxsize=256)
def _grid_faces(rows: int, columns: int) -> np.ndarray:
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    right, below, across = corner + 1, corner + columns, corner + columns + 1
    return np.concatenate([np.stack([corner, below, across], 1),
                           np.stack([corner, across, right], 1)])


def grid(points: np.ndarray, uv: np.ndarray | None = None, normals: np.ndarray | None = None
         ) -> Mesh:
    """A surface through (R, C, 3) points, smooth unless its normals say otherwise.

    A last row or column that equals the first closes the surface without a crease.
    """
    rows, columns = points.shape[:2]
    if normals is None:
        normals = cross(_slopes(points, 0), _slopes(points, 1))
    if uv is None:
        uv = np.stack([_lengths(points, 1), _lengths(points, 0)], -1)
    return Mesh(points.reshape(-1, 3), normals.reshape(-1, 3), uv.reshape(-1, 2),
                _grid_faces(rows, columns))


def _slopes(points: np.ndarray, axis: int) -> np.ndarray:
    """Central differences along rows or columns, across the seam of a closed surface."""
    points = points.swapaxes(axis, 0)
    slopes = np.empty_like(points)
    slopes[1:-1] = points[2:] - points[:-2]
    slopes[0], slopes[-1] = points[1] - points[0], points[-1] - points[-2]
    if np.abs(points[0] - points[-1]).max() < 1e-9:
        slopes[0] = slopes[-1] = points[1] - points[-2]
    return slopes.swapaxes(axis, 0)


def _lengths(points: np.ndarray, axis: int) -> np.ndarray:
    """Way (R, C) in metres from the first row or column, along the middle of the surface."""
    line = points.swapaxes(axis, 0)[:, points.shape[1 - axis] // 2]
    steps = line[1:] - line[:-1]
    way = np.zeros(len(line))
    np.cumsum(np.sqrt(np.einsum("nc,nc->n", steps, steps)), out=way[1:])
    return np.repeat(np.expand_dims(way, 1 - axis), points.shape[1 - axis], axis=1 - axis)


_BOX_AXES = ((0, 1, 2), (1, 0, 2), (2, 0, 1))


@lru_cache(maxsize=1)
def _unit_box() -> tuple[np.ndarray, ...]:
    points, normals, plane = [], [], []
    for axis, u, v in _BOX_AXES:
        for side in (-1, 1):
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                point = np.zeros(3)
                point[[axis, u, v]] = side, a, b
                points.append(point)
                normals.append(np.eye(3)[axis] * side)
                plane.append((u, v))
    faces = np.arange(0, 24, 4)[:, None, None] + np.array([[0, 1, 2], [0, 2, 3]])
    return np.array(points), np.array(normals), np.array(plane), faces.reshape(-1, 3)


def box(half: Sequence[float]) -> Mesh:
    """A box of these half sizes around the origin; v of the upright sides is the height."""
    points, normals, plane, faces = _unit_box()
    points = points * np.asarray(half, float)
    return Mesh(points, normals, np.take_along_axis(points, plane, 1), faces)


@lru_cache(maxsize=64)
def _turns(segments: int) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    angle[-1] = 0
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def lathe(radius: Sequence[float], height: Sequence[float], segments: int = 14,
          sharp: bool = False) -> Mesh:
    """A body of revolution around z through K profile points, with edges where sharp."""
    profile = np.stack([np.asarray(radius, float), np.asarray(height, float)], 1)
    step = np.diff(profile, axis=0)
    if sharp:  # every segment of the profile has its own points
        profile = np.stack([profile[:-1], profile[1:]], 1).reshape(-1, 2)
        slope = np.repeat(step, 2, axis=0)
    else:
        slope = np.concatenate([step[:1], step[:-1] + step[1:], step[-1:]])
    circle = _turns(segments)
    points = np.empty((len(profile), segments + 1, 3))
    points[..., :2] = profile[:, None, :1] * circle
    points[..., 2] = profile[:, 1:]
    normals = np.empty_like(points)
    normals[..., :2] = slope[:, None, 1:] * circle
    normals[..., 2] = -slope[:, :1]
    uv = np.empty(points.shape[:2] + (2,))
    uv[..., 0] = np.linspace(0, 2 * np.pi * profile[:, 0].max(), segments + 1)
    uv[..., 1] = np.cumsum(np.concatenate([[0], np.hypot(*np.diff(profile, axis=0).T)]))[:, None]
    return grid(points, uv, normals)


def cylinder(radius: float, half_height: float, segments: int = 14) -> Mesh:
    """A closed cylinder around z, centred at the origin."""
    return lathe([0, radius, radius, 0], [-half_height, -half_height, half_height, half_height],
                 segments, sharp=True)


@lru_cache(maxsize=16)
def sphere(rows: int = 6, columns: int = 10) -> Mesh:
    """A ball of radius 1."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, rows + 1)
    return lathe(np.cos(angle), np.sin(angle), columns)


def superquadric(half: Sequence[float], roundness: float = 0.5, rows: int = 7,
                 columns: int = 12) -> Mesh:
    """Between a box (roundness near 0) and an ellipsoid (1): cushions, tanks, appliances."""
    up = np.linspace(-np.pi / 2, np.pi / 2, rows + 1)[:, None]
    circle = _turns(columns)

    def power(value: np.ndarray, exponent: float) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** exponent

    def body(exponent: float) -> np.ndarray:
        level = power(np.cos(up), exponent)
        return np.stack(np.broadcast_arrays(
            level * power(circle[:, 0], exponent), level * power(circle[:, 1], exponent),
            power(np.sin(up), exponent)), -1)

    half = np.asarray(half, float)
    mesh = grid(body(roundness) * half, normals=body(2 - roundness) / half)
    # Shown from its front, so that a picture on it is not wrapped around.
    return Mesh(mesh.points, mesh.normals, mesh.points[:, [0, 2]], mesh.faces)


def blob(rng: np.random.Generator, half: Sequence[float], roughness: float = 0.25,
         rows: int = 8, columns: int = 12) -> Mesh:
    """A lumpy closed body: bags, stones, bushes, fruit."""
    ball = sphere(rows, columns).points.reshape(rows + 1, columns + 1, 3)
    waves = rng.normal(0, 1.6, (5, 3))
    reach = 1 + roughness * np.sin(ball @ waves.T + rng.uniform(0, 6.3, 5)).mean(-1)
    return grid(ball * reach[..., None] * np.asarray(half, float),
                normals=ball / np.asarray(half, float))


def extrusion(outline: np.ndarray, half_depth: float) -> Mesh:
    """A prism of an outline (K, 2) in x and z that can be seen whole from its middle, along y."""
    count = len(outline)
    flat = np.zeros((count, 3))
    flat[:, [0, 2]] = outline
    middle = flat.mean(0)
    away = np.array([0, half_depth, 0])
    ring = np.arange(count)
    cap = np.stack([np.full(count, count), ring, (ring + 1) % count], 1)
    caps = [Mesh(np.vstack([flat, middle]) + side * away,
                 np.tile([0.0, side, 0.0], (count + 1, 1)),
                 np.vstack([flat, middle])[:, [0, 2]], cap) for side in (-1, 1)]
    start, end = flat, np.roll(flat, -1, 0)
    edge = end - start
    normal = np.stack([edge[:, 2], 0 * ring, -edge[:, 0]], 1)
    corners = np.stack([start - away, end - away, end + away, start + away], 1)
    way = np.cumsum(np.linalg.norm(edge, axis=1))
    before = way - np.linalg.norm(edge, axis=1)
    uv = np.stack([np.stack([before, way, way, before], 1),
                   np.broadcast_to(half_depth * np.array([-1, -1, 1, 1]), (count, 4))], -1)
    faces = 4 * ring[:, None, None] + np.array([[0, 1, 2], [0, 2, 3]])
    sides = Mesh(corners.reshape(-1, 3), np.repeat(normal, 4, axis=0), uv.reshape(-1, 2),
                 faces.reshape(-1, 3))
    return join([*caps, sides])


def tube(path: np.ndarray, radius: float | np.ndarray, sides: int = 7) -> Mesh:
    """A round hose along (K, 3) points, open at its ends; radius is one or (K,)."""
    along = _slopes(path[:, None], 0)[:, 0]
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-12
    # One reference for the whole way keeps the hose from twisting, unless it runs along it.
    reference = np.eye(3)[np.abs(along).max(0).argmin()]
    side = cross(along, reference)
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-12
    other = cross(along, side)
    circle = _turns(sides)
    normals = (side[:, None] * circle[:, :1] + other[:, None] * circle[:, 1:])
    radius = np.broadcast_to(radius, len(path))[:, None, None]
    return grid(path[:, None] + normals * radius, normals=normals)


def ring(radius: float, thickness: float, segments: int = 20, sides: int = 7) -> Mesh:
    """A torus around y, centred at the origin."""
    circle = _turns(segments)
    return tube(radius * np.stack([circle[:, 0], 0 * circle[:, 0], circle[:, 1]], 1), thickness,
                sides)


def rods(starts: np.ndarray, ends: np.ndarray, radius: float | np.ndarray, sides: int = 6
         ) -> Mesh:
    """Straight round bars between (N, 3) points, without caps; radius is one or (N,)."""
    axis = ends - starts
    length = np.linalg.norm(axis, axis=1, keepdims=True) + 1e-12
    along = axis / length
    upright = np.abs(along[:, 2:]) > 0.9
    side = cross(along, np.where(upright, [1.0, 0, 0], [0, 0, 1.0]))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = cross(along, side)
    circle = _turns(sides)
    normals = side[:, None] * circle[:, :1] + other[:, None] * circle[:, 1:]
    radius = np.broadcast_to(radius, len(starts))[:, None, None]
    points = np.stack([starts[:, None] + normals * radius, ends[:, None] + normals * radius], 1)
    uv = np.zeros(points.shape[:3] + (2,))
    uv[..., 0] = radius[:, None, :, 0] * np.linspace(0, 2 * np.pi, sides + 1)
    uv[:, 1, :, 1] = length
    shift = np.arange(len(starts))[:, None, None] * (2 * sides + 2)
    return Mesh(points.reshape(-1, 3), np.stack([normals, normals], 1).reshape(-1, 3),
                uv.reshape(-1, 2), (_grid_faces(2, sides + 1) + shift).reshape(-1, 3))


def plate(width: float, depth: float, parts: int = 1) -> Mesh:
    """A level rectangle around the origin, of parts x parts cells."""
    x, y = (np.linspace(-0.5, 0.5, parts + 1) * size for size in (width, depth))
    points = np.zeros((parts + 1, parts + 1, 3))
    points[..., 0], points[..., 1] = np.meshgrid(x, y)
    return grid(points, points[..., :2].copy())


def leaves(rng: np.random.Generator, number: int, spread: Sequence[float], size: float) -> Mesh:
    """Bent pointed leaves that fill an ellipsoid, most of them near its surface."""
    random = rng.standard_normal((3, number, 3))
    random /= np.sqrt(np.einsum("knc,knc->kn", random, random))[..., None] + 1e-9
    along, across = random[1], cross(random[1], random[2])
    center = random[0] * np.sqrt(rng.uniform(0.15, 1, (number, 1))) * np.asarray(spread, float)
    reach = size * rng.uniform(0.6, 1.3, (number, 1))
    bend = 0.2 * reach * cross(along, across)
    points = np.stack([center - along * reach, center - across * (0.5 * reach) + bend,
                       center + across * (0.5 * reach) + bend, center + along * reach], 1)
    # A leaf is lit as the crown around it is, and a little as it lies itself.
    normals = np.repeat((random[0] + 2.5 * bend / reach)[:, None], 4, axis=1)
    uv = np.tile(size * np.array([[-1.0, 0], [0, -0.5], [0, 0.5], [1, 0]]), (number, 1))
    faces = 4 * np.arange(number)[:, None, None] + np.array([[0, 1, 2], [1, 3, 2]])
    return Mesh(points.reshape(-1, 3), normals.reshape(-1, 3), uv.reshape(-1, 2),
                faces.reshape(-1, 3))
