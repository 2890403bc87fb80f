"""Learning to write a number that is told, before any picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from models import CONFIG, random_model
from training_runs import small_values

from sdim_ros.core import engine
from sdim_ros.core.types import BadSetting
from sdim_ros.tools.training import recipe as recipes
from sdim_ros.tools.training import spelling
from sdim_ros.tools.training.parallel import Parallel
from sdim_ros.tools.training.recipe import Recipe
from sdim_ros.tools.training.trainer import Training

FILLS = ("linear", "edge_aware")


def recipe(**training: object) -> Recipe:
    values = small_values(**training)
    values["sdim"]["fusion"]["fills"] = list(FILLS)
    values["sdim"]["told"] = "guess"
    return recipes.parse(values)


@torch.no_grad()
def written(model) -> tuple[np.ndarray, np.ndarray]:
    """What is told, and what the model answers, in the number's unit."""
    queries, _ = spelling._questions(model, np.random.default_rng(7))
    prefix = spelling._empty_prefix(model)
    path = engine.decode(model, prefix, model.point_suffix(prefix, queries)[0], "median")
    return queries.hints[0, :, 0].numpy(), model.config.number.value(path.digits)


def test_it_writes_about_the_number_that_it_is_told() -> None:
    fusion = dataclasses.replace(CONFIG.fusion, fills=FILLS)
    model = random_model(sharpen=1.0, fusion=fusion, hints=FILLS, told="guess")
    told, before = written(model)
    seen = []
    spelling.teach(model, recipe(spelling=150, learning_rate=3e-3).training, 0,
                   lambda done, wanted: seen.append((done, wanted)))
    _, after = written(model)
    assert seen == [(n, 150) for n in range(1, 151)]
    assert np.median(np.abs(np.log(np.maximum(before, 1e-3) / told))) > 0.5
    assert np.median(np.abs(np.log(np.maximum(after, 1e-3) / told))) < 0.2


def test_a_new_run_learns_it_once_and_a_resumed_one_does_not_again(tmp_path: Path) -> None:
    taught, plain = recipe(spelling=2), recipe()

    def start(which: Recipe, folder: str) -> tuple[Training, list]:
        seen = []
        (tmp_path / folder).mkdir(exist_ok=True)
        training = Training(which, Parallel(cpu=True), tmp_path / folder,
                            report=lambda *steps: seen.append(steps))
        return training, seen

    first, seen = start(taught, "taught")
    assert seen == [(1, 2), (2, 2)]
    untaught, nothing = start(plain, "plain")
    assert nothing == []
    moved = {name for (name, value), (_, other) in zip(
        first.model.named_parameters(), untaught.model.named_parameters(), strict=True)
        if not torch.equal(value, other)}
    assert moved and not any(name.startswith(("qwen.model.visual", "fusion")) for name in moved)
    first.save()
    again, seen = start(taught, "taught")
    assert seen == []
    for value, other in zip(again.model.parameters(), first.model.parameters(), strict=True):
        assert torch.equal(value, other)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_any_number_of_steps_will_do(steps: int, tmp_path: Path) -> None:
    seen = []
    Training(recipe(spelling=steps), Parallel(cpu=True), tmp_path,
             report=lambda *done: seen.append(done))
    assert seen[-1] == (steps, steps)


@pytest.mark.parametrize("changes", [{"base": "somewhere", "qwen": None},
                                     {"sdim": {"addressing": "text"}}])
def test_models_that_gain_nothing_by_it_are_refused(changes: dict) -> None:
    values = {**small_values(spelling=10), **changes}
    with pytest.raises(BadSetting, match=r"training.spelling is 10: expected 0 with a base"):
        recipes.parse(values)
