"""What a live replay was like: rates, the fate of every image, delays. Needs no ROS.

The node counts what it does with images in ``/diagnostics``; what it cannot know, such as an image
that never reached it, is the difference to what was sent and to what came back.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from sdim_ros.tools.bags.sets import Tally

# Reasons that the node counts under "dropped:" before an image is with its worker.
BEFORE_WORKER = ("zero_stamp", "no_camera_info", "lost_in_transport")
DROPPED = "dropped: "
REASONS = {
    "not_received": "did not reach the node: lost on the way, or pushed out of its queue before it "
                    "looked; play slower with --rate",
    "zero_stamp": "an image with the stamp 0",
    "unpaired": "no depth within sync.slop_s of its stamp, or none before a jump of the stamps",
    "overtaken": "a newer image made a set before",
    "no_camera_info": "no camera_info had come",
    "nobody listens": "the node saw no listener to its results",
    "over output.max_rate_hz": "sooner after the one before than output.max_rate_hz allows",
    "replaced": "a newer set came while the model was busy: it is slower than the bag",
    "unfinished": "still waiting or in hand at the end",
    "not_returned": "completed, but its result did not come back",
    "node_ended": "sent, and the node or the run ended before its fate was known",
}
STATISTIC = re.compile(r"(.+) ms (p50|p95|max)")

# Values of the node's diagnostics by task and name.
Tasks = Mapping[str, Mapping[str, str]]


@dataclass
class Played:
    """What was sent and what came back.

    Attributes:
        sent: messages by role.
        images: those that were sent, by stamp in nanoseconds.
        results: completed maps that came back, by the stamp of their image.
        sent_at_s, round_trip_ms: by stamp: when an image was published last, by the steady
            clock, and how long after that its map came.
        first_s, last_sent_s, last_result_s: by the same clock.
        behind_s: the most that a message was published after its time.
        before, after: the node's diagnostics from before the first image, and the newest.
        is_settled: whether ``after`` is of when the node had done all it would do.
        model: what the node has loaded.
        use_sim_time: whether the node took its time from the bag.
        until_ns: time of the bag that was reached.
    """

    sent: Counter[str] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    results: Counter[int] = field(default_factory=Counter)
    sent_at_s: dict[int, float] = field(default_factory=dict)
    round_trip_ms: dict[int, float] = field(default_factory=dict)
    first_s: float | None = None
    last_sent_s: float = 0.0
    last_result_s: float = 0.0
    behind_s: float = 0.0
    before: Tasks = field(default_factory=dict)
    after: Tasks = field(default_factory=dict)
    is_settled: bool = False
    model: str = "unknown"
    use_sim_time: bool = True
    until_ns: int = 0

    def add_image(self, stamp_ns: int, now_s: float) -> None:
        """Note an image that is about to be published."""
        self.images[stamp_ns] += 1
        self.sent_at_s[stamp_ns] = now_s

    def add_result(self, stamp_ns: int, now_s: float) -> None:
        """Note a completed map; those of images that were not sent from here do not count."""
        if stamp_ns in self.images:
            self.results[stamp_ns] += 1
            self.last_result_s = now_s
            self.round_trip_ms[stamp_ns] = 1e3 * (now_s - self.sent_at_s[stamp_ns])


def figures(played: Played, rate: float, log: Path | None) -> dict[str, Any]:
    """The part ``live`` of the report.

    Args:
        rate: that was asked for, 1 = the pace of the bag.
        log: of the node, where it was started here; its sentences explain what was dropped.
    """
    images, results = sum(played.images.values()), sum(played.results.values())
    begin_s = played.first_s or 0.0
    drops = account(played, log)
    return {
        "rate": rate, "use_sim_time": played.use_sim_time,
        "images": images, "images_per_s": _rate(images - 1, played.last_sent_s - begin_s),
        "results": results, "results_per_s": _rate(results, played.last_result_s - begin_s),
        "messages": dict(played.sent), "behind_ms": 1e3 * played.behind_s,
        "drops": drops.as_dict(),
        "unexplained": images - results - sum(drops.counts.values()),
        "round_trip_ms": _percentiles(list(played.round_trip_ms.values())),
        "stages_ms": stages(played.after)}


def account(played: Played, log: Path | None = None) -> Tally:
    """What became of the images without a result, by reason.

    While the node's counts are final, images sent = results + all reasons.
    """
    lost = Tally()
    since = _Since(played.before, played.after)
    left = sum(played.images.values()) - sum(played.results.values())

    def add(reason: str, count: int, text: str = "") -> None:
        nonlocal left
        count = max(0, min(count, left))
        left -= count
        lost.add(reason, text or REASONS[reason], count)

    sync = {name: since("sync", name) for name in (
        "images", "pairs", "timed out", "unpaired", "overtaken", "nobody listens",
        "over output.max_rate_hz")}
    worker = {name: since("worker", name) for name in (
        "submitted", "replaced", "done", "failed")}
    zero = min(played.images[0], since("inputs", DROPPED + "zero_stamp"))
    sets = sync["pairs"] + sync["timed out"]
    left_before = sum(sync[name] for name in ("nobody listens", "over output.max_rate_hz"))
    add("zero_stamp", zero)
    for name in ("overtaken", "nobody listens", "over output.max_rate_hz"):
        add(name, sync[name])
    add("replaced", worker["replaced"])
    for reason, count in _failures(since, worker["failed"]).items():
        add(reason, count, _said(log, reason) or "the node refused it; its log says why")
    if not played.is_settled:
        add("unpaired", sync["unpaired"])
        add("node_ended", left)
        return lost
    add("not_received", sum(played.images.values()) - sync["images"])
    add("unpaired", sync["images"] - zero - sets - sync["overtaken"])
    add("no_camera_info", sets - left_before - worker["submitted"])
    add("unfinished", worker["submitted"] - worker["replaced"] - worker["done"]
        - worker["failed"])
    add("not_returned", worker["done"] - sum(played.results.values()))
    return lost


def stages(tasks: Tasks) -> dict[str, dict[str, float]]:
    """The node's own milliseconds by stage, over its last frames: p50, p95 and max."""
    found: dict[str, dict[str, float]] = {}
    for name, value in tasks.get("model", {}).items():
        if match := STATISTIC.fullmatch(name):
            found.setdefault(match[1], {})[match[2]] = float(value)
    return found


def table(live: Mapping[str, Any]) -> Table:
    """Rate, errors and duration for people."""
    result = Table(show_header=False)
    result.add_column(style="bold")
    result.add_column()
    for name, text in rows(live):
        result.add_row(name, text)
    return result


def rows(live: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures in words, under their names."""
    drops = ", ".join(f"{found['count']} {reason}" for reason, found in live["drops"].items())
    stages_ms = live["stages_ms"]
    said = [
        ("images sent", f"{live['images']}, {live['images_per_s']:.2f} a second"),
        ("results", f"{live['results']}, {live['results_per_s']:.2f} a second"),
        ("without a result", f"{live['images'] - live['results']}" + (drops and f": {drops}"))]
    if live["round_trip_ms"]:
        said.append(("round trip", _in_words(live["round_trip_ms"])))
    if "complete" in stages_ms:
        said.append(("of it the model", _in_words(stages_ms["complete"])))
    if live["unexplained"]:
        said.append(("unexplained", f"{live['unexplained']} images"))
    return said


def _in_words(ms: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f}" for name, value in ms.items()) + " ms"


def _rate(count: int, seconds: float) -> float:
    """How many a second; none in a moment."""
    return count / seconds if seconds > 0 else 0.0


def _percentiles(ms: list[float]) -> dict[str, float]:
    if not ms:
        return {}
    return {**{f"p{percent}": float(np.percentile(ms, percent)) for percent in (50, 95, 99)},
            "max": max(ms)}


class _Since:
    """How far a counter of the node went up while the bag was played."""

    def __init__(self, before: Tasks, after: Tasks) -> None:
        self.before, self.after = before, after

    def __call__(self, task: str, name: str) -> int:
        return count_of(self.after, task, name) - count_of(self.before, task, name)


def count_of(tasks: Tasks, task: str, name: str) -> int:
    """A counter; one that was never counted up is left out by the node."""
    return int(tasks.get(task, {}).get(name, 0))


def _failures(since: _Since, failed: int) -> Counter[str]:
    """Sets that the worker lost, by reason; one that the node did not name is ``failed``."""
    found: Counter[str] = Counter()
    for name in since.after.get("inputs", {}):
        reason = name.removeprefix(DROPPED)
        if name.startswith(DROPPED) and reason not in BEFORE_WORKER:
            found[reason] = min(since("inputs", name), failed - found.total())
    found["failed"] = failed - found.total()
    return +found


def _said(log: Path | None, reason: str) -> str | None:
    """What the node's log says first of a reason."""
    if log is None:
        return None
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if f" [{reason}, " in line:
            return re.sub(r"^(\[[^\]]*\] )*(\[[^\]]*\]: )?", "", line)
    return None
