"""What is minimised: the model and its loss in one module."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from sdim_ros.core.model import SdimModel
from sdim_ros.core.supervision import Batch, LossWeights, in_precision, supervised_loss
from sdim_ros.tools.training.recipe import TrainingRecipe


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
        self._weights = LossWeights(
            recipe.metric_weight, recipe.slot_weights, recipe.guess_weight,
            recipe.guess_against_fills)
        self._ends: list[Tensor] = []
        if keep_ends:
            model.qwen.model.language_model.register_forward_hook(self._keep_end)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch.

        Returns:
            loss: a scalar, the mean over all questions of the batch.
            parts: its terms before they are weighed, detached scalars by name.
        """
        loss, parts = supervised_loss(self.model, batch, self._weights, self._number_type())
        for end in self._ends:
            loss = loss + 0.0 * end.float().sum()
        self._ends.clear()
        return loss, parts

    def precision(self) -> AbstractContextManager[None]:
        """Matrix products in the recipe's number type."""
        return in_precision(self.model, self._number_type())

    def _number_type(self) -> torch.dtype:
        return number_type(self.recipe.precision, self.model.device)

    def _keep_end(self, _: nn.Module, __: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            self._ends.append(output.last_hidden_state)
