"""The model that a training starts with: from nothing, or on a stock Qwen2.5-VL."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from sdim_ros.core import checkpoint, model
from sdim_ros.core.checkpoint import Base
from sdim_ros.core.lora import add_lora, is_lora
from sdim_ros.core.model import SdimModel
from sdim_ros.core.types import BadSetting
from sdim_ros.tools.training import tiny
from sdim_ros.tools.training.objective import number_type
from sdim_ros.tools.training.recipe import Recipe


def starting_model(recipe: Recipe, device: torch.device, allow_download: bool = False
                   ) -> tuple[SdimModel, Base | None]:
    """The recipe's model before its first step; what shall train requires gradients.

    Args:
        device: where it is going to train; a base is loaded in the number type for it.
        allow_download: fetch a base that is not in the local cache.

    Returns:
        the model on the CPU, and its stock base if it has one.

    Raises:
        BadSetting: the sizes of Qwen2.5-VL do not fit together.
        ModelUnavailable: the base cannot be loaded.
    """
    torch.manual_seed(recipe.seed)
    if recipe.base is None:
        return from_nothing(recipe), None
    started, base = checkpoint.load_base(
        recipe.base, None, local_only=not allow_download,
        dtype=number_type(recipe.training.precision, device), config=recipe.sdim)
    adapt(started, recipe)
    return started, base


def from_nothing(recipe: Recipe) -> SdimModel:
    """Random weights and the small vocabulary; everything trains."""
    with TemporaryDirectory() as folder:
        tiny.write_tokenizer(Path(folder))
        tokenizer = model.load_tokenizer(folder)
    sizes: dict[str, Any] = dict(recipe.qwen)
    sizes["text_config"] = {**sizes.get("text_config", {}), "vocab_size": len(tokenizer),
                            "bos_token_id": None, "eos_token_id": None}
    try:
        return model.build(sizes, recipe.sdim, tokenizer)
    except Exception as problem:  # sizes that do not fit make transformers raise almost anything
        raise BadSetting(
            f"qwen: Qwen2.5-VL cannot be made with these sizes ({type(problem).__name__}: "
            f"{problem}); start from those in config/train_tiny.yaml") from problem


def adapt(stock: SdimModel, recipe: Recipe) -> None:
    """LoRA on the language model and full training of the SDIM parts, in place.

    What trains is kept in float32: steps of a small learning rate are lost in bfloat16.
    """
    if recipe.lora is not None:
        add_lora(stock, recipe.lora)
    for name, parameter in stock.named_parameters():
        trains = name.startswith(checkpoint.SDIM_PARTS) or is_lora(name)
        parameter.requires_grad_(trains)
        if trains:
            parameter.data = parameter.data.float()
    for name, values in stock.named_buffers():  # statistics of batch normalisation
        if name.startswith(checkpoint.SDIM_PARTS) and values.is_floating_point():
            values.data = values.data.float()
