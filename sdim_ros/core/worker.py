"""One thread with a one-slot mailbox: the newest job wins, and a dead thread is noticed.

Inference takes longer than the time between two frames, so it must not run in a callback and a
queue would only grow. The owner submits jobs and calls ``check()`` now and then.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from sdim_ros.core.types import SdimError

Job = TypeVar("Job")
State = Literal["stopped", "idle", "busy", "hung", "dead", "exhausted"]

MINUTE_S = 60.0


class Abandoned(SdimError):
    """The thread was given up as hung, or stopped: nobody waits for this job any more."""


class Ticket:
    """The right of one thread to go on, and to publish what it computed.

    A thread that hangs cannot be killed, only abandoned. It may wake up much later, and must then
    keep its result to itself: ask ``is_current`` right before publishing. Call ``beat`` between
    the steps of a long job: it keeps the watchdog calm, and ends the job of an abandoned thread.

    Args:
        clock: seconds that never go back.
        exchange: takes the job in hand, gives the newest one; None = there is never another.
    """

    def __init__(self, clock: Callable[[], float],
                 exchange: Callable[[Any], Any] | None = None) -> None:
        self.is_current = True
        self.last_beat_s = clock()
        self._clock, self._exchange = clock, exchange

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            Abandoned: when the ticket is no longer current; let it pass, and the thread ends.
        """
        if not self.is_current:
            raise Abandoned("this thread was abandoned or stopped; its job is lost already")
        self.last_beat_s = self._clock()

    def newest(self, job: Job) -> Job:
        """The newest job instead of the one in hand, which is then counted as replaced.

        For a handler that had to wait before it could start: the job may have grown old.
        """
        return job if self._exchange is None or not self.is_current else self._exchange(job)


@dataclass(slots=True)
class Counters:
    """What became of the jobs.

    ``submitted = replaced + done + failed + discarded`` + those waiting and in hand.

    Attributes:
        submitted: jobs handed in.
        replaced: jobs that a newer one pushed out of the slot, or out of the hand.
        done: jobs whose ``handle`` returned.
        failed: jobs lost to an exception, to a dead or to a hung thread.
        discarded: jobs waiting or in hand when the worker was stopped.
        restarts: threads started in place of a dead or hung one.
    """

    submitted: int = 0
    replaced: int = 0
    done: int = 0
    failed: int = 0
    discarded: int = 0
    restarts: int = 0


class Worker(Generic[Job]):
    """Runs ``handle(job, ticket)`` on a thread of its own, one job at a time.

    Args:
        handle: does the work; what it raises loses this one job.
        on_error: told of each lost job and why; must not raise. Runs on the worker thread, or
            inside ``check`` for a hung job, which is reported as a ``TimeoutError``. None in
            place of a job = the extra task raised.
        extra: does a small piece of other work. It is asked on the worker thread before the
            first job and after each one, also while another job waits; then again when the
            seconds are over that it returned, unless a job came first. None = not before the
            next job, or ``nudge``.
        watchdog_s: a job without a ``beat`` for more than this many seconds means that the thread
            hangs.
        max_restarts_per_minute: when more would be needed, or when more threads than this still
            hang, the worker is exhausted; 0 = never restart.
        clock: seconds that never go back.

    The two limits are plain attributes and may be changed at any time.
    """

    def __init__(
        self,
        handle: Callable[[Job, Ticket], None],
        on_error: Callable[[Job | None, BaseException], None],
        *,
        extra: Callable[[Ticket], float | None] | None = None,
        watchdog_s: float = 60.0,
        max_restarts_per_minute: int = 3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.watchdog_s = watchdog_s
        self.max_restarts_per_minute = max_restarts_per_minute
        self._handle = handle
        self._on_error = on_error
        self._extra = extra
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: Job | None = None
        self._in_hand: Job | None = None
        self._in_extra, self._nudged = False, False
        self._thread: threading.Thread | None = None
        self._ticket = Ticket(clock)
        self._ticket.is_current = False
        self._abandoned: list[threading.Thread] = []
        self._restart_times: deque[float] = deque()
        self._exhausted = False
        self._counters = Counters()

    def start(self) -> None:
        """Start serving, with a clean restart history; nothing happens if it runs already."""
        with self._changed:
            if self._ticket.is_current:
                return
            self._exhausted = False
            self._restart_times.clear()
            self._start_thread()

    def submit(self, job: Job) -> Job | None:
        """Put a job (anything but None) into the slot.

        Returns:
            The job that had waited there and will never run, or None. Without a running thread
            the newest job waits for the next ``start``.
        """
        with self._changed:
            replaced, self._waiting = self._waiting, job
            self._counters.submitted += 1
            self._counters.replaced += replaced is not None
            self._changed.notify_all()
            return replaced

    def nudge(self) -> None:
        """Ask the extra task again, as soon as no job is in hand."""
        with self._changed:
            self._nudged = True
            self._changed.notify_all()

    def stop(self, timeout_s: float) -> bool:
        """Stop serving; jobs waiting or in hand are discarded and their tickets revoked.

        Returns:
            True when every thread, abandoned ones included, ended within ``timeout_s`` seconds.
        """
        with self._changed:
            self._counters.discarded += self._waiting is not None
            self._counters.discarded += self._in_hand is not None
            self._waiting = None
            self._exhausted = False
            self._abandon_thread()
            threads = list(self._abandoned)
            self._changed.notify_all()
        deadline = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def check(self) -> State:
        """Replace a dead or hung thread, within the limit; call it about once a second.

        Returns:
            The state as found, so ``"dead"`` and ``"hung"`` also when a new thread runs by now;
            ``"exhausted"`` once the limit is reached, until ``stop`` or ``start``.
        """
        lost: Job | None = None
        with self._changed:
            state, silent_s = self._state(), self._silent_s()
            if state not in ("dead", "hung"):
                return state
            if state == "hung":
                lost = self._in_hand
                self._counters.failed += lost is not None
            self._abandon_thread()
            if self._may_restart():
                self._restart_times.append(self._clock())
                self._counters.restarts += 1
                self._start_thread()
            else:
                self._exhausted = True
                state = "exhausted"
        if lost is not None:
            self._on_error(lost, TimeoutError(
                f"no sign of life for {silent_s:.1f} s: expected one at least every "
                f"{self.watchdog_s:g} s"))
        return state

    @property
    def state(self) -> State:
        """Where the worker stands right now; ``check`` acts on it."""
        with self._changed:
            return self._state()

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since the thread was started, took or finished a job, or a job gave a beat."""
        with self._changed:
            return self._silent_s()

    @property
    def counters(self) -> Counters:
        """A copy of the counters."""
        with self._changed:
            return replace(self._counters)

    # The methods below expect the lock to be held, up to the ones that run on the thread.

    def _state(self) -> State:
        if self._exhausted:
            return "exhausted"
        if self._thread is None:
            return "stopped"
        if not self._thread.is_alive():
            return "dead"
        if self._in_hand is None and not self._in_extra:
            return "idle"
        return "hung" if self._silent_s() > self.watchdog_s else "busy"

    def _silent_s(self) -> float:
        return self._clock() - self._ticket.last_beat_s

    def _may_restart(self) -> bool:
        """Whether the last minute and the threads that still hang leave room for one more."""
        while self._restart_times and self._clock() - self._restart_times[0] > MINUTE_S:
            self._restart_times.popleft()
        # One hang a minute passes the limit for ever, yet each leaves a thread and its memory.
        hanging = len(self._abandoned)
        limit = self.max_restarts_per_minute
        return len(self._restart_times) < limit and hanging <= limit

    def _start_thread(self) -> None:
        self._ticket = Ticket(self._clock, self._newest)
        self._thread = threading.Thread(
            target=self._serve, args=(self._ticket,), name="sdim_worker", daemon=True)
        self._thread.start()

    def _abandon_thread(self) -> None:
        self._ticket.is_current = False
        self._in_hand, self._in_extra = None, False
        if self._thread is not None:
            self._abandoned.append(self._thread)
            self._thread = None
        self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]

    # On the worker thread.

    def _serve(self, ticket: Ticket) -> None:
        while (job := self._take(ticket)) is not None:
            try:
                self._handle(job, ticket)
            except BaseException as problem:
                # An abandoned job was reported when it was given up.
                if self._finish(ticket, failed=True):
                    self._on_error(job, problem)
                if not isinstance(problem, Exception):
                    return  # asked to end; ``check`` sees a dead thread
            else:
                self._finish(ticket, failed=False)
            del job  # a frame is large: do not hold it while waiting for the next one

    def _take(self, ticket: Ticket) -> Job | None:
        """The next job, or None when this thread is no longer the current one."""
        while True:
            wait_s = self._run_extra(ticket)
            with self._changed:
                self._changed.wait_for(
                    lambda: self._waiting is not None or self._nudged or not ticket.is_current,
                    wait_s)
                self._nudged = False
                if not ticket.is_current:
                    return None
                if self._waiting is not None:
                    self._in_hand, self._waiting = self._waiting, None
                    ticket.beat()
                    return self._in_hand

    def _run_extra(self, ticket: Ticket) -> float | None:
        """A piece of the extra task; the seconds until it wants to be asked again."""
        if self._extra is None or not self._mark_extra(ticket, True):
            return None
        try:
            return self._extra(ticket)
        except Exception as problem:
            if ticket.is_current:
                self._on_error(None, problem)
            return None
        finally:
            self._mark_extra(ticket, False)

    def _mark_extra(self, ticket: Ticket, inside: bool) -> bool:
        """False when this thread is no longer the current one."""
        with self._changed:
            if ticket.is_current:
                self._in_extra = inside
                ticket.beat()
            return ticket.is_current

    def _newest(self, job: Job) -> Job:
        with self._changed:
            if self._in_hand is not job or self._waiting is None:
                return job
            self._counters.replaced += 1
            self._in_hand, self._waiting = self._waiting, None
            return self._in_hand

    def _finish(self, ticket: Ticket, *, failed: bool) -> bool:
        """Count the job in hand; False when this thread was abandoned meanwhile."""
        with self._changed:
            if not ticket.is_current:
                return False
            self._in_hand = None
            ticket.beat()
            self._counters.failed += failed
            self._counters.done += not failed
            return True
