"""Learning from measured points: it helps, it never lasts when it harms, and it leaves no trace."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from models import frame as scene
from models import random_model

from sdim_ros.core import adaptation as module
from sdim_ros.core import checkpoint, frame_memory
from sdim_ros.core.adaptation import Adaptation
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import ModelSettings, Settings, with_values
from sdim_ros.core.fusion import FusionConfig
from sdim_ros.core.model import SdimModel
from sdim_ros.core.types import BadInput, Frame, ModelFailed
from sdim_ros.tools import sampling

FILLS = ("nearest", "linear")
FUSION = FusionConfig(8, 8, 16, 8, norm="group", fills=FILLS)


def frame(number: int = 0, points: int = 300) -> Frame:
    image, sparse = scene(number, points=points)
    return Frame(image, sparse, stamp_ns=(number + 1) * 10**8, name=f"{number}")


def adaptation(seed: int = 0, model: SdimModel | None = None, **settings: object) -> Adaptation:
    model = model or random_model(sharpen=1.0, fusion=FUSION, hints=FILLS, told="guess")
    how = with_values(Settings(), {f"adaptation.{n}": v for n, v in {
        "frames": 1, "pixels": 16, "judge_every": 2, "learning_rate": 3e-3, **settings}.items()})
    return Adaptation(Completer(how, model), how.adaptation, seed)


@pytest.fixture
def trained() -> SdimModel:
    """The embedded checkpoint: its answers are near the truth."""
    return checkpoint.load(ModelSettings())


def learn(learner: Adaptation, steps: int, first: int = 0) -> None:
    """Steps on frames that come one by one."""
    end = learner.total_steps + steps
    number = first
    while learner.total_steps < end and learner.status.state == "learning":
        learner.observe(frame(number))
        number += 1
        for _ in range(4):
            learner.work()


def state(learner: Adaptation) -> dict[str, torch.Tensor]:
    return {n: v.clone() for n, v in learner.completer.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_it_unlearns_what_is_wrong_by_points_that_it_never_trained_on(trained) -> None:
    """The fusion is made to believe that everything is farther than it is."""
    with torch.no_grad():
        trained.fusion.mixing.bias[-2] += 0.3  # 9 % farther
    learner = adaptation(model=trained, judge_every=4, learning_rate=0.01, average=0.5)
    learn(learner, 12)
    learner.settle()
    status = learner.status
    assert status.state == "learning" and status.steps > 0
    assert status.error_now < 0.8 * status.error_before


def test_the_same_frames_and_seed_give_the_same_weights() -> None:
    one, again, other = (adaptation(seed) for seed in (1, 1, 2))
    for learner in (one, again, other):
        learn(learner, 4)
    assert same(one.weights(), again.weights())
    assert not same(one.weights(), other.weights())


def test_only_the_chosen_parts_change_and_statistics_stay_frozen() -> None:
    learner = adaptation(parts="fusion")
    before = state(learner)
    learn(learner, 4)
    learner.settle()
    changed = {n for n, v in state(learner).items() if not torch.equal(v, before[n])}
    assert changed and all(name.startswith("fusion.") for name in changed)
    assert not any(p.requires_grad or p.grad is not None
                   for p in learner.completer.model.parameters())


def test_lora_of_the_last_layers_learns_beside_the_parts_of_sdim() -> None:
    image, sparse = scene()
    plain = adaptation().completer.complete(Frame(image, sparse)).depth
    learner = adaptation(parts="fusion+point+lora", lora_layers=1)
    np.testing.assert_array_equal(
        learner.completer.complete(Frame(image, sparse)).depth, plain)  # B is 0
    names = [n for n in learner.weights() if "lora" in n]
    assert names and all(".layers.1." in name for name in names)
    learn(learner, 4)
    learner.settle()
    assert any(learner.weights()[n].any() for n in names if "lora_B" in n)


def test_between_two_pieces_of_work_inference_sees_judged_weights_only() -> None:
    learner = adaptation(judge_every=10)
    original = state(learner)
    learner.observe(frame(0))
    while learner.total_steps < 3:
        assert learner.work()
        assert same(state(learner), original)  # nothing was judged yet
    learner.settle()
    assert not same(state(learner), original) or learner.status.rollbacks


def test_points_that_judge_are_never_shown_and_never_asked_in_a_lesson(monkeypatch) -> None:
    learner = adaptation()
    learner.observe(frame(0))
    learner.work()
    judges = set(learner.memory.frames[0].judge)
    seen: list[np.ndarray] = []
    pose = module.pose_questions

    def watched(image, shown, labels, *rest, **how):
        seen.extend((shown, labels))
        return pose(image, shown, labels, *rest, **how)

    monkeypatch.setattr(module, "pose_questions", watched)
    mirrored = np.arange(learner.memory.frames[0].image[..., 0].size).reshape(
        learner.memory.frames[0].image.shape[:2])[:, ::-1].ravel()
    for _ in range(20):
        learner.work()
    assert seen
    for depth in seen:
        at = set(np.flatnonzero(depth))
        assert not at & judges or not {int(mirrored[p]) for p in at} & judges


def test_what_turns_out_worse_is_rolled_back_bit_by_bit(monkeypatch) -> None:
    learner = adaptation()
    learn(learner, 4)
    learner.settle()
    good, steps = state(learner), learner.status.steps
    judged = learner._error

    def worse(memory_frame):
        used = learner.completer.model.state_dict()
        known = all(torch.equal(used[n], good[n]) for n in learner.weights())
        return judged(memory_frame) * (1 if known else 1.5)

    monkeypatch.setattr(learner, "_error", worse)
    learn(learner, 4, first=50)
    learner.settle()
    assert learner.status.rollbacks >= 2 and same(state(learner), good)
    assert learner.status.steps == steps


def test_what_is_worse_by_chance_is_not_used_and_not_thrown_away(monkeypatch) -> None:
    learner = adaptation()
    original = state(learner)
    judged = []

    def by_chance(memory_frame):
        used = learner.completer.model.state_dict()
        if all(torch.equal(used[n], original[n]) for n in learner.weights()):
            return 0.1
        judged.append(memory_frame)
        return 0.13 if len(judged) % 2 else 0.08  # the mean is higher, and hardly for all

    monkeypatch.setattr(learner, "_error", by_chance)
    for number in range(8):
        learner.observe(frame(number))
        learner.work()
    for kept in learner.memory.frames:
        kept.error[module.ORIGINAL] = 0.1
    before = {n: w.detach().clone() for n, w in learner._master.items()}
    learn(learner, 3, first=50)
    learner.settle()
    assert judged and same(state(learner), original)
    assert learner.status.rollbacks == 0 and learner.status.steps == learner.total_steps > 0
    assert not same({n: w.detach() for n, w in learner._master.items()}, before)


def test_worse_than_the_original_twice_goes_back_to_it_and_pauses(monkeypatch) -> None:
    learner = adaptation()
    original = state(learner)
    learn(learner, 4)
    learner.settle()
    assert not same(state(learner), original)
    versions = iter(range(10**6))

    def creeping(memory_frame):  # each a little worse than the last, within the tolerance
        used = learner.completer.model.state_dict()
        if all(torch.equal(used[n], original[n]) for n in learner.weights()):
            return 0.01
        return 0.0105 - 1e-7 * next(versions)

    monkeypatch.setattr(learner, "_error", creeping)
    for kept in learner.memory.frames:
        kept.error.clear()
        kept.error[module.ORIGINAL] = 0.01
    learn(learner, 8, first=50)
    assert learner.status.state.startswith("paused") and same(state(learner), original)
    assert learner.status.rollbacks == 1 and learner.status.error_before == 0.01
    assert not learner.work()
    learner.reset()
    assert learner.status.state == "learning" and learner.work()


@pytest.mark.parametrize(("said", "kind", "words"), [
    ("CUDA out of memory. Tried to allocate", ModelFailed, "lower adaptation.pixels"),
    ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", ModelFailed, "adaptation.pixels"),
    ("CUDA error: an illegal memory access was encountered", RuntimeError, "illegal"),
    ("shapes do not fit", RuntimeError, "shapes")])
def test_only_want_of_memory_is_told_as_that(monkeypatch, said: str, kind: type, words: str
                                             ) -> None:
    learner = adaptation()
    learn(learner, 1)

    def fails(*args):
        raise RuntimeError(said)

    monkeypatch.setattr(module, "supervised_loss", fails)
    with pytest.raises(kind, match=words) as caught:
        for _ in range(12):
            learner.work()
    assert type(caught.value) is kind


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_dropped(monkeypatch, broken: str) -> None:
    learner = adaptation()
    learn(learner, 3)
    supervised, before = module.supervised_loss, learner.total_steps
    master = {n: w.detach().clone() for n, w in learner._master.items()}

    def spoilt(*args):
        loss, parts = supervised(*args)
        if broken == "loss":
            return loss * math.nan, parts
        loss.register_hook(lambda gradient: gradient * math.nan)
        return loss, parts

    monkeypatch.setattr(module, "supervised_loss", spoilt)
    for _ in range(12):
        learner.work()
    assert learner.status.dropped_steps > 0 and learner.total_steps == before
    assert same({n: w.detach() for n, w in learner._master.items()}, master)
    monkeypatch.undo()
    learn(learner, 1, first=20)


def test_weights_do_not_drift_further_than_allowed() -> None:
    learner = adaptation(max_drift=0.01, learning_rate=0.05)
    learn(learner, 4)
    moved = math.sqrt(sum(float((learner._master[n].detach() - w).square().sum())
                          for n, w in learner._original.items()))
    length = math.sqrt(sum(float(w.square().sum()) for w in learner._original.values()))
    assert moved == pytest.approx(0.01 * length, rel=0.01)


def test_a_frame_with_many_wrong_points_is_not_believed(trained) -> None:
    learner = adaptation(model=trained)
    for number in range(6):
        learner.observe(frame(number))
        learner.work()
    assert len(learner.memory.frames) == 6
    spoilt = frame(20)
    wrong = sampling.add_outliers(spoilt.sparse, "30%", 0)
    learner.observe(dataclasses.replace(spoilt, sparse=wrong))
    learner.work()
    assert learner.status.refused == {"implausible": 1} and len(learner.memory.frames) == 6
    learner.observe(frame(21))
    learner.work()
    assert len(learner.memory.frames) == 7


def test_many_wrong_frames_do_not_become_the_usual_ones_before_there_are_very_many(
        monkeypatch) -> None:
    learner = adaptation()
    errors = iter([0.1] * 6 + [0.5] * 20 + [0.1] * 2 + [0.5] * module.BELIEVED_AFTER)
    monkeypatch.setattr(learner, "_error", lambda _: next(errors))

    def admitted(count: int) -> int:
        before = len(learner.memory.frames)
        for number in range(count):
            learner.observe(frame(number))
            learner._admit()
        return len(learner.memory.frames) - before

    assert [admitted(count) for count in (6, 20, 2, module.BELIEVED_AFTER)] == [6, 0, 2, 1]


def test_reset_gives_the_loaded_weights_back_bit_by_bit() -> None:
    learner = adaptation()
    original = state(learner)
    learn(learner, 4)
    learner.settle()
    learner.reset()
    assert same(state(learner), original) and learner.status.steps == 0


def test_a_second_draw_begins_as_the_first_one_did() -> None:
    learner, other = adaptation(seed=0), adaptation(seed=1)
    learn(learner, 3)
    for _ in range(2):  # rollbacks, which make it careful
        learner._conclude([(0.1, 0.1, 0.5)] * 8)
    assert learner.status.rollbacks == 2
    learner.start_over(seed=1)
    for each in (learner, other):
        learn(each, 3)
    assert all(torch.equal(learner._master[name], other._master[name]) for name in other._master)


def test_learning_goes_on_from_loaded_weights_and_compares_with_the_original(monkeypatch) -> None:
    first = adaptation()
    monkeypatch.setattr(first, "_error", lambda _: 0.1)  # all is as good as the last
    learn(first, 4)
    first.settle()
    second = adaptation()
    second.load(first.weights())
    assert same(second.weights(), first.weights())
    with second.as_loaded():
        assert same(state(second), state(adaptation()))
    assert same(state(second), state(first))
    learn(second, 3)
    second.settle()
    assert second.status.error_now <= second.status.error_before * (1 + module.TOLERANCE)


def test_a_frame_without_a_point_that_judges_is_refused_and_spoils_nothing(monkeypatch) -> None:
    learner = adaptation()
    monkeypatch.setattr(frame_memory, "JUDGE_SHARE", 0.0)
    with pytest.raises(BadInput, match="judge"):
        learner.observe(frame(0))
    assert not learner.work()
    monkeypatch.undo()
    learn(learner, 1, first=1)
    assert learner.status.refused == {"too_few_points": 1}


def test_a_frame_that_nothing_can_be_asked_about_is_forgotten(monkeypatch) -> None:
    learner = adaptation()
    learner.observe(frame(0))
    learner.work()

    def refuse(*_: object, **how: object) -> None:
        raise BadInput("nothing_to_ask", "no pixel")

    monkeypatch.setattr(module, "pose_questions", refuse)
    assert learner.work() and not learner.work()
    assert learner.status.refused == {"nothing_to_ask": 1} and not learner.memory.frames


def test_a_frame_whose_points_left_the_range_is_forgotten_when_it_is_to_judge() -> None:
    learner = adaptation(judge_every=1)
    learner.observe(frame(0))
    assert learner.work() and learner.work() and learner.work()  # kept, learnt from, to judge
    limits = with_values(learner.completer.settings, {"input.max_depth_m": 0.2})
    learner.completer.reconfigure(limits)
    assert learner.work() and not learner.work()
    assert learner.status.refused == {"no_points": 1} and not learner.memory.frames
    assert learner.status.state == "learning"


def test_there_is_nothing_to_do_without_a_frame() -> None:
    learner = adaptation()
    assert not learner.work()
    with pytest.raises(BadInput, match="points"):
        learner.observe(frame(0, points=3))
    assert learner.status.refused == {"too_few_points": 1} and not learner.work()
