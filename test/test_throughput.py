"""What a frame costs beside what the hardware must pay for it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from models import frame, random_model
from training_runs import write_frames

from sdim_ros.core.asking import Readout
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.types import Frame
from sdim_ros.tools import bench, bench_plot, throughput
from sdim_ros.tools.cli import main
from sdim_ros.tools.datasets.frames import Sample
from sdim_ros.tools.error_curve import error_over_queries
from sdim_ros.tools.training import qwen_3b
from sdim_ros.tools.training import recipe as recipes
from sdim_ros.tools.training.qwen_3b import SDIM_3B


@pytest.fixture(scope="module")
def completer() -> Completer:
    return Completer(
        with_values(Settings(), {"fill.calibration_points": 20, "doubt.mode": "ignore"}),
        random_model())


def test_a_tokens_work_is_that_of_its_matrices_and_of_attention_to_the_prefix() -> None:
    model = random_model()
    # 64 wide, 4 heads of 16 with 2 for keys, 96 in the feed-forward layers, 2 layers
    matrices = 2 * (64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 96)
    assert throughput.flops_per_token(model, 0) == 2 * matrices
    assert throughput.flops_per_token(model, 100) - 2 * matrices == 4 * 100 * 64 * 2


def test_the_figures_of_a_budget_belong_together(completer: Completer) -> None:
    figures = throughput.measure(completer, Frame(*frame()), [40], 1)
    row, = figures["budgets"]
    # 3 neighbours, 2 hints and the pixel itself; 5 digits of which the last is not spelled
    assert row["tokens_per_query"] == 6 + 3
    greedy = dataclasses.replace(completer.settings, queries=dataclasses.replace(
        completer.settings.queries, readout="greedy"))
    assert not Readout.of(greedy).stop_early  # it spells the last digit too
    paper = with_values(Settings(), {"queries.preset": "paper"})
    assert Readout.of(paper) == Readout("greedy")
    assert row["tokens_per_s"] == pytest.approx(40 * 9 / (row["query_pass_ms"] / 1000))
    assert row["share_of_matmul_peak"] == pytest.approx(
        row["query_pass_tflops"] / figures["matmul_tflops"])
    assert row["floor_ms"] == pytest.approx(row["share_of_matmul_peak"] * row["query_pass_ms"])
    assert row["fps"] == pytest.approx(1000 / row["frame_ms"]["total"])
    assert row["frame_queries"] <= 40 + 20 and row["points"] == 120


def test_the_curves_change_one_thing_at_a_time_and_can_be_drawn(
        completer: Completer, tmp_path: Path) -> None:
    image, _ = frame()
    dense = np.full(image.shape[:2], 3, np.float32) + np.arange(image.shape[1]) / 100
    curves = throughput.curves(completer, Frame(image, dense.astype(np.float32)), 1)
    assert [row["pixels"] for row in curves["resolution"]] == [768, 3072, 12288, 49152]
    assert [row["points"] for row in curves["points"]] == [50, 500, 5000]
    assert all(row["ms"] >= row["query_passes_ms"] > 0 for rows in curves.values() for row in rows)
    bench_plot.draw(tmp_path / "bench.png", {"curves": curves}, "model")
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    error = [{"queries": n, "mae": 0.1, "fill_only_mae": 0.2} for n in (5, 50)]
    bench_plot.draw(tmp_path / "error.png", {"curves": {**curves, "error": error}}, "model")
    assert (tmp_path / "error.png").stat().st_size > (tmp_path / "bench.png").stat().st_size


def test_the_error_over_queries_has_one_fill_to_compare_with(
        completer: Completer, tmp_path: Path) -> None:
    rows = error_over_queries(completer, write_frames(tmp_path / "frames"), "300", budgets=(5, 50))
    assert [row["queries"] for row in rows] == [5, 50]
    assert rows[0]["fill_only_mae"] == rows[1]["fill_only_mae"] > 0
    assert all(np.isfinite(row["mae"]) for row in rows)


def test_the_sizes_that_are_timed_are_those_of_the_recipe() -> None:
    values = yaml.safe_load(Path("config/train.yaml").read_text(encoding="utf-8"))
    assert recipes.parse(values).sdim == SDIM_3B


def test_the_real_widths_can_be_timed_without_weights(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer of each model, few words and a small picture: a CPU takes minutes for more."""
    image, _ = frame()
    truth = np.full(image.shape[:2], 3, np.float32)
    monkeypatch.setattr(bench, "motorcycle", lambda: Sample("small", image, None, truth, None))
    real = qwen_3b.qwen_3b_config
    monkeypatch.setattr(
        qwen_3b, "qwen_3b_config", lambda text, vision: real(text, vision, vocabulary=200))
    assert main(["bench", "--out", str(tmp_path), "--random-weights", "qwen2.5-vl-3b", "--layers",
                 "1", "--queries", "4", "--naive", "1", "--rounds", "1", "--budgets", "4", "--set",
                 "queries.budget=4", "--set", "fill.calibration_points=4"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert "random weights" in report["model"]
    assert report["bench"]["throughput"]["budgets"][0]["tokens_per_query"] == 6


def test_budgets_that_make_no_sense_are_refused(
        tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "--out", str(tmp_path), "--budgets", "0"]) == 2
    assert "--budgets 0: expected numbers from 1 to" in capsys.readouterr().err


def test_frames_without_curves_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "--out", str(tmp_path), "--data", "frames"]) == 2
    assert "--data frames: its error is one of the curves; add --curves" in capsys.readouterr().err
