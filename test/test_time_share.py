"""A side task gets its share of the time, and never more."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sdim_ros.core.time_share import WINDOW_S, TimeShare


class FakeClock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(share: float, piece_s: float, frame_s: float, vary: float = 0.0) -> np.ndarray:
    """Start and end of every piece in 300 s, (N, 2), when frames always wait (0 s = there are none).

    Args:
        vary: by how much of its length a piece may be shorter.
    """
    clock, pieces = FakeClock(), []
    shared = TimeShare(clock)
    rng = np.random.default_rng(0)
    while clock.now < 1300:
        wait_s = shared.wait_s(share)
        if wait_s == 0:
            with shared.piece():
                start = clock.now
                clock.now += piece_s * (1 - vary * rng.uniform())
            pieces.append((start, clock.now))
        elif not frame_s:
            clock.now += wait_s
        clock.now += frame_s
    return np.array(pieces)


def most_taken(pieces: np.ndarray, window: float) -> float:
    """The most seconds of pieces in any window that ends with one."""
    starts, ends = pieces.T
    return max(np.maximum(0, ends[:i + 1] - np.maximum(starts[:i + 1], ends[i] - window)).sum()
               for i in range(len(pieces)))


@pytest.mark.parametrize("frame_s", [0.0, 0.4, 3.0])
@pytest.mark.parametrize("piece_s", [0.1, 0.3, 2.0])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_no_10_s_hold_more_than_the_share_whatever_frames_do(share, piece_s, frame_s):
    window = max(WINDOW_S, piece_s / share)
    assert most_taken(run(share, piece_s, frame_s), window) <= share * window + 1e-6


def test_pieces_of_different_lengths_go_over_it_by_a_part_of_one_at_most():
    assert most_taken(run(0.3, 0.5, 0.4, vary=0.8), WINDOW_S) <= 3.0 + 0.4


@pytest.mark.parametrize("frame_s", [0.0, 0.1])
def test_the_share_is_used_also_while_frames_always_wait(frame_s):
    total = np.diff(run(0.3, 0.1, frame_s)).sum()
    assert 0.28 * 300 < total <= 0.3 * 310


def test_a_piece_longer_than_the_share_of_10_s_still_has_its_turn():
    pieces = run(0.1, 8.0, 0.0)
    assert len(pieces) >= 3 and np.diff(pieces).sum() <= 0.1 * 300 + 8


def test_nothing_is_allowed_with_a_share_of_0_and_all_is_told():
    clock = FakeClock()
    shared = TimeShare(clock)
    assert shared.wait_s(0.0) == math.inf and shared.wait_s(0.2) == 0
    with pytest.raises(KeyError), shared.piece():
        clock.now += 1.5
        raise KeyError
    assert shared.taken() == pytest.approx(0.15)
    assert shared.wait_s(0.2) == pytest.approx(9.5)  # then a second of it is left of the window
    clock.now += 9.5
    assert shared.wait_s(0.2) == 0
    clock.now += 1.0
    assert shared.taken() == 0


def test_a_long_piece_is_told_as_the_share_that_it_was_allowed():
    clock = FakeClock()
    shared = TimeShare(clock)
    assert shared.wait_s(0.25) == 0
    with shared.piece():
        clock.now += 8.0
    assert shared.taken() == pytest.approx(0.25)  # of 32 s
    clock.now += shared.wait_s(0.25)
    assert shared.wait_s(0.25) == pytest.approx(0) and shared.taken() == pytest.approx(0)
