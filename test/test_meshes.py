"""Bodies have the shape and the normals that their names promise."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.tools.procedural.meshes import (
    Mesh, blob, box, copies, cylinder, extrusion, join, lathe, leaves, plate, ring, rods, rotation,
    sphere, superquadric, tube)

RNG = np.random.default_rng(5)
HEXAGON = np.stack([np.cos(np.arange(6) * np.pi / 3), np.sin(np.arange(6) * np.pi / 3)], 1)
BODIES = {
    "box": box((0.4, 0.7, 0.2)), "cylinder": cylinder(0.5, 0.8), "sphere": sphere(),
    "cone": lathe([0, 1, 0], [0, 0, 2], sharp=True), "ring": ring(1.0, 0.2),
    "cushion": superquadric((0.5, 0.3, 0.2), 0.4), "prism": extrusion(HEXAGON, 0.3),
    "blob": blob(RNG, (0.5, 0.4, 0.3), 0.2)}


def volume(mesh: Mesh) -> float:
    """Of a closed body, whichever way its faces turn as a whole."""
    a, b, c = (mesh.points[mesh.faces[:, i]] for i in range(3))
    flat = np.cross(b - a, c - a)
    middle = (a + b + c) / 3
    outwards = np.sign(np.einsum("fc,fc->f", flat, mesh.normals[mesh.faces].sum(1)))
    return float(np.einsum("fc,fc->f", flat * outwards[:, None], middle).sum() / 6)


@pytest.mark.parametrize(("name", "expected"), [
    ("box", 8 * 0.4 * 0.7 * 0.2), ("cylinder", np.pi * 0.25 * 1.6), ("sphere", 4 / 3 * np.pi),
    ("cone", np.pi * 2 / 3), ("ring", 2 * np.pi ** 2 * 0.04), ("prism", 0.6 * 1.5 * 3 ** 0.5)])
def test_closed_bodies_hold_the_volume_of_their_formula(name, expected):
    assert volume(BODIES[name]) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("name", BODIES)
def test_normals_stand_on_their_faces(name):
    mesh = BODIES[name]
    a, b, c = (mesh.points[mesh.faces[:, i]] for i in range(3))
    flat = np.cross(b - a, c - a)
    area = np.linalg.norm(flat, axis=1)
    mean = mesh.normals[mesh.faces]
    mean = (mean / (np.linalg.norm(mean, axis=-1, keepdims=True) + 1e-12)).sum(1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True) + 1e-12
    agreement = np.abs(np.einsum("fc,fc->f", flat, mean))[area > 1e-9] / area[area > 1e-9]
    assert np.median(agreement) > 0.95 and np.mean(agreement > 0.6) > 0.9


def test_sphere_and_box_are_where_they_should_be():
    np.testing.assert_allclose(np.linalg.norm(sphere().points, axis=1), 1)
    np.testing.assert_allclose(np.abs(box((1, 2, 3)).points), np.tile([1, 2, 3], (24, 1)))


def test_bars_keep_their_distance_from_their_axis():
    starts, ends = RNG.normal(0, 1, (20, 3)), RNG.normal(0, 1, (20, 3))
    ends[0] = starts[0] + [0, 0, 1]  # upright
    points = rods(starts, ends, 0.05).points.reshape(20, -1, 3)
    way = (ends - starts) / np.linalg.norm(ends - starts, axis=1, keepdims=True)
    offset = points - starts[:, None]
    aside = offset - np.einsum("nvc,nc->nv", offset, way)[..., None] * way[:, None]
    np.testing.assert_allclose(np.linalg.norm(aside, axis=-1), 0.05)


def test_a_tube_follows_its_path():
    path = np.stack([np.linspace(0, 3, 30), np.sin(np.linspace(0, 3, 30)), np.zeros(30)], 1)
    points = tube(path, 0.1).points.reshape(30, -1, 3)
    np.testing.assert_allclose(np.linalg.norm(points - path[:, None], axis=-1), 0.1)


def test_copies_are_what_placing_one_by_one_gives():
    turns = np.stack([rotation(*RNG.uniform(0, 6, 3)) for _ in range(4)])
    centers, scales = RNG.normal(0, 1, (4, 3)), RNG.uniform(0.5, 2, (4, 3))
    body = cylinder(0.3, 0.5)
    together = copies(body, centers, turns, scales)
    single = join([body.placed(*each) for each in zip(centers, turns, scales)])
    for name in ("points", "normals", "uv", "faces"):
        np.testing.assert_allclose(getattr(together, name), getattr(single, name), atol=1e-12)


def test_leaves_stay_in_their_crown_and_texture_is_in_metres():
    crown = leaves(np.random.default_rng(0), 200, (2, 1, 1), 0.05)
    assert (np.linalg.norm(crown.points / [2, 1, 1], axis=1) < 1.2).all()
    board = plate(3.0, 2.0)
    np.testing.assert_allclose(np.ptp(board.uv, axis=0), [3, 2])
