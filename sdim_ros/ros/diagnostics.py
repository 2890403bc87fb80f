"""What the node saw, dropped and made: counters and timings for /diagnostics and the log."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from sdim_ros.core.types import Stats

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

LOG_EVERY_S = 5.0
TIMINGS_KEPT = 100
RATE_OVER_S = 10.0  # a large model gives less than one result a second
SILENT_S = 10.0  # a frame in hand gives signs of life far more often
MANY_DOUBTED = 0.2  # sensors err less; a wrong pose or a late cloud do this


class DropLog:
    """Counts what could not be used and logs one line per topic and reason, now and then.

    Threads may share it.

    Args:
        log: takes the line.
        clock: seconds that never go back.
    """

    def __init__(
        self, log: Callable[[str], Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._clock = log, clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._logged_at: dict[tuple[str, str], float] = {}

    def add(self, topic: str, reason: str, message: str) -> None:
        """Count one lost input and log it, unless its like was logged just before."""
        count = self.count(reason)
        self.warn(topic, reason, f"{message} [{reason}, {count} so far]")

    def count(self, reason: str, number: int = 1) -> int:
        """Count without a log line; returns how often this reason occurred."""
        with self._lock:
            self._counts[reason] += number
            return self._counts[reason]

    def warn(self, topic: str, reason: str, message: str) -> None:
        """Log without counting, at most once in 5 s for a topic and reason."""
        now = self._clock()
        with self._lock:
            if now - self._logged_at.get((topic, reason), -math.inf) < LOG_EVERY_S:
                return
            self._logged_at[topic, reason] = now
        self._log(f"{topic}: {message}")

    def counts(self) -> dict[str, int]:
        """How often, by reason, since the start."""
        with self._lock:
            return dict(self._counts)


class Timings:
    """The last milliseconds of every stage. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=TIMINGS_KEPT))

    def add(self, stages_ms: Mapping[str, float]) -> None:
        """Note the stages of one frame."""
        with self._lock:
            for stage, ms in stages_ms.items():
                self._stages[stage].append(ms)

    def summary(self) -> dict[str, float]:
        """Median, 95th percentile and largest of each stage over the last frames, milliseconds."""
        with self._lock:
            kept = {stage: sorted(ms) for stage, ms in self._stages.items()}
        return {f"{stage} ms {name}": ms[math.ceil(len(ms) * percent / 100) - 1]
                for stage, ms in kept.items()
                for name, percent in (("p50", 50), ("p95", 95), ("max", 100))}


class ResultRate:
    """Results per second over the last seconds. Threads may share it.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._since, self._times = clock(), deque[float]()

    def add(self) -> None:
        """Note a result."""
        with self._lock:
            self._times.append(self._clock())

    def per_second(self) -> float:
        """How many came in each second of the last 10."""
        now = self._clock()
        with self._lock:
            while self._times and self._times[0] <= now - RATE_OVER_S:
                self._times.popleft()
            return len(self._times) / min(RATE_OVER_S, max(1.0, now - self._since))


@dataclass
class Task:
    """One line of the diagnostics: how one part of the node is."""

    name: str
    level: bytes = OK
    message: str = "ok"
    values: dict[str, Any] = field(default_factory=dict)

    def raise_to(self, level: bytes, message: str) -> None:
        """Report ``level`` if it is worse than the level so far."""
        if level > self.level:
            self.level, self.message = level, message


class Health:
    """Everything that the node counts, and the two tasks that are made of it alone.

    ``add_result`` may run on another thread than the rest.

    Args:
        log: takes the lines on dropped inputs.
        clock: seconds that never go back.
    """

    def __init__(
        self, log: Callable[[str], Any], clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.drops = DropLog(log, clock)
        self._clock, self._reported_at = clock, clock()
        self._received = self._reported_received = Counter[str]()
        self._reported_drops = 0
        self._timings, self._cleaned = Timings(), Counter[str]()
        self._rate = ResultRate(clock)
        self._last_result: dict[str, Any] = {}
        self._mistrust: str | None = None

    def listen_to(self, topics: Iterable[str]) -> None:
        """Report on these inputs from now on, in this order."""
        self._received = Counter(dict.fromkeys(topics, 0))
        self._reported_received = Counter(self._received)

    def count_message(self, topic: str) -> None:
        """Count a message as received."""
        self._received[topic] += 1

    def add_result(self, stats: Stats, stages_ms: Mapping[str, float]) -> None:
        """Note how a published frame came to be."""
        self._timings.add(stages_ms)
        self._rate.add()
        # New objects each time: the other thread may be reading the old ones.
        self._cleaned = self._cleaned + Counter(stats.cleaned)
        mistrust = None if stats.doubted_share <= MANY_DOUBTED else (
            f"{100 * stats.doubted_share:.0f} % of the measured points contradict the others "
            f"and the model: expected at most {100 * MANY_DOUBTED:.0f} %; check the "
            "extrinsics and the stamps of depth and image")
        if mistrust:
            self.drops.warn("sparse depth", "doubted", mistrust)
        self._mistrust = mistrust
        self._last_result = {
            "points": stats.points, "doubted points": stats.doubted, "queries": stats.queries,
            "fill": stats.fill, "trust": stats.trust,
            "points that no number spells": stats.out_of_range,
            **({"GPU MB": stats.gpu_mb} if stats.gpu_mb else {})}

    def inputs_task(self) -> Task:
        """Message rates by topic since the last report, and dropped inputs by reason."""
        now, drops = self._clock(), self.drops.counts()
        elapsed_s, dropped = max(now - self._reported_at, 1e-9), sum(drops.values())
        task = Task("inputs", values={
            **{f"{topic} Hz": (count - self._reported_received[topic]) / elapsed_s
               for topic, count in self._received.items()},
            **{f"dropped: {reason}": count for reason, count in drops.items()}})
        if dropped > self._reported_drops:
            task.raise_to(
                WARN, f"{dropped - self._reported_drops} inputs dropped since the last report")
        if self._mistrust:
            task.raise_to(WARN, self._mistrust)
        self._reported_at, self._reported_received = now, Counter(self._received)
        self._reported_drops = dropped
        return task

    def model_task(self, description: str | None, error: str | None) -> Task:
        """What is loaded, how it did at the last frame, and milliseconds by stage.

        Args:
            description: None = nothing is loaded; ``error`` then says why, if it was tried.
        """
        task = Task("model", message=description or "not loaded", values={
            "results Hz": self._rate.per_second(), **self._last_result,
            **{f"cleaned: {reason}": count for reason, count in self._cleaned.items()},
            **self._timings.summary()})
        if error:
            task.raise_to(ERROR, error)
        return task


def diagnostic_array(tasks: Iterable[Task], node_name: str, stamp: Any) -> DiagnosticArray:
    """The message of all tasks, named ``<node>: <task>`` as aggregators expect."""
    message = DiagnosticArray()
    message.header.stamp = stamp
    message.status = [
        DiagnosticStatus(
            name=f"{node_name}: {task.name}", hardware_id=node_name, level=task.level,
            message=task.message,
            values=[KeyValue(key=key, value=_text(value)) for key, value in task.values.items()])
        for task in tasks]
    return message


def sync_task(
    counters: Mapping[str, int], complaint: str | None, not_listening: str | None
) -> Task:
    """Pairs made, and why there are none."""
    task = Task("sync", message=not_listening or "ok", values=dict(counters))
    if complaint:
        task.raise_to(WARN, complaint)
    return task


def worker_task(state: str, counters: Mapping[str, int], heartbeat_age_s: float) -> Task:
    """The state of the worker thread and what became of its jobs."""
    task = Task("worker", message=state, values={
        "state": state, "heartbeat age s": heartbeat_age_s, **counters})
    if counters.get("failed"):
        task.values["failed share"] = counters["failed"] / max(1, counters["submitted"])
    if state == "busy" and heartbeat_age_s > SILENT_S:
        task.raise_to(WARN, f"no sign of life for {heartbeat_age_s:.0f} s: expected one every "
                      f"{SILENT_S:.0f} s; is the GPU or CPU shared, is queries.tile too large?")
    if state in ("dead", "hung", "exhausted"):
        task.raise_to(ERROR, f"worker thread is {state}")
    return task


def adaptation_task(state: str, values: Mapping[str, Any]) -> Task:
    """Whether it learns, what came of it, and why it does not.

    Args:
        state, values: as ``Learning.report`` gives them.
    """
    task = Task("adaptation", message=state, values={"state": state, **values})
    if state not in ("off", "learning"):
        task.raise_to(WARN, state)
    return task


def _text(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
