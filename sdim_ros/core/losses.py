"""Text supervision: the loss on the digits of known depths."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sdim_ros.core.prompts import NumberFormat


def text_loss(logits: Tensor, digits: Tensor, number: NumberFormat, metric_weight: float,
              slot_weights: tuple[float, ...] | None = None) -> Tensor:
    """Cross-entropy on the number, plus the L1 in metres through text.

    The second term is ``sum_k place_k * E|d_k - d*_k|`` over the value: an upper bound of the
    relative L1 error of the expected number in which digits cannot cancel each other. (The L1
    of the expected number itself trains digits that cancel and read as nonsense.)

    Args:
        logits: (..., D, 10).
        digits: (..., D) int64, the true ones.
        metric_weight: lambda of the second term.
        slot_weights: weight of each slot in the cross-entropy; None = equal.

    Returns:
        a scalar, the mean over all numbers.
    """
    slots = logits.new_tensor(slot_weights or (1.0,) * number.digits)
    entropy = functional.cross_entropy(
        logits.flatten(0, -2), digits.flatten(), reduction="none").view(digits.shape)
    loss = (entropy * slots).sum(-1)
    if metric_weight > 0:
        steps = (torch.arange(10, device=logits.device) - digits.unsqueeze(-1)).abs()
        place = logits.new_tensor(number.place_values)
        error = ((logits.softmax(-1) * steps).sum(-1) * place).sum(-1)
        value = (digits * place).sum(-1).clamp(min=number.resolution)
        loss = loss + metric_weight * error / torch.maximum(value, value.new_tensor(0.3))
    return loss.mean()
