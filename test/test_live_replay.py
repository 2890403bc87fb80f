"""sdim replay --live: a bag to the real node in another process, and what comes back."""

from __future__ import annotations

import copy
import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

import bag_recorder
from bag_recorder import (
    FAST, cloud, colour, depth_of, image, info, moments, points_of, record, scene, stamp_of,
    transform, truth_of)
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from ros_process import LOSE, FakeCompleter, NodeProcess
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from sdim_ros.core.config import Settings
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.tools import cli, live_contact, live_replay, live_score, replay

FAKE = (sys.executable, str(Path(__file__).with_name("ros_process.py")))
KINDS = {"/depth/completed": Image, "/depth/confidence": Image, "/depth/points": PointCloud2,
         "/depth/camera_info": CameraInfo}
try:
    import tf2_ros
except ImportError:
    tf2_ros = None


@pytest.fixture
def fake(monkeypatch):
    """The node of the live run, and the core of the one without, fill by nearest points."""
    monkeypatch.setattr(live_replay, "NODE_COMMAND", FAKE)
    monkeypatch.setattr(replay, "load_completer", FakeCompleter)
    monkeypatch.setattr(replay.overview, "draw", lambda *_: None)  # takes half a second
    return monkeypatch


@pytest.fixture(scope="module")
def running():
    """A node that somebody else has started, and the flags that play to it."""
    with NodeProcess(
            "-r", "__ns:=/front", "-r", "image:=/cam/image", "-r", "depth/completed:=dense",
            parameters={"diagnostics.period_s": 0.1, "use_sim_time": "true",
                        "output.encoding": "16UC1", "input.max_age_s": 60.0}):
        yield ("--live", "--node", "/front/completion_node", "--remap",
               "image=/cam/image,depth/completed=/front/dense")


def run(bag, out, *flags) -> int:
    return cli.main(["replay", str(bag), "--out", str(out), "--pictures", "0", *flags])


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def results(out: Path) -> dict[tuple[str, int], object]:
    """The messages of the bag that was written, by topic and stamp."""
    with AnyReader([out / "completed"]) as reader:
        found = [(c.topic, deserialize_message(raw, KINDS[c.topic]))
                 for c, _, raw in reader.messages()]
    return {(topic, stamp_ns(message.header)): message for topic, message in found}


def accounted(live: dict) -> bool:
    """Whether every image that was sent has a result or a reason."""
    lost = sum(found["count"] for found in live["drops"].values())
    return live["unexplained"] == 0 and live["images"] == live["results"] + lost


def sentence(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines()
             if line.startswith("sdim replay: ")]
    assert len(lines) == 1
    return lines[0]


def test_live_and_without_ros_a_bag_gives_the_same_bit_by_bit(tmp_path, monkeypatch):
    """Real node, real model: depth, confidence, cloud and camera info of each frame of both."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums of more threads are rounded otherwise
    bag = record(tmp_path / "bag", moments(4))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run(bag, tmp_path / "offline", *FAST) == 0
    finally:
        torch.set_num_threads(threads)
    assert run(bag, tmp_path / "live", *FAST, "--live", "--rate", "0.3") == 0
    offline, live = results(tmp_path / "offline"), results(tmp_path / "live")
    assert len({time_ns for _, time_ns in live}) >= 2
    for key, message in live.items():
        assert message == offline[key], key
    facts = report_of(tmp_path / "live")
    assert accounted(facts["live"]) and facts["live"]["images"] == 4
    assert facts["model"] == report_of(tmp_path / "offline")["model"]
    assert {"complete", "decode", "publish", "age"} <= set(facts["live"]["stages_ms"])


def test_a_node_slower_than_the_bag_takes_the_newest_and_the_others_are_counted(
        tmp_path, fake, capsys):
    """Twice the pace, and points that judge: they never reach the node."""
    fake.setenv("FAKE_DELAY_S", "0.25")
    bag = record(tmp_path / "bag", moments(12))
    assert run(bag, tmp_path / "live", "--live", "--rate", "2", "--points", "30",
               "--pictures", "1") == 0
    content = report_of(tmp_path / "live")
    live = content["live"]
    assert live["images"] == 12 and 2 <= live["results"] <= 8 and accounted(live)
    assert live["drops"]["replaced"]["count"] >= 4
    late_s = live["behind_ms"] / 1e3  # on a busy machine
    assert 11 / live["images_per_s"] == pytest.approx(11 / 20, abs=0.05 + late_s)
    assert 250 < live["round_trip_ms"]["p50"] <= live["round_trip_ms"]["p99"]
    assert live["stages_ms"]["complete"]["p50"] >= 250
    assert live["messages"] == {"image": 12, "camera_info": 12, "sparse_depth": 12}
    assert content["replay"]["completed"] == live["results"]
    assert run(bag, tmp_path / "offline", "--points", "30") == 0
    expected = {frame["name"]: frame for frame in report_of(tmp_path / "offline")["frames"]}
    for frame in content["frames"]:
        assert frame["points"] == 30
        for method in ("sdim", "nearest", "linear", "edge_aware"):
            assert frame["metrics"][method] == expected[frame["name"]]["metrics"][method]
        assert frame["ms"]["sdim"] > 250  # over the wire and back
    assert "fill_only" not in content["methods"]
    assert "replaced: a newer set came while the model was busy" in capsys.readouterr().out
    page = (tmp_path / "live" / "report.html").read_text()
    assert "The node at work" in page and "worst 1" in page and "<svg" in page


def test_a_slower_pace_and_a_topic_of_ground_truth(tmp_path, fake, running):
    bag = record(tmp_path / "bag", moments(
        5, image=colour, camera_info=info, depth=depth_of, truth=truth_of))
    assert run(bag, tmp_path / "out", *running, "--rate", "0.5", "--limit", "4", "--gt-topic",
               "/truth") == 0
    content = report_of(tmp_path / "out")
    live = content["live"]
    assert live["images"] == 4 and accounted(live) and live["results"] >= 3
    late_s = live["behind_ms"] / 1e3  # on a busy machine
    assert 3 / live["images_per_s"] == pytest.approx(3 / 5, abs=0.05 + late_s)
    assert len(content["over_time"]) == live["results"]
    assert content["methods"]["sdim"]["held_out"]["mae"] == pytest.approx(
        content["methods"]["nearest"]["held_out"]["mae"], abs=0.001)  # millimetres
    assert (tmp_path / "out" / "error_over_time.png").exists()


def test_a_node_that_ends_half_way_leaves_what_is_done_and_its_last_words(
        tmp_path, fake, capsys):
    def losing(number):
        if number == 1:
            return image(stamp_of(1), scene(1)[0], "hsv8")
        pixels = scene(number)[0]
        pixels[0, 0] = LOSE if number == 5 else (1, 2, 3)
        return image(stamp_of(number), pixels, "rgb8")

    bag = record(tmp_path / "bag", moments(
        30, image=losing, camera_info=info, sparse_depth__image=depth_of))
    assert run(bag, tmp_path / "out", "--live") == 2
    text = capsys.readouterr().err
    assert "sdim replay: the node ended with exit code 3; the last lines of" in text
    assert "told to lose its GPU; giving up" in text
    content = report_of(tmp_path / "out")
    live = content["live"]
    assert 1 <= live["results"] < 20 and content["replay"]["completed"] == live["results"]
    assert 6 <= live["images"] < 30 and accounted(live)
    assert live["drops"]["node_ended"]["count"] >= 1
    assert live["drops"]["encoding"]["first"].startswith("/image: image encoding 'hsv8'")
    assert "exit code 3" in content["replay"]["stopped"]
    stamps = {time_ns for _, time_ns in results(tmp_path / "out")}
    assert stamp_of(0) in stamps and not {stamp_of(1), stamp_of(5)} & stamps


def test_a_node_that_runs_already_is_found_by_its_topics(tmp_path, fake, capsys, running):
    bag = record(tmp_path / "bag", moments(3))
    assert run(bag, tmp_path / "out", *running, "--rate", "0.5") == 0
    live = report_of(tmp_path / "out")["live"]
    assert live["images"] == 3 and live["results"] >= 2 and accounted(live)
    assert live["use_sim_time"] and not live["is_started_here"]
    assert live["node"] == "/front/completion_node"
    assert not (tmp_path / "out" / "node.log").exists()
    capsys.readouterr()
    fake.setattr(live_contact, "HEAR_S", 1.0)
    assert run(bag, tmp_path / "wrong", *running[:3]) == 2
    text = sentence(capsys)
    assert "nobody listens to /front/image" in text and "--remap" in text
    assert "/cam/image" in text  # where it does
    fake.setattr(live_contact, "FIND_S", 1.0)
    assert run(bag, tmp_path / "none", "--live", "--node", "/rear/completion_node") == 2
    assert "there is no node /rear/completion_node" in sentence(capsys)
    assert report_of(tmp_path / "none")["live"]["images"] == 0
    assert not (tmp_path / "none" / "completed").exists()  # the name can be used again


def test_ctrl_c_keeps_what_is_done(tmp_path, fake, capsys, running):
    send = live_replay.Player._send

    def interrupted(player, role, *message):
        if player.played.sent["image"] == 4:
            raise KeyboardInterrupt
        send(player, role, *message)

    fake.setattr(live_replay.Player, "_send", interrupted)
    bag = record(tmp_path / "bag", moments(6))
    assert run(bag, tmp_path / "out", *running, "--rate", "0.5") == 130
    content = report_of(tmp_path / "out")
    live = content["live"]
    assert live["images"] == 4 and 2 <= live["results"] <= 4 and accounted(live)
    assert content["replay"]["stopped"] == "KeyboardInterrupt"
    assert len(content["frames"]) == live["results"]
    assert len({time_ns for _, time_ns in results(tmp_path / "out")}) == live["results"]
    assert sentence(capsys) == "sdim replay: stopped"


def test_images_without_a_result_are_counted_by_reason(tmp_path, fake, running):
    """The node has counted images of other tests: those of this bag alone count."""
    def broken(number):
        if number == 1:
            return image(stamp_of(1), scene(1)[0], "hsv8")
        return colour(number) if number != 2 else image(0, scene(2)[0], "rgb8")

    apart = [(topic, message, time_ns) for topic, message, time_ns in moments(
        5, image=broken, camera_info=info, depth=depth_of)
        if (topic, time_ns) != ("/depth", stamp_of(3))]
    bag = record(tmp_path / "bag", apart)
    assert run(bag, tmp_path / "out", *running, "--rate", "0.5") == 0
    live = report_of(tmp_path / "out")["live"]
    assert accounted(live) and live["images"] == 5
    assert {reason: found["count"] for reason, found in live["drops"].items()} == {
        "encoding": 1, "zero_stamp": 1, "unpaired": 1}


def test_without_ros_one_sentence_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.delattr("sdim_ros.tools.live_replay")
    monkeypatch.setitem(sys.modules, "sdim_ros.tools.live_replay", None)
    bag = record(tmp_path / "bag", moments(1))
    assert run(bag, tmp_path / "out", "--live") == 2
    assert "--live needs ROS 2" in sentence(capsys)


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1", "mono16"])
def test_hidden_points_are_not_in_the_message_and_the_others_as_they_were(encoding):
    """Rows may be padded, and the unit is that of the message."""
    depth = bag_recorder.sparse(0)
    pixels = depth if encoding == "32FC1" else np.round(1000 * depth).astype(np.uint16)
    padded = np.pad(pixels, ((0, 0), (0, 5)), constant_values=7)
    message = image(stamp_of(0), padded, encoding)
    message.width = depth.shape[1]
    args = Namespace(points="20", seed=3)
    hidden = live_score.hidden(args, message, Settings())
    assert message.data.tobytes() == padded.tobytes()
    left = np.frombuffer(hidden.data, pixels.dtype).reshape(padded.shape)
    assert np.count_nonzero(left[:, :message.width]) == 20
    kept = left[:, :message.width] > 0
    assert np.array_equal(left[:, :message.width][kept], pixels[kept])
    assert (left[:, message.width:] == 7).all()
    again = live_score.hidden(args, message, Settings())
    assert again.data.tobytes() == hidden.data.tobytes()
    assert (hidden.step, hidden.encoding) == (message.step, encoding)
    short = copy.copy(message)
    short.data = message.data[:-5 * pixels.itemsize]  # the last row without its padding
    assert live_score.hidden(args, short, Settings()).data.tobytes() == (
        hidden.data.tobytes()[:-5 * pixels.itemsize])


def lidar_moments():
    return moments(3, image=colour, camera_info=info, points=lambda n: cloud(
        stamp_of(n), points_of(n), "lidar"))


@pytest.mark.parametrize(("flags", "words"), [
    (("--rate", "2"), "--rate is for --live"),
    (("--node", "/a"), "--node is for --live"),
    (("--live", "--rate", "0"), "--rate 0.0: expected a number over 0"),
    (("--live", "--every", "2"), "--every 2 with --live"),
    (("--live", "--remap", "image=/a"), "--remap is for --node"),
    (("--live", "--node", "completion_node"), "expected its full name"),
    (("--live", "--node", "/a", "--remap", "images=/a"), "the names are image, camera_info"),
    (("--live", "--node", "/a", "--set", "queries.budget=9"), "ros2 param set /a"),
    (("--live", "--node", "/a", "--doubt", "reject"), "--doubt with --node"),
    (("--live", "--points", "9"), "sdim convert --bag"),
])
def test_what_cannot_be_played_is_one_sentence(tmp_path, capsys, flags, words):
    bag = record(tmp_path / "bag", lidar_moments())
    assert run(bag, tmp_path / "out", *flags) == 2
    assert words in sentence(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(tf2_ros is not None, reason="tf2_ros is installed")
def test_a_lidar_whose_pose_is_not_known_is_one_sentence_where_there_is_no_tf2(tmp_path, capsys):
    bag = record(tmp_path / "bag", lidar_moments())
    assert run(bag, tmp_path / "out", "--live") == 2
    text = sentence(capsys)
    assert "/points is in frame 'lidar', the image in 'camera_optical'" in text
    assert "--extrinsics" in text and "tf2_ros" in text


@pytest.mark.skipif(tf2_ros is None, reason="tf2_ros is not installed")
def test_a_lidar_is_placed_by_the_transforms_of_the_bag(tmp_path, fake):
    pose = (0.1, 0, 0, 0, 0, 0, 1)
    moving = [("/tf", transform(stamp_of(number), bag_recorder.OPTICAL, "base", *pose),
               stamp_of(number)) for number in range(4)]
    fixed = ("/tf_static", transform(0, "base", "lidar", -0.1, 0, 0, 0, 0, 0, 1), stamp_of(1))
    bag = record(tmp_path / "bag", sorted(
        [*lidar_moments(), *moving, fixed], key=lambda entry: entry[2]))
    assert run(bag, tmp_path / "out", "--live", "--rate", "0.5") == 0
    live = report_of(tmp_path / "out")["live"]
    assert live["results"] >= 2 and accounted(live)
    assert run(bag, tmp_path / "offline") == 0
    offline = results(tmp_path / "offline")
    for key, message in results(tmp_path / "out").items():
        if key[0] == "/depth/completed":
            assert message == offline[key]
