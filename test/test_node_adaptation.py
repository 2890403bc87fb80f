"""The node learns between frames, keeps what it learnt, and completes whatever learning does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

import ros_process
from models import frame as scene
from ros_process import NodeProcess, Peer
from std_srvs.srv import SetBool, Trigger

from sdim_ros.core import adapter_files
from sdim_ros.core.adaptation import Adaptation
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.sensor_data import read_depth
from sdim_ros.core.types import Frame

REAL = ["-m", "sdim_ros.ros.process"]
FAKE = ["test/fake_adaptation.py"]
QUICK = {"queries.budget": 40, "fill.calibration_points": 20, "fill.folds": 2,
         "diagnostics.period_s": 0.1}
LEARNING = {"adaptation.enabled": True, "adaptation.frames": 1, "adaptation.pixels": 8,
            "adaptation.judge_every": 2, "adaptation.average": 0.0, "adaptation.max_share": 0.9,
            "adaptation.learning_rate": 1e-4}  # so small that no step is rolled back


def send_scene(peer: Peer, number: int) -> int:
    pixels, sparse = scene(number)
    image = ros_process.colour_image(*sparse.shape)
    del image.data[:]
    image.data.frombytes(pixels.tobytes())
    return peer.send(image, ros_process.depth_image(sparse))


def depth_of(peer: Peer, node: NodeProcess, number: int) -> tuple[np.ndarray, int]:
    """The completed depth of a scene, and its stamp."""
    sent = send_scene(peer, number)
    result = peer.result_of(sent, 30)
    assert result is not None, node.log()
    return read_depth(result, 10**7), sent


def expected(number: int, time_ns: int, adapter: Path | None = None) -> np.ndarray:
    """The depth that the same model gives here."""
    completer = Completer(with_values(Settings(), QUICK))
    if adapter is not None:
        adaptation = Adaptation(completer, Settings().adaptation)
        adaptation.load(adapter_files.load_newest(adapter, adaptation.weights(), "here")[0])
    return completer.complete(Frame(*scene(number), stamp_ns=time_ns)).depth


def trigger(peer: Peer, name: str) -> Trigger.Response:
    return peer.call(Trigger, f"{peer.target}/adaptation/{name}", Trigger.Request())


def enable(peer: Peer, enabled: bool) -> SetBool.Response:
    return peer.call(
        SetBool, f"{peer.target}/adaptation/enable", SetBool.Request(data=enabled))


def figures(peer: Peer) -> dict[str, str]:
    return peer.diagnosed("adaptation")


def steps(peer: Peer) -> int:
    return int(figures(peer).get("steps", 0))


def in_use(peer: Peer) -> bool:
    """Whether weights that were learnt have been judged no worse."""
    now = figures(peer)
    return now.get("held-out error now %") != now.get("held-out error before %")


def test_it_learns_while_it_completes_and_the_next_start_goes_on_from_there(
        peer, tmp_path, one_thread):
    folder = tmp_path / "front"
    kept = {**QUICK, "adaptation.folder": str(folder)}
    with NodeProcess(parameters={**kept, **LEARNING}, command=REAL) as node:
        peer.warm_up(60)
        depth, sent = depth_of(peer, node, 0)
        first = figures(peer)
        assert first["level"] == 0 and first["message"] == "learning", first
        for number in range(1, 4):
            depth_of(peer, node, number)
        assert peer.spin_until(lambda: steps(peer) >= 3 and in_use(peer), 60), (
            figures(peer), node.log())
        assert 0 < float(figures(peer)["held-out error now %"]) < 100
        assert int(figures(peer)["frames kept"]) >= 2
        assert enable(peer, False).message == "not learning; what was learnt stays in use"
        assert peer.parameter("adaptation.enabled") is False
        learnt, at_ns = depth_of(peer, node, 0)
        assert peer.spin_until(lambda: figures(peer)["message"] == "off")
        code = node.stop()
        assert code == 0 and f"saved {folder}/000001" in node.log(), node.log()
    assert not np.array_equal(learnt, expected(0, at_ns))
    np.testing.assert_array_equal(learnt, expected(0, at_ns, folder))

    with NodeProcess(parameters=kept, command=REAL) as node:
        peer.warm_up(60)
        assert f"adapter {folder}/000001 of" in node.log()
        again, at_ns = depth_of(peer, node, 0)
        np.testing.assert_array_equal(again, expected(0, at_ns, folder))
        assert steps(peer) >= 3 and figures(peer)["message"] == "off"
        reset = trigger(peer, "reset")
        assert reset.success and "back to the weights of" in reset.message, reset
        before, at_ns = depth_of(peer, node, 0)
        np.testing.assert_array_equal(before, expected(0, at_ns))
        saved = trigger(peer, "save")
        assert saved.success and f"{folder}/000002" in saved.message, saved
        assert node.stop() == 0
    assert sorted(os.listdir(folder)) == ["000001", "000002"]  # nothing was learnt since


def test_off_by_default_every_depth_is_that_of_the_model_and_services_say_so(peer, one_thread):
    with NodeProcess(parameters=QUICK, command=REAL) as node:
        peer.warm_up(60)
        for number in range(2):
            depth, at_ns = depth_of(peer, node, number)
            np.testing.assert_array_equal(depth, expected(number, at_ns))
        assert figures(peer)["message"] == "off" and "steps" not in figures(peer)
        refused = trigger(peer, "save")
        assert not refused.success and "adaptation.folder is empty" in refused.message
        assert peer.set_parameters(
            adaptation__enabled=True, adaptation__frames=1, adaptation__pixels=8).successful
        depth_of(peer, node, 3)
        assert peer.spin_until(lambda: steps(peer), 20), (figures(peer), node.log())
        assert trigger(peer, "reset").success
        assert enable(peer, False).success
        depth, at_ns = depth_of(peer, node, 4)
        np.testing.assert_array_equal(depth, expected(4, at_ns))
        assert not peer.set_parameters(adaptation__parts="fusion").successful  # while configured
        assert "Traceback" not in node.log()


def test_learning_that_fails_is_told_and_paused_and_every_frame_is_completed(peer):
    parameters = {"adaptation.enabled": True, "diagnostics.period_s": 0.1}
    with NodeProcess(parameters=parameters, command=FAKE, FAKE_PIECES="ok,ok,raise",
                     FAKE_PIECE_S="0.01") as node:
        peer.warm_up()
        for _ in range(20):
            assert peer.result_of(peer.send_good(), 5) is not None, node.log()
        assert peer.spin_until(lambda: figures(peer).get("level") == 1), figures(peer)
        assert figures(peer)["message"].startswith("paused: it failed 3 times in a row")
        assert figures(peer)["failures"] == "3" and steps(peer) == 2
        assert peer.diagnosed("worker")["failed"] == "0"
        assert node.log().count("adaptation: learning failed, frames are completed as before") == 1
        assert "ValueError: the fake was told to raise" in node.log()
        assert enable(peer, True).success
        assert peer.spin_until(lambda: figures(peer)["failures"] == "6"), figures(peer)
        assert peer.result_of(peer.send_good(), 5) is not None


def test_slow_learning_has_its_share_and_a_frame_waits_for_one_piece_at_most(peer):
    parameters = {"adaptation.enabled": True, "adaptation.max_share": 0.3,
                  "diagnostics.period_s": 0.1}
    with NodeProcess(parameters=parameters, command=FAKE, FAKE_PIECES="ok",
                     FAKE_PIECE_S="0.25") as node:
        peer.warm_up()
        shares, delays, ends = [], [], time.monotonic() + 5
        while time.monotonic() < ends:
            started = time.monotonic()
            assert peer.result_of(peer.send_good(), 5) is not None, node.log()
            delays.append(time.monotonic() - started)
            shares.append(float(figures(peer).get("share of time", 0)))
            peer.spin_until(lambda: False, 0.05)
        assert max(shares) < 0.35 and 0.2 < shares[-1], shares  # a piece may go beyond it
        assert max(delays) > 0.1  # pieces were in the way
        # One piece, beyond what a frame takes without: two would be 0.5 s.
        assert sorted(delays)[int(0.9 * len(delays))] - min(delays) < 0.45, delays
        assert steps(peer) > 5 and peer.diagnosed("worker")["restarts"] == "0"


def test_a_gpu_lost_while_learning_ends_the_node_with_3(peer):
    with NodeProcess(parameters={"adaptation.enabled": True}, command=FAKE,
                     FAKE_PIECES="lose") as node:
        peer.spin_until(lambda: peer.info.get_subscription_count(), 20)
        peer.spin_until(lambda: (peer.send_good(), node.process.poll() is not None)[1] or
                        peer.spin_until(lambda: False, 0.2), 20)
        assert node.process.wait(10) == 3
        assert "lose its GPU): this process cannot use it any more; giving up" in node.log()


def test_services_answer_in_every_state(peer):
    parameters = {"autostart": False, "diagnostics.period_s": 0.1}
    with NodeProcess(parameters=parameters, command=FAKE, FAKE_PIECES="ok",
                     FAKE_PIECE_S="0.01") as node:
        unconfigured = trigger(peer, "save")
        assert not unconfigured.success and "not configured" in unconfigured.message
        assert enable(peer, True).message == "learning as soon as the node is active"
        assert peer.parameter("adaptation.enabled") is True
        assert peer.transition("configure")
        assert trigger(peer, "reset").success and enable(peer, True).success
        assert peer.transition("activate")
        peer.warm_up()
        assert peer.spin_until(lambda: steps(peer) > 2), node.log()
        assert trigger(peer, "reset").success
        assert peer.transition("deactivate")
        assert not trigger(peer, "save").success  # no folder
        assert peer.transition("cleanup")
        assert "Traceback" not in node.log(), node.log()


def test_cameras_that_share_a_model_do_not_learn_and_say_why():
    command = ["-c", "import sys; sys.path[:0] = ['test']; from ros_process import FakeCompleter; "
               "from sdim_ros.ros.process import cameras_main; "
               "sys.exit(cameras_main(completer_factory=FakeCompleter))",
               "--cameras", "front", "rear"]
    with NodeProcess(command=command, parameters={"diagnostics.period_s": 0.1}) as node, Peer(
            target="/rear/completion_node", namespace="rear") as peer:
        peer.warm_up()
        answer = enable(peer, True)
        assert not answer.success and "share one model" in answer.message
        assert peer.parameter("adaptation.enabled") is False
        assert peer.result_of(peer.send_good()) is not None
        assert peer.transition("deactivate") and peer.transition("cleanup")
        assert peer.set_parameters(adaptation__enabled=True).successful
        assert not peer.transition("configure")
        assert "cannot configure: adaptation.enabled or adaptation.folder" in node.log()
