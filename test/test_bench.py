"""The benchmark compares two ways to the same digits."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from models import frame, random_model

from sdim_ros.core import checkpoint, engine, queries
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import Settings
from sdim_ros.core.prompts import NumberFormat
from sdim_ros.core.types import Camera, Frame
from sdim_ros.tools import bench
from sdim_ros.tools.cli import main

FIGURES = {"speedup_full_answers", "naive_queries_per_s", "engine_queries_per_s", "frame_ms",
           "peak_memory_mb", "edge_aware_ms", "frame_over_edge_aware"}


@pytest.mark.parametrize("decimal_point", [False, True])
@torch.inference_mode()
def test_pixel_by_pixel_reads_the_digits_of_the_engine(decimal_point: bool) -> None:
    model = random_model(number=NumberFormat(2, 3, "median", decimal_point))
    image, sparse = frame()
    rows, cols = np.array([3, 30, 77]), np.array([5, 60, 100])
    maps = queries.hint_maps(sparse, image, model.config.hints)
    asked = queries.describe(
        model.config, sparse, rows, cols,
        {name: m[rows, cols] for name, m in maps.items()}, model.config.unit_of(sparse))
    prefix = model.encode(model.prepare([image], [sparse]))
    suffix = model.point_suffix(prefix, asked)[0]
    together = engine.decode(model, prefix, suffix, "greedy")
    for i in range(3):
        alone = bench.answer_alone(model, prefix.visual, suffix[i:i + 1], "greedy")
        np.testing.assert_array_equal(alone.digits[0], together.digits[i])
        np.testing.assert_allclose(
            alone.probabilities[0], together.probabilities[i], atol=1e-6)


def test_the_figures_are_rates_of_the_same_run() -> None:
    completer = Completer(Settings(), random_model())
    figures = bench.measure(completer, Frame(*frame()), many=60, few=2, rounds=1)
    assert set(figures) >= FIGURES
    assert figures["speedup_full_answers"] == (
        figures["engine_queries_per_s"] / figures["naive_queries_per_s"])
    assert figures["naive_queries_per_s"] > 0
    assert {"encode", "query_passes", "fill"} <= set(figures["frame_ms"])


def test_the_command_writes_the_report(tmp_path: Path) -> None:
    checkpoint.save(random_model(), tmp_path / "model")
    assert main(["bench", "--out", str(tmp_path), "--checkpoint", str(tmp_path / "model"),
                 "--queries", "30", "--naive", "1", "--rounds", "1"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["bench"]) >= FIGURES
    assert report["device"] and report["torch"]


@pytest.mark.parametrize("flags", [["--naive", "9", "--queries", "5"], ["--rounds", "0"],
                                   ["--queries", "999999"]])
def test_counts_that_make_no_sense_are_refused(flags: list[str], tmp_path: Path,
                                               capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "--out", str(tmp_path), *flags]) == 2
    assert "expected 1 <= naive <= queries <= 306700" in capsys.readouterr().err


@pytest.mark.parametrize("flags, expected", [
    (["--node", "--curves"], "--curves is not for --node: leave it out"),
    (["--node", "--data", "frames"], "--data is not for --node: leave it out"),
    (["--node", "--random-weights", "qwen2.5-vl-3b"], "--random-weights is not for --node"),
    (["--node", "--layers", "0"], "--layers is not for --node: leave it out"),
    (["--node", "--budgets", "500"], "--budgets is not for --node: leave it out"),
    (["--node", "--queries", "100"], "--queries is not for --node: leave it out"),
    (["--node", "--naive", "9"], "--naive is not for --node: leave it out"),
    (["--layers", "2"], "--layers is for --random-weights: leave it out"),
    (["--random-weights", "qwen2.5-vl-3b", "--checkpoint", "mine"],
     "--checkpoint is not for --random-weights: leave it out"),
    (["--budgets", "500,1.5k"], "--budgets 500,1.5k: expected numbers from 1 to 306700, "
     "separated by commas, and '1.5k' is none"),
    (["--budgets", "500,"], "and '' is none"),
])
def test_flags_that_would_be_left_out_are_refused(
        flags: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture) -> None:
    for name in ("_time_node", "_completer"):
        monkeypatch.setattr(bench, name, lambda *_: pytest.fail("it was timed"))
    assert main(["bench", "--out", str(tmp_path), *flags]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_the_stages_of_the_node_come_from_the_node_itself() -> None:
    pytest.importorskip("rclpy")
    import ros_process

    from sdim_ros.tools import live_bench

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (160, 240, 3), dtype=np.uint8)
    dense = rng.uniform(2, 9, (160, 240)).astype(np.float32)
    scene = Frame(image, dense, Camera(200.0, 200.0, 120.0, 80.0, 240, 160))
    figures = live_bench.measure(
        scene, Settings(), frames=3, command=[sys.executable, ros_process.__file__])
    stages = dict(figures["frame_ms"])
    assert stages.pop("total") == pytest.approx(sum(stages.values()))
    assert {"pair", "decode", "project", "pack", "publish"} <= set(stages)
    assert "complete" not in stages  # the model's own time is none of the node's
    assert figures["edge_aware_ms"] > 0 and figures["image"] == [240, 160]
