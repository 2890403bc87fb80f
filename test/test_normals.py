"""Normals of planes are exact, face the camera and say where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.core.normals import surface_normals
from sdim_ros.core.types import Camera

CAMERA = Camera(80.0, 85.0, 30.0, 26.0, 64, 48)


def plane(normal, distance):
    """Depth of the plane ``normal . X = -distance`` as the camera sees it."""
    u, v = np.meshgrid(np.arange(64), np.arange(48))
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)], 2)
    return (-distance / (rays @ normal)).astype(np.float32)


@pytest.mark.parametrize("towards", [(0, 0, -1), (0.3, -0.2, -1), (-0.8, 0.1, -1)])
def test_the_normal_of_a_plane_is_exact_at_every_pixel(towards):
    normal = np.array(towards) / np.linalg.norm(towards)
    normals = surface_normals(plane(normal, 2.0), CAMERA)
    assert normals.shape == (48, 64, 3) and normals.dtype == np.float32
    assert np.abs(normals - normal).max() < 2e-3


def test_where_depth_is_unknown_so_are_the_normals_around_it():
    depth = plane(np.array([0, 0, -1.0]), 3.0)
    depth[20, 30], depth[0, 0] = np.nan, 0
    unknown = np.isnan(surface_normals(depth, CAMERA)).any(axis=2)
    assert unknown[19:22, 29:32].all() and unknown[0, 0]
    assert unknown.sum() <= 9 + 9


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (8, 1)])
def test_a_line_of_pixels_has_no_normals(shape):
    camera = Camera(10.0, 10.0, 0.0, 0.0, shape[1], shape[0])
    normals = surface_normals(np.ones(shape, np.float32), camera)
    assert normals.shape == (*shape, 3) and np.isnan(normals).all()
