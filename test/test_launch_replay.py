"""``replay.launch.py`` plays a bag to the installed node once that is active, on the bag's time."""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest
from conftest import REPOSITORY

pytest.importorskip("rclpy")
launch_pytest = pytest.importorskip("launch_pytest", reason="launch_pytest is not installed")
pytest.importorskip("launch_ros", reason="launch_ros is not installed")

from bag_recorder import colour, depth_of, info, moments, record, stamp_of, truth_of
from launch import LaunchContext, LaunchDescription, LaunchService
from launch.actions import (
    ExecuteProcess, IncludeLaunchDescription, RegisterEventHandler, SetEnvironmentVariable)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_pytest.actions import ReadyToTest
from ros_process import Peer
from sensor_msgs.msg import Image
from test_launch import INSTALLED

from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.ros.outputs import TOPICS

FILE = REPOSITORY / "launch" / "replay.launch.py"
exit_codes: list[int] = []


def source() -> PythonLaunchDescriptionSource:
    return PythonLaunchDescriptionSource(str(FILE))


@pytest.fixture
def bag(tmp_path):
    """With what a node published when it was recorded."""
    return record(tmp_path / "bag", moments(
        4, cam__image=colour, cam__camera_info=info, depth=depth_of,
        front__depth__completed=truth_of))


@launch_pytest.fixture
def replayed(tmp_path, bag):
    """The launch file at work; ``ros2 bag play`` has a stand-in."""
    exit_codes.clear()
    player = tmp_path / "bin" / "ros2"
    player.parent.mkdir()
    player.write_text(f"#!/bin/sh\nexec {sys.executable} {REPOSITORY}/test/bag_player.py "
                      f'{tmp_path}/given.json "$@"\n')
    player.chmod(0o755)
    parameters = tmp_path / "fast.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    queries: {budget: 20}\n"
                          "    fill: {folds: 2, calibration_points: 0}\n")
    arguments = {
        "bag": str(bag), "rate": "0.5", "remap": "/depth:=/lidar/depth",
        "namespace": "front", "params_file": str(parameters), "image": "/cam/image",
        "camera_info": "/cam/camera_info", "sparse_depth": "/lidar/depth", "respawn": "false"}
    return LaunchDescription([
        SetEnvironmentVariable("PATH", f"{player.parent}{os.pathsep}{os.environ['PATH']}"),
        RegisterEventHandler(OnProcessExit(
            on_exit=lambda event, context: exit_codes.append(event.returncode))),
        IncludeLaunchDescription(source(), launch_arguments=arguments.items()),
        ReadyToTest(),
    ])


@pytest.mark.skipif(not INSTALLED, reason="sdim_ros is not installed by colcon or pip")
@pytest.mark.launch(fixture=replayed)
def test_the_bag_is_played_once_the_node_is_active_and_its_results_come_back(tmp_path, bag):
    with Peer(target="/front/completion_node", namespace="front") as peer:
        recorded = peer.record("/recorded/front/depth/completed", Image)
        assert peer.spin_until(lambda: exit_codes == [0], 60)  # the bag is over, the node stays
        assert peer.spin_until(lambda: peer.results and len(recorded) == 4), (
            len(peer.results), len(recorded), peer.diagnosed("sync"))
        assert peer.parameter("use_sim_time") is True
    stamps = [stamp_ns(message.header) for message in peer.results]
    assert set(stamps) <= {stamp_of(number) for number in range(4)}
    assert len(set(stamps)) == len(stamps)  # what was recorded is elsewhere
    given = json.loads((tmp_path / "given.json").read_text())
    assert given[:3] == ["bag", "play", str(bag)]
    assert given[given.index("--rate") + 1] == "0.5" and "--loop" not in given
    assert "/depth:=/lidar/depth" in given
    yield
    assert exit_codes == [0, 0]


def played(**arguments: str) -> ExecuteProcess:
    """What plays the bag, as the launch file makes it."""
    context = LaunchContext()
    context.launch_configurations.update(
        {"rate": "1.0", "loop": "false", "stay": "true", "remap": "", "namespace": "",
         "cameras": "", "bag": "b", **arguments})
    spec = spec_from_file_location("replay_launch", FILE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    [process] = module._bag(context)
    return process


@pytest.mark.parametrize("namespace", ["", "front", "/front"])
def test_what_a_node_published_in_the_bag_goes_elsewhere(namespace):
    command = [part[0].text for part in played(namespace=namespace, loop="true").cmd]
    where = "/front" if namespace else ""
    moved = command[command.index("--remap") + 1:]
    assert moved == [*(f"{where}/{topic}:=/recorded{where}/{topic}" for topic in (
        "depth/completed", "depth/camera_info", *list(TOPICS)[2:])),
        "/diagnostics:=/recorded/diagnostics"]
    assert {rule.split(":=")[0].removeprefix(f"{where}/") for rule in moved} >= set(TOPICS)
    assert "--loop" in command and command[command.index("--clock") + 1] == "100"


@pytest.mark.parametrize("namespace, spaces", [
    ("", ["/front", "/rear"]), ("/robot", ["/robot/front", "/robot/rear"])])
def test_what_the_nodes_of_several_cameras_published_goes_elsewhere_too(namespace, spaces):
    command = [part[0].text for part in played(namespace=namespace, cameras="front  rear").cmd]
    moved = command[command.index("--remap") + 1:]
    topics = {f"{space}/{topic}" for space in spaces for topic in TOPICS} | {"/diagnostics"}
    assert sorted(moved) == sorted(f"{topic}:=/recorded{topic}" for topic in topics)


def test_the_end_of_the_bag_ends_all_when_nothing_is_to_stay(tmp_path):
    player = tmp_path / "ros2"
    player.write_text("#!/bin/sh\nexit 0\n")
    player.chmod(0o755)
    codes: list[int] = []
    service = LaunchService()
    service.include_launch_description(LaunchDescription([
        SetEnvironmentVariable("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}"),
        RegisterEventHandler(OnProcessExit(
            on_exit=lambda event, context: codes.append(event.returncode))),
        ExecuteProcess(cmd=["sleep", "60"]), played(stay="false")]))
    assert service.run() == 0
    assert codes == [0, -signal.SIGINT]


def test_several_cameras_need_a_delay(bag):
    service = LaunchService()
    service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
        source(), launch_arguments={"bag": str(bag), "cameras": "front rear"}.items())]))
    assert service.run() == 1  # it says why and starts nothing


def test_every_argument_is_described_those_of_the_node_too():
    arguments = {a.name: a for a in
                 source().get_launch_description(LaunchContext()).get_launch_arguments()}
    assert {"bag", "rate", "loop", "remap", "stay", "delay", "image", "camera_info", "points",
            "sparse_depth", "disparity", "params_file", "checkpoint", "rviz"} <= set(arguments)
    assert all(argument.description for argument in arguments.values())
    assert arguments["bag"].default_value is None
