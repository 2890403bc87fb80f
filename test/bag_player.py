"""Stands in for ``ros2 bag play`` where rosbag2 is not installed: its clock, pace and names.

``python test/bag_player.py FILE bag play BAG ...`` writes its arguments to FILE as well.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib import import_module
from pathlib import Path

import rclpy
from builtin_interfaces.msg import Time
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock


def main() -> None:
    file, *given = sys.argv[1:]
    parser = argparse.ArgumentParser()
    parser.add_argument("noun", choices=["bag"])
    parser.add_argument("verb", choices=["play"])
    parser.add_argument("bag")
    parser.add_argument("--clock", type=float, required=True)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--disable-keyboard-controls", action="store_true")
    parser.add_argument("--remap", nargs="+", default=[])
    args = parser.parse_args(given)
    Path(file).write_text(json.dumps(given))
    rclpy.init(args=[])
    play(args)


def play(args: argparse.Namespace) -> None:
    node = rclpy.create_node("rosbag2_player")
    names = dict(rule.split(":=") for rule in args.remap)
    with Reader(args.bag) as reader:
        publishers = {}
        for connection in reader.connections:
            package, _, kind = connection.msgtype.split("/")
            topic = names.get(connection.topic, connection.topic)
            publishers[connection.id] = node.create_publisher(
                getattr(import_module(f"{package}.msg"), kind), topic, 10)
        clock = node.create_publisher(Clock, "/clock", 10)
        end_s = time.monotonic() + 20
        while time.monotonic() < end_s and not all(
                publisher.get_subscription_count() for publisher in publishers.values()):
            time.sleep(0.05)
        time.sleep(args.delay)
        start_s = time.monotonic()
        for connection, time_ns, raw in reader.messages():
            due_s = start_s + (time_ns - reader.start_time) / 1e9 / args.rate
            while (left_s := due_s - time.monotonic()) > 0:
                time.sleep(min(left_s, 1 / args.clock))
            sec, nanosec = divmod(time_ns, 10**9)
            clock.publish(Clock(clock=Time(sec=sec, nanosec=nanosec)))
            publishers[connection.id].publish(bytes(raw))
        time.sleep(1)


if __name__ == "__main__":
    main()
