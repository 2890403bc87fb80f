"""``sdim bench``: the query engine against asking pixel by pixel, in one run."""

from __future__ import annotations

import argparse
import dataclasses
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sdim_ros.core import engine, fill, queries
from sdim_ros.core.asking import Readout
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import with_values
from sdim_ros.core.model import SdimModel
from sdim_ros.core.types import BadInput, BadSetting, Frame, SdimError
from sdim_ros.tools import bench_plot, report, throughput
from sdim_ros.tools.complete import (
    add_model_arguments,
    load_completer,
    make_folder,
    settings_from,
)
from sdim_ros.tools.datasets.motorcycle import motorcycle
from sdim_ros.tools.error_curve import error_over_queries
from sdim_ros.tools.sampling import sample_points
from sdim_ros.tools.training.qwen_3b import random_3b

BUDGETS = "500,1500"
QUERIES, NAIVE = 1500, 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``sdim bench``."""
    parser.add_argument("--out", required=True, metavar="DIR", help="where report.json goes")
    parser.add_argument("--queries", type=int, metavar="N",
                        help=f"pixels asked by the engine (default {QUERIES})")
    parser.add_argument("--naive", type=int, metavar="N",
                        help=f"pixels asked one by one (default {NAIVE})")
    parser.add_argument("--node", action="store_true",
                        help="time the stages of the ROS node instead, on an image and a cloud")
    parser.add_argument("--rounds", type=int, default=3,
                        help="repetitions; medians are reported (default %(default)s)")
    parser.add_argument("--budgets", metavar="N,N",
                        help=f"queries of whole frames that are timed (default {BUDGETS})")
    parser.add_argument("--curves", action="store_true",
                        help="time over resolution, queries and points too, with a plot")
    parser.add_argument("--data", type=Path, metavar="FOLDER",
                        help="with --curves: frames for the error over queries, 500 points each")
    parser.add_argument("--random-weights", choices=["qwen2.5-vl-3b"],
                        help="time the real 3B configuration without its weights")
    parser.add_argument("--layers", type=int, metavar="N",
                        help="with --random-weights: so many layers of it, to try the command on "
                        "a small machine")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure on Motorcycle, cut to 640 x 480, with 500 points; print and write the report.

    Raises:
        BadInput: ``arguments``: flags that contradict each other.
        BadSetting: a number out of range, or a checkpoint that cannot be timed.
    """
    _check(args)
    sample = motorcycle()
    cut = np.s_[:480, :640]
    frame = Frame(sample.image[cut], sample_points(sample.truth[cut], "500", 0))
    missing = int((frame.sparse == 0).sum())
    many = QUERIES if args.queries is None else args.queries
    few = NAIVE if args.naive is None else args.naive
    if not 1 <= few <= many <= missing or args.rounds < 1:
        raise BadSetting(
            f"--naive {few} --queries {many} --rounds {args.rounds}: expected "
            f"1 <= naive <= queries <= {missing}, and at least one round")
    if args.node:
        return _time_node(args, Frame(sample.image[cut], sample.truth[cut], sample.camera))
    budgets = _budgets(BUDGETS if args.budgets is None else args.budgets, missing)
    completer = _completer(args)
    if completer.model.config.addressing != "point":
        raise BadSetting("this checkpoint names pixels by text; the benchmark times point tokens")
    folder = make_folder(args.out)
    # First: a folder that cannot be used must not cost the figures.
    error = None if args.data is None else error_over_queries(completer, args.data, "500")
    figures = measure(completer, frame, many, few, args.rounds)
    figures["throughput"] = throughput.measure(completer, frame, budgets, args.rounds)
    if args.curves:
        figures["curves"] = throughput.curves(
            completer, Frame(sample.image[cut], sample.truth[cut]), args.rounds)
        if error is not None:
            figures["curves"]["error"] = error
        bench_plot.draw(Path(folder) / "bench.png", figures, completer.description)
    header = report.environment(
        args.command_line, completer.settings.model.checkpoint, completer.description)
    report.write_json(Path(folder) / "report.json", {**header, "bench": figures})
    Console().print(_table(figures, completer.description))
    Console().print(_throughput_table(figures["throughput"]))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse flags that would be left out, before anything is read.

    Raises:
        BadInput: ``arguments``.
    """
    if args.data is not None and not (args.curves or args.node):
        raise BadInput("arguments",
                       f"--data {args.data}: its error is one of the curves; add --curves")
    values = {"--queries": args.queries, "--naive": args.naive, "--curves": args.curves or None,
              "--data": args.data, "--budgets": args.budgets,
              "--random-weights": args.random_weights, "--layers": args.layers}
    given = [flag for flag, value in values.items() if value is not None]
    misplaced = {
        **{f"{flag} is not for --node": args.node for flag in given},
        "--layers is for --random-weights": "--layers" in given and not args.random_weights,
        "--checkpoint is not for --random-weights":
            args.random_weights and args.checkpoint is not None,
    }
    for text, wrong in misplaced.items():
        if wrong:
            raise BadInput("arguments", f"{text}: leave it out")


def _budgets(text: str, most: int) -> list[int]:
    """Of ``"500,1500"``; a word left out would be a figure that nobody misses.

    Raises:
        BadSetting: a word is no number, or out of range.
    """
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not word.isdecimal() or not 1 <= int(word) <= most:
            raise BadSetting(f"--budgets {text}: expected numbers from 1 to {most}, separated by "
                             f"commas, and {word!r} is none")
    return [int(word) for word in words]


def _completer(args: argparse.Namespace) -> Completer:
    """The model that the flags name, or one of random weights."""
    settings = settings_from(args)
    if args.random_weights is None:
        return load_completer(settings)
    values: dict[str, Any] = {"model.checkpoint": f"{args.random_weights} with random weights"}
    if settings.fill.trust < 0:  # a frame would leave random answers out, and be too fast
        values["fill.trust"] = 0.5
    return Completer(with_values(settings, values), random_3b(settings.model, args.layers))


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
    model, device = completer.model, completer.model.device
    ways = _ways(completer, frame, many, few)
    spent: dict[str, list[float]] = {name: [] for name in (*ways, "frame")}
    stages: dict[str, list[float]] = {}
    ways["engine"]()
    for _ in range(rounds):
        for name, way in ways.items():
            spent[name].append(throughput.seconds(way, device))
        start = time.perf_counter()
        dense = completer.complete(frame)
        spent["frame"].append(time.perf_counter() - start)
        for name, ms in dense.stats.ms.items():
            stages.setdefault(name, []).append(ms)
    rates = {name: (many if name == "engine" else few) / median(s)
             for name, s in spent.items() if name not in ("frame", "edge_aware")}
    frame_ms, edge_aware_ms = (1000 * median(spent[name]) for name in ("frame", "edge_aware"))
    return {
        "speedup_full_answers": rates["engine"] / rates["naive"],
        "speedup_against_shared_vision": rates["engine"] / rates["shared"],
        "engine_queries_per_s": rates["engine"], "naive_queries_per_s": rates["naive"],
        "shared_vision_queries_per_s": rates["shared"],
        "queries": many, "naive_queries": few, "rounds": rounds,
        "tokens_per_query": throughput.tokens_per_query(completer, frame, stop_early=False),
        "image_seen": list(model.image_size(*frame.sparse.shape)),
        "frame_queries": dense.stats.queries,
        "frame_ms": {**{n: median(ms) for n, ms in stages.items()}, "total": frame_ms},
        "edge_aware_ms": edge_aware_ms, "frame_over_edge_aware": frame_ms / edge_aware_ms,
        "peak_memory_mb": _peak_memory_mb(model.device),
    }


def _ways(completer: Completer, frame: Frame, many: int, few: int
          ) -> dict[str, Callable[[], None]]:
    """Whole answers by the engine and one by one, and a classical fill to compare with."""
    model = completer.model
    questions = throughput.random_questions(completer, frame, many)
    asked = queries.describe(
        model.config, frame.sparse, questions.rows, questions.cols, questions.hints,
        model.config.unit_of(frame.sparse)).to(model.device)
    readout, asker = Readout(completer.readout.kind), completer.asker()

    def by_engine() -> None:
        prefix = model.encode(model.prepare([frame.image], [frame.sparse]))
        asker.ask(prefix, [questions], readout, lambda: None).answers()

    def one_by_one(shared_vision: bool) -> None:
        inputs = model.prepare([frame.image], [frame.sparse])
        seen = model.see(inputs)
        for i in range(few):
            visual, fused = seen if shared_vision else model.see(inputs)
            told = model.point(asked.part(i, i + 1), visual, fused.features, fused.mixing)
            answer_alone(model, visual, told[0], readout.kind)

    return {"engine": by_engine, "naive": lambda: one_by_one(False),
            "shared": lambda: one_by_one(True),
            "edge_aware": lambda: fill.edge_aware(frame.sparse, frame.image)}


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


def _throughput_table(figures: dict[str, Any]) -> Table:
    table = Table(title=f"Whole frames; a matrix product reaches {figures['matmul_tflops']:.3g} "
                        "TFLOP/s here")
    for name in ("queries", "frames/s", "query passes ms", "tokens/s", "of the product's speed"):
        table.add_column(name, justify="right")
    for row in figures["budgets"]:
        table.add_row(
            str(row["queries"]), f"{row['fps']:.2f}", f"{row['query_pass_ms']:.0f}",
            f"{row['tokens_per_s']:.0f}", f"{100 * row['share_of_matmul_peak']:.0f} %")
    last = figures["budgets"][-1]
    stages = ", ".join(f"{n} {ms:.0f}" for n, ms in last["frame_ms"].items())
    table.caption = (f"{last['tokens_per_query']} tokens a query; {last['queries']} queries, ms: "
                     f"{stages}; peak {last['peak_memory_mb']:.0f} MB of the GPU")
    return table
