"""Pairing by stamps, with the real message_filters where it is installed and with our own."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import Image

from sdim_ros.core.config import SyncSettings
from sdim_ros.core.types import BadInput
from sdim_ros.ros import compat
from sdim_ros.ros.synchronizer import PairSynchronizer

IMPLEMENTATIONS = [
    pytest.param((compat.MinimalSynchronizer, compat.MinimalFilter), id="minimal"),
    pytest.param(
        (compat.Synchronizer, compat.Filter), id="message_filters",
        marks=pytest.mark.skipif(
            not compat.HAS_MESSAGE_FILTERS, reason="message_filters is not installed")),
]


def at(seconds: float) -> Image:
    message = Image()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(round(seconds * 1e9), 10**9)
    return message


class Setup:
    def __init__(self, implementation, on_pair=None, **settings):
        self.now = 0.0
        self.pairs, self.errors = [], []
        self.sync = PairSynchronizer(
            SyncSettings(**settings), on_pair or self._paired, self.errors.append,
            image_topic="/image", sparse_topics="/sparse",
            synchronizer=implementation[0], filter_type=implementation[1],
            clock=lambda: self.now)

    def _paired(self, image, sparse):
        self.pairs.append(tuple(
            m.header.stamp.sec + m.header.stamp.nanosec / 1e9 for m in (image, sparse)))


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    return request.param


def test_fifty_pairs_within_the_slop_are_all_made(implementation):
    setup = Setup(implementation, slop_s=0.02)
    for i in range(50):
        setup.sync.add_image(at(1 + i / 10))
        setup.sync.add_sparse(at(1.01 + i / 10))
    assert setup.pairs == [pytest.approx((1 + i / 10, 1.01 + i / 10)) for i in range(50)]
    assert setup.sync.counters == {"images": 50, "sparse": 50, "pairs": 50}


def test_gap_equal_to_the_slop_pairs_and_a_larger_one_does_not(implementation):
    for slop, gap, pairs in ((0.0, 0.0, 1), (0.05, 0.05, 1), (0.05, 0.0501, 0), (0.0, 1e-6, 0)):
        setup = Setup(implementation, slop_s=slop)
        setup.sync.add_sparse(at(5.0 + gap))
        setup.sync.add_image(at(5.0))
        assert len(setup.pairs) == pairs, (slop, gap)


def test_nearest_of_the_waiting_stamps_is_taken(implementation):
    setup = Setup(implementation, slop_s=0.05)
    for stamp in (2.00, 2.03, 2.06):
        setup.sync.add_sparse(at(stamp))
    setup.sync.add_image(at(2.035))
    assert setup.pairs == [pytest.approx((2.035, 2.03))]


def test_late_and_disordered_messages_still_pair(implementation):
    setup = Setup(implementation)
    for stamp in (1.0, 1.2, 1.1):
        setup.sync.add_image(at(stamp))
    for stamp in (1.1, 1.0, 1.2):
        setup.sync.add_sparse(at(stamp))
    assert sorted(setup.pairs) == [(1.0, 1.0), (1.1, 1.1), (1.2, 1.2)]
    assert setup.sync.counters["resets"] == 0


def test_offset_is_added_to_the_sparse_stamps(implementation):
    setup = Setup(implementation, slop_s=0.01, offset_s=-0.25)
    setup.sync.add_image(at(3.0))
    setup.sync.add_sparse(at(3.25))
    assert setup.pairs == [(3.0, 3.25)]


def test_a_raising_callback_does_not_block_later_pairs(implementation):
    calls = []

    def raising(image, sparse):
        calls.append(1)
        raise RuntimeError("no")

    setup = Setup(implementation, on_pair=raising)
    for stamp in (1.0, 1.1):
        setup.sync.add_image(at(stamp))
        setup.sync.add_sparse(at(stamp))
    assert len(calls) == 2 and len(setup.errors) == 2


def test_pairs_come_again_at_once_after_stamps_jump_back(implementation):
    setup = Setup(implementation, queue_size=5)
    for i in range(10):  # late stamps without partners fill the queues
        setup.sync.add_image(at(100 + i / 10))
    for i in range(5):
        setup.sync.add_sparse(at(10 + i / 10))
        setup.sync.add_image(at(10 + i / 10))
    assert len(setup.pairs) == 5
    assert setup.sync.counters["resets"] == 1


def test_memory_is_bounded_by_the_queue(implementation):
    setup = Setup(implementation, queue_size=3, slop_s=0.001)
    for i in range(10):
        setup.sync.add_image(at(1 + i / 10))
    setup.sync.add_sparse(at(1.0))
    assert setup.pairs == []  # the oldest are gone
    setup.sync.add_sparse(at(1.9))
    assert setup.pairs == [(1.9, 1.9)]


def test_zero_stamp_is_refused(implementation):
    setup = Setup(implementation)
    for add in (setup.sync.add_image, setup.sync.add_sparse):
        with pytest.raises(BadInput, match="stamp 0") as caught:
            add(at(0.0))
        assert caught.value.reason == "zero_stamp"


def test_complaint_names_the_silent_topic(implementation):
    setup = Setup(implementation, warn_after_s=5.0)
    assert setup.sync.complaint() is None
    setup.now = 4.9
    setup.sync.add_image(at(1.0))
    assert setup.sync.complaint() is None
    setup.now = 5.0
    assert "nothing arrives on /sparse;" in setup.sync.complaint()
    setup.now = 10.0
    assert "nothing arrives on /image and on /sparse;" in setup.sync.complaint()


def test_complaint_states_the_smallest_gap_when_both_arrive(implementation):
    setup = Setup(implementation, warn_after_s=5.0, slop_s=0.05)
    setup.now = 5.0
    for i in range(5):
        setup.sync.add_image(at(1 + i))
        setup.sync.add_sparse(at(1.3 + i))
    complaint = setup.sync.complaint()
    assert "smallest gap between stamps is 0.300 s" in complaint
    assert "sync.offset_s" in complaint
    setup.sync.add_sparse(at(5.32))
    setup.sync.add_image(at(5.32))
    assert setup.sync.complaint() is None


def test_a_wider_slop_works_from_the_next_message_on(implementation):
    setup = Setup(implementation, slop_s=0.01)
    setup.sync.reconfigure(SyncSettings(slop_s=0.2))
    setup.sync.add_image(at(1.0))
    setup.sync.add_sparse(at(1.1))
    assert len(setup.pairs) == 1
