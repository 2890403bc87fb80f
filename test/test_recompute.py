"""Gradient checkpointing changes memory, not gradients."""

from __future__ import annotations

import pytest
import torch
from models import random_model
from training_runs import small_recipe, write_frames

from sdim_ros.core import engine
from sdim_ros.core.attention import OwnCache
from sdim_ros.core.lora import LoraSettings, add_lora, lora_parameters
from sdim_ros.core.model import SdimModel
from sdim_ros.core.recompute import recompute_layers
from sdim_ros.core.supervision import Batch
from sdim_ros.tools.training.batches import TrainingBatches
from sdim_ros.tools.training.objective import Objective


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    folder = tmp_path_factory.mktemp("data")
    recipe = small_recipe(write_frames(folder / "frames"))
    return TrainingBatches(recipe.data, random_model().config, 2, 12, 0, 1, folder)[0]


def model_with(lora: bool) -> SdimModel:
    model = random_model(sharpen=1.5)
    if lora:
        add_lora(model, LoraSettings(rank=4))
        model.requires_grad_(True)
        torch.manual_seed(1)
        for parameter in lora_parameters(model).values():
            parameter.data.normal_(0, 0.05)
    return model


def gradients(model: SdimModel, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    loss, _ = Objective(model, small_recipe().training).train()(batch)
    loss.backward()
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("lora", [False, True])
def test_gradients_are_equal_with_and_without(lora: bool, batch: Batch) -> None:
    loss, expected = gradients(model_with(lora), batch)
    saving = model_with(lora)
    recompute_layers(saving)
    again, seen = gradients(saving, batch)
    assert again == loss
    assert seen.keys() == expected.keys() and len(seen) > 60
    for name, gradient in expected.items():
        torch.testing.assert_close(seen[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


def test_layers_keep_less_for_the_backward_pass(batch: Batch) -> None:
    def kept(model: SdimModel) -> int:
        """Bytes that autograd holds after the forward pass, outside of recomputed layers."""
        sizes: dict[int, int] = {}

        def hold(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            loss, _ = Objective(model, small_recipe().training).train()(batch)
        assert loss.requires_grad
        return sum(sizes.values())

    saving = model_with(lora=False)
    recompute_layers(saving)
    assert kept(saving) < 0.6 * kept(model_with(lora=False))


def test_questions_to_the_model_are_answered_as_without(batch: Batch) -> None:
    """Digit after digit over a cache that grows, which no recomputation could follow."""
    answers = []
    for saves in (False, True):
        model = model_with(lora=False)
        if saves:
            recompute_layers(model)
        with torch.no_grad():
            prefix = model.encode(model.prepare(batch.images[:1], batch.sparses[:1]))
            suffix = model.point_suffix(prefix, batch.queries.image(0))[0]
            answers.append(engine.decode(model, prefix, suffix, "median").digits)
    assert (answers[0] == answers[1]).all()


def test_a_cache_that_holds_tokens_already_is_refused(batch: Batch) -> None:
    model = model_with(lora=False).train()
    recompute_layers(model)
    prefix = model.encode(model.prepare(batch.images[:1], batch.sparses[:1]))
    suffix = model.point_suffix(prefix, batch.queries.image(0))[0]
    own, positions = OwnCache(), engine.following(prefix.positions, suffix.shape[1])
    model.language(suffix, positions, own, prefix.cache)
    with pytest.raises(ValueError, match="expected the first tokens of each sequence"):
        model.language(suffix, positions, own, prefix.cache)
