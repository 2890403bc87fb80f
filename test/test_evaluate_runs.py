"""Evaluations of many inputs: curves, other programs' depth, several processes, stops."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_evaluate import FakeCompleter
from test_nyuv2 import write_labelled, write_prepared
from test_void import write_release

from sdim_ros.tools import cli, evaluate

CLASSICAL = "nearest,linear,edge_aware"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames of ramps."""
    folder = tmp_path_factory.mktemp("frames")
    rng = np.random.default_rng(0)
    for kind in ("rgb", "gt"):
        (folder / kind).mkdir()
    names = [f"{number:02d}" for number in range(8)]
    for number, name in enumerate(names):
        image = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        ramp = np.tile(np.linspace(1500, 4000 + 500 * number, 64), (48, 1))
        cv2.imwrite(str(folder / "rgb" / f"{name}.png"), image)
        cv2.imwrite(str(folder / "gt" / f"{name}.png"), ramp.astype(np.uint16))
    (folder / "frames.json").write_text(json.dumps(
        {"depth_scale": 1000, "frames": [{"name": name} for name in names]}))
    return folder


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return ["evaluate", "--data", str(data), "--points", "60", "--methods", CLASSICAL,
            "--out", str(out), *more]


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def without_times(report: dict) -> dict:
    methods = {name: {kind: method[kind] for kind in ("protocol", "held_out")}
               for name, method in report["methods"].items()}
    frames = [{key: frame[key] for key in frame if key != "ms"} for frame in report["frames"]]
    return {"methods": methods, "frames": frames, "axes": report["axes"]}


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What one process finds without a stop."""
    out = tmp_path_factory.mktemp("alone")
    assert cli.main(arguments(data, out, "--axis", "noise=0,10%", "--seeds", "0,1")) == 0
    return report_of(out)


def test_a_curve_begins_at_the_input_as_it_is_and_gets_worse(alone: dict) -> None:
    [noise] = alone["axes"]
    assert noise["levels"] == ["0", "10%"]
    for name in CLASSICAL.split(","):
        clean, noisy = noise["methods"][name]["mae"]
        assert clean == pytest.approx(alone["methods"][name]["held_out"]["mae"])
        assert noisy > 1.3 * clean


def test_two_processes_find_what_one_finds(data: Path, tmp_path: Path, alone: dict) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "sdim_ros.tools.cli", *arguments(
        data, tmp_path, "--axis", "noise=0,10%", "--seeds", "0,1")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={
        **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1"}) for rank in range(2)]
    for process in both:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    assert without_times(report_of(tmp_path)) == without_times(alone)
    assert not (tmp_path / "rows").exists()


def test_a_killed_evaluation_goes_on_where_it_was(data: Path, tmp_path: Path, alone: dict,
                                                  capfd: pytest.CaptureFixture) -> None:
    more = ("--axis", "noise=0,10%", "--seeds", "0,1")
    process = subprocess.Popen(
        [sys.executable, "-m", "sdim_ros.tools.cli", *arguments(data, tmp_path, *more)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = tmp_path / "rows" / "0.jsonl"
    end = time.monotonic() + 60
    while not (rows.exists() and rows.read_text().count("\n") >= 3):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = rows.read_text().count("\n")
    if not (tmp_path / "report.json").exists():  # else it was faster than the kill
        assert 3 <= done < 48
    assert cli.main(arguments(data, tmp_path, *more)) == 0
    assert "going on: " in capfd.readouterr().err
    assert without_times(report_of(tmp_path)) == without_times(alone)


def test_another_evaluation_does_not_go_on_with_it(data: Path, tmp_path: Path,
                                                   monkeypatch, capsys) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "_draw", stop)
    assert cli.main(arguments(data, tmp_path)) == 130
    assert cli.main(arguments(data, tmp_path, "--seeds", "1")) == 2
    assert "another evaluation" in capsys.readouterr().err


def test_other_maps_of_another_program_do_not_go_on_with_it(data: Path, tmp_path: Path,
                                                            monkeypatch, capsys) -> None:
    folder, draw = tmp_path / "other", evaluate._draw
    shutil.copytree(data / "gt", folder)
    flags = arguments(data, tmp_path / "out", "--predictions", f"{folder}=1000")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "_draw", stop)
    assert cli.main(flags) == 130
    monkeypatch.setattr(evaluate, "_draw", draw)
    (folder / "03.png").write_bytes((folder / "04.png").read_bytes())
    assert cli.main(flags) == 2
    assert "another evaluation" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "write", "flags", "points", "said"), [
    ("nyuv2", write_prepared, (), 500, ""),
    ("nyuv2", write_prepared, ("--points", "100"), 100, "(--points 100)"),
    ("nyuv2", write_labelled, (), 500, ""),
    ("nyuv2", write_labelled, ("--points", "500"), 500, ""),
    ("nyuv2", write_labelled, ("--points", "5000", "--every", "2"), 5000,
     "(--every 2 --points 5000)"),
    ("void_150", write_release, ("--void-clip",), 1, "(--void-clip)"),
])
def test_published_figures_stand_beside_the_protocol_or_it_is_said(
        name: str, write, flags: tuple[str, ...], points: int, said: str, tmp_path: Path) -> None:
    write(tmp_path)
    assert cli.main(["evaluate", "--dataset", name, "--data", str(tmp_path), "--methods",
                     "nearest", "--pictures", "0", "--out", str(tmp_path / "out"), *flags]) == 0
    report = report_of(tmp_path / "out")
    assert report["frames"][0]["points"] == points
    caveat = report["published"]["caveats"][0]
    assert caveat.startswith("This run is not the protocol") == bool(said) and said in caveat


@pytest.mark.parametrize("axis", ["points", "corners"])
def test_a_level_without_a_point_has_its_place_on_the_curve(
        axis: str, data: Path, tmp_path: Path) -> None:
    flags = arguments(data, tmp_path, "--axis", f"{axis}=0,20", "--every", "8")
    assert cli.main([*flags, "--methods", "sdim,nearest", "--preset", "fast", "--set",
                     "queries.budget=20", "--set", "fill.calibration_points=10"]) == 0
    (curve,) = report_of(tmp_path)["axes"]
    assert all(np.isfinite(value) for value in curve["methods"]["sdim"]["mae"])


def test_what_could_not_be_read_is_tried_again_when_its_cause_is_gone(
        data: Path, tmp_path: Path, capsys) -> None:
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    (broken / "gt").rename(broken / "elsewhere")
    assert cli.main(arguments(broken, tmp_path / "out")) == 2
    assert "no frame could be judged" in capsys.readouterr().err
    (broken / "elsewhere").rename(broken / "gt")
    assert cli.main(arguments(broken, tmp_path / "out")) == 0
    assert len(report_of(tmp_path / "out")["frames"]) == 8


def test_depth_of_another_program_is_judged_beside_ours(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "perfect"
    folder.mkdir()
    for path in (data / "gt").glob("*.png"):
        np.save(folder / f"{path.stem}.npy",
                cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / 1000 + 0.25)
    assert cli.main(arguments(data, tmp_path / "out", "--predictions", str(folder))) == 0
    report = report_of(tmp_path / "out")
    assert list(report["methods"]) == [*CLASSICAL.split(","), "perfect"]
    for kind in ("protocol", "held_out"):
        assert report["methods"]["perfect"][kind]["mae"] == pytest.approx(0.25, abs=1e-3)
        assert report["methods"]["perfect"][kind]["images"] == 8
    assert "perfect" in (tmp_path / "out" / "report.html").read_text()


def test_two_folders_of_one_name_are_not_one_method(data: Path, tmp_path: Path, capsys) -> None:
    for run in ("a", "b=2"):
        (tmp_path / run / "depth").mkdir(parents=True)
        for path in (data / "gt").iterdir():
            shutil.copy(path, tmp_path / run / "depth")
    flags = [word for run in ("a", "b=2") for word in ("--predictions", str(
        tmp_path / run / "depth"))]
    assert cli.main(arguments(data, tmp_path / "out", *flags)) == 2
    assert "there is a method depth already" in capsys.readouterr().err


def test_other_programs_depth_belongs_to_one_draw(data: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "some").mkdir()
    for number in range(8):
        np.save(tmp_path / "some" / f"{number:02d}.npy", np.ones((48, 64)))
    assert cli.main(arguments(data, tmp_path / "out", "--predictions", str(tmp_path / "some"),
                              "--seeds", "0,1")) == 2
    assert "one seed" in capsys.readouterr().err


def test_the_page_shows_the_worst_and_the_best_frames(data: Path, tmp_path: Path,
                                                      monkeypatch) -> None:
    monkeypatch.setattr(evaluate, "load_completer", FakeCompleter)
    assert cli.main([
        "evaluate", "--data", str(data), "--points", "60", "--methods", "sdim,fill_only,linear",
        "--pictures", "2", "--out", str(tmp_path)]) == 0
    frames = report_of(tmp_path)["frames"]
    ranked = [frame["name"] for frame in sorted(
        frames, key=lambda frame: -frame["metrics"]["sdim"]["held_out"]["mae"])]
    page = (tmp_path / "report.html").read_text()
    for title in (f"worst 1: {ranked[0]}", f"worst 2: {ranked[1]}", f"best 1: {ranked[-1]}",
                  f"best 2: {ranked[-2]}"):
        assert title in page
    assert page.count("data:image/jpeg") == 4
