"""The worker's extra task: between jobs, never in their way, and watched like them."""

from __future__ import annotations

import threading
import time

import pytest
from test_worker import PATIENCE_S, FakeClock, wait_until

from sdim_ros.core.worker import Abandoned, Ticket, Worker


class Bench:
    """A worker whose jobs and pieces are noted in order; a piece waits where it is told to."""

    def __init__(self, answers=(), **limits):
        self.answers, self.events, self.errors = list(answers), [], []
        self.hold, self.inside = threading.Event(), threading.Semaphore(0)
        self.threads: list[threading.Thread] = []  # of the pieces
        self.hold.set()
        self.clock = FakeClock()
        self.worker = Worker(
            self.handle, lambda job, problem: self.errors.append((job, problem)),
            extra=self.extra, clock=self.clock, **limits)

    def handle(self, job: str, ticket: Ticket) -> None:
        time.sleep(0.002)
        self.events.append(job)

    def extra(self, ticket: Ticket) -> float | None:
        self.threads.append(threading.current_thread())
        self.inside.release()
        assert self.hold.wait(PATIENCE_S)
        if not self.answers:
            return None
        self.events.append("piece")
        if not ticket.is_current:
            raise Abandoned("late")
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def made():
    benches = []

    def make(*args, **limits):
        benches.append(Bench(*args, **limits))
        return benches[-1]

    yield make
    for bench in benches:
        bench.hold.set()
        assert bench.worker.stop(PATIENCE_S)


def test_pieces_are_done_while_no_job_waits_and_end_when_there_is_nothing_to_do(made):
    bench = made([0.0, 0.001, 0.0, None])
    bench.worker.start()
    wait_until(lambda: bench.events == ["piece"] * 4)
    wait_until(lambda: bench.worker.state == "idle")
    assert bench.worker.counters.done == 0


def test_a_job_that_waits_starts_right_after_the_piece_in_hand(made):
    bench = made([0.0] * 100)
    bench.hold.clear()
    bench.worker.start()
    assert bench.inside.acquire(timeout=PATIENCE_S)
    assert bench.worker.state == "busy"
    bench.worker.submit("job")
    bench.hold.set()
    wait_until(lambda: len(bench.events) == 101)
    assert bench.events[:3] == ["piece", "job", "piece"]


def test_pieces_come_between_jobs_that_always_wait(made):
    bench = made([None] * 100)
    bench.hold.clear()
    bench.worker.start()
    for number in range(10):
        bench.worker.submit(f"job {number}")
        bench.hold.set()
        wait_until(lambda n=number: bench.worker.counters.done == n + 1)
    for first, second in zip(bench.events, bench.events[1:]):
        assert "piece" in (first, second)


def test_it_is_asked_again_when_it_said_or_nudged_and_not_before(made):
    bench = made([30.0, None, 0.0])
    bench.worker.start()
    wait_until(lambda: bench.events == ["piece"])
    time.sleep(0.05)
    assert bench.events == ["piece"]
    bench.worker.nudge()
    wait_until(lambda: bench.events == ["piece"] * 2)
    time.sleep(0.05)
    assert bench.events == ["piece"] * 2
    bench.worker.submit("job")
    wait_until(lambda: bench.events == ["piece", "piece", "job", "piece"])


def test_what_it_raises_is_told_and_jobs_go_on(made):
    problem = ValueError("a bad piece")
    bench = made([problem, None])
    bench.worker.start()
    wait_until(lambda: bench.errors == [(None, problem)])
    bench.worker.submit("job")
    wait_until(lambda: bench.worker.counters.done == 1)
    assert bench.worker.check() == "idle" and bench.worker.counters.failed == 0


def test_a_piece_that_hangs_is_given_up_and_jobs_go_on_in_a_new_thread(made):
    bench = made([0.0, None], watchdog_s=10.0)
    bench.hold.clear()
    bench.worker.start()
    assert bench.inside.acquire(timeout=PATIENCE_S)
    bench.clock.now += 10.5
    bench.worker.submit("job")
    assert bench.worker.check() == "hung"
    assert bench.inside.acquire(timeout=PATIENCE_S)  # the new thread
    assert bench.worker.counters.restarts == 1 and bench.worker.counters.failed == 0
    bench.hold.set()
    wait_until(lambda: "job" in bench.events)
    bench.threads[0].join(PATIENCE_S)
    assert not bench.threads[0].is_alive() and bench.threads[0] is not bench.threads[1]
    assert bench.errors == []  # what the old thread raised when it woke up is no news


def test_stop_in_the_middle_of_a_piece_ends_the_thread_after_it(made):
    bench = made([0.0] * 100)
    bench.hold.clear()
    bench.worker.start()
    assert bench.inside.acquire(timeout=PATIENCE_S)
    assert bench.worker.stop(0.0) is False
    bench.hold.set()
    assert bench.worker.stop(PATIENCE_S) is True
    assert bench.events == ["piece"] and bench.worker.state == "stopped"
