"""Pairing by stamps, with the real message_filters where it is installed and with our own."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image

from sdim_ros.core.config import SyncSettings
from sdim_ros.core.matcher import MinimalFilter, MinimalSynchronizer
from sdim_ros.core.synchronizer import FrameSynchronizer
from sdim_ros.core.types import BadInput
from sdim_ros.ros import compat

IMPLEMENTATIONS = [
    pytest.param((MinimalSynchronizer, MinimalFilter), id="minimal"),
    pytest.param(
        (compat.Synchronizer, compat.Filter), id="message_filters",
        marks=pytest.mark.skipif(
            compat.Filter is MinimalFilter, reason="message_filters is not installed")),
]


def at(seconds: float) -> Image:
    message = Image()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(round(seconds * 1e9), 10**9)
    return message


class Setup:
    """A synchroniser of images, clouds and disparities; ``sets`` holds stamps by source."""

    def __init__(self, implementation, on_frame=None, on_jump=None, together=(), **settings):
        self.now = 0.0
        self.sets, self.errors, self.jumps = [], [], 0
        self.sync = FrameSynchronizer(
            SyncSettings(**settings), on_frame or self._on_frame, self.errors.append,
            topics={"image": "/image", "points": "/points", "disparity": "/disparity"},
            together=together, describe_publishers=lambda topic: f"publishers of {topic}",
            on_jump=on_jump or self._on_jump, clock=lambda: self.now, stamp_type=Time,
            synchronizer=implementation[0], filter_type=implementation[1])

    def _on_jump(self):
        self.jumps += 1

    def add_image(self, seconds):
        self.sync.add("image", at(seconds))

    def add_sparse(self, seconds, source="points"):
        self.sync.add(source, at(seconds))

    def _on_frame(self, image, sparse):
        self.sets.append({"image": seconds_of(image),
                          **{source: seconds_of(m) for source, m in sparse.items()}})

    @property
    def pairs(self):
        """Stamps of images with a cloud."""
        return [(made["image"], made["points"]) for made in self.sets if "points" in made]


def seconds_of(message):
    return message.header.stamp.sec + message.header.stamp.nanosec / 1e9


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    return request.param


def test_fifty_pairs_within_the_slop_are_all_made(implementation):
    setup = Setup(implementation, slop_s=0.02)
    for i in range(50):
        setup.add_image(1 + i / 10)
        setup.add_sparse(1.01 + i / 10)
    assert setup.pairs == [pytest.approx((1 + i / 10, 1.01 + i / 10)) for i in range(50)]
    assert +setup.sync.counters == {"images": 50, "sparse": 50, "pairs": 50}


def test_gap_equal_to_the_slop_pairs_and_a_larger_one_does_not(implementation):
    for slop, gap, pairs in ((0.0, 0.0, 1), (0.05, 0.05, 1), (0.05, 0.0501, 0), (0.0, 1e-6, 0)):
        setup = Setup(implementation, slop_s=slop)
        setup.add_sparse(5.0 + gap)
        setup.add_image(5.0)
        assert len(setup.pairs) == pairs, (slop, gap)


def test_nearest_of_the_waiting_stamps_is_taken(implementation):
    setup = Setup(implementation, slop_s=0.05)
    for stamp in (2.00, 2.03, 2.06):
        setup.add_sparse(stamp)
    setup.add_image(2.035)
    assert setup.pairs == [pytest.approx((2.035, 2.03))]


def test_late_and_disordered_messages_still_pair_and_never_go_back_in_time(implementation):
    setup = Setup(implementation)
    for stamp in (1.0, 1.2, 1.1):
        setup.add_image(stamp)
    for stamp in (1.1, 1.0, 1.2):
        setup.add_sparse(stamp)
    assert setup.pairs == [(1.1, 1.1), (1.2, 1.2)]
    assert setup.sync.counters["overtaken"] == 1 and setup.sync.counters["resets"] == 0


def test_a_loop_of_a_bag_is_one_jump_and_loses_no_image_after_it(implementation):
    """Three images for each cloud; after the loop the images come first."""
    setup = Setup(implementation, slop_s=0.001)
    for _ in range(2):
        for i in range(9):
            setup.add_image(50 + i / 30)
            if i % 3 == 2:
                setup.add_sparse(50 + (i - 2) / 30)
    # 0.3 s back is within what overtakes.
    assert setup.sync.counters["resets"] == setup.jumps == 0
    for start in (100, 20):
        for i in range(9):
            setup.add_image(start + i / 30)
            if i % 3 == 2:
                setup.add_sparse(start + (i - 2) / 30)
    assert setup.sync.counters["resets"] == setup.jumps == 1
    assert [pair[0] for pair in setup.pairs[-3:]] == pytest.approx([20, 20.1, 20.2])


def test_every_loop_is_told_once_and_before_the_first_set_after_it(implementation):
    told = []
    setup = Setup(implementation, on_frame=lambda image, sparse: told.append(seconds_of(image)),
                  on_jump=lambda: told.append("jump"), slop_s=0.001)
    for _ in range(3):
        for i in range(4):
            setup.add_sparse(20 + i / 2)
            setup.add_image(20 + i / 2)
    once = [20, 20.5, 21, 21.5]
    assert told == [*once, "jump", *once, "jump", *once]


def test_a_reset_from_outside_is_no_jump_of_the_stamps(implementation):
    setup = Setup(implementation)
    setup.sync.reset()
    assert setup.sync.counters["resets"] == 1 and setup.jumps == 0


def test_two_topics_of_different_clocks_do_not_look_like_a_jump(implementation):
    setup = Setup(implementation)
    for i in range(5):
        setup.add_image(100 + i / 10)
        setup.add_sparse(100 + i / 10)
        setup.add_sparse(3 + i / 10, "disparity")  # since the sensor was switched on
    assert len(setup.pairs) == 5 and setup.sync.counters["resets"] == 0


def test_offset_is_added_to_the_sparse_stamps(implementation):
    setup = Setup(implementation, slop_s=0.01, offset_s=-0.25)
    setup.add_image(3.0)
    setup.add_sparse(3.25)
    assert setup.pairs == [(3.0, 3.25)]


def test_a_raising_callback_does_not_block_later_pairs(implementation):
    calls = []

    def raising(image, sparse):
        calls.append(1)
        raise RuntimeError("no")

    setup = Setup(implementation, on_frame=raising)
    for stamp in (1.0, 1.1):
        setup.add_image(stamp)
        setup.add_sparse(stamp)
    assert len(calls) == 2 and len(setup.errors) == 2


def test_pairs_come_again_at_once_after_stamps_jump_back(implementation):
    setup = Setup(implementation, queue_size=5)
    for i in range(10):  # late stamps without partners fill the queues
        setup.add_image(100 + i / 10)
    for i in range(5):
        setup.add_sparse(10 + i / 10)
        setup.add_image(10 + i / 10)
    assert len(setup.pairs) == 5
    assert setup.sync.counters["resets"] == 1


def test_memory_is_bounded_by_the_queue(implementation):
    setup = Setup(implementation, queue_size=3, slop_s=0.001)
    for i in range(10):
        setup.add_image(1 + i / 10)
    setup.add_sparse(1.0)
    assert setup.pairs == []  # the oldest are gone
    setup.add_sparse(1.9)
    assert setup.pairs == [(1.9, 1.9)]


def test_zero_stamp_is_refused(implementation):
    setup = Setup(implementation)
    for add in (setup.add_image, setup.add_sparse):
        with pytest.raises(BadInput, match="stamp 0") as caught:
            add(0.0)
        assert caught.value.reason == "zero_stamp"


def test_complaint_names_the_silent_topic(implementation):
    setup = Setup(implementation, warn_after_s=5.0)
    assert setup.sync.complaint() is None
    setup.now = 4.9
    setup.add_image(1.0)
    assert setup.sync.complaint() is None
    setup.now = 5.0
    assert "nothing arrives on /points or /disparity;" in setup.sync.complaint()
    setup.now = 10.0
    assert "nothing arrives on /image and on /points or /disparity;" in setup.sync.complaint()


def test_complaint_states_the_smallest_gap_when_both_arrive(implementation):
    setup = Setup(implementation, warn_after_s=5.0, slop_s=0.05)
    setup.now = 5.0
    for i in range(5):
        setup.add_image(1 + i)
        setup.add_sparse(1.3 + i)
    complaint = setup.sync.complaint()
    assert "smallest gap between stamps is 0.300 s" in complaint
    assert "sync.offset_s" in complaint
    setup.add_sparse(5.32)
    setup.add_image(5.32)
    assert setup.sync.complaint() is None


def test_a_wider_slop_works_from_the_next_message_on(implementation):
    setup = Setup(implementation, slop_s=0.01)
    setup.sync.reconfigure(SyncSettings(slop_s=0.2))
    setup.add_image(1.0)
    setup.add_sparse(1.1)
    assert len(setup.pairs) == 1


def test_the_complaint_tells_rate_last_stamp_and_publishers_of_every_topic(implementation):
    setup = Setup(implementation, warn_after_s=5.0)
    for i in range(60):
        setup.now = i / 10
        setup.add_image(100 + i / 10)
    complaint = setup.sync.complaint()
    assert "/image: 10.5 Hz, last stamp 105.900 s, publishers of /image" in complaint
    assert "/points: silent, publishers of /points" in complaint


def test_sources_that_belong_together_make_one_set(implementation):
    setup = Setup(implementation, together=("points", "disparity"), slop_s=0.05)
    setup.add_image(1.0)
    setup.add_sparse(1.01)
    assert setup.sets == []
    setup.add_sparse(0.98, "disparity")
    assert setup.sets == [{"image": 1.0, "points": 1.01, "disparity": 0.98}]


def test_the_complaint_names_the_one_source_that_is_missing(implementation):
    setup = Setup(implementation, together=("points", "disparity"), warn_after_s=5.0)
    setup.now = 6.0
    setup.add_image(1.0)
    setup.add_sparse(1.0)
    assert "nothing arrives on /disparity;" in setup.sync.complaint()


def test_an_image_goes_on_with_what_has_come_when_its_time_is_up(implementation):
    setup = Setup(implementation, together=("points", "disparity"), timeout_s=0.3)
    setup.add_image(1.0)
    setup.add_sparse(1.0)
    setup.now = 0.2
    setup.add_image(1.2)
    setup.sync.expire()
    assert setup.sets == []
    setup.now = 0.5
    setup.sync.expire()
    assert setup.sets == [{"image": 1.0, "points": 1.0}, {"image": 1.2}]
    setup.add_sparse(1.0, "disparity")  # too late: the image is gone
    setup.sync.expire()
    assert len(setup.sets) == 2
    assert +setup.sync.counters == {"images": 2, "sparse": 2, "timed out": 2}


def test_an_image_that_newer_ones_push_out_goes_on_before_its_time(implementation):
    setup = Setup(implementation, queue_size=3, timeout_s=1.0)
    for i in range(10):
        setup.now = i / 30
        setup.add_image(1 + i / 10)
    assert [made["image"] for made in setup.sets] == [1 + i / 10 for i in range(7)]
    setup.now = 2.0
    setup.sync.expire()
    assert +setup.sync.counters == {"images": 10, "timed out": 10}


def test_depth_that_arrives_when_its_image_is_gone_is_told_from_clocks_that_differ(implementation):
    setup = Setup(implementation, queue_size=3, warn_after_s=2.0)
    for i in range(90):
        setup.now = i / 30
        setup.add_image(1 + i / 30)
        if i > 15:
            setup.add_sparse(1 + i / 30 - 0.5)
    assert setup.pairs == []
    complaint = setup.sync.complaint()
    assert "depth came 0.433 s older than every image that was kept" in complaint
    assert "raise sync.queue_size = 3" in complaint and "slop_s" not in complaint


def test_depth_that_is_rare_or_over_is_not_called_late(implementation):
    setup = Setup(implementation, queue_size=3, warn_after_s=0.5)
    for i in range(90):
        setup.now = i / 30
        setup.add_image(1 + i / 30)
        if i in (0, 30):
            setup.add_sparse(1 + i / 30)
    assert len(setup.pairs) == 2
    assert "sync.queue_size" not in setup.sync.advice()


def test_an_image_that_was_overtaken_does_not_go_back_in_time(implementation):
    setup = Setup(implementation, timeout_s=0.3)
    setup.add_image(1.0)
    setup.add_image(1.1)
    setup.add_sparse(1.1)
    setup.now = 1.0
    setup.sync.expire()
    assert [made["image"] for made in setup.sets] == [1.1]
    assert setup.sync.counters["overtaken"] == 1


def test_every_image_is_accounted_for(implementation):
    setup = Setup(implementation, queue_size=4, timeout_s=0.5)
    rng = np.random.default_rng(0)
    for i in range(300):
        setup.now = i / 30
        setup.add_image(10 + i / 30)
        if rng.random() < 0.6:
            setup.add_sparse(10 + i / 30 + rng.uniform(-0.02, 0.02))
        if i == 200:
            setup.sync.reset()
        setup.sync.expire()
    setup.now += 1
    setup.sync.expire()
    counters = setup.sync.counters
    assert counters["pairs"] > 150 and counters["overtaken"] > 0
    assert 300 == sum(counters[name] for name in (
        "pairs", "timed out", "unpaired", "overtaken"))
    assert len(setup.sets) == counters["pairs"] + counters["timed out"]
