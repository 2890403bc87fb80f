"""Unit shapes that rays hit: every part of a scene is one of them, scaled, turned and moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sdim_ros.tools.textures import Material

PLATE, BOX, SPHERE, CYLINDER, DOME = range(5)
NEAR_M = 1e-3
_OTHER_AXES = np.array([[1, 2], [0, 2], [0, 1]])


@dataclass
class Part:
    """One primitive: a unit shape scaled by ``half``, turned, and moved to ``center``.

    Attributes:
        shape: PLATE, BOX, SPHERE, CYLINDER or DOME, see ``intersect``.
        center, half: (3,) metres, in world axes and in its own axes.
        turn: (3, 3) from its own axes to world axes.
    """

    shape: int
    center: np.ndarray
    half: np.ndarray
    turn: np.ndarray
    material: Material


def rotation(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Turn about z, then x, then y (radians), (3, 3) float64."""
    turned = np.eye(3)
    for angle, axis in ((yaw, 2), (pitch, 0), (roll, 1)):
        cosine, sine = np.cos(angle), np.sin(angle)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[[i, j], [i, j]] = cosine
        step[i, j], step[j, i] = -sine, sine
        turned = turned @ step
    return turned


def intersect(shape: int, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """First hit of rays with a unit shape in its own coordinates.

    Args:
        shape: PLATE (square z = 0), BOX (half side 1), SPHERE (radius 1), CYLINDER (radius 1
            around z, capped at +-1), or DOME (a sphere seen from inside: its far side).
        origin, direction: (3, ...) float64, broadcast against each other.

    Returns:
        (...) float64, the ray parameter; inf where nothing is hit in front of the origin.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if shape == PLATE:
            near = -origin[2] / direction[2]
            x, y = origin[0] + near * direction[0], origin[1] + near * direction[1]
            hit = (np.abs(x) <= 1) & (np.abs(y) <= 1)
        elif shape == BOX:
            near, far = _slab(origin, direction)
            hit = near < far
        elif shape == CYLINDER:
            near, far = _quadratic(origin[:2], direction[:2])
            cap_near, cap_far = _slab(origin[2:], direction[2:])
            near, far = np.maximum(near, cap_near), np.minimum(far, cap_far)
            hit = near < far
        else:
            near, far = _quadratic(origin, direction)
            near = far if shape == DOME else near
            hit = np.isfinite(far)
        return np.where(hit & (near > NEAR_M), near, np.inf)


def _slab(origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inverse = 1 / np.where(direction == 0, 1e-12, direction)
    middle, reach = -origin * inverse, np.abs(inverse)
    # A loop over the axes is several times faster than a reduction over three rows.
    enter, leave = middle - reach, middle + reach
    near, far = enter[0], leave[0]
    for axis in range(1, len(enter)):
        near, far = np.maximum(near, enter[axis]), np.minimum(far, leave[axis])
    return near, far


def _quadratic(origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a = sum(item * item for item in direction)
    b = sum(item * other for item, other in zip(direction, origin))
    c = sum(item * item for item in origin) - 1
    root = np.sqrt(b * b - a * c)
    return (-b - root) / a, (-b + root) / a


def surface(shape: int, local: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normal (N, 3), not of unit length, and texture coordinates (N, 2) in metres of points.

    Args:
        local: (N, 3) float32, points on the primitive in its own axes, in metres.
        half: (3,) half sizes of the primitive in metres.
    """
    unit = local / half
    normals = unit / half
    uv = np.stack([np.arctan2(unit[:, 1], unit[:, 0]) * half[0], local[:, 2]], 1)
    if shape in (SPHERE, DOME):
        return normals, uv
    if shape == CYLINDER:
        normals[:, 2] = 0
        flat = np.abs(unit[:, 2]) >= np.hypot(unit[:, 0], unit[:, 1])
        axis = np.full(len(unit), 2)
    else:
        flat = np.ones(len(unit), bool)
        axis = np.full(len(unit), 2) if shape == PLATE else np.abs(unit).argmax(1)
    normals[flat] = np.eye(3, dtype=np.float32)[axis[flat]]
    uv[flat] = np.take_along_axis(local[flat], _OTHER_AXES[axis[flat]], 1)
    return normals, uv
