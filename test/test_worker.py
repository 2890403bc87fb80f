"""The worker: newest job wins, one exception loses one job, a dead or hung thread is replaced."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from sdim_ros.core.worker import Ticket, Worker

PATIENCE_S = 5.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Return as soon as the condition holds; fail after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


class FakeClock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A worker under test.

    Jobs named ``block...`` wait for ``release``, those named ``step...`` give a beat whenever
    ``step`` is released, until ``release``; exceptions are raised.
    """

    def __init__(self, **limits: float) -> None:
        self.clock = FakeClock()
        self.release = threading.Event()
        self.entered = threading.Semaphore(0)
        self.step, self.stepped = threading.Semaphore(0), threading.Semaphore(0)
        self.published: list[str] = []
        self.finished: list[str] = []
        self.errors: list[tuple[object, BaseException]] = []
        self.worker: Worker = Worker(
            self.handle, lambda job, problem: self.errors.append((job, problem)),
            clock=self.clock, **limits)

    def handle(self, job: object, ticket: Ticket) -> None:
        self.entered.release()
        if isinstance(job, BaseException):
            raise job
        if str(job).startswith("block"):
            assert self.release.wait(PATIENCE_S)
        while str(job).startswith("step") and not self.release.is_set():
            assert self.step.acquire(timeout=PATIENCE_S)
            ticket.beat()
            self.stepped.release()
        if ticket.is_current:
            self.published.append(str(job))
        self.finished.append(str(job))

    def submit_and_enter(self, job: object) -> None:
        self.worker.submit(job)
        assert self.entered.acquire(timeout=PATIENCE_S)

    def hang(self) -> None:
        """Give the thread a job that outlives the watchdog."""
        self.submit_and_enter("block")
        self.clock.now += self.worker.watchdog_s + 1

    def die(self) -> None:
        """Give the thread a job that ends it."""
        self.submit_and_enter(SystemExit())
        wait_until(lambda: self.worker.state == "dead")


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(watchdog_s=10.0, max_restarts_per_minute=2)
    bench.worker.start()
    yield bench
    bench.release.set()
    assert bench.worker.stop(PATIENCE_S)


def test_jobs_submitted_one_by_one_are_all_done_in_order(bench: Bench) -> None:
    for number in range(20):
        assert bench.worker.submit(f"job {number}") is None
        wait_until(lambda n=number: bench.worker.counters.done == n + 1)
    assert bench.published == [f"job {number}" for number in range(20)]
    assert bench.worker.state == "idle"


def test_newest_job_wins_and_the_replaced_one_comes_back(bench: Bench) -> None:
    bench.submit_and_enter("block")
    assert bench.worker.submit("old") is None
    assert bench.worker.submit("newer") == "old"
    assert bench.worker.submit("newest") == "newer"
    assert bench.worker.state == "busy"
    bench.release.set()
    wait_until(lambda: bench.worker.counters.done == 2)
    assert bench.published == ["block", "newest"]
    assert bench.worker.counters.submitted == 4
    assert bench.worker.counters.replaced == 2


def test_a_handler_that_had_to_wait_takes_the_newest_job() -> None:
    entered, go, seen = threading.Event(), threading.Event(), []

    def handle(job: str, ticket: Ticket) -> None:
        entered.set()
        go.wait(10)
        seen.extend([ticket.newest(job), ticket.newest("another")])

    worker = Worker(handle, lambda job, problem: seen.append(problem))
    worker.start()
    worker.submit("old")
    assert entered.wait(10)
    worker.submit("new")
    go.set()
    wait_until(lambda: worker.counters.done == 1)
    assert seen == ["new", "another"]
    assert (worker.counters.submitted, worker.counters.replaced) == (2, 1)
    assert worker.stop(5)


def test_exception_loses_one_job_and_the_next_is_served(bench: Bench) -> None:
    problem = ValueError("bad frame")
    bench.submit_and_enter(problem)
    wait_until(lambda: bench.worker.counters.failed == 1)
    bench.worker.submit("good")
    wait_until(lambda: bench.published == ["good"])
    assert bench.errors == [(problem, problem)]
    assert bench.worker.check() == "idle"
    assert bench.worker.counters.restarts == 0


def test_dead_thread_is_replaced_and_its_job_reported(bench: Bench) -> None:
    bench.die()
    bench.worker.submit("waiting")
    assert bench.worker.check() == "dead"
    wait_until(lambda: bench.published == ["waiting"])
    assert [type(problem) for _, problem in bench.errors] == [SystemExit]
    assert bench.worker.check() == "idle"
    assert (bench.worker.counters.failed, bench.worker.counters.restarts) == (1, 1)


def test_slow_job_is_busy_up_to_the_watchdog_and_hung_after_it(bench: Bench) -> None:
    bench.submit_and_enter("block")
    bench.clock.now += 10.0
    assert bench.worker.check() == "busy"
    assert bench.worker.heartbeat_age_s == 10.0
    bench.clock.now += 0.1
    assert bench.worker.check() == "hung"


def test_slow_job_that_beats_is_not_hung(bench: Bench) -> None:
    bench.submit_and_enter("step")
    for _ in range(5):
        bench.clock.now += 9.0
        assert bench.worker.check() == "busy"
        bench.step.release()
        assert bench.stepped.acquire(timeout=PATIENCE_S)
        assert bench.worker.heartbeat_age_s == 0.0
    bench.release.set()
    bench.step.release()
    wait_until(lambda: bench.published == ["step"])
    assert bench.worker.counters.restarts == 0


def test_hung_job_is_reported_with_its_silence_and_the_limit(bench: Bench) -> None:
    bench.submit_and_enter("block")
    bench.clock.now += 12.5
    bench.worker.check()
    [(_, problem)] = bench.errors
    assert str(problem) == "no sign of life for 12.5 s: expected one at least every 10 s"


def test_abandoned_job_ends_at_its_next_beat_and_is_reported_once(bench: Bench) -> None:
    bench.submit_and_enter("step")
    [thread] = [t for t in threading.enumerate() if t.name == "sdim_worker"]
    bench.clock.now += 11.0
    assert bench.worker.check() == "hung"
    bench.submit_and_enter("block")
    bench.clock.now += 5.0
    bench.step.release()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert bench.finished == []
    assert [type(problem) for _, problem in bench.errors] == [TimeoutError]
    # Its last beat says nothing about the thread that took over.
    assert bench.worker.heartbeat_age_s == 5.0


def test_stopped_job_ends_at_its_next_beat(bench: Bench) -> None:
    bench.submit_and_enter("step")
    assert bench.worker.stop(0.0) is False
    bench.step.release()
    assert bench.worker.stop(PATIENCE_S) is True
    assert bench.finished == [] and bench.errors == []


def test_late_result_of_a_hung_thread_is_not_published(bench: Bench) -> None:
    bench.hang()
    assert bench.worker.check() == "hung"
    bench.worker.submit("fresh")
    wait_until(lambda: bench.published == ["fresh"])
    bench.release.set()
    wait_until(lambda: "block" in bench.finished)
    assert bench.published == ["fresh"]
    assert [(job, type(problem)) for job, problem in bench.errors] == [("block", TimeoutError)]
    counters = bench.worker.counters
    assert (counters.done, counters.failed, counters.restarts) == (1, 1, 1)


def test_watchdog_can_be_changed_while_running(bench: Bench) -> None:
    bench.submit_and_enter("block")
    bench.clock.now += 5.0
    assert bench.worker.check() == "busy"
    bench.worker.watchdog_s = 2.0
    assert bench.worker.check() == "hung"


def test_idle_worker_never_hangs_and_its_next_job_has_the_full_time(bench: Bench) -> None:
    bench.clock.now += 1e6
    assert bench.worker.check() == "idle"
    bench.submit_and_enter("block")
    bench.clock.now += 10.0
    assert bench.worker.check() == "busy"
    bench.release.set()
    wait_until(lambda: bench.worker.state == "idle")
    assert bench.worker.heartbeat_age_s == 0.0


def test_too_many_deaths_in_a_minute_exhaust_the_worker(bench: Bench) -> None:
    for _ in range(2):
        bench.die()
        assert bench.worker.check() == "dead"
    bench.die()
    assert bench.worker.check() == "exhausted"
    assert bench.worker.check() == bench.worker.state == "exhausted"
    assert bench.worker.counters.restarts == 2


def test_deaths_a_minute_apart_never_exhaust_the_worker(bench: Bench) -> None:
    for _ in range(6):
        bench.die()
        assert bench.worker.check() == "dead"
        bench.clock.now += 61.0
    assert bench.worker.counters.restarts == 6


def test_threads_that_hang_for_ever_exhaust_the_worker_at_any_pace(bench: Bench) -> None:
    for _ in range(2):
        bench.hang()
        assert bench.worker.check() == "hung"
        bench.clock.now += 61.0
    bench.hang()
    assert bench.worker.check() == "exhausted"


def test_zero_restarts_exhaust_at_the_first_death(bench: Bench) -> None:
    bench.worker.max_restarts_per_minute = 0
    bench.die()
    assert bench.worker.check() == "exhausted"
    assert bench.worker.counters.restarts == 0


def test_exhausted_worker_starts_again_with_a_clean_restart_history(bench: Bench) -> None:
    for _ in range(3):
        bench.die()
        state = bench.worker.check()
    assert state == "exhausted"
    bench.worker.start()
    bench.worker.submit("again")
    wait_until(lambda: bench.published == ["again"])
    bench.entered.acquire()
    bench.die()
    assert bench.worker.check() == "dead"


def test_stop_discards_the_waiting_job_and_revokes_the_one_in_hand(bench: Bench) -> None:
    bench.submit_and_enter("block")
    bench.worker.submit("waiting")
    assert bench.worker.stop(0.0) is False
    assert bench.worker.state == "stopped"
    bench.release.set()
    assert bench.worker.stop(PATIENCE_S) is True
    assert bench.published == []
    assert bench.finished == ["block"]
    assert bench.worker.counters.discarded == 2


def test_stop_and_start_leave_no_thread_behind(bench: Bench) -> None:
    before = threading.active_count()
    for number in range(20):
        assert bench.worker.stop(PATIENCE_S)
        assert bench.worker.check() == "stopped"
        bench.worker.start()
        bench.worker.start()
        bench.worker.submit(f"job {number}")
        wait_until(lambda n=number: bench.worker.counters.done == n + 1)
    assert threading.active_count() == before
    assert bench.worker.counters.restarts == 0


def test_every_job_is_accounted_for_under_a_flood(bench: Bench) -> None:
    for number in range(2000):
        bench.worker.submit(ValueError() if number % 3 == 0 else f"job {number}")
    wait_until(lambda: bench.worker.state == "idle" and _open_jobs(bench.worker) == 0)
    assert bench.worker.counters.done == len(bench.published)
    wait_until(lambda: bench.worker.counters.failed == len(bench.errors))


def _open_jobs(worker: Worker) -> int:
    c = worker.counters
    return c.submitted - c.replaced - c.done - c.failed - c.discarded


def test_job_is_freed_when_done(bench: Bench) -> None:
    class Frame:
        pass

    frame = Frame()
    reference = weakref.ref(frame)
    bench.worker.submit(frame)
    del frame
    wait_until(lambda: bench.worker.counters.done == 1)
    wait_until(lambda: gc.collect() >= 0 and reference() is None)
