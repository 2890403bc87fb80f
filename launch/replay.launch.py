"""Plays a bag to completion_node: ``ros2 launch sdim_ros replay.launch.py bag:=FOLDER rviz:=true``.

The node is that of completion.launch.py, which has all other arguments, and follows the bag's time.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction,
    RegisterEventHandler, Shutdown, TimerAction)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition

COMPLETION = Path(__file__).resolve().with_name("completion.launch.py")
CLOCK_HZ = "100"
DISCOVERY_S = "1.0"  # until the node knows of the player's topics
# What a node like this one published when the bag was recorded must not mix with what it publishes.
RECORDED = ("depth/completed", "depth/camera_info", "depth/confidence", "depth/points",
            "depth/normals", "debug/overlay", "debug/doubted", "/diagnostics")


def generate_launch_description() -> LaunchDescription:
    """The arguments of the bag, the node, and the bag as soon as the node is active."""
    return LaunchDescription([
        DeclareLaunchArgument(
            "bag", description="Folder of a rosbag2, or one of its files; the arguments image, "
            "camera_info, points and so on are the names of its topics."),
        DeclareLaunchArgument(
            "rate", default_value="1.0", description="Seconds of the bag in one second."),
        DeclareLaunchArgument(
            "loop", default_value="false", choices=["true", "false"],
            description="Begin again when the bag is over."),
        DeclareLaunchArgument(
            "remap", default_value="",
            description="Other names for topics of the bag, as /old:=/new /old2:=/new2. What a "
            "completion_node published when it was recorded goes to /recorded in any case."),
        DeclareLaunchArgument(
            "stay", default_value="true", choices=["true", "false"],
            description="Leave the node and RViz running when the bag is over."),
        DeclareLaunchArgument(
            "delay", default_value="", description="Seconds until the bag begins; empty = as soon "
            "as the node is active, which the nodes of several cameras do not tell."),
        OpaqueFunction(function=_start),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(COMPLETION)),
            launch_arguments={"use_sim_time": "true"}.items()),
    ])


def _start(context) -> list[TimerAction | RegisterEventHandler]:
    """The model takes seconds to load, and the first images are to be completed as well."""
    play = OpaqueFunction(function=_bag)
    delay, cameras = (context.launch_configurations.get(name, "") for name in ("delay", "cameras"))
    if delay:
        return [TimerAction(period=float(delay), actions=[play])]
    if cameras:
        raise RuntimeError(f"cameras:='{cameras}' without delay: expected the seconds until their "
                           "model is loaded, as delay:=20")
    return [RegisterEventHandler(OnStateTransition(
        goal_state="active", entities=[play], handle_once=True))]


def _bag(context) -> list[ExecuteProcess]:
    """``ros2 bag play``, which sets the time."""
    bag, rate, loop, stay, remap, namespace, cameras = (
        LaunchConfiguration(name).perform(context)
        for name in ("bag", "rate", "loop", "stay", "remap", "namespace", "cameras"))
    # As completion.launch.py names the nodes.
    spaces = ["".join(f"/{part.strip('/')}" for part in (namespace, camera) if part.strip("/"))
              for camera in cameras.split() or [""]]
    names = dict.fromkeys(topic if topic.startswith("/") else f"{space}/{topic}"
                          for space in spaces for topic in RECORDED)
    remaps = [*remap.split(), *(f"{name}:=/recorded{name}" for name in names)]
    return [ExecuteProcess(
        cmd=["ros2", "bag", "play", bag, "--clock", CLOCK_HZ, "--rate", rate,
             "--delay", DISCOVERY_S, *(["--loop"] if loop == "true" else []),
             "--disable-keyboard-controls", "--remap", *remaps],
        name="bag", output="screen",
        on_exit=None if stay == "true" else [Shutdown(reason="the bag is over")])]
