"""From a scene to its photograph and its exact planar depth."""

from __future__ import annotations

import numpy as np

from sdim_ros.tools.procedural.lighting import Lighting, surroundings
from sdim_ros.tools.procedural.scene import Geometry, Scene, View
from sdim_ros.tools.procedural.sensor import photograph


class Exposure:
    """What a camera sees of a scene: depth first, the picture when it is wanted.

    Attributes:
        depth: (H, W) float64, planar, metres; inf where nothing is.
        known: (H, W) whether a depth sensor measures it: not the sky, not glass.
        part: (H, W) int, the body seen, -1 = none.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.geometry: Geometry = scene.geometry()
        self.view = View(self.geometry, scene.camera)
        depth, self._face = self.view.cast()
        seen = self._face >= 0
        measured = np.array([material.known for material in scene.materials])
        self.known = seen & measured[self.geometry.material[self._face]]
        self.part = np.where(seen, self.geometry.part[self._face], -1)
        self.depth = depth * scene.scale

    def photograph(self) -> np.ndarray:
        """The image (H, W, 3) uint8 RGB.

        A pixel is seen through its middle, and through its corners too where they show other
        bodies: borders and thin things are neither jagged nor torn.
        """
        height, width = self._face.shape
        _, corner_face = self.view.cast(0.5, 1)
        corner_part = np.where(corner_face >= 0, self.geometry.part[corner_face], -1)
        windows = [(slice(i, i + height), slice(j, j + width)) for i in (0, 1) for j in (0, 1)]
        other = [corner_part[window] != self.part for window in windows]
        border = np.logical_or.reduce(other)
        wanted = np.zeros(corner_face.shape, bool)  # corners of a pixel at a border
        lent = np.full(corner_face.shape, -1)  # a pixel that shows the same body as the corner
        pixels = np.arange(height * width).reshape(height, width)
        for window, differs in zip(windows, other):
            wanted[window] |= border
            lent[window] = np.where(differs, lent[window], pixels)
        lonely = wanted & (lent < 0)
        light = self._light(
            np.concatenate([self._face.ravel(), corner_face[lonely]]),
            np.concatenate([self.view.rays().reshape(-1, 3), self.view.rays(0.5, 1)[lonely]]))
        # What lies beside a lamp must not be outshone by it: a film has its limit.
        light = np.minimum(light, 4)
        image = light[:height * width].reshape(height, width, 3)
        corners = light[np.maximum(lent, 0)]
        corners[lonely] = light[height * width:]
        around = sum(corners[window] for window in windows)
        image = np.where(border[..., None], 0.5 * image + 0.125 * around, image)
        return photograph(image, self.depth, self.scene.rng)

    def _light(self, faces: np.ndarray, rays: np.ndarray) -> np.ndarray:
        light = np.empty((len(faces), 3), np.float32)
        seen = faces >= 0
        if seen.any():
            rows, columns = np.nonzero(self._face >= 0)
            some = self.view.rays()[rows[::97], columns[::97]]
            points = some * (self.depth / self.scene.scale)[rows[::97], columns[::97], None]
            lighting = Lighting(self.scene, self.geometry, faces[seen], points)
            light[seen] = lighting.radiance(faces[seen], rays[seen])
        if not seen.all():
            away = (rays[~seen] @ self.scene.attitude.T).astype(np.float32)
            light[~seen] = surroundings(self.scene, away)
        return light
