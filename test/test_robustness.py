"""Inputs get harder in the way that the axis says, and in no other."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.core.types import BadInput, Camera, Frame
from sdim_ros.tools.robustness import AXES, Level, parse_axis

HEIGHT, WIDTH = 48, 64


@pytest.fixture
def frame() -> Frame:
    """A textured image of a slope, measured everywhere."""
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3)), np.ones((8, 8, 1)))
    depth = np.tile(np.linspace(2, 6, WIDTH, dtype=np.float32), (HEIGHT, 1))
    camera = Camera(50.0, 50.0, (WIDTH - 1) / 2, (HEIGHT - 1) / 2, WIDTH, HEIGHT)
    return Frame(image.astype(np.uint8), depth, camera, 7, "slope")


def at(frame: Frame, text: str, seed: int = 0) -> Frame:
    [level] = parse_axis(text)
    return level.apply(frame, seed)


def test_levels_are_read_as_their_axis_means_them() -> None:
    assert parse_axis("points=0, 50") == [Level("points", "0", 0), Level("points", "50", 50)]
    assert parse_axis("noise=2.5%")[0].value == 0.025
    assert parse_axis("light=0.1")[0].value == 0.1


@pytest.mark.parametrize("text, expected", [
    ("magic=1", "NAME=LEVEL"), ("points", "NAME=LEVEL"), ("points=1.5", "whole number"),
    ("noise=3", "5%"), ("blur=a", "1.5"), ("points=-1", "not below 0"), ("blur=inf", "1.5"),
    ("lines=", "whole number")])
def test_a_wrong_level_is_refused_by_name(text: str, expected: str) -> None:
    with pytest.raises(BadInput, match=expected):
        parse_axis(text)


@pytest.mark.parametrize("count", [0, 1, 50])
def test_so_many_points_are_kept_as_they_were_measured(frame: Frame, count: int) -> None:
    sparse = at(frame, f"points={count}").sparse
    assert np.count_nonzero(sparse) == count
    assert (sparse[sparse > 0] == frame.sparse[sparse > 0]).all()


@pytest.mark.parametrize("axis", ["points=20", "lines=4", "noise=5%", "outliers=10%", "light=0.2"])
def test_a_draw_depends_on_its_seed_alone(frame: Frame, axis: str) -> None:
    one, same, other = (at(frame, axis, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.sparse, same.sparse)
    np.testing.assert_array_equal(one.image, same.image)
    assert not (np.array_equal(one.sparse, other.sparse)
                and np.array_equal(one.image, other.image))


def test_a_beam_lies_on_one_cone_around_the_vertical_axis(frame: Frame) -> None:
    rows, cols = np.nonzero(at(frame, "lines=3").sparse)
    camera = frame.camera
    elevation = np.arctan2((rows - camera.cy) / camera.fy, np.hypot(1, (cols - camera.cx)
                                                                    / camera.fx))
    steps = np.sort(elevation)
    beams = np.split(steps, np.flatnonzero(np.diff(steps) > 0.1) + 1)
    assert len(beams) == 3
    assert all(np.ptp(beam) <= 1.2 / camera.fy for beam in beams)  # a pixel, rounded
    assert all(len(beam) > WIDTH / 2 for beam in beams)


def test_a_sparse_map_is_thinned_to_whole_beams_of_a_lidar_of_64(frame: Frame) -> None:
    """Half of 64 beams stay with all their points, the other half go."""
    camera = Camera(50.0, 50.0, 31.5, 0.0, WIDTH, HEIGHT)
    sparse = np.zeros_like(frame.sparse)
    sparse[:, 32] = frame.sparse[:, 32]  # one point a row, straight ahead
    measured = Frame(frame.image, sparse, camera)
    halved, quarter = at(measured, "lines=32").sparse, at(measured, "lines=16").sparse
    assert 0.35 < np.count_nonzero(halved) / HEIGHT < 0.65
    assert 0.15 < np.count_nonzero(quarter) / HEIGHT < 0.35
    np.testing.assert_array_equal(at(measured, "lines=64").sparse, sparse)


@pytest.mark.parametrize(("level", "said"), [
    ("lines=0", "--axis lines=0: expected 1 to 64"), ("lines=16,65", "lines=65: .* 1 to 64"),
    ("outliers=5%,150%", "--axis outliers=150%: expected at most 100%"),
])
def test_levels_that_no_frame_can_have_are_refused_at_once(level: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse_axis(level)


def test_corners_are_corners_of_the_image(frame: Frame) -> None:
    """Those of the image's squares of 8 pixels."""
    rows, cols = np.nonzero(at(frame, "corners=12").sparse)
    assert 4 <= len(rows) <= 12
    for place in (rows, cols):
        assert (np.minimum(place % 8, 8 - place % 8) <= 2).all()
    assert not at(frame, "corners=0").sparse.any()


def test_noise_is_a_share_of_the_depth(frame: Frame) -> None:
    error = at(frame, "noise=3%").sparse / frame.sparse - 1
    assert error.std() == pytest.approx(0.03, rel=0.1) and abs(error.mean()) < 0.003


def test_outliers_replace_a_share_of_the_points(frame: Frame) -> None:
    changed = at(frame, "outliers=10%").sparse != frame.sparse
    assert changed.mean() == pytest.approx(0.1, abs=0.01)
    assert at(frame, "outliers=0") is frame


def test_an_offset_moves_the_points_and_not_the_image(frame: Frame) -> None:
    moved = at(frame, "offset=5")
    np.testing.assert_array_equal(moved.sparse[:, 5:], frame.sparse[:, :-5])
    assert not moved.sparse[:, :5].any() and moved.image is frame.image
    np.testing.assert_array_equal(at(frame, "offset=0").sparse, frame.sparse)


def test_blur_takes_the_edges_and_leaves_the_points(frame: Frame) -> None:
    blurred = at(frame, "blur=2")
    assert np.abs(np.diff(blurred.image.astype(int), axis=1)).max() < 0.5 * np.abs(
        np.diff(frame.image.astype(int), axis=1)).max()
    assert blurred.sparse is frame.sparse and at(frame, "blur=0").image is frame.image


def test_less_light_is_darker_and_noisier(frame: Frame) -> None:
    grey = Frame(np.full((HEIGHT, WIDTH, 3), 128, np.uint8), frame.sparse)
    dark, darker = at(grey, "light=0.25").image, at(grey, "light=0.02").image
    assert dark.mean() == pytest.approx(255 * ((128 / 255) ** 2.2 * 0.25) ** (1 / 2.2), rel=0.02)
    assert darker.mean() < dark.mean()
    assert darker.std() / darker.mean() > 2 * dark.std() / dark.mean()
    assert at(grey, "light=1") is grey


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_keeps_what_belongs_to_the_frame(frame: Frame, axis: str) -> None:
    level = "16" if AXES[axis].kind == "count" else "5%" if AXES[axis].kind == "share" else "0.5"
    harder = at(frame, f"{axis}={level}")
    assert (harder.name, harder.stamp_ns, harder.camera) == ("slope", 7, frame.camera)
    assert harder.sparse.dtype == np.float32 and harder.image.dtype == np.uint8
