"""LoRA adapts the language model alone, and only what shall train moves."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from models import frame, random_model
from training_runs import small_values, write_frames

from sdim_ros.core import engine, queries
from sdim_ros.core import model as network
from sdim_ros.core.lora import LoraSettings, add_lora, lora_parameters, merge_lora
from sdim_ros.core.model import SdimModel, random_twin
from sdim_ros.tools.training import recipe as recipes
from sdim_ros.tools.training import tiny
from sdim_ros.tools.training.objective import Objective
from sdim_ros.tools.training.qwen_3b import qwen_3b_config
from sdim_ros.tools.training.starting_model import adapt
from sdim_ros.tools.training.batches import TrainingBatches

LAYERS = "qwen.model.language_model.layers."


@torch.inference_mode()
def logits(model: SdimModel) -> torch.Tensor:
    """What the model thinks of the digits 2.000 at three pixels."""
    image, sparse = frame()
    rows, cols = np.array([3, 30, 77]), np.array([5, 60, 100])
    maps = queries.hint_maps(sparse, image, model.config.hints)
    asked = queries.describe(model.config, sparse, rows, cols,
                             {name: m[rows, cols] for name, m in maps.items()},
                             model.config.unit_of(sparse))
    prefix = model.encode(model.prepare([image], [sparse]))
    digits = torch.tensor([0, 2, 0, 0, 0]).expand(1, 3, 5)
    return engine.teacher_forced(model, prefix, model.point_suffix(prefix, asked), digits)


def shaken(model: SdimModel) -> SdimModel:
    """LoRA with other values than its first ones, which change nothing."""
    with torch.no_grad():
        for parameter in lora_parameters(model).values():
            parameter.normal_(0, 0.05)
    return model


def test_every_matrix_of_the_language_model_is_adapted_and_nothing_else() -> None:
    model = random_model()
    add_lora(model, LoraSettings(rank=4))
    adapted = {name.split(".lora_")[0] for name in lora_parameters(model)}
    assert adapted == {
        f"{LAYERS}{layer}.{matrix}" for layer in range(2) for matrix in (
            "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")}


def test_lora_changes_no_answer_before_training() -> None:
    plain, adapted = random_model(), random_model()
    add_lora(adapted, LoraSettings(rank=4))
    assert torch.equal(logits(plain), logits(adapted.eval()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_merged_answers_are_those_of_the_layers_beside(dtype: torch.dtype, tolerance: float
                                                       ) -> None:
    model = random_model(sharpen=1.5)
    plain = logits(model)
    add_lora(model, LoraSettings(rank=4))
    beside = logits(shaken(model).eval())
    model.to(dtype)
    merge_lora(model)
    merged = logits(model).float()
    assert not lora_parameters(model)
    assert {n.replace("base_layer.", "") for n, _ in model.named_parameters()} == {
        n for n, _ in random_model().named_parameters()}
    assert (beside - plain).abs().max() > 4 * tolerance  # otherwise nothing is tested
    torch.testing.assert_close(merged, beside, atol=tolerance, rtol=0)


def test_a_random_twin_of_an_adapted_model_answers() -> None:
    model = random_model()
    add_lora(model, LoraSettings(rank=4))
    assert torch.isfinite(logits(random_twin(model, 0))).all()


def test_the_3b_takes_steps_in_bfloat16_and_only_the_intended_parameters_move(
        tmp_path: Path) -> None:
    """The real widths of Qwen2.5-VL-3B with LoRA and fusion; few layers, a small picture and
    short numbers, since a CPU without bfloat16 takes minutes for more."""
    values = {**small_values(write_frames(tmp_path / "frames"), precision="bfloat16", images=1,
                             pixels=1, learning_rate=1e-3), "base": "some/base",
              "lora": {"rank": 8, "alpha": 16}}
    values["sdim"].update(max_pixels=3_200, min_pixels=1_600, prompt="none")
    values["sdim"]["number"].update(integer_digits=1, decimals=1)
    del values["qwen"]
    recipe = recipes.parse(values)
    with tempfile.TemporaryDirectory() as folder:
        tiny.write_tokenizer(Path(folder))
        tokenizer = network.load_tokenizer(folder)
    torch.manual_seed(0)
    before_type = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # as a stock model is loaded
    try:
        model = network.build(qwen_3b_config(1, 2, len(tokenizer)), recipe.sdim, tokenizer)
    finally:
        torch.set_default_dtype(before_type)
    adapt(model, recipe)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    intended = {n for n in before if ".lora_" in n or n.startswith(
        ("fusion.", "point.", "qwen.model.visual.patch_embed.depth."))}
    batches = TrainingBatches(recipe.data, model.config, 1, 1, 0, 2, tmp_path)
    objective = Objective(model, recipe.training).train()
    # Without weight decay only a gradient moves a parameter.
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    for number in range(2):  # in the first, what starts at zero lets no gradient through
        loss, _ = objective(batches[number])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert torch.isfinite(loss)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == intended
    frozen = [p for n, p in model.named_parameters() if n not in intended]
    assert {p.dtype for p in frozen} == {torch.bfloat16}
    assert sum(p.numel() for p in frozen) > 150e6
