"""What a frame costs beside what the hardware must pay for it: passes, memory, curves."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch

from sdim_ros.core import queries
from sdim_ros.core.asking import Questions
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import with_values
from sdim_ros.core.model import Prefix, SdimModel
from sdim_ros.core.projection import scatter_resize
from sdim_ros.core.types import Frame
from sdim_ros.tools.sampling import sample_points

# Side of the square matrices whose product stands for the peak of a device.
PEAK_SIZE = {"cuda": 8192, "cpu": 1024}


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The most floating-point operations a second that a plain matrix product reaches here."""
    size = PEAK_SIZE.get(device.type, 1024)
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    best = min(seconds(lambda: a @ b, device) for _ in range(8))
    return 2 * size**3 / best


def seconds(task: Callable[[], Any], device: torch.device) -> float:
    """Wall time of a task, with all that it left to a GPU."""
    _wait(device)
    start = time.perf_counter()
    task()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flops_per_token(model: SdimModel, prefix_tokens: int) -> float:
    """Of a query's token in the language model: its matrices, and attention to the prefix."""
    text = model.qwen.model.language_model
    matrices = sum(p.numel() for layer in text.layers for p in layer.parameters() if p.ndim == 2)
    attention = sum(layer.self_attn.q_proj.weight.shape[0] for layer in text.layers)
    return 2.0 * matrices + 4.0 * prefix_tokens * attention


@torch.inference_mode()
def measure(completer: Completer, frame: Frame, budgets: Sequence[int], rounds: int
            ) -> dict[str, Any]:
    """Query passes alone and whole frames, for several numbers of queries.

    Returns:
        ``matmul_tflops`` of this run, and ``budgets``: for each its figures.
    """
    model = completer.model
    peak = matmul_peak(model.device, model.dtype)
    return {"matmul_tflops": peak / 1e12,
            "budgets": [_of_budget(completer, frame, n, rounds, peak) for n in budgets]}


def _of_budget(completer: Completer, frame: Frame, budget: int, rounds: int, peak: float
               ) -> dict[str, Any]:
    model, device = completer.model, completer.model.device
    asker = completer.asker()
    prefix, questions = _prefix(completer, frame), random_questions(completer, frame, budget)

    def passes() -> None:
        asker.ask(prefix, [questions], completer.readout, lambda: None)

    of_one = tokens_per_query(completer, frame, completer.readout.stop_early)
    tokens = budget * of_one
    passes()
    spent = median(seconds(passes, device) for _ in range(rounds))
    flops = tokens * flops_per_token(model, prefix.positions.shape[1])
    settings = with_values(completer.settings, {"queries.budget": budget})
    whole = Completer(settings, model)
    whole.complete(frame)
    totals, results = [], []
    for _ in range(rounds):
        totals.append(seconds(lambda: results.append(whole.complete(frame)), device))
    stages = {name: median(r.stats.ms[name] for r in results) for name in results[0].stats.ms}
    return {
        "queries": budget, "tokens_per_query": of_one,
        "query_pass_ms": 1000 * spent, "tokens_per_s": tokens / spent,
        "query_pass_tflops": flops / spent / 1e12, "share_of_matmul_peak": flops / spent / peak,
        "floor_ms": 1000 * flops / peak,
        "frame_ms": {**stages, "total": 1000 * median(totals)}, "fps": 1 / median(totals),
        "frame_queries": results[-1].stats.queries, "points": results[-1].stats.points,
        "prefix_tokens": prefix.positions.shape[1],
        "image_seen": list(model.image_size(*frame.sparse.shape)),
        "peak_memory_mb": max(r.stats.gpu_mb for r in results)}


def _prefix(completer: Completer, frame: Frame) -> Prefix:
    sparse, _ = completer.clean(frame)
    return completer.model.encode(completer.model.prepare([frame.image], [sparse]))


def random_questions(completer: Completer, frame: Frame, count: int) -> Questions:
    """About missing pixels all over the image."""
    at = np.random.default_rng(0).choice(np.flatnonzero(frame.sparse == 0), count, replace=False)
    rows, cols = np.unravel_index(at, frame.sparse.shape)
    sparse, _ = completer.clean(frame)
    return Questions(sparse, rows, cols, completer.hints(frame, rows, cols))


@torch.inference_mode()
def tokens_per_query(completer: Completer, frame: Frame, stop_early: bool) -> int:
    """Tokens of a query that pass the language model: those that name the pixel and tell what lies
    around it, and the digits that are fed back: all but the last one that is spelled."""
    one = random_questions(completer, frame, 1)
    prefix, model = _prefix(completer, frame), completer.model
    asked = queries.describe(model.config, one.sparse, one.rows, one.cols, one.hints,
                             float(prefix.unit[0]))
    own, number = model.point_suffix(prefix, asked.to(model.device)).shape[2], model.config.number
    return own + number.digits - 1 - int(stop_early) + int(number.decimal_point)


def curves(completer: Completer, frame: Frame, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Time of a frame over its resolution, its queries and its measured points.

    Args:
        frame: with dense sparse depth, of which points are drawn.
    """
    def timed(completer: Completer, frame: Frame) -> dict[str, float]:
        completer.complete(frame)
        results = [completer.complete(frame) for _ in range(rounds)]
        return {"ms": median(sum(r.stats.ms.values()) for r in results),
                "query_passes_ms": median(r.stats.ms["query_passes"] for r in results)}

    some = dataclasses.replace(frame, sparse=sample_points(frame.sparse, "500", 0))
    budget = completer.settings.queries.budget or 500
    few = Completer(with_values(completer.settings, {"queries.budget": budget}), completer.model)
    found: dict[str, list[dict[str, float]]] = {"resolution": [], "queries": [], "points": []}
    for scale in (0.25, 0.5, 1.0, 2.0):
        found["resolution"].append({
            "pixels": int(frame.sparse.size * scale**2), **timed(few, _scaled(some, scale))})
    for budget in (250, 500, 1000, 2000, 4000):
        asking = Completer(
            with_values(completer.settings, {"queries.budget": budget}), completer.model)
        found["queries"].append({"queries": budget, **timed(asking, some)})
    for points in (50, 500, 5000, 20000):
        if points <= np.count_nonzero(frame.sparse):
            given = dataclasses.replace(
                frame, sparse=sample_points(frame.sparse, str(points), 0))
            found["points"].append({"points": points, **timed(few, given)})
    return found


def _scaled(frame: Frame, scale: float) -> Frame:
    """The frame at another resolution, with as many points but for those that share a pixel."""
    height, width = (round(n * scale) for n in frame.sparse.shape)
    return Frame(cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA),
                 scatter_resize(frame.sparse, (height, width)))
