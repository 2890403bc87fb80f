from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from test_evaluate import FakeCompleter

from sdim_ros.core import completer
from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.fill import nearest
from sdim_ros.core.types import SdimError
from sdim_ros.tools import cli, demo, sampling
from sdim_ros.tools.datasets.motorcycle import motorcycle_stereo
from sdim_ros.tools.frame_judge import FrameJudge

pytest.importorskip("rclpy")
from sdim_ros.tools import live  # noqa: E402

NODE_WITH_FAKE_MODEL = (sys.executable, str(Path(__file__).with_name("ros_process.py")))


@pytest.fixture(scope="module")
def scene():
    sample, right = motorcycle_stereo()
    return dataclasses.replace(sample, stamp_ns=demo.FIRST_STAMP_NS), right


@pytest.fixture(scope="module")
def frame(scene):
    return scene[0].frame(sampling.sample_points(scene[0].reference, "500", 0))


@pytest.fixture(scope="module")
def recording(frame, tmp_path_factory):
    log = tmp_path_factory.mktemp("live") / "node.log"
    settings = with_values(Settings(), {"points.stride_px": 8})
    return live.play(frame, settings, 3, log, lambda _: None, NODE_WITH_FAKE_MODEL)


def test_the_published_depth_is_that_of_the_node_bit_by_bit(recording, frame):
    np.testing.assert_array_equal(recording.depth, nearest(frame.sparse))
    assert recording.confidence.shape == frame.sparse.shape
    assert len(recording.round_trip_ms) == 3 and min(recording.round_trip_ms) > 0


def test_the_published_depth_is_judged_as_sdim(recording, frame, scene):
    judge = FrameJudge(("sdim", "nearest"), FakeCompleter(Settings()))
    result, difference = demo._judged(judge, frame, scene[0].truth, recording)
    assert difference == 0
    assert result.errors["sdim"] == result.errors["nearest"]
    assert result.ms["sdim"] == np.median(recording.round_trip_ms)


def test_a_missed_bar_is_said_and_is_no_failure(recording, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "load_completer", FakeCompleter)
    monkeypatch.setattr(completer, "with_random_weights", lambda model: model)
    monkeypatch.setattr(live, "play", lambda *_: recording)
    assert cli.main(["demo", "--out", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("the model leaves MAE as it is") == 1
    assert said.count("best classical fill MISSED: MAE") == 2
    for name in ("random", "stereo"):
        assert {path.name for path in (tmp_path / name).iterdir()} >= {
            "overview.png", "report.json", "demo.mcap"}


def test_the_bag_holds_inputs_and_outputs_with_matching_stamps(recording, tmp_path):
    from rosbags.rosbag2.storage_mcap import McapReader

    live.write_bag(tmp_path / "demo.mcap", recording)
    assert [path.name for path in tmp_path.iterdir()] == ["demo.mcap"]
    reader = McapReader(tmp_path / "demo.mcap")
    reader.open()
    stamps: dict[str, list[int]] = {}
    for connection, stamp, _ in reader.messages(reader.connections):
        stamps.setdefault(connection.topic, []).append(stamp)
    reader.close()
    sent = [demo.FIRST_STAMP_NS + i * live.PERIOD_NS for i in range(3)]
    assert stamps == {f"/{topic}": sent for topic in (*live.SENT, *live.HEARD)}


def test_a_node_that_ends_is_an_error_with_its_last_log_lines(frame, tmp_path):
    broken = (sys.executable, "-c", "print('no such checkpoint'); raise SystemExit(7)")
    with pytest.raises(SdimError, match="exit code 7") as error:
        live.play(frame, Settings(), 1, tmp_path / "node.log", lambda _: None, broken)
    assert "no such checkpoint" in str(error.value)


def test_a_silent_node_is_an_error_after_the_time_limit(frame, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "TIMEOUT_S", 1.0)
    silent = (sys.executable, "-c", "import time; time.sleep(30)")
    with pytest.raises(SdimError, match="did not subscribe to its inputs within 1 s"):
        live.play(frame, Settings(), 1, tmp_path / "node.log", lambda _: None, silent)


def test_settings_that_differ_become_parameters_of_the_node(tmp_path):
    settings = with_values(Settings(), {"queries.budget": 9, "model.checkpoint": "a b"})
    process = live.NodeProcess(("node",), settings, tmp_path / "log")
    assert process.command == [
        "node", "--ros-args", "-p", 'model.checkpoint:="a b"', "-p", "queries.budget:=9"]


def test_stereo_points_are_noisy_measurements_with_some_gross_errors(scene):
    sample, right = scene
    sparse = demo.stereo_points(sample.image, right)
    both = (sparse > 0) & (sample.truth > 0)
    error = np.abs(sparse - sample.truth)[both]
    assert np.count_nonzero(sparse) == 1500
    assert 0.001 < np.median(error) < 0.03
    assert error.max() > 0.2
