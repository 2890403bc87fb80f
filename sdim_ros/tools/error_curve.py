"""How the error of the map falls with the pixels that are asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdim_ros.core.completer import Completer
from sdim_ros.core.config import with_values
from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.frames_folder import FramesFolder
from sdim_ros.tools.evaluate import draw_input
from sdim_ros.tools.frame_judge import FrameJudge

BUDGETS = (100, 250, 500, 1500, 4000)
FRAMES = 4


def error_over_queries(completer: Completer, folder: Path, points: str,
                       budgets: Sequence[int] = BUDGETS) -> list[dict[str, float]]:
    """Held-out MAE, metres, mean over a few frames spread over a folder.

    Args:
        folder: a frames folder.
        points: drawn from each frame as input, seed 0.

    Returns:
        of each budget ``queries``, ``mae``, and ``fill_only_mae`` of the same fill without the
        model.

    Raises:
        BadInput: the folder cannot be read, or so many points leave nothing to judge by.
    """
    frames = FramesFolder(folder)
    if not len(frames):
        raise BadInput("no_frames", f"{folder} lists no frame: expected some to judge by")
    chosen = np.unique(np.linspace(0, len(frames.names) - 1, FRAMES).astype(int))
    samples = [frames.read(int(number)) for number in chosen]
    curve = []
    for budget in budgets:
        asking = Completer(
            with_values(completer.settings, {"queries.budget": budget}), completer.model)
        judge = FrameJudge(("sdim", "fill_only"), asking)
        errors = [judge(draw_input(sample, points, None, 0), sample.reference, 0).result.errors
                  for sample in samples]
        if not all("held_out" in e["sdim"] for e in errors):
            raise BadInput("no_reference", f"{folder}: {points} points of a frame leave none to "
                           "judge by: expected frames with more depth than that")
        mae, without = (float(np.mean([e[name]["held_out"]["mae"] for e in errors]))
                        for name in ("sdim", "fill_only"))
        curve.append({"queries": budget, "mae": mae, "fill_only_mae": without})
    return curve
