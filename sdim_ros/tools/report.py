"""Results as numbers: report.json, and the table on the terminal."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from sdim_ros.core import fill, metrics
from sdim_ros.core.whole_files import write_text
from sdim_ros.tools.results import (
    AT_ASKED_PIXELS, FAR, METHODS, RANGE_EDGES_M, SAME_MISSING, FrameResult,
    with_fewest_holes)
from sdim_ros.tools.robustness import AXES

EMBEDDED = "embedded"  # the checkpoint that has no name
# What a map may cost at most against the best classical fill.
BAR = 0.02


def environment(command: Sequence[str], checkpoint: str, model: str) -> dict[str, Any]:
    """What a reader needs to repeat the numbers.

    Args:
        checkpoint: as the settings name it, empty = the embedded one.
    """
    on_gpu = "cuda" in model and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else (
        f"{_cpu_name()}, {torch.get_num_threads()} of {os.cpu_count()} threads")
    return {
        "command": shlex.join(command), "checkpoint": checkpoint or EMBEDDED, "model": model,
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
        results: one per frame, seed and level.
    """
    plain = [result for result in results if not result.axis]
    names = _methods_of(results)
    content = {
        **header,
        "seeds": sorted({result.seed for result in results}),
        "frames": [_frame(result) for result in results],
        "methods": {name: _method(name, plain) for name in names},
        "by_range": _by_range(plain),
        "axes": _axes(results),
    }
    if any(result.stats is not None for result in plain):
        content["doubt"] = _doubt(plain)
    others = [name for name in names if name != "sdim" and name not in AT_ASKED_PIXELS]
    if "sdim" in names and others:
        content["paired"] = {
            "method": "sdim", "against": {name: _paired(name, plain) for name in others}}
    return content


def _methods_of(results: Sequence[FrameResult]) -> list[str]:
    """All methods that were judged: ours in their order, then those from outside."""
    found = dict.fromkeys(name for result in results for name in result.errors)
    return [*(name for name in METHODS if name in found),
            *(name for name in found if name not in METHODS)]


def _frame(result: FrameResult) -> dict[str, Any]:
    entry = {"name": result.name, "seed": result.seed, "points": result.points}
    if result.axis:
        entry |= {"axis": result.axis, "level": result.level}
    if result.stats is not None:
        stats = result.stats
        entry |= {"fill": stats.fill, "trust": stats.trust, "queries": stats.queries,
                  "doubted": stats.doubted}
    return entry | {"ms": result.ms, "metrics": result.errors}


def _method(name: str, results: Sequence[FrameResult]) -> dict[str, Any]:
    method: dict[str, Any] = {}
    for kind in ("protocol", "held_out"):
        judged = [r for r in results if kind in r.errors.get(name, {})]
        errors = [r.errors[name][kind] for r in judged]
        if errors:
            method[kind] = metrics.mean_of(errors) | {
                "images": len({r.name for r in judged}), "ci95": {metric: list(
                    metrics.bootstrap_ci(by_image(judged, [e[metric] for e in errors])))
                    for metric in metrics.METRICS}}
    times = [result.ms[name] for result in results if name in result.ms]
    if times:
        method["ms_per_frame"] = {
            "median": float(np.median(times)), "min": min(times), "max": max(times)}
    stats = [result.stats for result in results if result.stats is not None]
    if name == "sdim" and stats:
        method["queries_per_frame"] = float(np.mean([s.queries for s in stats]))
        method["trust"] = float(np.mean([s.trust for s in stats]))
        method["stages_ms"] = {
            stage: float(np.median([s.ms[stage] for s in stats if stage in s.ms]))
            for stage in stats[0].ms
        }
    if name == "sdim":
        method |= _certainty(results)
    return method


def _certainty(results: Sequence[FrameResult]) -> dict[str, Any]:
    """Whether the map's confidence and interval hold: means over images, as the errors are."""
    found = [result.certainty for result in results if result.certainty]
    if not found:
        return {}
    coverage = by_image([r for r in results if r.certainty], [f["coverage"] for f in found])
    means = {name: float(np.mean([image[name] for image in found]))
             for name in ("interval", "mae", "mae_confident")}
    counts = (np.sum([image[name] for image in found], axis=0)
              for name in ("pixels", "promised", "kept"))
    return {"certainty": {
        "coverage": float(np.mean(coverage)), "coverage_ci95": list(metrics.bootstrap_ci(coverage)),
        "interval_m": means["interval"], "mae_confident_m": means["mae_confident"],
        "mae_reduction": 1 - means["mae_confident"] / max(means["mae"], 1e-12),
        "calibration_error": metrics.calibration_error(*counts), "images": len(coverage),
    }}


def _doubt(results: Sequence[FrameResult]) -> dict[str, float]:
    """How many points were doubted, and how well they match those replaced, where some were."""
    judged = [result for result in results if result.stats is not None]
    doubted = sum(result.stats.doubted for result in judged)
    content = {"points_per_frame": doubted / len(judged)}
    counts = sum((Counter(result.doubt) for result in judged), Counter())
    if counts["replaced"]:
        content |= {
            "precision": counts["found"] / doubted if doubted else math.nan,
            "recall": counts["found"] / counts["replaced"],
            "recall_far": counts["found_far"] / counts["far"] if counts["far"] else math.nan}
    return content


def by_image(results: Sequence[FrameResult], values: Sequence[float]) -> np.ndarray:
    """The mean of each image's values: draws of one image are no independent images.

    Args:
        values: one a result; NaN are left out, and an image of nothing else is NaN.
    """
    names, places = np.unique([result.name for result in results], return_inverse=True)
    known = ~np.isnan(values)
    sums = np.bincount(places[known], np.asarray(values, np.float64)[known], len(names))
    counts = np.bincount(places[known], minlength=len(names))
    return np.divide(sums, counts, out=np.full(len(names), np.nan), where=counts > 0)


def _errors_of(name: str, kind: str, results: Sequence[FrameResult]) -> list[dict[str, float]]:
    return [r.errors[name][kind] for r in results if kind in r.errors.get(name, {})]


def _paired(other: str, results: Sequence[FrameResult]) -> dict[str, Any]:
    """sdim against another method, on the frames that both were judged on."""
    differences: dict[str, Any] = {}
    for kind in ("protocol", "held_out"):
        both = [r for r in results
                if all(kind in r.errors.get(name, {}) for name in ("sdim", other))]
        ours, theirs = (_errors_of(name, kind, both) for name in ("sdim", other))
        # What is left out is seldom the easiest: with holes there is no fair comparison.
        if both and abs(np.mean([a["missing"] - b["missing"] for a, b in zip(ours, theirs)])
                        ) < SAME_MISSING:
            differences[kind] = {metric: metrics.paired_difference(
                *(by_image(both, [e[metric] for e in errors]) for errors in (ours, theirs)))
                for metric in ("mae", "rmse")}
    return differences


def _by_range(results: Sequence[FrameResult]) -> dict[str, Any]:
    """Mean held-out error of all frames' pixels together, by how far away they are."""
    sums: dict[str, np.ndarray] = {}
    pixels: dict[str, np.ndarray] = {}
    for result in results:
        for name, found in result.by_range.items():
            sums[name] = sums.get(name, 0) + np.array(found["sum_m"])
            pixels[name] = pixels.get(name, 0) + np.array(found["pixels"])
    mae = {name: np.divide(sums[name], pixels[name], where=pixels[name] > 0,
                           out=np.full(len(sums[name]), np.nan)).tolist() for name in sums}
    most = np.max([*pixels.values()], axis=0).astype(int).tolist() if pixels else []
    return {"edges_m": list(RANGE_EDGES_M), "pixels": most, "mae": mae}


def _axes(results: Sequence[FrameResult]) -> list[dict[str, Any]]:
    """Held-out errors by level, of each thing that made the input harder."""
    axes = []
    for axis in dict.fromkeys(result.axis for result in results if result.axis):
        of_axis = [result for result in results if result.axis == axis]
        levels = list(dict.fromkeys(result.level for result in of_axis))
        at = {level: [r for r in of_axis if r.level == level] for level in levels}
        axes.append({"name": axis, "label": AXES[axis].label, "levels": levels, "methods": {
            name: {metric: [_mean_error(name, metric, at[level]) for level in levels]
                   for metric in ("mae", "rmse", "missing")} for name in _methods_of(of_axis)}})
    return axes


def _mean_error(name: str, metric: str, results: Sequence[FrameResult]) -> float:
    errors = _errors_of(name, "held_out", results)
    return metrics.mean_of(errors)[metric] if errors else math.nan


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report, whole or not at all; numbers that are not finite become null."""
    text = json.dumps(_finite(report), indent=1, allow_nan=False)
    write_text(path, text + "\n")


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
    fair = with_fewest_holes({name: _error(methods[name], "missing") for name in everywhere})
    best = {metric: min((_error(methods[name], metric) for name in fair), default=math.inf)
            for metric in ("mae", "rmse")}
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
            f"[bold green]{error:.4f}[/]" if name in fair and error == best[metric]
            else f"{error:.4f}" for metric, error in errors.items()
        ]
        time = methods[name].get("ms_per_frame", {}).get("median")
        result.add_row(name, *cells, "" if time is None else f"{time:.0f}")
    return result


def doubts(report: Mapping[str, Any]) -> str:
    """How many points were doubted, and whether they were the wrong ones, for people."""
    found = report["doubt"]
    text = f"{found['points_per_frame']:.1f} points a frame doubted ({report['doubt_mode']})"
    if "recall" in found and found["points_per_frame"]:
        text += (f": {100 * found['precision']:.0f} % of them were replaced; of all replaced "
                 f"{100 * found['recall']:.0f} % were found, {100 * found['recall_far']:.0f} % of "
                 f"those over {100 * FAR:.0f} % off")
    return text


def contribution(report: Mapping[str, Any]) -> str:
    """What the model adds to the fill, for people: the held-out errors with it and without it."""
    methods = report["methods"]
    trust = methods["sdim"]["trust"]
    if trust == 0:
        return "the model adds nothing here (trust 0)"
    if "held_out" not in methods["fill_only"]:
        return "every known pixel was given, so nothing is left that judges (--points gives a part)"
    mae, rmse = (_change(methods, "fill_only", metric) for metric in ("mae", "rmse"))
    effects = " and ".join(
        f"leaves {name} as it is" if abs(change) < 0.0005
        else f"{'lowers' if change < 0 else 'raises'} {name} by {100 * abs(change):.1f} %"
        for name, change in (("MAE", mae), ("RMSE", rmse)))
    return f"the model {effects} against the same fill without it (trust {trust:.2f})"


def certainty(report: Mapping[str, Any]) -> str:
    """Whether the map knows how sure it is, for people; empty where that was not judged."""
    found = report["methods"].get("sdim", {}).get("certainty")
    if not found:
        return ""
    return (f"80 % intervals (mean ±{found['interval_m']:.3f} m) hold "
            f"{100 * found['coverage']:.1f} % of the truths; the MAE of the 80 % most confident "
            f"pixels is {100 * found['mae_reduction']:.0f} % lower; the confidence is off by "
            f"{100 * found['calibration_error']:.1f} %")


def against_classical(report: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the map keeps up with the best classical fill of each metric, and how that is said,
    in rich's markup.
    """
    methods = report["methods"]
    found = []
    for metric in ("mae", "rmse"):
        best = min(fill.CLASSICAL, key=lambda name: _error(methods[name], metric))
        found.append((metric.upper(), best, _change(methods, best, metric)))
    keeps_up = max(change for *_, change in found) <= BAR
    verdict = "[green]met[/]" if keeps_up else "[bold red]MISSED[/]"
    changes = ", ".join(
        f"{name} {100 * abs(change):.1f} % {'higher' if change > 0 else 'lower'} than {best}"
        for name, best, change in found)
    return keeps_up, (f"bar of at most {100 * BAR:.0f} % over the best classical fill {verdict}: "
                      f"{changes}")


def _change(methods: Mapping[str, Any], other: str, metric: str) -> float:
    """How much higher the error of sdim is than that of the other, as a share of the latter."""
    ours, others = _error(methods["sdim"], metric), _error(methods[other], metric)
    if others == 0:
        return math.inf if ours else 0.0
    return ours / others - 1


def notes(result: FrameResult) -> str:
    """The errors of one frame as a few lines for the overview picture."""
    lines = [f"{result.points:,} points given; error in metres",
             "at all other pixels:", f"{'':<14}{'MAE':>8}{'RMSE':>8}"]
    for name in _methods_of([result]):
        errors = result.errors[name].get("held_out")
        if errors and name not in AT_ASKED_PIXELS:
            lines.append(f"{name:<14}{errors['mae']:8.4f}{errors['rmse']:8.4f}")
    if result.stats is not None:
        stats = result.stats
        lines += ["", f"pixels asked  {stats.queries:,}", f"trust         {stats.trust:.2f}",
                  "fill          " + stats.fill.replace(" + ", "\n            + ")]
    return "\n".join(lines)


def _error(method: Mapping[str, Any], metric: str) -> float:
    """The held-out error, or that of the protocol where every judged pixel was given."""
    error = method.get("held_out", method.get("protocol", {})).get(metric)
    return math.inf if error is None or math.isnan(error) else error
