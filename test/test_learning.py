"""Learning between frames: kept and found again, asked from outside, and harmless when it fails."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from models import frame as scene
from models import random_model

from sdim_ros.core import adapter_files
from sdim_ros.core.adaptation import Adaptation, AdaptationStatus
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import AdaptationSettings, Settings, with_values
from sdim_ros.core.learning import LOOK_AGAIN_S, Learning, Stopped
from sdim_ros.core.types import (
    BadInput, BadSetting, Frame, ModelFailed, ModelLost, ModelUnavailable)
from sdim_ros.core.worker import Ticket


class FakeClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def frame(number: int) -> Frame:
    return Frame(*scene(number), stamp_ns=(number + 1) * 10**8)


def settings_with(**values: object) -> AdaptationSettings:
    return with_values(Settings(), {f"adaptation.{name}": value for name, value in {
        "enabled": True, "frames": 1, "pixels": 8, "judge_every": 1, "max_share": 0.95,
        **values}.items()}).adaptation


class Bench:
    """A learning around a real, small model, on a clock that stands."""

    def __init__(self, make=None, seed: int = 0, **settings: object) -> None:
        self.completer = Completer(Settings(), random_model(seed, sharpen=1.0))
        self.clock, self.told = FakeClock(), []
        self.learning = Learning(
            make or (lambda how: Adaptation(self.completer, how)), f"model {seed}",
            settings_with(**settings), lambda *line: self.told.append(line), self.clock)
        self.ticket = Ticket(self.clock)

    def learn(self, frames: int = 2) -> None:
        """Until the weights in use have changed."""
        before, number = self.answers(), 0
        while np.array_equal(self.answers(), before):
            assert number < 20, self.learning.report()
            self.learning.observe(frame(number % frames))
            number += 1
            for _ in range(4):
                self.learning.work(self.ticket)

    def answers(self) -> np.ndarray:
        at = np.arange(10)
        return self.completer.ask(frame(9), at, at).depth

    def figure(self, name: str) -> object:
        return self.learning.report()[1].get(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "front"


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Up to rounding: the layers that learn add their zeros in float32."""
    return np.allclose(a, b, rtol=1e-6)


def test_what_was_learnt_is_saved_at_the_end_and_used_at_the_next_start(folder: Path) -> None:
    first = Bench(folder=str(folder))
    original = first.answers()
    first.learning.begin()
    assert same(first.answers(), original)
    first.learn()
    assert "000001" in first.learning.close()
    assert first.learning.close() is None  # nothing is new
    again = Bench(folder=str(folder), enabled=False)
    again.learning.begin()
    assert again.learning.report()[0] == "off"
    # Only those behind the weights that were saved: the last ones were not judged yet.
    assert 0 < again.figure("steps") <= first.figure("steps")
    assert again.figure("steps") == first.learning._adaptation.steps_in_use
    assert same(again.answers(), first.answers())
    assert not same(again.answers(), original)
    again.learning.reset()
    assert same(again.answers(), original)
    assert again.figure("steps") == 0 and again.learning.close() is None


def test_what_turned_out_worse_than_the_checkpoint_is_not_used_at_the_next_start_either(
        folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Bench(folder=str(folder))
    original = first.answers()
    first.learning.begin()
    first.learn()
    first.learning.save()
    assert not same(first.answers(), original)
    # By the judgements everything that was learnt is worse from now on.
    monkeypatch.setattr(Adaptation, "_conclude", rejecting(Adaptation._conclude))
    while first.learning.report()[0] == "learning":
        first.learning.work(first.ticket)
    assert same(first.answers(), original)
    again = Bench(folder=str(folder), enabled=False)
    again.learning.begin()
    assert same(again.answers(), original)
    assert first.learning.close() is None  # it was saved at once


def rejecting(conclude):
    """A judgement by which the weights in use, and the new ones, are far worse than the original."""
    return lambda self, errors: conclude(self, [(0.1, 0.5, 0.6) for _ in errors])


def test_nothing_is_made_or_written_without_a_folder_or_being_enabled() -> None:
    bench = Bench(make=lambda how: pytest.fail("made"), enabled=False)
    bench.learning.begin()
    bench.learning.observe(frame(0))
    assert bench.learning.work(bench.ticket) is None
    assert bench.learning.report() == ("off", {}) and bench.learning.close() is None
    with pytest.raises(BadSetting, match="adaptation.folder is empty"):
        bench.learning.save()
    assert "model 0" in bench.learning.reset()


def test_the_adapter_says_what_it_is_in_plain_json(folder: Path) -> None:
    bench = Bench(folder=str(folder))
    bench.learning.begin()
    bench.learning.save()
    text = (folder / "000001" / adapter_files.ABOUT).read_text()
    about = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert about["settings"]["parts"] == "fusion+point" and about["steps"] == 0
    assert about["error_before"] is None and about["base"]["name"] == "model 0"


def test_an_adapter_of_another_model_is_refused_at_the_start(folder: Path) -> None:
    bench = Bench(folder=str(folder))
    bench.learning.begin()
    bench.learning.save()
    with pytest.raises(ModelUnavailable, match="learnt on model 0 .* here is model 1"):
        Bench(seed=1, folder=str(folder)).learning.begin()


def test_it_saves_now_and_then_what_is_new(folder: Path) -> None:
    bench = Bench(folder=str(folder), autosave_minutes=2.0, max_share=0.95)
    bench.learning.begin()
    bench.learn()
    assert not folder.exists()
    bench.learning.reconfigure(settings_with(
        folder=str(folder), autosave_minutes=2.0, enabled=False))
    assert bench.learning.work(bench.ticket) == 120.0  # it wants to be asked then
    bench.clock.now = 120.0
    assert bench.learning.work(bench.ticket) is None  # saved; nothing is new
    assert [path.name for path in folder.iterdir()] == ["000001"]
    bench.clock.now = 500.0
    assert bench.learning.work(bench.ticket) is None
    assert [path.name for path in folder.iterdir()] == ["000001"]


def test_a_save_that_fails_is_told_and_tried_again_a_period_later(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bench = Bench(folder=str(tmp_path / "adapters"), autosave_minutes=1.0)
    bench.learning.begin()
    bench.learn()
    (tmp_path / "adapters").symlink_to(tmp_path / "file")
    for count in (1, 2):
        bench.clock.now += 60.0
        bench.learning.work(bench.ticket)
        assert [reason for reason, _ in bench.told] == ["not_saved"] * count, bench.told
    (tmp_path / "adapters").unlink()
    bench.clock.now += 60.0
    bench.learning.work(bench.ticket)
    assert "000001" in bench.figure("adapter")


def test_requests_are_done_by_the_worker_in_order_and_refused_after_the_end(folder: Path) -> None:
    bench = Bench(folder=str(folder))
    bench.learning.begin()
    saved, reset = bench.learning.ask(bench.learning.save), bench.learning.ask(
        bench.learning.reset)
    failing = bench.learning.ask(lambda: 1 / 0)
    assert not saved.done()
    bench.learning.work(bench.ticket)
    assert "000001" in saved.result(0) and "back to the weights" in reset.result(0)
    assert isinstance(failing.exception(0), ZeroDivisionError)
    late = bench.learning.ask(bench.learning.save)
    bench.learning.close()
    assert isinstance(late.exception(0), Stopped)


class Failing:
    """In place of an adaptation: its pieces raise what they are told to."""

    def __init__(self, *problems: object) -> None:
        self.problems, self.status, self.version = list(problems), AdaptationStatus(), 0
        self.settings, self.restored = None, 0

    def observe(self, frame: Frame) -> None:
        self.status.refused["static"] += 1
        raise BadInput("static", "always the same")

    def work(self) -> bool:
        problem = self.problems.pop(0) if self.problems else False
        if callable(problem):
            return problem()
        if isinstance(problem, BaseException):
            raise problem
        return bool(problem)

    def restore(self) -> None:
        self.restored += 1

    def reset(self) -> None:
        self.status = AdaptationStatus()


def failing(*problems: object) -> tuple[Bench, Failing]:
    fake = Failing(*problems)
    return Bench(make=lambda how: fake), fake


def test_three_failures_in_a_row_pause_it_with_the_reason_until_it_is_enabled_again() -> None:
    bad = ValueError("no good")
    bench, fake = failing(bad, bad, True, bad, bad, ModelFailed("out of memory"), True, False)
    for _ in range(5):
        assert bench.learning.work(bench.ticket) == 0
        assert bench.learning.report()[0] == "learning"
    bench.learning.work(bench.ticket)
    state, figures = bench.learning.report()
    assert state == "paused: it failed 3 times in a row, the last: out of memory"
    assert figures["failures"] == 5 and len(fake.problems) == 2
    assert bench.learning.work(bench.ticket) is None and len(fake.problems) == 2
    assert "no good" in bench.told[0][1] and "Traceback" in bench.told[0][1]
    assert bench.told[-1][0] == "paused" and "enable it again" in bench.told[-1][1]
    bench.learning.reconfigure(settings_with(enabled=False))
    assert bench.learning.report()[0] == "off"
    bench.learning.reconfigure(settings_with())
    assert bench.learning.report()[0] == "learning"
    assert bench.learning.work(bench.ticket) == 0 and len(fake.problems) == 1


def test_a_pause_of_the_adaptation_itself_is_told_once_and_ended_by_start() -> None:
    bench, fake = failing(lambda: setattr(fake.status, "state", "paused: worse"), True)
    bench.learning.work(bench.ticket)
    assert bench.told == [("paused", "paused: worse")]
    assert bench.learning.report()[0] == "paused: worse"
    assert bench.learning.work(bench.ticket) is None and len(bench.told) == 1
    assert bench.learning.start() and bench.learning.report()[0] == "learning"
    assert bench.learning.work(bench.ticket) == 0


@pytest.mark.parametrize("problem", [
    ModelLost("gone"), RuntimeError("CUDA error: device-side assert triggered")])
def test_a_lost_gpu_is_no_failure_of_learning(problem: Exception) -> None:
    bench, _ = failing(problem)
    with pytest.raises(ModelLost):
        bench.learning.work(bench.ticket)


def test_what_cannot_be_adapted_pauses_at_once() -> None:
    def refuse(how: AdaptationSettings) -> None:
        raise ModelUnavailable("shared")

    bench = Bench(make=refuse)
    with pytest.raises(ModelUnavailable):
        bench.learning.begin()
    bench.learning.work(bench.ticket)
    assert bench.learning.report() == ("paused: it cannot begin: shared", {})


def test_frames_that_teach_nothing_are_counted_and_no_failure() -> None:
    bench, fake = failing()
    bench.learning.work(bench.ticket)
    for number in range(5):
        bench.learning.observe(frame(number))
    assert bench.figure("refused: static") == 5 and bench.figure("failures") == 0
    assert bench.told == []


def test_frames_that_come_with_every_piece_leave_time_to_learn_from_them() -> None:
    bench = Bench(frames=4)
    bench.learning.begin()
    for number in range(40):  # a frame waits at the end of each piece
        bench.learning.observe(frame(number))
        bench.learning.work(bench.ticket)
    assert bench.figure("steps") >= 3 and bench.figure("frames kept") >= 3


def test_its_share_of_the_time_is_kept_and_told() -> None:
    def slow() -> bool:
        bench.clock.now += 0.4
        return True

    bench, fake = failing(*[slow] * 1000)
    bench.learning.reconfigure(settings_with(max_share=0.2))
    shares = []
    while bench.clock.now < 100:
        bench.clock.now += bench.learning.work(bench.ticket) + 1e-6
        shares.append(bench.figure("share of time"))
    assert max(shares) <= 0.2 + 1e-6 and len(fake.problems) == 1000 - 50
    bench.learning.reconfigure(settings_with(max_share=0.0))
    assert bench.learning.work(bench.ticket) is None


def test_a_thread_given_up_in_a_piece_ends_alone_before_the_next_one_learns() -> None:
    entered, release = threading.Event(), threading.Event()

    def hang() -> bool:
        entered.set()
        return release.wait(10)

    bench, fake = failing(hang, True)
    thread = threading.Thread(target=bench.learning.work, args=(bench.ticket,))
    thread.start()
    assert entered.wait(10)
    bench.ticket.is_current = False
    other = Ticket(bench.clock)
    assert bench.learning.work(other) == LOOK_AGAIN_S
    assert fake.restored == 1 and len(fake.problems) == 1
    assert "given up" in bench.learning.report()[0]
    release.set()
    thread.join(10)
    assert bench.learning.report()[0] == "learning"
    assert bench.learning.work(other) == 0 and fake.problems == []


def test_the_weights_in_use_are_saved_also_from_the_middle_of_a_piece(folder: Path) -> None:
    """The model then holds other weights."""
    bench = Bench(folder=str(folder))
    bench.learning.begin()
    bench.learn()
    learner = bench.learning._adaptation
    in_use = learner.weights()
    with torch.no_grad(), learner._using({n: w + 1 for n, w in in_use.items()}):
        bench.learning.save()
    weights, _ = adapter_files.load_newest(folder, learner.original(), "model 0")
    assert all(torch.equal(weights[name], in_use[name]) for name in in_use)
