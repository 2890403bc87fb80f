"""The process around the nodes: arguments, signals and exit codes.

``completion_node`` runs one node; ``completion_cameras`` runs one for each camera, with one model.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.utilities import remove_ros_args

from sdim_ros.core.config import AdaptationSettings, Settings
from sdim_ros.core.types import BadSetting
from sdim_ros.ros.node import (
    CompletionNode, WorkerExhausted, load_completer, make_adaptation)
from sdim_ros.ros.pipeline import Completer
from sdim_ros.ros.shared_model import SharedModel, refuse_adaptation

EXIT_BAD_SETTING, EXIT_WORKER_EXHAUSTED = 2, 3

Factory = Callable[[Settings], Completer]


def main(
    args: list[str] | None = None, completer_factory: Factory = load_completer,
    adaptation_factory: Callable[[Completer, AdaptationSettings], Any] = make_adaptation,
) -> int:
    """Run one node until it is told to stop.

    Returns:
        The exit code: 0 after SIGINT or SIGTERM, 2 for unusable parameters, 3 when the worker
        gave up (a launch file's ``respawn`` then starts a new process).
    """
    return run(args, lambda: [CompletionNode(completer_factory, adaptation_factory)])


def cameras_main(
    args: list[str] | None = None, completer_factory: Factory = load_completer
) -> int:
    """Run one node for each ``--cameras`` namespace, all with one model, until told to stop.

    Returns:
        The exit code, as of ``main``; the first node that gives up ends them all.
    """
    parser = argparse.ArgumentParser(
        "completion_cameras", description="One completion_node in the namespace of each camera; "
        "all share one model. ROS arguments follow --ros-args.")
    parser.add_argument("--cameras", nargs="+", required=True, metavar="NAMESPACE")
    given = sys.argv if args is None else ["completion_cameras", *args]
    names = parser.parse_args(remove_ros_args(given)[1:]).cameras
    shared = SharedModel(completer_factory)
    return run(args, lambda: [
        CompletionNode(shared.completer, refuse_adaptation, namespace=name) for name in names])


def run(args: list[str] | None, make_nodes: Callable[[], Sequence[CompletionNode]]) -> int:
    """Spin nodes until a signal or the first one that gives up; returns the exit code."""
    # Before rclpy adds its own handler: a signal while the model loads must interrupt as well,
    # SIGINT too where a background shell has handed it down as ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    nodes: Sequence[CompletionNode] = ()
    code, stopped = 0, True
    try:
        _init(args)
        nodes = make_nodes()
        executor = SingleThreadedExecutor()
        for node in nodes:
            if node.settings.autostart:
                node.start()
            executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (BadSetting, WorkerExhausted) as problem:
        rclpy.logging.get_logger("completion_node").fatal(str(problem))
        code = EXIT_BAD_SETTING if isinstance(problem, BadSetting) else EXIT_WORKER_EXHAUSTED
    except Exception:
        # A signal shuts rclpy down at once, and whatever then uses it raises.
        if rclpy.ok():
            raise
    finally:
        # Ctrl-C on a launch file arrives twice: once from the terminal, once from launch.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for node in nodes:
            stopped = node.close() and stopped
            node.destroy_node()
        rclpy.try_shutdown()
    if not stopped:
        # A thread still inside of PyTorch can crash the interpreter's own clean-up. The price is
        # one segment of shared memory, which Fast DDS does not get to remove.
        sys.stdout.flush()
        os._exit(code)
    return code


def _init(args: list[str] | None) -> None:
    try:
        rclpy.init(args=args)
    except RuntimeError as problem:  # an unreadable parameter file, or unknown --ros-args
        said = str(problem)
        raise BadSetting(f"unknown ROS arguments: {said}" if said.startswith("[") else said
                         ) from problem


if __name__ == "__main__":
    sys.exit(main())
