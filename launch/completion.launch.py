"""Starts completion_node, and RViz when asked: ``ros2 launch sdim_ros completion.launch.py``."""

from __future__ import annotations

import os
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

CONFIG = Path(__file__).resolve().parent.parent / "config"
# Fast DDS 2 of Jazzy knows the profile by another name, of which later ones complain.
PROFILE_VARIABLE = ("FASTRTPS_DEFAULT_PROFILES_FILE" if os.environ.get("ROS_DISTRO") == "jazzy"
                    else "FASTDDS_DEFAULT_PROFILES_FILE")
# Without a limit, parameters that cannot be used would end and start the node for ever.
MOST_RESPAWNS = 5
INPUTS = {
    "image": "image",
    "camera_info": "camera_info",
    "sparse_depth": "sparse_depth/image",
    "sparse_camera_info": "sparse_depth/camera_info",
    "points": "points",
    "disparity": "disparity",
}


def generate_launch_description() -> LaunchDescription:
    """The arguments, the shared-memory profile and the processes."""
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
        DeclareLaunchArgument(
            "cameras", default_value="",
            description="Namespaces of several cameras, separated by spaces: one process completes "
            "them all with one model. Inputs are looked for in each, so by relative names; "
            "empty = one camera."),
        DeclareLaunchArgument(
            "params_file", default_value=str(CONFIG / "completion.yaml"),
            description="Parameters of the node."),
        DeclareLaunchArgument(
            "checkpoint", default_value="",
            description="Folder or Hugging Face id of the model; empty = what params_file says."),
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", choices=["true", "false"],
            description="Take the time from /clock."),
        DeclareLaunchArgument(
            "rviz", default_value="false", choices=["true", "false"],
            description="Show image, dense depth and cloud in RViz."),
        DeclareLaunchArgument(
            "rviz_frame", default_value="camera_optical",
            description="Fixed frame of RViz: the frame of the image, or one that TF ties to it."),
        DeclareLaunchArgument(
            "log_level", default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Least severity that is logged."),
        DeclareLaunchArgument(
            "respawn", default_value="true", choices=["true", "false"],
            description="Start the node again when it ends by itself, at most "
            f"{MOST_RESPAWNS} times."),
        *(DeclareLaunchArgument(name, default_value=topic, description=f"Input topic {topic}.")
          for name, topic in INPUTS.items()),
    ]
    # A default segment of shared memory is smaller than one depth image.
    profile = [] if PROFILE_VARIABLE in os.environ else [
        SetEnvironmentVariable(PROFILE_VARIABLE, str(CONFIG / "fastdds_shm.xml"))]
    return LaunchDescription([*arguments, *profile, OpaqueFunction(function=_processes)])


def _processes(context) -> list[Node]:
    """The node, or one process of a node for each camera; and RViz, with the first camera."""
    namespace = LaunchConfiguration("namespace").perform(context)
    cameras = ["".join(f"/{part.strip('/')}" for part in (namespace, camera) if part.strip("/"))
               for camera in LaunchConfiguration("cameras").perform(context).split()]
    rviz = Node(
        package="rviz2", executable="rviz2", name="rviz",
        namespace=cameras[0] if cameras else namespace,
        arguments=["-d", str(CONFIG / "completion.rviz"), "-f", LaunchConfiguration("rviz_frame")],
        remappings=[("image", LaunchConfiguration("image"))],
        parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
        condition=IfCondition(LaunchConfiguration("rviz")))
    return [_completion(context, namespace, cameras), rviz]


def _completion(context, namespace: str, cameras: list[str]) -> Node:
    parameters = [
        LaunchConfiguration("params_file"),
        {"use_sim_time": LaunchConfiguration("use_sim_time")},
    ]
    checkpoint = LaunchConfiguration("checkpoint").perform(context)
    if checkpoint:
        parameters.append({"model.checkpoint": checkpoint})
    common = {
        "package": "sdim_ros", "output": "screen", "parameters": parameters,
        "remappings": [(topic, LaunchConfiguration(name)) for name, topic in INPUTS.items()],
        "respawn": LaunchConfiguration("respawn"), "respawn_delay": 2.0,
        "respawn_max_retries": MOST_RESPAWNS}
    logging = ["--ros-args", "--log-level", LaunchConfiguration("log_level")]
    if cameras:
        return Node(executable="completion_cameras", arguments=["--cameras", *cameras, *logging],
                    **common)
    return LifecycleNode(
        executable="completion_node", name="completion_node", namespace=namespace,
        arguments=logging, **common)
