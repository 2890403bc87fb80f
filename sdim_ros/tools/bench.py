"""``sdim bench``: the query engine against asking pixel by pixel, in one run."""

from __future__ import annotations

import argparse
import dataclasses
import resource
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sdim_ros.core import engine, fill, queries
from sdim_ros.core.completer import Completer
from sdim_ros.core.model import SdimModel
from sdim_ros.core.point_token import PixelQueries
from sdim_ros.core.types import BadSetting, Frame, SdimError
from sdim_ros.tools import report
from sdim_ros.tools.complete import (
    add_model_arguments,
    load_completer,
    make_folder,
    settings_from,
)
from sdim_ros.tools.datasets.motorcycle import motorcycle
from sdim_ros.tools.sampling import sample_points


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``sdim bench``."""
    parser.add_argument("--out", required=True, metavar="DIR", help="where report.json goes")
    parser.add_argument("--queries", type=int, default=1500, help="pixels asked by the engine")
    parser.add_argument("--naive", type=int, default=24, help="pixels asked one by one")
    parser.add_argument("--node", action="store_true",
                        help="time the stages of the ROS node instead, on an image and a cloud")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; medians are reported")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure on Motorcycle, cut to 640 x 480, with 500 points; print and write the report."""
    sample = motorcycle()
    cut = np.s_[:480, :640]
    frame = Frame(sample.image[cut], sample_points(sample.truth[cut], "500", 0))
    missing = int((frame.sparse == 0).sum())
    if not 1 <= args.naive <= args.queries <= missing or args.rounds < 1:
        raise BadSetting(
            f"--naive {args.naive} --queries {args.queries} --rounds {args.rounds}: expected "
            f"1 <= naive <= queries <= {missing}, and at least one round")
    if args.node:
        return _time_node(args, Frame(sample.image[cut], sample.truth[cut], sample.camera))
    completer = load_completer(settings_from(args))
    if completer.model.config.addressing != "point":
        raise BadSetting("this checkpoint names pixels by text; the benchmark times point tokens")
    folder = make_folder(args.out)
    figures = measure(completer, frame, args.queries, args.naive, args.rounds)
    header = report.environment(
        args.command_line, completer.settings.model.checkpoint,
        completer.description)
    report.write_json(Path(folder) / "report.json", {**header, "bench": figures})
    Console().print(_table(figures, completer.description))
    return 0


def _time_node(args: argparse.Namespace, frame: Frame) -> int:
    """The node's own stages, in its own process."""
    try:
        from sdim_ros.tools import live_bench
    except ImportError as problem:
        raise SdimError(f"--node needs ROS 2, and rclpy cannot be imported ({problem}): source "
                        "it, or use the environment of make setup") from problem
    folder, settings = make_folder(args.out), settings_from(args)
    height, width = frame.sparse.shape
    camera = dataclasses.replace(frame.camera, width=width, height=height)
    figures = live_bench.measure(
        dataclasses.replace(frame, camera=camera), settings, 10 * args.rounds)
    header = report.environment(
        args.command_line, settings.model.checkpoint, "completion_node")
    report.write_json(Path(folder) / "report.json", {**header, "bench": figures})
    stages = ", ".join(f"{name} {ms:.1f}" for name, ms in figures["frame_ms"].items())
    Console().print(
        f"The node's own stages, ms: {stages}; the edge-aware fill of the same frame: "
        f"{figures['edge_aware_ms']:.1f}")
    return 0


@torch.inference_mode()
def measure(completer: Completer, frame: Frame, many: int, few: int, rounds: int
            ) -> dict[str, Any]:
    """Time whole answers, the ways in turn so that a change of the machine's speed hits both.

    Args:
        many, few: pixels asked by the engine and one by one.

    Returns:
        the ``bench`` section of the report.
    """
    model = completer.model
    asked = _random_queries(completer, frame, many)
    readout, tile = completer.readout, completer.settings.queries.tile

    def by_engine() -> None:
        prefix = model.encode(model.prepare([frame.image], [frame.sparse]))
        for start in range(0, many, tile):
            suffix = model.point_suffix(prefix, asked.part(start, start + tile))[0]
            engine.decode(model, prefix, suffix, readout)

    def one_by_one(shared_vision: bool) -> None:
        inputs = model.prepare([frame.image], [frame.sparse])
        seen = model.see(inputs)
        for i in range(few):
            visual, fused = seen if shared_vision else model.see(inputs)
            told = model.point(asked.part(i, i + 1), visual, fused.features, fused.mixing)
            answer_alone(model, visual, told[0], readout)

    seconds: dict[str, list[float]] = {
        "engine": [], "naive": [], "shared": [], "frame": [], "edge_aware": []}
    stages: dict[str, list[float]] = {}
    by_engine()
    for _ in range(rounds):
        seconds["engine"].append(_seconds(by_engine))
        seconds["naive"].append(_seconds(lambda: one_by_one(False)))
        seconds["shared"].append(_seconds(lambda: one_by_one(True)))
        seconds["edge_aware"].append(_seconds(lambda: fill.edge_aware(frame.sparse, frame.image)))
        start = time.perf_counter()
        dense = completer.complete(frame)
        seconds["frame"].append(time.perf_counter() - start)
        for name, ms in dense.stats.ms.items():
            stages.setdefault(name, []).append(ms)
    rates = {name: (many if name == "engine" else few) / median(s)
             for name, s in seconds.items() if name not in ("frame", "edge_aware")}
    frame_ms, edge_aware_ms = (1000 * median(seconds[name]) for name in ("frame", "edge_aware"))
    return {
        "speedup_full_answers": rates["engine"] / rates["naive"],
        "speedup_against_shared_vision": rates["engine"] / rates["shared"],
        "engine_queries_per_s": rates["engine"], "naive_queries_per_s": rates["naive"],
        "shared_vision_queries_per_s": rates["shared"],
        "queries": many, "naive_queries": few, "rounds": rounds,
        "tokens_per_query": _tokens_per_query(model, frame, asked),
        "image_seen": list(model.image_size(*frame.sparse.shape)),
        "frame_queries": dense.stats.queries,
        "frame_ms": {**{n: median(ms) for n, ms in stages.items()}, "total": frame_ms},
        "edge_aware_ms": edge_aware_ms, "frame_over_edge_aware": frame_ms / edge_aware_ms,
        "peak_memory_mb": _peak_memory_mb(model.device),
    }


def _random_queries(completer: Completer, frame: Frame, count: int) -> PixelQueries:
    """Questions about missing pixels all over the image."""
    config = completer.model.config
    at = np.random.default_rng(0).choice(np.flatnonzero(frame.sparse == 0), count, replace=False)
    rows, cols = np.unravel_index(at, frame.sparse.shape)
    return queries.describe(config, frame.sparse, rows, cols, completer.hints(frame, rows, cols),
                            config.unit_of(frame.sparse))


def answer_alone(model: SdimModel, visual: Tensor, suffix: Tensor, readout: str
                 ) -> engine.DigitPath:
    """The reference: one query through the plain language model with an ordinary KV cache.

    Args:
        visual: (1, C, gh, gw), the image tokens.
        suffix: (1, S, C).
    """
    embeds, positions = model.shared_tokens(visual)
    positions = torch.cat([positions, engine.following(positions, suffix.shape[1])], dim=1)
    return engine.decode_plainly(model, torch.cat([embeds, suffix], dim=1), positions, readout)


def _tokens_per_query(model: SdimModel, frame: Frame, asked: PixelQueries) -> int:
    """Tokens of one query that pass the language model: its own, and the digits fed back."""
    number = model.config.number
    prefix = model.encode(model.prepare([frame.image], [frame.sparse]))
    own = model.point_suffix(prefix, asked.part(0, 1)).shape[2]
    return own + number.digits - 1 + int(number.decimal_point)


def _seconds(task: Any) -> float:
    start = time.perf_counter()
    task()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _table(figures: dict[str, Any], model: str) -> Table:
    table = Table(title=f"Whole answers, {model}")
    table.add_column("way")
    table.add_column("queries/s", justify="right")
    table.add_column("engine is faster", justify="right")
    table.add_row("engine, shared prefix", f"{figures['engine_queries_per_s']:.0f}", "")
    table.add_row("pixel by pixel", f"{figures['naive_queries_per_s']:.1f}",
                  f"{figures['speedup_full_answers']:.0f} times")
    table.add_row("pixel by pixel, one vision pass",
                  f"{figures['shared_vision_queries_per_s']:.1f}",
                  f"{figures['speedup_against_shared_vision']:.0f} times")
    stages = ", ".join(f"{n} {ms:.0f}" for n, ms in figures["frame_ms"].items())
    table.caption = (
        f"one frame, {figures['frame_queries']} queries, ms: {stages}; "
        f"{figures['frame_over_edge_aware']:.0f} times the edge-aware fill")
    return table
