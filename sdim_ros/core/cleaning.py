"""Measured depth at the door: what is used, and what is removed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sdim_ros.core.config import InputSettings
from sdim_ros.core.projection import clean_depth
from sdim_ros.core.types import BadInput, Frame

# Sensors see less far: a larger median of the depths looks like another unit.
UNLIKELY_M = 200.0


def clean(frame: Frame, limits: InputSettings) -> tuple[np.ndarray, dict[str, int]]:
    """The measured depth that is used, (H, W) metres, and what was removed, by reason.

    Raises:
        BadInput: ``too_large``, or ``no_points`` where the settings say skip.
    """
    if frame.sparse.size > limits.max_pixels:
        raise BadInput(
            "too_large", f"image of {frame.sparse.size} pixels: expected at most "
            f"{limits.max_pixels}; raise input.max_pixels or use a smaller image")
    sparse, cleaned = clean_depth(frame.sparse, limits.min_depth_m, limits.max_depth_m)
    if limits.on_empty_sparse == "skip" and not (sparse > 0).any():
        raise BadInput(
            "no_points", f"sparse depth without a usable point ({_removed(cleaned)}"
            f"{_median_of(frame.sparse)}): expected depths from {limits.min_depth_m:g} to "
            f"{limits.max_depth_m:g} m; check the sensor, the scale of its depth and its "
            "extrinsics, or set input.on_empty_sparse to answer")
    return sparse, cleaned


def _removed(cleaned: Mapping[str, int]) -> str:
    found = [f"{count} {reason}" for reason, count in cleaned.items() if count]
    return f"removed: {', '.join(found)}" if found else "nothing was measured"


def _median_of(removed: np.ndarray) -> str:
    """What depths that were all removed are like; nothing where there were none."""
    depths = removed[np.isfinite(removed) & (removed > 0)]
    if not depths.size:
        return ""
    median = float(np.median(depths))
    doubt = "; millimetres in 32FC1?" if median > UNLIKELY_M else ""
    return f", median {median:g} m{doubt}"
