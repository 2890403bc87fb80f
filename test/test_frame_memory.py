"""Only frames that teach something and can be believed are kept, and their judges never train."""

from __future__ import annotations

import numpy as np
import pytest

from sdim_ros.core.frame_memory import JUDGE_SHARE, USUAL_OVER, FrameMemory, divided
from sdim_ros.core.types import BadInput, Frame

HEIGHT, WIDTH = 48, 64


def frame(number: int = 0, depth_m: float = 3.0, points: int = 200) -> Frame:
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    # What changes must be seen in a thumbnail.
    image[:, :WIDTH // 2] = rng.integers(0, 256, 3)
    sparse = np.zeros((HEIGHT, WIDTH), np.float32)
    at = rng.choice(sparse.size, points, replace=False)
    sparse.flat[at] = rng.uniform(0.8, 1.2, points) * depth_m
    return Frame(image, sparse, stamp_ns=number * 10**8)


def reason(memory: FrameMemory, seen: Frame) -> str:
    try:
        memory.check(seen, seen.sparse)
    except BadInput as problem:
        return problem.reason
    return ""


def test_a_point_judges_or_trains_by_pixel_and_stamp_alone() -> None:
    seen = frame()
    one, again = divided(seen, seen.sparse), divided(seen, seen.sparse)
    np.testing.assert_array_equal(one.judge, again.judge)
    assert not set(one.judge) & set(one.train)
    assert set(one.judge) | set(one.train) == set(np.flatnonzero(seen.sparse))
    np.testing.assert_array_equal(one.judge_m, seen.sparse.flat[one.judge])
    assert (one.sparse() > 0).sum() == len(one.train) and not one.sparse().flat[one.judge].any()
    few = seen.sparse.copy()
    few.flat[one.train[::2]] = 0  # a point's part does not depend on the other points
    assert set(divided(seen, few).judge) == set(one.judge)


def test_another_stamp_has_other_judges_and_their_share_is_kept() -> None:
    shares, first = [], None
    for number in range(40):
        seen = frame(0)
        moved = Frame(seen.image, seen.sparse, stamp_ns=number * 33_333_333)
        parts = divided(moved, moved.sparse)
        shares.append(len(parts.judge) / 200)
        first = first or set(parts.judge)
    assert np.mean(shares) == pytest.approx(JUDGE_SHARE, abs=0.02)
    assert set(parts.judge) != first


def test_the_first_judges_are_spread_over_the_image() -> None:
    seen = frame(points=2000)
    rows, _ = np.unravel_index(divided(seen, seen.sparse).judge[:64], (HEIGHT, WIDTH))
    assert abs(rows.mean() - HEIGHT / 2) < HEIGHT / 6


def test_what_teaches_nothing_is_refused_with_its_reason() -> None:
    memory = FrameMemory(2**20)
    assert reason(memory, frame(0, points=5)) == "too_few_points"
    dark = Frame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), frame(0).sparse)
    assert reason(memory, dark) == "no_contrast"
    assert reason(memory, frame(0)) == ""
    assert reason(memory, frame(0)) == "static"
    assert reason(memory, frame(1)) == ""


@pytest.mark.parametrize("spoilt, expected", [
    ({"depth_m": 3 / 0.3048}, "scale"), ({"depth_m": 1.0}, "scale"), ({"points": 40}, "points_lost")])
def test_a_jump_is_refused_until_it_has_become_usual(spoilt: dict, expected: str) -> None:
    memory = FrameMemory(2**20)
    for number in range(10):
        assert reason(memory, frame(number)) == ""
    for number in range(20):
        assert reason(memory, frame(100 + number, **spoilt)) == expected
    assert reason(memory, frame(200)) == ""  # and then all is as before
    for number in range(USUAL_OVER - 1):
        assert reason(memory, frame(300 + number, **spoilt)) == expected
    assert reason(memory, frame(400, **spoilt)) == reason(memory, frame(401, **spoilt)) == ""


def test_memory_is_bounded_and_keeps_some_of_what_was_long_ago() -> None:
    size = divided(frame(), frame().sparse).size_bytes
    memory = FrameMemory(10 * size + size // 2)
    frames = [divided(frame(n), frame(n).sparse) for n in range(200)]
    for number, kept in enumerate(frames):
        memory.add(kept)
        assert memory.frames[-1] is kept
        assert sum(f.size_bytes for f in memory.frames) <= memory.limit_bytes or number == 0
    places = [frames.index(f) for f in memory.frames]
    assert len(places) >= 9 and places == sorted(places)
    assert places[-1] == 199 and places[0] < 190


def test_the_newest_frame_is_kept_however_small_the_memory_is() -> None:
    memory = FrameMemory(1)
    for number in range(3):
        memory.add(divided(frame(number), frame(number).sparse))
    assert len(memory.frames) == 1


def test_nothing_is_usual_after_everything_was_forgotten() -> None:
    memory = FrameMemory(2**20)
    for number in range(5):
        reason(memory, frame(number))
    memory.clear()
    assert reason(memory, frame(4, depth_m=30.0)) == ""
