"""Pictures of the frames where a method did worst and best, all at the same colour scales."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sdim_ros.core.metrics import protocol_mask
from sdim_ros.core.types import Frame
from sdim_ros.tools.frame_judge import Judged
from sdim_ros.tools.html_report import Picture
from sdim_ros.tools.panels import frame_panels
from sdim_ros.tools.results import AT_ASKED_PIXELS, FrameResult

# A few pixels at depth edges would leave the rest of an error picture black.
ERROR_SHARE = 98


def shown_method(results: Sequence[FrameResult]) -> str | None:
    """The method that pictures show: sdim, else the first with a whole map."""
    found = [name for name in results[0].errors if name not in AT_ASKED_PIXELS]
    return "sdim" if "sdim" in found else next(iter(found), None)


def worst_and_best(results: Sequence[FrameResult], method: str, count: int
                   ) -> list[tuple[str, FrameResult]]:
    """Titles and results of the frames with the highest and the lowest held-out MAE.

    Args:
        results: of inputs as they are, without an axis.
        count: of each; no frame is shown twice, the worst come first.
    """
    judged = [r for r in results
              if np.isfinite(r.errors[method].get("held_out", {}).get("mae", np.nan))]
    ranked = sorted(judged, key=lambda r: -r.errors[method]["held_out"]["mae"])
    worst = _first_of_each(ranked)[:count]
    shown = {r.name for r in worst}
    best = _first_of_each(r for r in reversed(ranked) if r.name not in shown)[:count]
    return [(f"{word} {number}", result) for word, chosen in (("worst", worst), ("best", best))
            for number, result in enumerate(chosen, 1)]


def _first_of_each(results: Iterable[FrameResult]) -> list[FrameResult]:
    """One result of every frame: several draws of it are the same frame."""
    found: dict[str, FrameResult] = {}
    for result in results:
        found.setdefault(result.name, result)
    return list(found.values())


def draw(chosen: Sequence[tuple[str, FrameResult]], method: str,
         judged: Callable[[FrameResult], tuple[Frame, np.ndarray, Judged]]) -> list[Picture]:
    """Run the chosen frames again and draw them.

    Args:
        judged: gives the input of a result, its reference and its maps once more.
    """
    again = [(title, result, *judged(result)) for title, result in chosen]
    references = [reference[protocol_mask(reference)] for _, _, _, reference, _ in again]
    if not references:
        return []
    known = np.concatenate([r[::max(1, len(r) // 10_000)] for r in references])
    low, high = np.percentile(known, (1, 99))
    error_max = max(_errors_end(each.maps[method], reference)
                    for _, _, _, reference, each in again)
    return [_picture(title, result, frame, reference, each, method,
                     (float(low), float(high)), error_max)
            for title, result, frame, reference, each in again]


def _errors_end(depth: np.ndarray, reference: np.ndarray) -> float:
    """Where the colours of the error may end, metres."""
    judged = protocol_mask(reference) & protocol_mask(depth)
    return float(np.percentile(np.abs(depth - reference)[judged], ERROR_SHARE))


def _picture(title: str, result: FrameResult, frame: Frame, reference: np.ndarray, judged: Judged,
             method: str, depth_range: tuple[float, float], error_max: float) -> Picture:
    other = "fill_only" if method == "sdim" and "fill_only" in judged.maps else None
    jpeg = frame_panels(
        frame.image, frame.sparse, judged.maps[method], reference,
        None if other is None else judged.maps[other], name=method,
        depth_range=depth_range, error_max=error_max)
    words = [f"{result.points:,} points given"]
    for name in filter(None, (method, other)):
        errors = result.errors.get(name, {}).get("held_out")
        if errors:
            words.append(f"{name}: MAE {errors['mae']:.3f} m, RMSE {errors['rmse']:.3f} m")
    return Picture(f"{title}: {result.name}", "; ".join(words), jpeg)
