"""Depth maps of what lamps see, for the shadows that bodies cast."""

from __future__ import annotations

import numpy as np

from sdim_ros.tools.procedural.raster import clip_near, rasterize
from sdim_ros.tools.procedural.scene import NEAR_M, Geometry, Light, Scene

_TAPS = 5
# Farther away the texels of the sun's map would be larger than most shadows near by.
_SUN_REACH_M = 35.0
_FAR = np.float32(1000.0)


class ShadowMap:
    """What a lamp sees: along parallel rays from the sun, in a wide pyramid from a lamp.

    It covers the points that the camera sees; outside of it there is no shadow.

    Args:
        seen: (N, 3) some of these points, in the axes of the camera.
        texels: side of the map.
    """

    def __init__(self, scene: Scene, geometry: Geometry, seen: np.ndarray, lamp: Light,
                 texels: int = 256) -> None:
        self.parallel, self.softness = np.isinf(lamp.reach), np.float32(lamp.softness)
        self.texels = texels
        if self.parallel:
            seen = seen[np.einsum("nc,nc->n", seen, seen) < _SUN_REACH_M ** 2]
        target = np.median(seen, axis=0) if len(seen) else np.array([0, 0, 5.0])
        place = (lamp.place if self.parallel else lamp.place - scene.position) @ scene.attitude
        forward = -place if self.parallel else target - place
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, np.eye(3)[np.abs(forward).argmin()])
        right /= np.linalg.norm(right)
        axes = np.stack([right, np.cross(forward, right), forward], 1)
        origin = target - 200.0 * forward if self.parallel else place
        if self.parallel:
            spread = np.abs((seen - target) @ axes[:, :2])
            reach = np.percentile(spread, 98) * 1.1 if len(seen) else 1.0
            self.scale = np.float32(texels / 2 / max(reach, 0.5))
        else:
            self.scale = np.float32(texels / 2 / np.tan(np.deg2rad(62)))
        faces = geometry.faces[geometry.casts]
        points = (geometry.points - origin) @ axes
        if not self.parallel:
            points, faces, _ = clip_near(points, faces, NEAR_M)
        x, y, nearness = self._screen(points)
        nearest, _ = rasterize(np.stack([x, y], 1), nearness, faces, texels, texels)
        self.nearest = nearest.astype(np.float32).ravel()
        self.axes, self.origin = axes.astype(np.float32), origin.astype(np.float32)

    def _screen(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Texel coordinates and nearness of points in the axes of the lamp."""
        x, y, z = points[:, 0], points[:, 1], points[:, 2]
        if self.parallel:
            return x * self.scale + self.texels / 2, y * self.scale + self.texels / 2, _FAR - z
        nearness = 1 / np.maximum(z, np.float32(NEAR_M / 2))
        scale = nearness * self.scale
        return x * scale + self.texels / 2, y * scale + self.texels / 2, nearness

    def open_share(self, points: np.ndarray, normals: np.ndarray, random: np.ndarray
                   ) -> np.ndarray:
        """Share (N,) of the lamp that points see, from a few look-ups around their place.

        Args:
            points, normals: (N, 3) float32, in the axes of the camera.
            random: (N,) 0-1, turns the pattern of the look-ups.
        """
        # Points are lifted from their surface, so as not to shade themselves.
        if self.parallel:
            points = points + normals * (np.float32(1.5) / self.scale)
        else:
            away = points - self.origin
            away = np.sqrt(np.einsum("nc,nc->n", away, away)) * (2 / self.scale)
            points = points + normals * away[:, None]
        x, y, nearness = self._screen((points - self.origin) @ self.axes)
        limit = nearness + np.float32(0.02) if self.parallel else nearness * np.float32(1.003)
        # The conversion to int cuts off: half a texel more makes it the nearest one.
        x, y = x + np.float32(0.5), y + np.float32(0.5)
        angle = random * np.float32(2 * np.pi)
        cosine, sine = np.cos(angle), np.sin(angle)
        hidden = np.zeros(len(points), np.float32)
        for tap in range(_TAPS):
            reach = self.softness * np.float32(np.sqrt((tap + 0.5) / _TAPS))
            a, b = reach * np.float32(np.cos(2.4 * tap)), reach * np.float32(np.sin(2.4 * tap))
            column = (x + (a * cosine - b * sine)).astype(np.int32)
            row = (y + (b * cosine + a * sine)).astype(np.int32)
            inside = ((column.view(np.uint32) < self.texels) & (row.view(np.uint32) < self.texels))
            texel = np.where(inside, row * self.texels + column, 0)
            hidden += (self.nearest.take(texel) > limit) & inside
        return 1 - hidden / np.float32(_TAPS)
