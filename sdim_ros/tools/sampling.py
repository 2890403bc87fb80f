"""The random draws of an evaluation: which pixels are given as input, which are spoilt.

Every draw starts a new generator from its seed, so a frame gets the same points whatever came
before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from sdim_ros.core.types import BadInput


def parse_amount(text: str, flag: str = "amount") -> int | float:
    """``"500"`` as the count 500, ``"20%"`` as the share 0.2.

    Args:
        flag: what the message calls it.

    Raises:
        BadInput: for anything else, a count of 0 and a share outside of (0, 100] %.
    """
    share = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
    if share and 0 < float(share[1]) <= 100:
        return float(share[1]) / 100
    if re.fullmatch(r"\d+", text.strip()) and int(text) > 0:
        return int(text)
    raise BadInput(
        "amount", f"{flag} {text!r}: expected a count such as 500, or a share over 0 and up to "
        "100% such as 20%")


def parse_seeds(text: str) -> list[int]:
    """``"0,1,2"`` as numbers of draws, each once.

    Raises:
        BadInput: something else than whole numbers from 0 on.
    """
    seeds = [seed.strip() for seed in text.split(",")]
    if not all(re.fullmatch(r"\d+", seed) for seed in seeds):
        raise BadInput("arguments", f"--seeds {text}: expected whole numbers such as 0,1,2")
    return list(dict.fromkeys(map(int, seeds)))


def sample_points(depth: np.ndarray, amount: str, seed: int | Sequence[int]) -> np.ndarray:
    """Keep a random part of the known pixels.

    Args:
        depth: (H, W) metres, 0 = unknown; not changed.
        amount: a count (``"500"``) or a share of the known pixels (``"20%"``).
        seed: of this draw alone, one number or several.

    Returns:
        (H, W) float32 with the drawn pixels, 0 elsewhere; all of them where fewer are known.
    """
    known = np.flatnonzero(depth)
    wanted = parse_amount(amount)
    count = max(1, round(wanted * len(known))) if isinstance(wanted, float) else wanted
    drawn = np.random.default_rng(seed).choice(known, min(count, len(known)), replace=False)
    sparse = np.zeros(depth.shape, np.float32)
    sparse.flat[drawn] = depth.flat[drawn]
    return sparse


def add_outliers(sparse: np.ndarray, amount: str, seed: int) -> np.ndarray:
    """Replace a part of the points by noise, uniform between their 10th and 90th percentile.

    Args:
        sparse: (H, W) metres, 0 = not measured; not changed.
        amount: a count or a share of the points, as in `sample_points`.
        seed: of this draw alone.

    Returns:
        (H, W) float32 with the same pixels set.
    """
    spoilt = sparse.astype(np.float32)
    if not sparse.any():
        return spoilt
    low, high = np.percentile(sparse[sparse > 0], (10, 90))
    # A second stream: the outliers must not depend on how the points were drawn.
    hit = np.flatnonzero(sample_points(sparse, amount, seed))
    noise = np.random.default_rng((seed, 1)).uniform(low, high, len(hit))
    spoilt.flat[hit] = noise
    return spoilt
