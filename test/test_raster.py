"""The rasteriser finds at every pixel the triangle that a ray through it meets first."""

from __future__ import annotations

import numpy as np

from sdim_ros.tools.procedural.raster import NOTHING, clip_near, rasterize

WIDTH, HEIGHT, FOCAL = 64, 48, 50.0


def rays() -> np.ndarray:
    """Rays (48, 64, 3) with z = 1."""
    v, u = np.indices((HEIGHT, WIDTH))
    return np.stack([(u - 31.5) / FOCAL, (v - 23.5) / FOCAL, np.ones_like(u)], -1)


def cast(points: np.ndarray, faces: np.ndarray, near: float = 0.05
         ) -> tuple[np.ndarray, np.ndarray]:
    """Depth (inf = nothing) and face of a perspective camera at the origin."""
    points, pieces, source = clip_near(points, faces, near)
    nearness = 1 / np.maximum(points[:, 2], near / 2)
    screen = points[:, :2] * nearness[:, None] * FOCAL + [31.5, 23.5]
    found, face = rasterize(screen, nearness, pieces, WIDTH, HEIGHT)
    with np.errstate(divide="ignore"):
        return 1 / found, np.append(source, NOTHING)[face]


def met_first(points: np.ndarray, faces: np.ndarray, near: float = 0.05) -> np.ndarray:
    """Depth by solving ray = corners @ weights for every triangle and pixel."""
    depth = np.full((HEIGHT, WIDTH), np.inf)
    for corners in points[faces]:
        if abs(np.linalg.det(corners)) < 1e-9:
            continue
        weights = rays() @ np.linalg.inv(corners)
        total = weights.sum(-1)
        with np.errstate(divide="ignore"):
            hit = (weights / total[..., None] >= 0).all(-1) & (1 / total > near)
            depth = np.where(hit & (1 / total < depth), 1 / total, depth)
    return depth


def test_random_triangles_are_seen_as_by_solving_for_every_ray():
    rng = np.random.default_rng(3)
    center = rng.uniform([-2, -1.5, 0.5], [2, 1.5, 6], (120, 1, 3))
    points = (center + rng.normal(0, 0.5, (120, 3, 3))).reshape(-1, 3)
    faces = np.arange(360).reshape(-1, 3)
    depth, _ = cast(points, faces)
    expected = met_first(points, faces)
    assert 0.3 < np.isfinite(expected).mean() < 1
    np.testing.assert_allclose(depth, expected, rtol=1e-9)


def test_a_plane_through_the_camera_s_own_height_is_cut_and_exact():
    corners = np.array([[-90.0, 1.2, -60], [90, 1.2, -60], [90, 1.2, 300], [-90, 1.2, 300]])
    depth, face = cast(corners, np.array([[0, 1, 2], [0, 2, 3]]))
    with np.errstate(divide="ignore"):
        expected = 1.2 / rays()[..., 1]
    below = expected > 0
    inside = below & (expected < 300) & (expected * np.abs(rays()[..., 0]) < 90)
    np.testing.assert_allclose(depth[inside], expected[inside], rtol=1e-8)
    assert np.isinf(depth[~below]).all() and (face[~below] == NOTHING).all()


def test_two_triangles_that_share_an_edge_leave_no_gap():
    rng = np.random.default_rng(0)
    for _ in range(30):
        middle = rng.uniform(-0.1, 0.1, 2)
        angle = np.sort(rng.uniform(0, 2 * np.pi, 7))
        rim = 60 * np.stack([np.cos(angle), np.sin(angle)], 1)
        if (np.diff(angle, append=angle[0] + 2 * np.pi) > 3).any():
            continue  # the middle would not lie inside
        points = np.column_stack([np.vstack([middle, rim]), np.full(8, 4.0)])
        ring = np.arange(7)
        faces = np.stack([0 * ring, ring + 1, (ring + 1) % 7 + 1], 1)
        np.testing.assert_allclose(cast(points, faces)[0], 4.0)


def test_orientation_does_not_matter_and_lines_are_not_drawn():
    points = np.array([[-1.0, -1, 3], [1, -1, 3], [0, 1, 3], [0, 0, 2]])
    one, _ = cast(points, np.array([[0, 1, 2]]))
    other, _ = cast(points, np.array([[2, 1, 0]]))
    np.testing.assert_array_equal(one, other)
    assert np.isinf(cast(points, np.array([[0, 1, 1], [3, 3, 3]]))[0]).all()


def test_what_lies_behind_the_camera_is_not_seen():
    points = np.array([[-1.0, -1, -3], [1, -1, -3], [0, 1, -3]])
    assert np.isinf(cast(points, np.array([[0, 1, 2]]))[0]).all()
