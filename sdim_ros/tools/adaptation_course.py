"""How a run of learning went, in numbers: its judgements, and what was measured while it learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdim_ros.core.adaptation import Adaptation
from sdim_ros.tools.poison import Poison

WINDOW = 10  # frames of the moving mean of a live run


@dataclass(frozen=True, slots=True)
class LiveError:
    """One frame of a live run.

    Attributes:
        number: its place among the frames.
        loaded, learning: MAE in metres of the map by the weights that were loaded, and by those
            in use when the frame came, of the same input.
    """

    number: int
    name: str
    loaded: float
    learning: float


def course_of(seed: int, adaptation: Adaptation, judgements: Sequence[tuple[int, float, float]],
              errors: Sequence[LiveError], poisons: Sequence[Poison] = ()) -> dict[str, Any]:
    """How one run went, for report.json.

    Args:
        judgements: steps, and the error as a share of the depth before and now, each time.
        errors: of a live run, every frame in its order; else none.
        poisons: what was spoilt in it.
    """
    status = adaptation.status
    course: dict[str, Any] = {
        "seed": seed, "state": status.state, "steps": status.steps,
        "steps_with_rolled_back": adaptation.total_steps, "rollbacks": status.rollbacks,
        "dropped_steps": status.dropped_steps, "refused": dict(status.refused),
        "judged": [{"steps": steps, "before": before, "now": now}
                   for steps, before, now in judgements]}
    if errors:
        half = errors[len(errors) // 2:]
        course["live"] = {
            "frames": [{"name": e.name, "before": e.loaded, "now": e.learning} for e in errors],
            "second_half": _compared(half), "worst_window": _worst_window(errors),
            "poison": [_around(poison, errors, poisons) for poison in poisons]}
    return course


def _compared(errors: Sequence[LiveError]) -> dict[str, Any] | None:
    """Both means, metres, and the second as a share of the first; None without frames."""
    if not errors:
        return None
    loaded, learning = (float(np.mean([getattr(e, name) for e in errors]))
                        for name in ("loaded", "learning"))
    return {"frames": len(errors), "loaded_mae": loaded, "learning_mae": learning,
            "ratio": learning / loaded}


def _worst_window(errors: Sequence[LiveError]) -> dict[str, Any]:
    """The frames in a row that lost most by learning: all of them where there are few."""
    length = min(WINDOW, len(errors))
    windows = [errors[start:start + length] for start in range(len(errors) - length + 1)]
    found = [_compared(window) | {"first": window[0].name, "last": window[-1].name}
             for window in windows]
    return max(found, key=lambda window: window["ratio"])


def _around(poison: Poison, errors: Sequence[LiveError], poisons: Sequence[Poison]
            ) -> dict[str, Any]:
    """Errors before a stretch of spoilt frames, in it, and after it; others' are left out.

    Frames differ, so what is compared is by how much learning changed the error of each part.
    """
    sound = [e for e in errors if not any(p.hits(e.number) for p in poisons)]
    before = _compared([e for e in sound if e.number < poison.start])
    after = _compared([e for e in sound if e.number >= poison.start + poison.length])
    return {"kind": poison.kind, "start": poison.start, "length": poison.length,
            "before": before, "after": after,
            "during": _compared([e for e in errors if poison.hits(e.number)]),
            "lasting": after["ratio"] / before["ratio"] - 1 if before and after else None}


def sentences(course: Mapping[str, Any]) -> list[str]:
    """How a run went, for people."""
    refused = ", ".join(f"{count} {reason}" for reason, count in course["refused"].items())
    lines = [f"seed {course['seed']}: {course['steps']} steps, {course['rollbacks']} "
             f"rollbacks; frames refused: {refused or 'none'}; {course['state']}"]
    if "live" not in course:
        return lines
    half, window = course["live"]["second_half"], course["live"]["worst_window"]
    lines.append(f"second half of the frames: MAE {half['learning_mae']:.4f} m while it learnt, "
                 f"{half['loaded_mae']:.4f} m with the weights as loaded ({_change(half)})")
    lines.append(f"worst {window['frames']} frames in a row, {window['first']} to "
                 f"{window['last']}: {_change(window)}")
    return lines + [_poison_sentence(poison) for poison in course["live"]["poison"]]


def _poison_sentence(poison: Mapping[str, Any]) -> str:
    parts = ", ".join(
        f"{words} it none" if poison[part] is None else
        f"{words} it {poison[part]['learning_mae']:.4f} m ({_change(poison[part])})"
        for part, words in (("before", "before"), ("during", "in"), ("after", "after")))
    lasting = poison["lasting"]
    verdict = "" if lasting is None else (
        f"; what learning does to the error is {100 * abs(lasting):.1f} % "
        f"{'worse' if lasting > 0 else 'better'} after it than before")
    return (f"{poison['kind']} in {poison['length']} frames from {poison['start']} on, MAE while "
            f"it learnt: {parts}{verdict}")


def _change(compared: Mapping[str, Any]) -> str:
    change = 100 * (compared["ratio"] - 1)
    return f"{abs(change):.1f} % {'higher' if change > 0 else 'lower'} than as loaded"
