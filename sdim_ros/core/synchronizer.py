"""Brings images and sparse depth together by their stamps, and says why when nothing comes.

Around a synchroniser, that of ``message_filters`` or our own, stand the guards that it lacks: its
callback never raises or waits, stamps that jump back empty its queues, an image does not wait for
ever, and what becomes of every image is counted.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdim_ros.core.config import SyncSettings
from sdim_ros.core.matcher import MinimalFilter, MinimalSynchronizer
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.core.types import BadInput

NS_PER_S = 1_000_000_000
# Messages of one topic may overtake each other by less than this; a bag that loops goes further.
JUMP_BACK_NS = NS_PER_S // 2
ARRIVALS_KEPT = 20


@dataclass(frozen=True)
class _Stamp:
    """A time as messages have it."""

    sec: int
    nanosec: int


@dataclass(frozen=True)
class _Header:
    stamp: Any


@dataclass(frozen=True)
class _Envelope:
    """A message under the stamp that it is paired by."""

    time_ns: int
    header: _Header
    source: str
    message: Any
    heard_at: float


@dataclass
class _Side:
    """One input of the matcher, and what is known of its messages."""

    entry: Any = None
    recent: deque[_Envelope] = field(default_factory=deque)
    waiting: _Envelope | None = None  # the newest, while it has no partner


@dataclass
class _Topic:
    """What was heard of one topic."""

    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=ARRIVALS_KEPT))
    last_ns: int = 0

    def describe(self, now: float, patience_s: float) -> str:
        if not self.arrivals or now - self.arrivals[-1] >= patience_s:
            return "silent"
        span_s = max(now - self.arrivals[0], 1e-3)
        return f"{len(self.arrivals) / span_s:.1f} Hz, last stamp {self.last_ns / NS_PER_S:.3f} s"


class FrameSynchronizer:
    """Images and sparse depth in, sets of both out.

    All methods belong to one thread, the executor's.

    Args:
        settings: slop, offset, queue size and patience.
        on_frame: takes an image and its messages by source, ``{}`` when it goes alone; must
            return at once. What it raises is handed to ``on_error``: inside of the matcher's
            lock nothing may raise.
        on_error: takes the exception.
        topics: name of each topic by ``image`` and source, for reports.
        together: sources that make one set; empty = one message of whichever.
        describe_publishers: what a topic's publishers offer, for reports.
        on_jump: told when stamps jump back, as those of a bag that loops do.
        synchronizer, filter_type: the matcher, with the interface of ``message_filters``.
        stamp_type: what the matcher takes as ``header.stamp``, made of ``sec`` and ``nanosec``.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        settings: SyncSettings,
        on_frame: Callable[[Any, Mapping[str, Any]], None],
        on_error: Callable[[Exception], None],
        *,
        topics: Mapping[str, str],
        together: Sequence[str] = (),
        describe_publishers: Callable[[str], str] = lambda topic: "",
        on_jump: Callable[[], None] = lambda: None,
        synchronizer: type = MinimalSynchronizer,
        filter_type: type = MinimalFilter,
        stamp_type: type = _Stamp,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.counters: Counter[str] = Counter()
        self._on_frame, self._on_error = on_frame, on_error
        self._names, self._describe_publishers = topics, describe_publishers
        self._synchronizer, self._filter_type, self._clock = synchronizer, filter_type, clock
        self._stamp_type, self._on_jump = stamp_type, on_jump
        self._unpaired: dict[int, _Envelope] = {}
        self._image = _Side()
        sources = [name for name in topics if name != "image"]
        self._of_source = {name: _Side() for name in together}
        if not together:
            self._of_source = dict.fromkeys(sources, _Side())
        self.restart()

    def reconfigure(self, settings: SyncSettings) -> None:
        """Use other settings from the next message on; what waits is dropped if they changed."""
        if settings != self.settings:
            self.settings = settings
            self._build()

    def restart(self) -> None:
        """Begin anew after a time without messages."""
        self._quiet_since = self._clock()
        self._heard = {name: _Topic() for name in self._names}
        self._build()

    def reset(self) -> None:
        """Forget every waiting message: time has jumped."""
        self.counters["resets"] += 1
        self._build()

    @property
    def waiting(self) -> int:
        """Images without a partner, so far."""
        return len(self._unpaired)

    def add(self, role: str, message: Any) -> None:
        """Take an image or a message of a source, after images that waited too long went on.

        Raises:
            BadInput: ``zero_stamp``.
        """
        self.expire()
        offset_s = 0.0 if role == "image" else self.settings.offset_s
        self._add(role, message, offset_ns=round(offset_s * NS_PER_S))

    def expire(self) -> None:
        """Let images go on that have waited ``timeout_s`` seconds; call it now and then."""
        if not self.settings.timeout_s:
            return
        latest = self._clock() - self.settings.timeout_s
        for image in sorted((i for i in self._unpaired.values() if i.heard_at <= latest),
                            key=lambda envelope: envelope.time_ns):
            self._emit(image, self._partial(image.time_ns), "timed out")

    def complaint(self) -> str | None:
        """What is wrong when nothing came together for ``warn_after_s`` seconds, else None."""
        now, patience_s = self._clock(), self.settings.warn_after_s
        if now - self._quiet_since < patience_s:
            return None
        seen = {name: topic.describe(now, patience_s) for name, topic in self._heard.items()}
        silent = [name for name in self._needed() if all(seen[n] == "silent" for n in name)]
        if silent:
            names = " and on ".join(" or ".join(self._names[n] for n in name) for name in silent)
            advice = f"nothing arrives on {names}; check that it is published, its name and its " \
                "QoS (inputs are best effort)"
        else:
            advice = self.advice()
        topics = "; ".join(f"{self._names[name]}: {text}{self._offered(name)}"
                           for name, text in seen.items())
        return f"no pair of image and sparse depth for {now - self._quiet_since:.0f} s: " \
            f"{advice} ({topics})"

    def advice(self) -> str:
        """What to do about images and depth that both arrive and do not come together."""
        if self._behind_s is not None:
            return f"depth came {self._behind_s:.3f} s older than every image that was kept: " \
                f"where it arrives so late, raise sync.queue_size = {self.settings.queue_size} " \
                "(images kept); where its clock is behind, set sync.offset_s"
        gap = "none seen" if self._smallest_gap_s is None else f"{self._smallest_gap_s:.3f} s"
        return f"the smallest gap between stamps is {gap}, expected at most sync.slop_s = " \
            f"{self.settings.slop_s} s; set sync.offset_s or raise sync.slop_s"

    def _needed(self) -> list[tuple[str, ...]]:
        """The topics, grouped where one of several is enough."""
        sources = tuple(self._of_source)
        shared = len(self._sides()) == 2
        return [("image",), *([sources] if shared else [(source,) for source in sources])]

    def _offered(self, name: str) -> str:
        offered = self._describe_publishers(self._names[name])
        return f", {offered}" if offered else ""

    def _sides(self) -> list[_Side]:
        """Image first; a side that several sources share stands once."""
        return [self._image, *{id(side): side for side in self._of_source.values()}.values()]

    def _build(self) -> None:
        self._smallest_gap_s: float | None = None
        self._behind_s: float | None = None  # how far a depth was, when its image was gone
        self.counters["unpaired"] += len(self._unpaired)
        self._unpaired.clear()
        self._newest_emitted_ns = -1
        for topic in self._heard.values():
            topic.last_ns = 0  # whichever comes next is no jump
        for side in self._sides():
            side.entry = self._filter_type()
            side.recent = deque(maxlen=self.settings.queue_size)
            side.waiting = None
        # Upstream compares with <, and two nanoseconds survive its rounding: a gap equal to the
        # slop still pairs, so that a slop of 0 means equal stamps.
        matcher = self._synchronizer(
            [side.entry for side in self._sides()],
            self.settings.queue_size, self.settings.slop_s + 2e-9)
        matcher.registerCallback(self._matched)

    def _add(self, name: str, message: Any, offset_ns: int) -> None:
        side = self._image if name == "image" else self._of_source[name]
        topic, now, time_ns = self._heard[name], self._clock(), stamp_ns(message.header)
        topic.arrivals.append(now)
        self.counters["images" if name == "image" else "sparse"] += 1
        if time_ns == 0:
            raise BadInput(
                "zero_stamp", "message with the stamp 0: expected the time of the measurement; "
                "have the driver fill header.stamp")
        paired_ns = max(0, time_ns + offset_ns)
        sec, nanosec = divmod(paired_ns, NS_PER_S)
        envelope = _Envelope(
            paired_ns, _Header(self._stamp_type(sec=sec, nanosec=nanosec)), name, message, now)
        if time_ns < topic.last_ns - JUMP_BACK_NS:
            self._jump_back(envelope.time_ns, side)
        topic.last_ns = time_ns
        self._note_gap(envelope.time_ns, side)
        if side is self._image:
            self._await_partner(envelope)
        self._signal(side, envelope)

    def _await_partner(self, image: _Envelope) -> None:
        self.counters["unpaired"] += image.time_ns in self._unpaired
        self._unpaired[image.time_ns] = image
        if len(self._unpaired) <= self.settings.queue_size:
            return
        oldest = self._unpaired[min(self._unpaired)]
        if self.settings.timeout_s:  # its partner would find it gone, however long it waits
            self._emit(oldest, self._partial(oldest.time_ns), "timed out")
        else:
            del self._unpaired[oldest.time_ns]
            self.counters["unpaired"] += 1

    def _jump_back(self, time_ns: int, jumped: _Side) -> None:
        # Another side may have jumped first: its newest message is from after the jump.
        kept = [(side, side.waiting) for side in self._sides()
                if side is not jumped and side.waiting is not None
                and side.waiting.time_ns <= time_ns + JUMP_BACK_NS]
        if any(side is self._image for side, _ in kept):
            self._unpaired.pop(self._image.waiting.time_ns, None)
        self.reset()
        self._on_jump()
        for side, envelope in kept:
            if side is self._image:
                self._await_partner(envelope)
            self._signal(side, envelope)

    def _signal(self, side: _Side, envelope: _Envelope) -> None:
        side.recent.append(envelope)
        side.waiting = envelope
        side.entry.signalMessage(envelope)

    def _note_gap(self, time_ns: int, side: _Side) -> None:
        others = self._sides()[1:] if side is self._image else [self._image]
        gaps = [abs(time_ns - envelope.time_ns) for other in others for envelope in other.recent]
        if gaps:
            gap_s = min(gaps) / NS_PER_S
            known = self._smallest_gap_s
            self._smallest_gap_s = gap_s if known is None else min(known, gap_s)
        images = self._image.recent
        if side is not self._image and len(images) == self.settings.queue_size:
            behind_s = (min(e.time_ns for e in images) - time_ns) / NS_PER_S
            if behind_s > self.settings.slop_s:
                self._behind_s = behind_s

    def _partial(self, time_ns: int) -> list[_Envelope]:
        """Of each side the message nearest to this time, where one is near enough."""
        slop_ns = round(self.settings.slop_s * NS_PER_S)
        found = (min(side.recent, key=lambda e: abs(e.time_ns - time_ns), default=None)
                 for side in self._sides()[1:])
        return [e for e in found if e is not None and abs(e.time_ns - time_ns) <= slop_ns]

    def _matched(self, image: _Envelope, *sparse: _Envelope) -> None:
        self._quiet_since = self._clock()
        self._smallest_gap_s = self._behind_s = None
        for side, envelope in zip(self._sides(), (image, *sparse), strict=True):
            if side.waiting is envelope:
                side.waiting = None
        if image.time_ns in self._unpaired:  # else it went on without them
            self._emit(image, sparse, "pairs")

    def _emit(self, image: _Envelope, sparse: Sequence[_Envelope], counter: str) -> None:
        """Hand a set on, unless a newer one went before: results do not go back in time."""
        del self._unpaired[image.time_ns]
        if image.time_ns < self._newest_emitted_ns:
            self.counters["overtaken"] += 1
            return
        self.counters[counter] += 1
        self._newest_emitted_ns = image.time_ns
        try:
            self._on_frame(image.message, {e.source: e.message for e in sparse})
        except Exception as problem:
            self._on_error(problem)
