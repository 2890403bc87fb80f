"""One set of messages on its way through the core and out again. Runs on the worker thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from sdim_ros.core.config import Settings
from sdim_ros.core.frame_reader import FrameReader, Job, Stages, blaming
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.core.types import BadInput, DenseDepth, Frame, Stats
from sdim_ros.core.worker import Ticket
from sdim_ros.ros.outputs import Outputs

# Stamps of a recording that is played without use_sim_time say nothing of the delay.
LARGEST_AGE_S = 600.0


class Completer(Protocol):
    """What the node needs of the core's completer; tests put a fake in its place."""

    description: str

    def reconfigure(self, settings: Settings) -> None:
        """Use other settings from the next frame on."""

    def turn(self, beat: Callable[[], None]) -> AbstractContextManager[Callable[[], None]]:
        """Wait until the model is free; yields what to call instead of ``beat``."""

    def complete(self, frame: Frame, *, beat: Callable[[], None] | None = None) -> DenseDepth:
        """Complete one frame; ``beat``, called again and again, may raise to end it early."""


class Pipeline:
    """Job in, published messages out.

    Args:
        completer: used by the worker's threads alone. A thread that was abandoned in mid-frame
            leaves it at its next beat; until then a new thread may work beside it.
        topics: resolved names of the inputs, as ``FrameReader`` takes them.
        reader: makes frames of jobs.
        outputs: where results go; nothing is built for an output without a listener.
        now_ns: the time that stamps are compared with, nanoseconds.
        may_publish: asked right before publishing, beside the worker's ticket.
        on_result: takes the statistics and the milliseconds by stage of every published frame.
        observe: takes every published frame, after it was published.
    """

    def __init__(
        self, completer: Completer, topics: Mapping[str, str], reader: FrameReader,
        outputs: Outputs, now_ns: Callable[[], int], may_publish: Callable[[], bool],
        on_result: Callable[[Stats, dict[str, float]], None],
        observe: Callable[[Frame], None] = lambda frame: None,
    ) -> None:
        self._completer, self._topics, self._reader = completer, topics, reader
        self._outputs, self._now_ns = outputs, now_ns
        self._may_publish, self._on_result, self._observe = may_publish, on_result, observe

    def run(self, job: Job, ticket: Ticket) -> None:
        """Complete one set and publish the result under the header of its image.

        Raises:
            BadMessage: an input cannot be used.
            ModelFailed: what the model gave cannot be used.
            Abandoned: nobody waits for the result any more.
        """
        with self._completer.turn(ticket.beat) as beat:
            job = ticket.newest(job)  # others may have come while this one waited
            stages = Stages(job.paired_at_s)
            stages.ended("pair")
            with blaming(self._topics["image"]):
                self._refuse_old(job)
            reading = self._reader.read(job, stages)
            with blaming(self._topics[next(iter(job.sparse), "image")]):
                self._completer.reconfigure(job.settings)
                dense = self._completer.complete(reading.frame, beat=beat)
        stages.ended("complete")
        messages = self._outputs.messages(reading, dense, job.settings)
        stages.ended("pack")
        if ticket.is_current and self._may_publish():
            for publisher, message in messages:
                publisher.publish(message)
            stages.ended("publish")
            self._on_result(dense.stats, {**dense.stats.ms, **stages.ms, **self._age(job)})
            self._observe(reading.frame)

    def _age(self, job: Job) -> dict[str, float]:
        """Milliseconds since the image was taken, where the clock can tell."""
        now_ns = self._now_ns()  # 0 before the first /clock
        age_ms = (now_ns - stamp_ns(job.image.header)) / 1e6
        return {"age": age_ms} if now_ns and abs(age_ms) <= 1e3 * LARGEST_AGE_S else {}

    def _refuse_old(self, job: Job) -> None:
        limit_s = job.settings.input.max_age_s
        age_s = (self._now_ns() - stamp_ns(job.image.header)) / 1e9
        if limit_s and age_s > limit_s:
            raise BadInput(
                "too_old", f"image of {age_s:.3f} s ago: expected at most input.max_age_s = "
                f"{limit_s} s; are clocks in step (use_sim_time), is the model fast enough?")
