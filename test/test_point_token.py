"""What the tokens of a query carry."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from models import CONFIG, frame, random_model
from test_engine import ask

from sdim_ros.core import engine
from sdim_ros.core.point_token import guess

NEIGHBOURS, HINTS = 3, 2
GUESSING = dataclasses.replace(CONFIG.fusion, fills=CONFIG.hints)


@pytest.mark.parametrize(("told", "length"), [
    ("tokens", NEIGHBOURS + HINTS + 1), ("guess", 2), ("both", NEIGHBOURS + HINTS + 2)])
def test_a_query_has_the_tokens_that_its_configuration_names(told: str, length: int) -> None:
    model = random_model(told=told, fusion=GUESSING)
    assert model.point_suffix(*ask(model, 20)).shape[:3] == (1, 20, length)


@pytest.mark.parametrize(("neighbours", "hints", "told"), [
    (0, (), "tokens"), (3, (), "tokens"), (0, ("linear",), "tokens"), (0, ("linear",), "guess"),
    (0, ("linear",), "both")])
def test_a_query_may_be_told_little_or_nothing(neighbours: int, hints: tuple, told: str) -> None:
    fusion = dataclasses.replace(CONFIG.fusion, fills=hints)
    model = random_model(told=told, fusion=fusion, neighbours=neighbours, hints=hints)
    around = neighbours + len(hints) if told != "guess" else 0
    assert model.point_suffix(*ask(model, 5)).shape[2] == around + (told != "tokens") + 1


def test_the_guess_told_is_that_at_the_pixel() -> None:
    model = random_model(told="guess", fusion=GUESSING)
    prefix, asked = ask(model, 10)
    whole = model.point_suffix(prefix, asked)
    shifted = dataclasses.replace(prefix, mixing=prefix.mixing + 0.3)
    moved = (model.point_suffix(shifted, asked) - whole).abs().amax(-1)
    assert (moved[..., 0] > 1e-3).all() and not moved[..., 1].any()
    elsewhere = prefix.mixing.clone()
    x, y = (asked.position[0, 0] * torch.tensor(prefix.mixing.shape[:1:-1])).long()
    elsewhere[..., :max(y - 3, 0), :] += 0.3
    elsewhere[..., y + 3:, :] += 0.3
    same = model.point_suffix(dataclasses.replace(prefix, mixing=elsewhere), asked.part(0, 1))
    torch.testing.assert_close(same, whole[:, :1])


def test_the_text_loss_leaves_the_guess_to_its_own_loss() -> None:
    """Digits are a jagged function of the guess: their gradient would tell it nothing."""
    model = random_model(told="guess", fusion=GUESSING)
    prefix, asked = ask(model, 5)
    model.point_suffix(prefix, asked).sum().backward(retain_graph=True)
    assert model.fusion.mixing.weight.grad is None
    prefix.mixing.sum().backward()
    assert model.fusion.mixing.weight.grad is not None


def test_without_a_measurement_there_is_no_guess() -> None:
    model = random_model(told="guess", fusion=GUESSING)
    prefix, asked = ask(model, 5)
    assert (guess(asked, prefix.mixing) > 0).all()
    nothing = dataclasses.replace(asked, hints=torch.zeros_like(asked.hints))
    assert not guess(nothing, prefix.mixing).any()


@pytest.mark.parametrize(("prompt", "mask_counts", "value_counts"), [
    ("mask_value", True, True), ("mask", True, False), ("none", False, False)])
@pytest.mark.parametrize("addressing", ["point", "text"])
def test_the_prompt_tells_as_much_of_a_measurement_as_it_should(
        addressing: str, prompt: str, mask_counts: bool, value_counts: bool) -> None:
    model = random_model(prompt=prompt, addressing=addressing)
    prefix, asked = ask(model, 6, told=True)
    digits = torch.zeros(1, 6, model.config.number.digits, dtype=torch.long)

    def answer(measured: torch.Tensor) -> torch.Tensor:
        return engine.training_logits(
            model, prefix, dataclasses.replace(asked, measured=measured), digits)

    told, other, missing = (
        answer(m) for m in (asked.measured, 1.5 * asked.measured, 0 * asked.measured))
    assert torch.equal(told, other) != value_counts
    assert torch.equal(told, missing) != mask_counts


def test_in_text_mode_each_question_gets_its_own_answer_in_training_too() -> None:
    """Prompts of unequal length are grouped; the answers come back in the order of the asking."""
    model = random_model(addressing="text")
    prefix, asked = ask(model, 8)
    asked = dataclasses.replace(asked, measured=torch.tensor([[0, 1.5, 0, 0, 2.0, 0, 0, 1.0]]))
    digits = torch.randint(0, 10, (1, 8, model.config.number.digits))
    together = engine.training_logits(model, prefix, asked, digits)
    for i in range(8):
        alone = engine.training_logits(model, prefix, asked.part(i, i + 1), digits[:, i:i + 1])
        torch.testing.assert_close(together[:, i:i + 1], alone, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_points_in_the_prefix_are_measured_ones_and_seen_by_every_query() -> None:
    model = random_model(prefix_points=40)
    image, sparse = frame()
    inputs = model.prepare([image, image], [sparse, 0 * sparse])
    x, y, value = inputs.points[0].T
    measured = np.unique(sparse[sparse > 0] / model.config.unit_of(sparse))
    assert np.abs(value.numpy()[:, None] - measured).min(axis=1).max() < 1e-5
    assert len(set(zip(x.tolist(), y.tolist()))) == 40 and not inputs.points[1].any()
    plain = random_model()
    assert model.encode(inputs).positions.shape[1] == 40 + plain.encode(
        plain.prepare([image], [sparse])).positions.shape[1]
    few = np.where(np.cumsum(sparse > 0).reshape(sparse.shape) <= 3, sparse, 0)
    assert len(np.unique(model.prepare([image], [few]).points[0, :, 2])) <= 3


@torch.inference_mode()
def test_answers_depend_on_the_points_in_the_prefix() -> None:
    model = random_model(prefix_points=10)
    prefix, asked = ask(model, 5)
    image, sparse = frame()
    inputs = model.prepare([image], [sparse])
    other = dataclasses.replace(inputs, points=inputs.points * torch.tensor([1.0, 1.0, 2.0]))
    suffix = model.point_suffix(prefix, asked)
    digits = torch.zeros(1, 5, model.config.number.digits, dtype=torch.long)
    one, two = (engine.teacher_forced(model, model.encode(x), suffix, digits)
                for x in (inputs, other))
    assert (one - two).abs().amax((1, 2, 3)).min() > 1e-3
