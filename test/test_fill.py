"""The fills do what their names say, with any layout of points."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from conftest import REPOSITORY
from scipy.interpolate import LinearNDInterpolator
from threadpoolctl import threadpool_info, threadpool_limits

from sdim_ros.core import fill

HEIGHT, WIDTH = 60, 80


def scatter(depth: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Sparse depth: ``count`` random pixels of a dense map."""
    at = np.random.default_rng(seed).choice(depth.size, count, replace=False)
    sparse = np.zeros_like(depth)
    sparse.flat[at] = depth.flat[at]
    return sparse


def plane() -> np.ndarray:
    rows, cols = np.indices((HEIGHT, WIDTH))
    return (2 + 0.02 * cols + 0.01 * rows).astype(np.float32)


def box_in_front_of_a_wall() -> tuple[np.ndarray, np.ndarray]:
    """Image and depth with a common edge: a bright box at 2 m, a dark wall at 5 m."""
    depth = np.full((HEIGHT, WIDTH), 5, np.float32)
    depth[15:45, 20:60] = 2
    image = np.where(depth[..., None] == 2, np.uint8(200), np.uint8(30)).repeat(3, axis=2)
    return image, depth


def grey() -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), 127, np.uint8)


@pytest.mark.parametrize("method", fill.FILLS)
def test_zero_points_give_all_unknown(method: str) -> None:
    dense = fill.classical(method, np.zeros((HEIGHT, WIDTH), np.float32), grey())
    assert dense.dtype == np.float32 and np.isnan(dense).all()


@pytest.mark.parametrize("method", fill.FILLS)
@pytest.mark.parametrize("count", [1, 2, 40])
def test_points_of_equal_depth_give_that_depth_everywhere(method: str, count: int) -> None:
    sparse = scatter(np.full((HEIGHT, WIDTH), 3.25, np.float32), count)
    assert (fill.classical(method, sparse, grey()) == np.float32(3.25)).all()


@pytest.mark.parametrize("method", fill.FILLS)
@pytest.mark.parametrize("at", [
    pytest.param(np.s_[:5, :5], id="corner"), pytest.param(np.s_[30, ::3], id="row"),
    pytest.param(np.s_[range(0, 60, 4), range(0, 60, 4)], id="diagonal"),
    pytest.param(np.s_[:], id="everywhere")])
def test_odd_layouts_stay_finite_and_within_the_measured_range(method: str, at: tuple) -> None:
    sparse = np.zeros((HEIGHT, WIDTH), np.float32)
    sparse[at] = plane()[at]
    dense = fill.classical(method, sparse, grey())
    assert np.isfinite(dense).all()
    assert dense.min() >= sparse[at].min() and dense.max() <= sparse[at].max()


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="'cubic'.*edge_aware"):
        fill.classical("cubic", plane(), grey())


def test_nearest_takes_the_nearest_point() -> None:
    sparse = scatter(plane(), 30)
    points = np.argwhere(sparse > 0)
    distance = np.linalg.norm(np.argwhere(sparse >= 0)[:, None] - points[None], axis=2)
    chosen = fill.nearest(sparse).ravel()
    depths = sparse[points[:, 0], points[:, 1]]
    of_chosen = np.where(depths == chosen[:, None], distance, np.inf).min(axis=1)
    assert (of_chosen <= 1.05 * distance.min(axis=1)).all()


def test_linear_is_exact_on_a_plane_within_the_hull() -> None:
    depth = plane()
    sparse = scatter(depth, 30)
    sparse[[0, 0, -1, -1], [0, -1, 0, -1]] = depth[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(fill.linear(sparse), depth, rtol=1e-5)


def test_linear_keeps_measured_pixels_and_takes_the_nearest_outside_of_the_hull() -> None:
    sparse = np.zeros((HEIGHT, WIDTH), np.float32)
    sparse[20:40:3, 20:40:3] = scatter(plane(), HEIGHT * WIDTH)[20:40:3, 20:40:3]
    dense = fill.linear(sparse)
    assert (dense[sparse > 0] == sparse[sparse > 0]).all()
    assert dense[0, 0] == sparse[20, 20] and dense[-1, -1] == sparse[38, 38]


def test_linear_of_near_dense_input_equals_the_full_triangulation() -> None:
    # Points on one circle have several triangulations; on a paraboloid all give the same depth.
    rows, cols = np.indices((HEIGHT, WIDTH))
    bowl = (1 + 1e-3 * ((rows - 20) ** 2 + (cols - 50) ** 2)).astype(np.float32)
    sparse = scatter(bowl, HEIGHT * WIDTH * 4 // 5)
    sparse[10:22, 30:50] = 0
    whole = LinearNDInterpolator(np.argwhere(sparse > 0), sparse[sparse > 0])(rows, cols)
    hull = np.isfinite(whole)
    np.testing.assert_allclose(fill.linear(sparse)[hull], whole[hull], rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 3, 50, 2000])
def test_linear_at_equals_the_map_of_linear(count: int) -> None:
    sparse = scatter(plane(), count)
    rng = np.random.default_rng(2)
    rows, cols = rng.integers(HEIGHT, size=200), rng.integers(WIDTH, size=200)
    np.testing.assert_allclose(
        fill.linear_at(sparse, rows, cols), fill.linear(sparse)[rows, cols], rtol=1e-6)


def test_edge_aware_stops_at_the_edges_of_the_image() -> None:
    image, depth = box_in_front_of_a_wall()
    sparse = scatter(depth, 40)

    def error(guide: np.ndarray) -> float:
        return float(np.abs(fill.edge_aware(sparse, guide) - depth).mean())

    assert error(image) < 0.02
    assert error(image) < 0.2 * error(grey())
    assert error(image) < 0.2 * float(np.abs(fill.linear(sparse) - depth).mean())


def test_edge_aware_reaches_everywhere() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 4000, 3), dtype=np.uint8)
    sparse = np.zeros((40, 4000), np.float32)
    sparse[5, 5], sparse[30, 8] = 2, 3
    assert np.isfinite(fill.edge_aware(sparse, noise)).all()


def test_nearest_points_come_nearest_first_and_the_last_repeats() -> None:
    sparse = np.zeros((HEIGHT, WIDTH), np.float32)
    sparse[[10, 10, 40], [10, 14, 40]] = 1
    rows, cols = fill.nearest_points(sparse, np.array([10]), np.array([11]), k=5)
    assert rows.tolist() == [[10, 10, 40, 40, 40]] and cols.tolist() == [[10, 14, 40, 40, 40]]


def test_nearest_points_without_any_point_say_so() -> None:
    sparse = np.zeros((HEIGHT, WIDTH), np.float32)
    with pytest.raises(ValueError, match="nothing measured"):
        fill.nearest_points(sparse, np.array([3]), np.array([3]), 2)


def test_distance_is_in_mean_spacings() -> None:
    sparse = np.zeros((HEIGHT, WIDTH), np.float32)
    sparse[5::10, 5::10] = 1
    distance = fill.distance_to_measured(sparse)
    assert distance[5, 5] == 0 and distance[5, 10] == pytest.approx(0.5, rel=0.03)
    assert np.isinf(fill.distance_to_measured(np.zeros_like(sparse))).all()


def test_fills_side_by_side_leave_the_threads_of_numpy_as_they_were(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Two triangulate at once, with one thread of OpenBLAS each."""
    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info()
                if library["internal_api"] == "openblas"}

    triangles, both, seen = fill.Delaunay, Barrier(2, timeout=30), []

    def watched(corners: np.ndarray) -> object:
        both.wait()  # none of them gets on alone
        seen.append(threads())
        return triangles(corners)

    monkeypatch.setattr(fill, "_threads", lambda: pool)
    monkeypatch.setattr(fill, "Delaunay", watched)
    sparse = scatter(plane(), 400)
    with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(2) as pool:
        first, second = fill.side_by_side(fill.linear, (sparse, sparse))
        np.testing.assert_array_equal(first, second)
        assert seen == [{1}, {1}] and threads() == {2}


OVERLAP = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from threadpoolctl import threadpool_info
from sdim_ros.core import fill

def threads():
    return [library["num_threads"] for library in threadpool_info()
            if library["internal_api"] == "openblas"]

def stay(number):
    with fill._one_openblas_thread():
        inside[number].set()
        assert go_on[number].wait(30)

before, users = threads(), []
inside, go_on = [Event(), Event()], [Event(), Event()]
with ThreadPoolExecutor(2) as pool:
    for number in range(2):
        users.append(pool.submit(stay, number))
        assert inside[number].wait(30)
    during = threads()
    for number in map(int, sys.argv[1:]):
        go_on[number].set()
        users[number].result()
print(before, during, threads())
"""


@pytest.mark.parametrize("leave", ["01", "10"])
def test_fills_that_overlap_leave_the_threads_of_numpy_as_they_were(leave: str) -> None:
    """In a process with two threads of OpenBLAS, which the tests themselves do without."""
    run = subprocess.run(
        [sys.executable, "-c", OVERLAP, *leave], capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2",
             "PYTHONPATH": str(REPOSITORY)})
    assert run.returncode == 0, run.stderr
    before, during, after = (json.loads(part + "]") for part in run.stdout.split("]")[:3])
    assert set(during) == {1} and after == before
