"""Transforms of a bag: chains, times between samples, and what cannot be known."""

from __future__ import annotations

import bag_recorder
import numpy as np
import pytest
from bag_recorder import START_NS, header, transform
from scipy.spatial.transform import Rotation

from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.projection import pose_matrix
from sdim_ros.core.types import BadInput
from sdim_ros.tools.bags.tf_tree import TfTree

STILL = (0, 0, 0, 1)
S_NS = 10**9


def at(seconds: float) -> int:
    return START_NS + round(seconds * S_NS)


def turn(degrees: float) -> tuple[float, ...]:
    return tuple(Rotation.from_euler("z", degrees, degrees=True).as_quat())


def tree_of(*messages, static=()) -> TfTree:
    tree = TfTree()
    for message in static:
        tree.add(message, is_static=True)
    for message in messages:
        tree.add(message, is_static=False)
    return tree


def robot() -> TfTree:
    """A base that drives 2 m/s along x of odom and turns 90 degrees in a second, with a camera
    0.5 m before it and a LiDAR 1 m over it."""
    return tree_of(
        transform(at(0), "odom", "base", 0, 0, 0, *turn(0)),
        transform(at(1), "odom", "base", 2, 0, 0, *turn(90)),
        static=(transform(0, "base", "mast", 0, 0, 0.6, *STILL),
                transform(0, "mast", "lidar", 0, 0, 0.4, *STILL),
                transform(0, "base", "camera", 0.5, 0, 0, *turn(90))))


def test_a_chain_over_a_common_ancestor_is_composed_in_both_directions():
    tree = robot()
    expected = np.linalg.inv(pose_matrix((0.5, 0, 0, *turn(90)))) @ pose_matrix(
        (0, 0, 1.0, *STILL))
    assert np.allclose(tree.lookup("camera", "lidar", at(0.3)), expected)
    assert np.allclose(tree.lookup("lidar", "camera", at(0.3)), np.linalg.inv(expected))
    assert np.allclose(tree.lookup("base", "lidar", 0)[:3, 3], [0, 0, 1])


def test_static_chains_do_not_ask_for_moving_ancestors():
    """Odometry that lags must not hide a pose that does not depend on it."""
    assert robot().lookup("camera", "lidar", at(100)).shape == (4, 4)


def test_between_two_samples_positions_are_linear_and_rotations_are_slerp():
    tree = robot()
    half = tree.lookup("odom", "base", at(0.5))
    assert np.allclose(half[:3, 3], [1, 0, 0])
    assert np.allclose(half[:3, :3], Rotation.from_euler("z", 45, degrees=True).as_matrix())
    assert np.array_equal(tree.lookup("odom", "base", at(1)), pose_matrix((2, 0, 0, *turn(90))))


def test_samples_that_overtook_each_other_are_sorted_and_the_first_of_two_counts():
    tree = tree_of(transform(at(0.2), "odom", "base", 2, 0, 0, *STILL),
                   transform(at(0), "odom", "base", 0, 0, 0, *STILL),
                   transform(at(0.2), "odom", "base", 9, 0, 0, *STILL))
    assert tree.lookup("odom", "base", at(0.1))[0, 3] == pytest.approx(1)


@pytest.mark.parametrize(("target", "source", "seconds", "words"), [
    ("odom", "base", 1.001, "'base' in 'odom' is known from .*00.000 to .*01.000 s, not at"),
    ("odom", "lidar", -0.5, "'base' in 'odom' is known from"),
    ("camera", "radar", 0.5, "no frame 'radar', only base, camera, lidar, mast, odom"),
    ("camera", "tool", 0.5, "hang from different roots, 'arm' and 'odom'"),
])
def test_what_is_not_known_is_refused_and_not_guessed(target, source, seconds, words):
    tree = robot()
    if source == "tool":
        tree.add(transform(0, "arm", "tool", 0, 0, 0, *STILL), is_static=True)
    with pytest.raises(BadInput, match=words) as caught:
        tree.lookup(target, source, at(seconds))
    assert caught.value.reason == "no_transform" and "--extrinsics" in str(caught.value)


def test_a_bag_without_transforms_says_so():
    with pytest.raises(BadInput, match="no transform on /tf_static or /tf"):
        TfTree().pose(header(at(0), "camera"), header(at(0), "lidar"), Settings())


def test_transforms_that_are_none_are_counted_and_a_loop_ends():
    tree = tree_of(transform(at(0), "odom", "base", 0, 0, 0, 0, 0, 0, 0),
                   transform(at(0), "a", "b", np.nan, 0, 0, *STILL),
                   transform(at(0), "c", "d", 0, 0, 0, *STILL),
                   transform(at(0), "d", "c", 0, 0, 0, *STILL))
    assert tree.ignored == 2
    with pytest.raises(BadInput, match="no frame 'b'"):
        tree.lookup("c", "b", at(0))


def test_a_jump_back_of_time_forgets_what_was_before():
    tree = robot()
    again = transform(at(0), "odom", "base", 7, 0, 0, *STILL)
    assert tree.jumps_back(again)
    assert not tree.jumps_back(transform(at(0.6), "odom", "base", 0, 0, 0, *STILL))
    tree.add(again, is_static=False)
    assert tree.lookup("odom", "base", at(0))[0, 3] == 7
    with pytest.raises(BadInput, match="not at"):
        tree.lookup("odom", "base", at(0.5))


def test_only_the_last_ten_seconds_are_kept():
    tree = tree_of(*(transform(at(s), "odom", "base", s, 0, 0, *STILL) for s in range(30)))
    assert tree.lookup("odom", "base", at(19.5))[0, 3] == pytest.approx(19.5)
    with pytest.raises(BadInput, match="known from .*19.000"):
        tree.lookup("odom", "base", at(18.5))


def test_a_fixed_frame_carries_the_points_to_the_time_of_the_image():
    """As the node does: the sensor where it measured, seen from the camera's later place."""
    tree = tree_of(transform(at(0), "odom", "camera", 0, 0, 0, *STILL),
                   transform(at(1), "odom", "camera", 0, 0, 2, *STILL),
                   static=(transform(0, "camera", "lidar", 0, 0, -1, *STILL),))
    image, sensor = header(at(0.75), "camera"), header(at(0.25), "lidar")
    carried = with_values(Settings(), {"projection.fixed_frame": "odom"})
    assert np.allclose(tree.pose(image, sensor, Settings())[:3, 3], [0, 0, -1])
    assert np.allclose(tree.pose(image, sensor, carried)[:3, 3], [0, 0, -2])
    late = with_values(carried, {"sync.offset_s": 0.25})
    assert np.allclose(tree.pose(image, sensor, late)[:3, 3], [0, 0, -1.5])


def test_equal_frames_need_no_transform():
    same = header(at(0), bag_recorder.OPTICAL)
    assert TfTree().pose(same, same, Settings()) is None
