"""Pairs images with sparse depth by their stamps, and says why when no pair comes.

Around the synchroniser of ``message_filters`` stand the guards that it lacks: its callback never
raises or waits, stamps that jump back empty its queues, and messages are counted.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time

from sdim_ros.core.config import SyncSettings
from sdim_ros.core.types import BadInput
from sdim_ros.ros import compat
from sdim_ros.ros.messages import stamp_ns

NS_PER_S = 1_000_000_000
# Messages of one topic may overtake each other by less than this; a bag that loops goes further.
JUMP_BACK_NS = NS_PER_S // 2


@dataclass(frozen=True)
class _Header:
    stamp: Time


@dataclass(frozen=True)
class _Envelope:
    """A message under the stamp that it is paired by."""

    time_ns: int
    message: Any

    @property
    def header(self) -> _Header:
        """As a message has it."""
        sec, nanosec = divmod(self.time_ns, NS_PER_S)
        return _Header(Time(sec=sec, nanosec=nanosec))


@dataclass
class _Input:
    """What was seen of one side."""

    name: str
    topics: str
    entry: Any
    stamps: deque[int]
    heard_at: float | None = None
    waiting: _Envelope | None = None  # the newest, while it has no partner


class PairSynchronizer:
    """Image and sparse depth in, pairs out.

    All methods belong to one thread, the executor's.

    Args:
        settings: slop, offset, queue size and patience.
        on_pair: takes (image, sparse); must return at once. What it raises is handed to
            ``on_error``: inside of the synchroniser's lock nothing may raise.
        on_error: takes the exception.
        image_topic, sparse_topics: names for the report.
        synchronizer, filter_type: the implementation; the tests run both.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        settings: SyncSettings,
        on_pair: Callable[[Any, Any], None],
        on_error: Callable[[Exception], None],
        *,
        image_topic: str = "image",
        sparse_topics: str = "sparse_depth/image or points",
        synchronizer: type = compat.Synchronizer,
        filter_type: type = compat.Filter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.counters: Counter[str] = Counter()
        self._on_pair, self._on_error = on_pair, on_error
        self._synchronizer, self._filter_type = synchronizer, filter_type
        self._clock = clock
        self._image = _Input("images", image_topic, None, deque(maxlen=settings.queue_size))
        self._sparse = _Input("sparse", sparse_topics, None, deque(maxlen=settings.queue_size))
        self._quiet_since = clock()
        self._smallest_gap_s: float | None = None
        self._build()

    def reconfigure(self, settings: SyncSettings) -> None:
        """Use other settings from the next message on; what waits is dropped if they changed."""
        if settings != self.settings:
            self.settings = settings
            self._build()

    def reset(self) -> None:
        """Forget every waiting message: time has jumped."""
        self.counters["resets"] += 1
        self._build()

    def add_image(self, message: Any) -> None:
        """Take an image.

        Raises:
            BadInput: ``zero_stamp``.
        """
        self._add(self._image, self._sparse, message, offset_ns=0)

    def add_sparse(self, message: Any) -> None:
        """Take a sparse depth image or a point cloud.

        Raises:
            BadInput: ``zero_stamp``.
        """
        offset_ns = round(self.settings.offset_s * NS_PER_S)
        self._add(self._sparse, self._image, message, offset_ns)

    def complaint(self) -> str | None:
        """What is wrong when no pair came for ``warn_after_s`` seconds, else None."""
        now, patience_s = self._clock(), self.settings.warn_after_s
        if now - self._quiet_since < patience_s:
            return None
        silent = [side.topics for side in (self._image, self._sparse)
                  if side.heard_at is None or now - side.heard_at >= patience_s]
        start = f"no pair of image and sparse depth for {now - self._quiet_since:.0f} s: "
        if silent:
            return start + f"nothing arrives on {' and on '.join(silent)}; check that it is " \
                "published, its name and its QoS (inputs are best effort)"
        gap = "none seen" if self._smallest_gap_s is None else f"{self._smallest_gap_s:.3f} s"
        return start + f"the smallest gap between stamps is {gap}, expected at most " \
            f"sync.slop_s = {self.settings.slop_s} s; set sync.offset_s or raise sync.slop_s"

    def _build(self) -> None:
        self._smallest_gap_s = None
        for side in (self._image, self._sparse):
            side.entry = self._filter_type()
            side.stamps.clear()
            side.waiting = None
        # Upstream compares with <, and two nanoseconds survive its rounding: a gap equal to the
        # slop still pairs, so that a slop of 0 means equal stamps.
        matcher = self._synchronizer(
            [self._image.entry, self._sparse.entry],
            self.settings.queue_size, self.settings.slop_s + 2e-9)
        matcher.registerCallback(self._pair)

    def _add(self, side: _Input, other: _Input, message: Any, offset_ns: int) -> None:
        side.heard_at = self._clock()
        self.counters[side.name] += 1
        time_ns = stamp_ns(message.header)
        if time_ns == 0:
            raise BadInput(
                "zero_stamp", "message with the stamp 0: expected the time of the measurement; "
                "have the driver fill header.stamp")
        time_ns = max(0, time_ns + offset_ns)
        if side.stamps and time_ns < side.stamps[-1] - JUMP_BACK_NS:
            self._jump_back(time_ns, other)
        self._note_gap(time_ns, other)
        self._signal(side, _Envelope(time_ns, message))

    def _jump_back(self, time_ns: int, other: _Input) -> None:
        # The other side may have jumped first: its newest message is from after the jump.
        kept = other.waiting
        self.reset()
        if kept is not None and kept.time_ns <= time_ns + JUMP_BACK_NS:
            self._signal(other, kept)

    def _signal(self, side: _Input, envelope: _Envelope) -> None:
        side.stamps.append(envelope.time_ns)
        side.waiting = envelope
        side.entry.signalMessage(envelope)

    def _note_gap(self, time_ns: int, other: _Input) -> None:
        if other.stamps:
            gap_s = min(abs(time_ns - stamp) for stamp in other.stamps) / NS_PER_S
            known = self._smallest_gap_s
            self._smallest_gap_s = gap_s if known is None else min(known, gap_s)

    def _pair(self, image: _Envelope, sparse: _Envelope) -> None:
        self.counters["pairs"] += 1
        self._quiet_since = self._clock()
        self._smallest_gap_s = None
        for side, paired in ((self._image, image), (self._sparse, sparse)):
            if side.waiting is paired:
                side.waiting = None
        try:
            self._on_pair(image.message, sparse.message)
        except Exception as problem:
            self._on_error(problem)
