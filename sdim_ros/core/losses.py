"""Text supervision: the loss on the digits of known depths; and that of the fusion's guess."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sdim_ros.core.fusion import mix_fills
from sdim_ros.core.prompts import NumberFormat

# In the number's unit: metres, or medians of the frame.
SMALLEST_DIVISOR = 0.3
LARGEST_ERROR = 5.0
NEARLY_NO_ERROR = 0.01  # of the fills: where they are right, small errors of the guess are small


def text_loss(logits: Tensor, digits: Tensor, number: NumberFormat, metric_weight: float,
              slot_weights: tuple[float, ...] | None = None) -> Tensor:
    """Cross-entropy on the number, plus its relative L1 error through text.

    The second term is ``sum_k place_k * E|d_k - d*_k|`` over the value: no less than the L1
    error of the expected number, and digits cannot cancel each other in it. (The L1 of the
    expected number itself trains digits that cancel and read as nonsense.) Values under
    ``SMALLEST_DIVISOR`` count as that large, so that near points do not outweigh all others.

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
        value = (digits * place).sum(-1)
        loss = loss + metric_weight * error / value.clamp(min=SMALLEST_DIVISOR)
    return loss.mean()


def guess_loss(mixing: Tensor, fills: Tensor, labels: Tensor, against_fills: bool = False
               ) -> Tensor:
    """Half the relative and half the absolute error of the guess, in the number's unit.

    Args:
        mixing: (B, F + 2, any size), of ``Fused``.
        fills: (B, F, h, w), log of the depth.
        labels: (B, H, W), the true depth, 0 = unknown; mixing and fills are resized to it.
        against_fills: divide the error of each image by that of the median of its fills, so that
            images with few points, where every guess is far off, do not outweigh the others.

    Returns:
        a scalar, the mean over the images of their means.
    """
    size = labels.shape[-2:]
    mixing, fills = (functional.interpolate(part.float(), size, mode="bilinear",
                                            align_corners=False) for part in (mixing, fills))
    error = _image_errors(mix_fills(mixing, fills).exp(), labels)
    if against_fills:
        error = error / (_image_errors(fills.median(1).values.exp(), labels) + NEARLY_NO_ERROR)
    return error.mean()


def _image_errors(said: Tensor, labels: Tensor) -> Tensor:
    """(B, H, W) each -> (B,), the means over the known pixels."""
    known = labels > 0
    # A few far pixels must not outweigh a whole image.
    error = (said - labels).abs() * known
    both = error / labels.clamp(min=SMALLEST_DIVISOR) + error.clamp(max=LARGEST_ERROR)
    return both.sum((1, 2)) / (2 * known.sum((1, 2)).clamp(min=1))
