"""From the messages of a bag to the jobs that the node would make of them, one at a time.

The pairing is the node's own (``core.synchronizer``), with the bag's time as its clock.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdim_ros.core.config import SOURCES, Settings, sources_of
from sdim_ros.core.first_infos import OWN_INFO, FirstInfos
from sdim_ros.core.frame_reader import Job
from sdim_ros.core.images import read_depth_image
from sdim_ros.core.projection import clean_depth
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.core.synchronizer import FrameSynchronizer
from sdim_ros.core.types import BadInput
from sdim_ros.tools.bags.reading import Bag
from sdim_ros.tools.bags.tf_tree import MOVING, STATIC, TfTree
from sdim_ros.tools.bags.topics import Reference

INFOS = ("camera_info", OWN_INFO)
# How long after its image a ground truth may have been recorded, in the bag's time.
REFERENCE_WAIT_NS = 1_000_000_000


@dataclass(frozen=True)
class Set:
    """What belongs together.

    Attributes:
        job: as the node makes it.
        reference: message of the ground truth, where there is one; see `read_reference`.
    """

    job: Job
    reference: Any | None


@dataclass
class Tally:
    """What was left out, and why: by reason, how often and the first text."""

    counts: Counter[str] = field(default_factory=Counter)
    texts: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, text: str, count: int = 1) -> None:
        if count:
            self.counts[reason] += count
            self.texts.setdefault(reason, text)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """For JSON."""
        return {reason: {"count": count, "first": self.texts[reason]}
                for reason, count in self.counts.most_common()}


class BagSets:
    """Goes through a bag once.

    Args:
        topics: by role, as ``choose_topics`` gives them; sources that ``input.sources`` leaves out
            are not read.
        reference: where the ground truth is.

    Attributes:
        poses: from the bag's transforms, for ``core.frame_reader.FrameReader``; they are those of
            the set that was given last.
        skipped: images that came to no set, by reason.
        now_ns: time of the bag, as far as it was read.
    """

    def __init__(self, bag: Bag, topics: Mapping[str, str], settings: Settings,
                 reference: Reference = Reference()) -> None:
        self._bag, self._settings = bag, settings
        wanted = sources_of(settings.input.sources) or SOURCES
        topics = {role: topic for role, topic in topics.items()
                  if role not in SOURCES or role in wanted}
        self._names, self._reference = topics, reference
        self.poses, self.skipped, self.now_ns = TfTree(), Tally(), bag.start_ns
        self._needs_poses = OWN_INFO in topics or (
            "points" in topics and not settings.projection.extrinsics)
        self._infos = FirstInfos(
            self._make, self._dropped, lambda: OWN_INFO in topics, self._seconds)
        self._held: deque[tuple[int, Job]] = deque()  # until this time of the bag
        self._references: deque[tuple[int, Any]] = deque()
        self._last_set_ns = -2**63
        self._hold_ns = max(
            round(settings.projection.tf_timeout_s * 1e9) if self._needs_poses else 0,
            REFERENCE_WAIT_NS if reference.topic else 0)
        self._sync = FrameSynchronizer(
            settings.sync, self._infos.add, _raise,
            topics={role: topic for role, topic in topics.items() if role not in INFOS},
            together=sources_of(settings.input.sources), clock=self._seconds)

    @property
    def counters(self) -> Counter[str]:
        """Images, sets and resets, as the node counts them."""
        return self._sync.counters

    def _seconds(self) -> float:
        return (self.now_ns - self._bag.start_ns) / 1e9

    def __iter__(self) -> Iterator[Set]:
        roles: dict[str, list[str]] = {}
        for role, topic in self._names.items():
            roles.setdefault(topic, []).append(role)
        wanted = {*roles, *([self._reference.topic] if self._reference.topic else [])}
        if self._needs_poses:
            for _, _, message in self._bag.messages([STATIC]):  # they are for all times
                self.poses.add(message, is_static=True)
            wanted.add(MOVING)
        for topic, time_ns, message in self._bag.messages(wanted):
            self.now_ns = max(self.now_ns, time_ns)
            if topic == MOVING:
                if self.poses.jumps_back(message):
                    yield from self._due(everything=True)
                self.poses.add(message, is_static=False)
            if topic == self._reference.topic:
                self._keep_reference(message)
            for role in roles.get(topic, ()):
                self._take(role, message)
            yield from self._due()
        # Nothing comes any more: who waits goes on with what there is.
        self.now_ns += round((self._settings.sync.timeout_s + 1) * 1e9)
        self._sync.expire()
        self._infos.expire(patience=False)
        yield from self._due(everything=True)
        self._finish()

    def _take(self, role: str, message: Any) -> None:
        if role in INFOS:
            self._infos.add_info(role, message)
            return
        try:
            self._sync.add(role, message)
        except BadInput as problem:
            self.skipped.add(problem.reason, f"{self._names[role]}: {problem}")

    def _make(self, image: Any, sparse: Mapping[str, Any]) -> None:
        rate_hz = self._settings.output.max_rate_hz
        if rate_hz and self.now_ns - self._last_set_ns < 1e9 / rate_hz:
            self.skipped.add("over output.max_rate_hz", f"more than {rate_hz} sets a second")
            return
        self._last_set_ns = self.now_ns
        job = Job(image, sparse, self._infos.latest["camera_info"],
                  self._infos.latest.get(OWN_INFO), self._settings, time.perf_counter())
        self._held.append((self.now_ns + self._hold_ns, job))

    def _due(self, everything: bool = False) -> Iterator[Set]:
        """The sets that have waited for transforms and ground truth as long as they may."""
        while self._held and (everything or self._held[0][0] <= self.now_ns):
            _, job = self._held.popleft()
            yield Set(job, self._reference_of(stamp_ns(job.image.header)))

    def _keep_reference(self, message: Any) -> None:
        self._references.append((self.now_ns, message))
        oldest_ns = self.now_ns - 2 * REFERENCE_WAIT_NS - self._hold_ns
        while self._references[0][0] < oldest_ns:
            self._references.popleft()

    def _reference_of(self, image_ns: int) -> Any | None:
        """The ground truth nearest to a stamp, of several the last recorded."""
        nearest = min(((abs(stamp_ns(message.header) - image_ns), -at_ns, message)
                       for at_ns, message in self._references),
                      key=lambda found: found[:2], default=None)
        slop_ns = 0 if self._reference.same_stamp else round(self._settings.sync.slop_s * 1e9)
        return None if nearest is None or nearest[0] > slop_ns else nearest[2]

    def _dropped(self, role: str) -> None:
        self.skipped.add("no_camera_info", f"{self._names[role]}: no message came before the next "
                         "set: expected it before its images")

    def _finish(self) -> None:
        self._infos.drop()
        counters = self._sync.counters
        unpaired = counters["unpaired"] + self._sync.waiting
        sources = " and ".join(self._names[name] for name in SOURCES if name in self._names)
        self.skipped.add("unpaired", f"no message of {sources} came together with them; since the "
                         f"last set {self._sync.advice()}", unpaired)
        self.skipped.add("overtaken", "a newer image made a set before", counters["overtaken"])


def read_reference(message: Any, size: tuple[int, int], settings: Settings) -> np.ndarray:
    """A ground truth that is registered to its image, (H, W) float32 metres, 0 = unknown.

    Args:
        size: height and width of the image.

    Raises:
        BadInput: it cannot be used for this image.
    """
    if settings.input.rectify:
        raise BadInput("rectify", "it is not rectified as the image is: expected input.rectify = "
                       "false, or no ground truth")
    truth, _ = clean_depth(read_depth_image(message, settings.input.max_pixels), 0.0, np.inf)
    if truth.shape != size:
        raise BadInput("size_mismatch", f"{truth.shape[1]}x{truth.shape[0]} for an image of "
                       f"{size[1]}x{size[0]}: expected the same size")
    return truth


def _raise(problem: Exception) -> None:
    raise problem
