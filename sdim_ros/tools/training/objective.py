"""What is minimised: the model and its loss in one module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdim_ros.core import engine
from sdim_ros.core.losses import guess_loss, text_loss
from sdim_ros.core.model import SdimModel
from sdim_ros.tools.training.recipe import TrainingRecipe
from sdim_ros.tools.training.batches import Batch


def number_type(precision: str, device: torch.device) -> torch.dtype:
    """The type of matrix products: as the recipe says, or for ``auto`` what the device is fast at.

    A CPU without instructions for bfloat16 emulates it, ten times slower than float32.
    """
    if precision != "auto":
        return getattr(torch, precision)
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if (
        device.type == "cuda") else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


class Objective(nn.Module):
    """One call is one forward pass, so that the hooks of DDP and FSDP see all of it.

    Args:
        keep_ends: tie the last hidden states of both language passes to the loss. Sharded layers
            gather their weights when the gradient reaches their output, and of the last layer's
            first pass only keys and values are used, which no hook sees.
    """

    def __init__(self, model: SdimModel, recipe: TrainingRecipe, keep_ends: bool = False) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        self._ends: list[Tensor] = []
        if keep_ends:
            model.qwen.model.language_model.register_forward_hook(self._keep_end)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch.

        Returns:
            loss: a scalar, the mean over all questions of the batch.
            parts: its terms before they are weighed, detached scalars by name.
        """
        digits = torch.from_numpy(batch.digits).to(self.model.device)
        with self.precision():
            inputs = self.model.prepare(batch.images, batch.sparses)
            prefix = self.model.encode(inputs)
            logits = engine.training_logits(
                self.model, prefix, batch.queries.to(self.model.device), digits)
        loss, parts = self._text_loss(logits, digits)
        if prefix.mixing is not None:
            labels = torch.from_numpy(np.stack(batch.labels) / batch.unit[:, None, None])
            guessed = guess_loss(prefix.mixing, inputs.depth[:, 2:], labels.to(inputs.depth))
            loss, parts["guess"] = loss + self.recipe.guess_weight * guessed, guessed.detach()
        for end in self._ends:
            loss = loss + 0.0 * end.float().sum()
        self._ends.clear()
        return loss, parts

    def _text_loss(self, logits: Tensor, digits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        recipe, number = self.recipe, self.model.config.number
        loss = text_loss(logits, digits, number, recipe.metric_weight, recipe.slot_weights)
        entropy = text_loss(logits.detach(), digits, number, 0.0, recipe.slot_weights)
        metric = (loss.detach() - entropy) / (recipe.metric_weight or 1.0)
        return loss, {"cross_entropy": entropy, "metric_term": metric}

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Matrix products in the recipe's number type."""
        kind = number_type(self.recipe.precision, self.model.device)
        with torch.autocast(self.model.device.type, kind, enabled=kind != torch.float32):
            yield

    def _keep_end(self, _: nn.Module, __: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            self._ends.append(output.last_hidden_state)
