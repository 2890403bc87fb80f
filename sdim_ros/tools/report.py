"""Results as numbers and pictures: report.json, the table on the terminal, overview.png."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from sdim_ros.core import fill, metrics
from sdim_ros.core.types import DenseDepth

METHODS = (
    "sdim", "fill_only", "nearest", "linear", "edge_aware",
    "answers", "answers_linear", "answers_hint", "answers_guess", "sdim_blind", "sdim_random",
)
# Judged only where the model was asked, so never to be compared with the others.
AT_ASKED_PIXELS = (
    "answers", "answers_linear", "answers_hint", "answers_guess", "sdim_random")
# What a map may cost at most against the best classical fill.
BAR = 0.02


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What the methods made of one frame.

    Attributes:
        errors: by method, then ``protocol`` and ``held_out``, then metric.
        ms: wall time by method, where a method was timed by itself.
        dense: what the model gave, or None when only classical fills ran.
    """

    name: str
    seed: int
    points: int
    errors: dict[str, dict[str, dict[str, float]]]
    ms: dict[str, float] = field(default_factory=dict)
    dense: DenseDepth | None = None


def judge(
    prediction: np.ndarray, reference: np.ndarray, given: np.ndarray
) -> dict[str, dict[str, float]]:
    """Errors on all pixels with a reference, and on those of them that were not given.

    Args:
        prediction, reference, given: metres, one shape: (H, W), or (Q,) at asked pixels.

    Returns:
        ``protocol`` and ``held_out``, each left out where it has no pixel to judge.
    """
    masks = {
        "protocol": metrics.protocol_mask(reference),
        "held_out": metrics.held_out_mask(reference, given),
    }
    return {
        name: metrics.evaluate(prediction, reference, mask)
        for name, mask in masks.items() if mask.any()
    }


def environment(command: Sequence[str], checkpoint: str, model: str) -> dict[str, Any]:
    """What a reader needs to repeat the numbers."""
    on_gpu = "cuda" in model and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else (
        f"{_cpu_name()}, {torch.get_num_threads()} of {os.cpu_count()} threads")
    return {
        "command": " ".join(command), "checkpoint": checkpoint, "model": model,
        "device": device, "torch": torch.__version__,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "cpu"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "cpu"


def build(header: Mapping[str, Any], results: Sequence[FrameResult]) -> dict[str, Any]:
    """The content of report.json.

    Args:
        header: from `environment`, plus whatever belongs to the command.
        results: one per frame and seed.
    """
    names = [name for name in METHODS if any(name in result.errors for result in results)]
    return {
        **header,
        "seeds": sorted({result.seed for result in results}),
        "frames": [_frame(result) for result in results],
        "methods": {name: _method(name, results) for name in names},
    }


def _frame(result: FrameResult) -> dict[str, Any]:
    entry = {"name": result.name, "seed": result.seed, "points": result.points}
    if result.dense is not None:
        stats = result.dense.stats
        entry |= {"fill": stats.fill, "trust": stats.trust, "queries": stats.queries}
    return entry | {"ms": result.ms, "metrics": result.errors}


def _method(name: str, results: Sequence[FrameResult]) -> dict[str, Any]:
    method: dict[str, Any] = {}
    for kind in ("protocol", "held_out"):
        errors = [r.errors[name][kind] for r in results if kind in r.errors.get(name, {})]
        if errors:
            method[kind] = metrics.mean_of(errors) | {"ci95": {
                metric: list(metrics.bootstrap_ci([error[metric] for error in errors]))
                for metric in metrics.METRICS
            }}
    times = [result.ms[name] for result in results if name in result.ms]
    if times:
        method["ms_per_frame"] = {
            "median": float(np.median(times)), "min": min(times), "max": max(times)}
    stats = [result.dense.stats for result in results if result.dense is not None]
    if name == "sdim" and stats:
        method["queries_per_frame"] = float(np.mean([s.queries for s in stats]))
        method["trust"] = float(np.mean([s.trust for s in stats]))
        method["stages_ms"] = {
            stage: float(np.median([s.ms[stage] for s in stats if stage in s.ms]))
            for stage in stats[0].ms
        }
    return method


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report; numbers that are not finite become null."""
    text = json.dumps(_finite(report), indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def table(report: Mapping[str, Any]) -> Table:
    """The errors at pixels that were not given as input, best MAE and RMSE in green."""
    methods = report["methods"]
    everywhere = [name for name in methods if name not in AT_ASKED_PIXELS]
    asked = [name for name in methods if name in AT_ASKED_PIXELS]
    best = {
        metric: min((_error(methods[name], metric) for name in everywhere), default=math.inf)
        for metric in ("mae", "rmse")
    }
    result = Table(caption_justify="left")
    result.add_column("method")
    for column in ("MAE m", "RMSE m", "ms"):
        result.add_column(column, justify="right")
    for name in everywhere + asked:
        if asked and name == asked[0]:
            result.add_section()
            result.caption = "second part: only where\nthe model was asked"
        errors = {metric: _error(methods[name], metric) for metric in best}
        cells = [
            f"[bold green]{error:.4f}[/]" if name in everywhere and error == best[metric]
            else f"{error:.4f}" for metric, error in errors.items()
        ]
        time = methods[name].get("ms_per_frame", {}).get("median")
        result.add_row(name, *cells, "" if time is None else f"{time:.0f}")
    return result


def contribution(report: Mapping[str, Any]) -> str:
    """What the model adds to the fill, for people: the held-out errors with it and without it."""
    methods = report["methods"]
    trust = methods["sdim"]["trust"]
    if trust == 0:
        return "the model adds nothing here (trust 0)"
    mae, rmse = (_change(methods, "fill_only", metric) for metric in ("mae", "rmse"))
    effects = " and ".join(
        f"leaves {name} as it is" if abs(change) < 0.0005
        else f"{'lowers' if change < 0 else 'raises'} {name} by {100 * abs(change):.1f} %"
        for name, change in (("MAE", mae), ("RMSE", rmse)))
    return f"the model {effects} against the same fill without it (trust {trust:.2f})"


def against_classical(report: Mapping[str, Any]) -> str:
    """Whether the map keeps up with the best classical fill of each metric, for people."""
    methods = report["methods"]
    found = []
    for metric in ("mae", "rmse"):
        best = min(fill.CLASSICAL, key=lambda name: _error(methods[name], metric))
        found.append((metric.upper(), best, _change(methods, best, metric)))
    verdict = "[green]met[/]" if max(change for *_, change in found) <= BAR \
        else "[bold red]MISSED[/]"
    changes = ", ".join(
        f"{name} {100 * abs(change):.1f} % {'higher' if change > 0 else 'lower'} than {best}"
        for name, best, change in found)
    return f"bar of at most {100 * BAR:.0f} % over the best classical fill {verdict}: {changes}"


def _change(methods: Mapping[str, Any], other: str, metric: str) -> float:
    """How much higher the error of sdim is than that of the other, as a share of the latter."""
    return _error(methods["sdim"], metric) / _error(methods[other], metric) - 1


def notes(result: FrameResult) -> str:
    """The errors of one frame as a few lines for the overview picture."""
    lines = [f"{result.points:,} points given; error in metres",
             "at all other pixels:", f"{'':<14}{'MAE':>8}{'RMSE':>8}"]
    for name in METHODS:
        errors = result.errors.get(name, {}).get("held_out")
        if errors and name not in AT_ASKED_PIXELS:
            lines.append(f"{name:<14}{errors['mae']:8.4f}{errors['rmse']:8.4f}")
    if result.dense is not None:
        stats = result.dense.stats
        lines += ["", f"pixels asked  {stats.queries:,}", f"trust         {stats.trust:.2f}",
                  "fill          " + stats.fill.replace(" + ", "\n            + ")]
    return "\n".join(lines)


def _error(method: Mapping[str, Any], metric: str) -> float:
    """The held-out error, or that of the protocol where every judged pixel was given."""
    error = method.get("held_out", method.get("protocol", {})).get(metric)
    return math.inf if error is None or math.isnan(error) else error
