from __future__ import annotations

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from models import CONFIG, random_model

from sdim_ros.core import adapter_files, fill
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.evidence import RecentErrors
from sdim_ros.core.types import Answers, BadInput, DenseDepth, ModelFailed, Stats
from sdim_ros.tools import cli, evaluate, report
from sdim_ros.tools.datasets.catalogue import open_dataset
from sdim_ros.tools.datasets.frames import Sample
from sdim_ros.tools.frame_judge import FrameJudge
from sdim_ros.tools.results import FrameResult


class FakeCompleter:
    """Nearest fill instead of a model; says 2 m wherever it is asked, 3 m when blind."""

    description = "fake"

    def __init__(self, settings: Settings, seen: list | None = None) -> None:
        self.settings = settings

    def complete(self, frame, *, blind=False):
        points = int(np.count_nonzero(frame.sparse > 0))
        if not points:
            raise BadInput("no_points", "sparse depth without a point")
        depth = fill.nearest(frame.sparse)
        rows, cols = (at[::7] for at in np.nonzero(frame.sparse == 0))
        said = self.ask(frame, rows, cols)
        dense = np.full_like(depth, 3.0) if blind else depth
        return DenseDepth(dense, np.full_like(depth, 0.5), depth, said, Stats(
            points=points, queries=len(rows), fill="nearest", trust=0.25, ms={"fill": 1.0}))

    def ask(self, frame, rows, cols):
        said = np.full(len(rows), 2.0, np.float32)
        return Answers(rows, cols, said, said / 10)

    def guess(self, frame):
        return None

    def hints(self, frame, rows, cols):
        return {"edge_aware": fill.edge_aware(frame.sparse, frame.image)[rows, cols]}


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    truth = np.tile(np.linspace(2, 4, 40, dtype=np.float32), (30, 1))
    return Sample("ramp", rng.integers(0, 255, (30, 40, 3), dtype=np.uint8), None, truth)


@pytest.fixture
def data(tmp_path, sample):
    """Three copies of the ramp on disk; the last one has no known pixel."""
    for kind in ("rgb", "gt"):
        (tmp_path / kind).mkdir()
    for name, factor in (("a", 1000), ("b", 1000), ("empty", 0)):
        cv2.imwrite(str(tmp_path / "rgb" / f"{name}.png"), sample.image)
        cv2.imwrite(str(tmp_path / "gt" / f"{name}.png"),
                    (sample.truth * factor).astype(np.uint16))
    (tmp_path / "frames.json").write_text(json.dumps(
        {"depth_scale": 1000, "frames": [{"name": name} for name in ("a", "b", "empty")]}))
    return tmp_path


@pytest.fixture
def fake_model(monkeypatch):
    monkeypatch.setattr(evaluate, "load_completer", FakeCompleter)


def test_answers_are_judged_at_the_asked_pixels_beside_linear_and_hint(sample):
    frame = evaluate.draw_input(sample, "100", None, 0)
    methods = ("sdim", "answers", "answers_hint", "sdim_blind")
    judged = FrameJudge(methods, FakeCompleter(Settings()))(frame, sample.truth, 0)
    result, asked = judged.result, judged.dense.answers
    truth = sample.truth[asked.rows, asked.cols]
    assert result.errors["answers"]["held_out"]["mae"] == pytest.approx(
        np.abs(2 - truth).mean(), rel=1e-5)
    assert result.errors["answers_linear"]["held_out"]["mae"] == pytest.approx(
        np.abs(fill.linear(frame.sparse)[asked.rows, asked.cols] - truth).mean(), rel=1e-3)
    assert "answers_hint" in result.errors
    assert result.errors["sdim_blind"]["protocol"]["mae"] == pytest.approx(
        np.abs(3 - sample.truth).mean(), rel=1e-5)


def test_what_the_fusion_guesses_is_judged_beside_what_the_text_answers(sample):
    fusion = dataclasses.replace(CONFIG.fusion, fills=("nearest", "linear"))
    model = random_model(fusion=fusion, hints=fusion.fills, told="guess")
    frame = evaluate.draw_input(sample, "100", None, 0)
    completer = Completer(with_values(Settings(), {"queries.refined": 0.5}), model)
    judged = FrameJudge(("answers", "answers_guess"), completer)(frame, sample.truth, 0)
    result, asked = judged.result, judged.dense.answers
    first = judged.dense.stats.first_queries
    assert 0 < first < len(asked)
    at = asked.rows[:first], asked.cols[:first]  # a fair sample: the others are hard on purpose
    assert result.errors["answers_guess"]["protocol"]["mae"] == pytest.approx(
        np.abs(completer.guess(frame)[at] - sample.truth[at]).mean(), rel=1e-5)
    without = FrameJudge(("answers", "answers_guess"), Completer(
        Settings(), random_model()))(frame, sample.truth, 0).result
    assert "answers" in without.errors and "answers_guess" not in without.errors


def test_the_order_of_the_frames_does_not_matter(sample):
    """Where the confidence remembers frames, as in the node, it does: this can fail."""
    settings = with_values(Settings(), {"queries.budget": 20, "fill.folds": 2})
    completer = Completer(settings, random_model())
    inputs = [dataclasses.replace(evaluate.draw_input(sample, "40", None, seed), stamp_ns=seed)
              for seed in range(2)]

    def judged(order, recent=None):
        completer.recent = recent
        judge = FrameJudge(("sdim",), completer)
        found = {i: judge(inputs[i], sample.truth, i).result for i in order}
        return [(found[i].errors, found[i].certainty) for i in range(2)]

    assert completer.recent is None
    alone = judged([0, 1])
    assert alone == judged([1, 0])
    assert judged([0, 1], RecentErrors()) != alone == judged([1, 0], RecentErrors())


def test_certainty_covers_the_pixels_that_were_not_given_and_reaches_the_report(sample):
    frame = evaluate.draw_input(sample, "400", None, 0)
    completer = Completer(with_values(Settings(), {"queries.budget": 50}), random_model())
    judged = FrameJudge(("sdim",), completer)(frame, sample.truth, 0)
    result, dense, hidden = judged.result, judged.dense, frame.sparse == 0
    error = np.abs(dense.depth - sample.truth)
    assert result.certainty["coverage"] == pytest.approx((error <= dense.interval)[hidden].mean())
    assert sum(result.certainty["pixels"]) == hidden.sum()
    assert sum(result.certainty["kept"]) == (error <= 0.05 * sample.truth)[hidden].sum()
    content = report.build({}, [FrameResult.from_row(json.loads(json.dumps(result.as_row())))])
    found = content["methods"]["sdim"]["certainty"]
    assert found["coverage"] == result.certainty["coverage"] and found["images"] == 1
    assert f"{100 * found['coverage']:.1f} % of the truths" in report.certainty(content)


def test_only_the_chosen_methods_are_reported(sample):
    frame = evaluate.draw_input(sample, "100", None, 0)
    judged = FrameJudge(["linear"], None)(frame, sample.truth, 0)
    assert set(judged.result.errors) == {"linear"} and judged.dense is None


def test_the_whole_sparse_map_is_the_input_when_no_points_are_named(sample):
    assert (evaluate.draw_input(sample, None, None, 0).sparse == sample.truth).all()


def test_two_runs_give_the_same_report_but_for_times(data, tmp_path, fake_model):
    reports = []
    for run in ("one", "two"):
        out = tmp_path / run
        assert cli.main([
            "evaluate", "--data", str(data), "--points", "20%", "--outliers", "5%", "--seeds",
            "0,3", "--methods", "sdim,fill_only,nearest,linear,edge_aware,answers,sdim_blind",
            "--out", str(out)]) == 0
        report = json.loads((out / "report.json").read_text())
        reports.append([
            {key: frame[key] for key in ("name", "seed", "points", "trust", "metrics")}
            for frame in report["frames"]])
        assert (out / "overview.png").is_file()
    assert reports[0] == reports[1]
    assert [(frame["name"], frame["seed"]) for frame in reports[0]] == [
        ("a", 0), ("a", 3), ("b", 0), ("b", 3)]
    assert reports[0][0]["metrics"] != reports[0][1]["metrics"]


def test_the_report_has_the_published_fields(data, tmp_path, fake_model):
    cli.main(["evaluate", "--data", str(data), "--points", "50", "--every", "2", "--out",
              str(tmp_path / "out"), "--methods", "sdim,linear"])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report) >= {
        "command", "checkpoint", "device", "torch", "seeds", "frames", "methods"}
    assert report["command"].startswith("sdim evaluate --data")
    assert {"name", "points", "fill", "trust", "metrics"} <= set(report["frames"][0])
    sdim = report["methods"]["sdim"]
    assert {"mae", "rmse", "imae", "irmse", "rel", "delta1"} <= set(sdim["protocol"])
    assert "mae" in sdim["held_out"]["ci95"]
    assert {"ms_per_frame", "queries_per_frame", "trust"} <= set(sdim)
    assert list(report["skipped"]) == ["empty seed 0"]


def test_an_unreadable_frame_and_a_failed_model_cost_only_their_own_results(
        data, tmp_path, monkeypatch, capsys):
    class FailsAtSeed1(FakeCompleter):
        def complete(self, frame, **kwargs):
            seen = frame.sparse.tobytes()
            if seen == second_draw:
                raise ModelFailed("the model's probabilities are not finite")
            return super().complete(frame, **kwargs)

    monkeypatch.setattr(evaluate, "load_completer", FailsAtSeed1)
    (data / "rgb" / "b.png").write_text("no image")
    sample = open_dataset(str(data), None)[0]
    second_draw = evaluate.draw_input(sample, "50", None, 1).sparse.tobytes()
    assert cli.main(["evaluate", "--data", str(data), "--points", "50", "--seeds", "0,1",
                     "--methods", "sdim,linear", "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [(frame["name"], frame["seed"]) for frame in report["frames"]] == [("a", 0)]
    assert list(report["skipped"]) == [
        "a seed 1", "b seed 0", "b seed 1", "empty seed 0", "empty seed 1"]
    assert "not finite" in report["skipped"]["a seed 1"]
    assert "b.png is not an image" in report["skipped"]["b seed 0"]
    assert "first a seed 1" in capsys.readouterr().out


def test_an_evaluation_goes_on_with_the_adapter_that_it_began_with_and_with_no_other(
        data, tmp_path, fake_model, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    def learn(number):
        weights = {"fusion.a": torch.full((3,), float(number))}
        return adapter_files.save(folder, weights, {"base": adapter_files.base_of("x", weights)})

    def evaluated(*more):
        return cli.main(["evaluate", "--data", str(data), "--points", "50", "--out",
                         str(tmp_path / "out"), *more])

    folder = tmp_path / "learnt"
    with_adapter = ("--methods", "sdim", "--set", f"adaptation.folder={folder}")
    learn(1)
    monkeypatch.setattr(evaluate, "_draw", stop)
    assert evaluated(*with_adapter) == 130
    assert evaluated(*with_adapter) == 130  # the same one
    newer = learn(2)
    capsys.readouterr()
    assert evaluated(*with_adapter) == 2
    assert "another evaluation" in capsys.readouterr().err
    shutil.rmtree(newer)
    assert evaluated(*with_adapter) == 130
    shutil.rmtree(folder / "000001")
    learn(3)  # other weights under the same name
    assert evaluated(*with_adapter) == 2


def test_classical_fills_need_no_model(data, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "load_completer", lambda _: pytest.fail("model was loaded"))
    assert cli.main(["evaluate", "--data", str(data), "--points", "50", "--out",
                     str(tmp_path / "out"), "--methods", "nearest,linear,edge_aware"]) == 0


@pytest.mark.parametrize("flags, expected", [
    (["--methods", "magic"], "magic"),
    (["--seeds", "a"], "--seeds a"),
    (["--seeds=-1"], "--seeds -1"),
    (["--every", "0"], "--every 0"),
    (["--points", "lots"], "'lots'"),
    (["--set", "queries.budget=-1"], "queries.budget"),
    (["--set", "queries.budget"], "NAME=VALUE"),
    (["--set", "fill.trust=["], "--set fill.trust=["),
    (["--set", "fill.method=2020-99-99"], "not a value in YAML"),
    (["--preset", "slow"], "queries.preset"),
])
def test_a_wrong_flag_ends_with_one_line_and_code_2(data, tmp_path, capsys, flags, expected):
    assert cli.main(["evaluate", "--data", str(data), "--out", str(tmp_path / "o"), *flags]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_a_model_frame_range_limits_classical_fills_too(sample):
    limited = FakeCompleter(with_values(Settings(), {"input.max_depth_m": 2.5}))
    frame = evaluate.draw_input(sample, "400", None, 0)
    result = FrameJudge(["nearest"], limited)(frame, sample.truth, 0).result
    assert result.points == np.count_nonzero((frame.sparse > 0) & (frame.sparse <= 2.5))


@pytest.mark.parametrize(("flags", "words"), [
    (("--outliers", "5"), "--outliers 5: expected a share such as 5%"),
    (("--outliers", "150%"), "--outliers '150%': expected a count such as 500, or a share over 0"),
    (("--points", "abc"), "--points 'abc'"),
    (("--set", "output.min_confidence=0.5"), "--set output.min_confidence: nothing here reads"),
    (("--methods", "sdim_unquantized"), "add --set model.quantization=int8 or int4")])
def test_flags_that_make_no_sense_are_told_by_name(data, tmp_path, fake_model, capsys, flags, words):
    assert cli.main(["evaluate", "--data", str(data), "--out", str(tmp_path / "out"), *flags]) == 2
    assert words in capsys.readouterr().err
