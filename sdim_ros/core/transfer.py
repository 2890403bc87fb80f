"""From the host to the device of a model, without waiting for it."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def send(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device. A GPU takes it when it comes to it; nobody waits."""
    if device.type != "cuda" or x.is_cuda:
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


@cache
def constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers as float32 that are copied to a device once: a copy waits for the device."""
    with torch.inference_mode(False):  # they serve training, too
        return torch.tensor(values, dtype=torch.float32, device=device)
