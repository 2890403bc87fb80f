"""``completion.launch.py`` starts the installed node; its arguments reach it."""

from __future__ import annotations

import pytest
from conftest import REPOSITORY

pytest.importorskip("rclpy")
launch_pytest = pytest.importorskip("launch_pytest", reason="launch_pytest is not installed")
pytest.importorskip("launch_ros", reason="launch_ros is not installed")

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription, LaunchService
from launch.actions import (
    IncludeLaunchDescription, RegisterEventHandler, SetEnvironmentVariable, Shutdown)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_pytest.actions import ReadyToTest
from ros_process import Peer

FILE = REPOSITORY / "launch" / "completion.launch.py"
ARGUMENTS = {
    "namespace": "front", "checkpoint": "/no/such/checkpoint", "use_sim_time": "true",
    "image": "/camera/image", "camera_info": "/camera/camera_info",
    "sparse_depth": "/camera/sparse", "points": "/lidar/points", "log_level": "warn",
    "sparse_camera_info": "/camera/sparse_info", "disparity": "/stereo/disparity",
    "respawn": "false",
}

try:
    get_package_prefix("sdim_ros")
    INSTALLED = True
except (PackageNotFoundError, LookupError):
    INSTALLED = False

exit_codes: list[int] = []


def described() -> LaunchDescription:
    """What the launch file says, not yet run."""
    return PythonLaunchDescriptionSource(str(FILE)).get_launch_description(LaunchContext())


def running(**arguments: str) -> LaunchDescription:
    """The launch file at work, its exit codes noted."""
    exit_codes.clear()
    return LaunchDescription([
        RegisterEventHandler(OnProcessExit(
            on_exit=lambda event, context: exit_codes.append(event.returncode))),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(FILE)), launch_arguments=arguments.items()),
        ReadyToTest(),
    ])


@launch_pytest.fixture
def started():
    return running(**ARGUMENTS)


@launch_pytest.fixture
def two_cameras():
    return running(namespace="/robot/", cameras="/front rear", respawn="false")


@pytest.mark.skipif(not INSTALLED, reason="sdim_ros is not installed by colcon or pip")
@pytest.mark.launch(fixture=started)
def test_arguments_reach_the_node_and_it_ends_with_0():
    # In its namespace the peer listens to the outputs: without a listener the inputs are left.
    with Peer(target="/front/completion_node", namespace="front") as peer:
        # A bad checkpoint leaves it unconfigured and alive, so that a good one can be set.
        assert peer.state() == "unconfigured"
        assert peer.parameter("model.checkpoint") == "/no/such/checkpoint"
        assert peer.parameter("use_sim_time") is True
        assert peer.parameter("queries.preset") == "balanced"  # from config/completion.yaml
        assert peer.set_parameters(model__checkpoint="").successful
        assert peer.transition("configure") and peer.transition("activate")
        for topic in ("/camera/image", "/camera/camera_info", "/camera/sparse",
                      "/camera/sparse_info", "/lidar/points", "/stereo/disparity"):
            assert peer.spin_until(lambda topic=topic: peer.node.count_subscribers(topic)), topic
        assert peer.spin_until(
            lambda: peer.node.count_publishers("/front/depth/completed") == 1)
    yield
    assert exit_codes == [0]


@pytest.mark.skipif(not INSTALLED, reason="sdim_ros is not installed by colcon or pip")
@pytest.mark.launch(fixture=two_cameras)
def test_two_cameras_are_two_nodes_in_their_namespaces():
    for camera in ("front", "rear"):
        with Peer(target=f"/robot/{camera}/completion_node") as peer:
            assert peer.spin_until(lambda p=peer: p.state() == "active", 60)
            topic = f"/robot/{camera}/depth/completed"
            assert peer.spin_until(lambda p=peer, t=topic: p.node.count_publishers(t) == 1)
    yield
    assert exit_codes == [0]


@pytest.mark.skipif(not INSTALLED, reason="sdim_ros is not installed by colcon or pip")
def test_unusable_parameters_are_tried_six_times_and_not_for_ever(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("/**:\n  ros__parameters:\n    queries: {budget: -1}\n")
    codes: list[int] = []

    def ended(event, context):
        codes.append(event.returncode)
        return Shutdown() if len(codes) > 6 else None

    service = LaunchService()
    service.include_launch_description(LaunchDescription([
        RegisterEventHandler(OnProcessExit(on_exit=ended)),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(FILE)),
            launch_arguments={"params_file": str(bad)}.items())]))
    service.run()  # until nothing is left to do
    assert codes == [2] * 6


def test_every_argument_is_described():
    arguments = {a.name: a for a in described().get_launch_arguments()}
    assert set(arguments) == {*ARGUMENTS, "cameras", "params_file", "rviz", "rviz_frame"}
    assert all(argument.description for argument in arguments.values())


@pytest.mark.parametrize("already_set", [False, True])
@pytest.mark.parametrize(("distribution", "variable"), [
    ("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"), ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE")])
def test_shared_memory_profile_is_set_unless_the_user_has_one(
        monkeypatch, distribution, variable, already_set):
    monkeypatch.setenv("ROS_DISTRO", distribution)
    monkeypatch.delenv(variable, raising=False)
    if already_set:
        monkeypatch.setenv(variable, "/mine.xml")
    given = {action.name[0].text: action.value[0].text for action in described().entities
             if isinstance(action, SetEnvironmentVariable)}
    profile = str(REPOSITORY / "config" / "fastdds_shm.xml")
    assert given == ({} if already_set else {variable: profile})
