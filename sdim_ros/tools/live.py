"""Plays a frame to the real node, in its own process and over DDS, and records what comes back.

Needs ROS; imported only when a live run starts.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rclpy
import rosbags.rosbag2  # noqa: F401, or a demo would run to its end and lack it there
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

import sdim_ros
from sdim_ros.core import sensor_data
from sdim_ros.core.config import Settings, leaves
from sdim_ros.core.types import Frame, SdimError
from sdim_ros.ros import messages
from sdim_ros.ros.outputs import TOPICS
from sdim_ros.tools.bag_writer import BagWriter

SENT = {"image": Image, "camera_info": CameraInfo, "sparse_depth/image": Image}
HEARD = {topic: TOPICS[topic] for topic in (
    "depth/completed", "depth/confidence", "depth/points", "depth/camera_info")}
NODE_COMMAND = (sys.executable, "-m", "sdim_ros.ros.process")
# Fast DDS 2 of Jazzy knows the profile by another name, of which later ones complain.
PROFILE_VARIABLE = ("FASTRTPS_DEFAULT_PROFILES_FILE" if os.environ.get("ROS_DISTRO") == "jazzy"
                    else "FASTDDS_DEFAULT_PROFILES_FILE")
PERIOD_NS = 100_000_000
TIMEOUT_S, RETRY_S = 60.0, 1.0
MAX_PIXELS = 2**31
LOG_LINES = 15
QOS = QoSProfile(depth=10)


@dataclass(slots=True)
class Recording:
    """What went over the wire.

    Attributes:
        depth: (H, W) float32 metres of the first result, NaN = unknown.
        confidence: (H, W) float32, 0-1, of the first result.
        round_trip_ms: from publishing the input to receiving its completed depth, per frame.
        messages: topic, stamp in nanoseconds, serialised message; inputs and outputs.
    """

    depth: np.ndarray
    confidence: np.ndarray
    round_trip_ms: list[float] = field(default_factory=list)
    messages: list[tuple[str, int, bytes]] = field(default_factory=list)


def play(
    frame: Frame, settings: Settings, frames: int, log: Path, progress: Callable[[str], None],
    command: Sequence[str] = NODE_COMMAND,
) -> Recording:
    """Start the node, send it the frame some times, each after the result before it.

    Args:
        frame: with its camera; ``stamp_ns`` is the first stamp, the others follow at 10 Hz.
        settings: the node's; those that differ from the defaults become its parameters.
        frames: how often the frame is sent.
        log: file for the output of the node.
        progress: told what happens.
        command: starts the node.

    Raises:
        SdimError: with the last lines of the node's log when it ends, gives nothing within
            60 s, or does not shut down cleanly.
    """
    with tempfile.TemporaryDirectory() as ros_log, environment(ros_log), \
            NodeProcess(command, settings, log) as process:
        context = rclpy.Context()
        rclpy.init(context=context)
        try:
            peer = Peer(context, process)
            progress("waiting for the node to load the model")
            peer.connect(frame)
            for number in range(frames):
                progress(f"frame {number + 1} of {frames}")
                peer.send(frame, frame.stamp_ns + number * PERIOD_NS)
            return peer.recording()
        finally:
            rclpy.shutdown(context=context)


@contextmanager
def environment(ros_log: str, is_private: bool = True) -> Iterator[None]:
    """Shared memory that fits an image, and a ROS graph of this run's own two processes.

    Args:
        is_private: False = stay in the graph that the user has.
    """
    before = dict(os.environ)
    os.environ["ROS_LOG_DIR"] = ros_log
    if is_private:
        os.environ |= {
            "ROS_DOMAIN_ID": str(random.SystemRandom().randint(51, 100)),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    os.environ.setdefault(PROFILE_VARIABLE, str(shipped_file("config/fastdds_shm.xml")))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def shipped_file(name: str) -> Path:
    """A file of the package's share folder, installed or in a source checkout."""
    root = Path(sdim_ros.__file__).resolve().parent.parent
    tried = [root / name, Path(sys.prefix) / "share" / "sdim_ros" / name]
    tried += [Path(prefix) / "share" / "sdim_ros" / name
              for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    for path in tried:
        if path.is_file():
            return path
    raise SdimError(f"{name} was not found; looked for {', '.join(map(str, tried))}")


class NodeProcess:
    """The completion node in a child process, with its output in a file.

    Args:
        command: starts the node.
        settings: those that differ from the defaults become its parameters.
        log: the file.
        more: further arguments for ROS.
    """

    def __init__(self, command: Sequence[str], settings: Settings, log: Path,
                 more: Sequence[str] = ()) -> None:
        self.log = log
        default = {leaf.name: leaf.value for leaf in leaves(Settings())}
        changed = [leaf for leaf in leaves(settings) if leaf.value != default[leaf.name]]
        parameters = [word for leaf in changed
                      for word in ("-p", f"{leaf.name}:={json.dumps(leaf.value)}")]
        self.command = [*command, "--ros-args", *parameters, *more]

    def __enter__(self) -> NodeProcess:
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                self.command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ})
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if code != 0 and kind is None:
            raise self.problem(f"the node ended with exit code {code} after the last frame")

    def check(self) -> None:
        """Raise when the node is gone."""
        if self.process.poll() is not None:
            raise self.problem(f"the node ended with exit code {self.process.returncode}")

    def problem(self, what: str) -> SdimError:
        """The error, with what the node said last."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n  ".join(lines[-LOG_LINES:]) or "(nothing)"
        return SdimError(f"{what}; the last lines of {self.log}:\n  {tail}")


class Watched(Protocol):
    """The process of the completion node, whoever has started it."""

    def check(self) -> None:
        """Raise SdimError when the node is gone."""

    def problem(self, what: str) -> SdimError:
        """The error, with all that is known of the node."""


class Link:
    """A node beside the completion node, which serves messages while it waits for something.

    Args:
        name: of this node.
        process: of the completion node.
    """

    def __init__(self, name: str, context: rclpy.Context, process: Watched) -> None:
        self.process = process
        self.node = Node(name, context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)

    def listen(self, topics: Mapping[str, str], take: Callable[[str, int, bytes], None]) -> None:
        """Listen to outputs.

        Args:
            topics: their names by those in ``HEARD``.
            take: gets the name in ``HEARD``, the stamp in nanoseconds and the message.
        """
        def received(name: str, raw: bytes) -> None:
            header = deserialize_message(raw, HEARD[name]).header
            take(name, sensor_data.stamp_ns(header), raw)

        for name, topic in topics.items():
            self.node.create_subscription(
                HEARD[name], topic, lambda raw, name=name: received(name, raw), QOS, raw=True)

    def spin(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Serve messages until ``ready``; False when it is too late."""
        return spin(self.executor, self.process, ready, timeout_s)

    def wait(self, ready: Callable[[], bool], what: str, timeout_s: float | None = None) -> None:
        """Serve messages until ``ready``.

        Args:
            what: the node did not do when that takes too long.
            timeout_s: default ``TIMEOUT_S``.
        """
        timeout_s = TIMEOUT_S if timeout_s is None else timeout_s
        if not self.spin(ready, timeout_s):
            raise self.process.problem(f"the node did not {what} within {timeout_s:.0f} s")


class Peer(Link):
    """The other side of the node: a camera, a depth sensor and a recorder."""

    def __init__(self, context: rclpy.Context, process: NodeProcess) -> None:
        super().__init__("sdim_demo", context, process)
        self.publishers = {
            topic: self.node.create_publisher(kind, topic, QOS) for topic, kind in SENT.items()}
        self.listen({topic: topic for topic in HEARD}, self._receive)
        # Stamp in nanoseconds -> topic -> serialised message.
        self.sent: dict[int, dict[str, bytes]] = {}
        self.received: dict[int, dict[str, bytes]] = {}
        self.arrival_s: dict[int, float] = {}
        self.recorded: list[int] = []
        self.round_trip_ms: list[float] = []

    def connect(self, frame: Frame) -> None:
        """Wait for the node and send the frame under earlier stamps until one is answered.

        A publisher knows of its subscriber a little before the subscriber knows of it, and what
        a best-effort subscriber misses in between is gone.
        """
        self.wait(self._matched, "subscribe to its inputs")
        stamp_ns = frame.stamp_ns - 1000 * PERIOD_NS
        for _ in range(round(TIMEOUT_S / RETRY_S)):
            stamp_ns += PERIOD_NS
            self._publish(frame, stamp_ns)
            if self.spin(lambda: bool(self.received), RETRY_S):
                # The newest waits in the node's mailbox; the first round trip must not.
                self.wait(lambda: stamp_ns in self.received, "answer its second frame")
                return
        raise self.process.problem(f"the node gave nothing within {TIMEOUT_S:.0f} s")

    def send(self, frame: Frame, stamp_ns: int) -> None:
        """Publish one frame and wait for all that the node makes of it."""
        start_s = self._publish(frame, stamp_ns)
        self.wait(lambda: len(self.received.get(stamp_ns, {})) == len(HEARD),
                  f"answer a frame on {', '.join(HEARD)}")
        self.recorded.append(stamp_ns)
        self.round_trip_ms.append((self.arrival_s[stamp_ns] - start_s) * 1e3)

    def recording(self) -> Recording:
        """Every frame that was sent, without the ones of `connect`."""
        first = self.received[self.recorded[0]]
        depth, confidence = (
            sensor_data.read_depth(deserialize_message(first[topic], Image), MAX_PIXELS)
            for topic in ("depth/completed", "depth/confidence"))
        everything = [
            (topic, stamp_ns, raw) for stamp_ns in self.recorded
            for topic, raw in (self.sent[stamp_ns] | self.received[stamp_ns]).items()]
        return Recording(depth, confidence, self.round_trip_ms, everything)

    def _matched(self) -> bool:
        listened = all(p.get_subscription_count() > 0 for p in self.publishers.values())
        return listened and all(self.node.count_publishers(topic) > 0 for topic in HEARD)

    def _publish(self, frame: Frame, stamp_ns: int) -> float:
        """Publish all inputs; the time at which that began."""
        header = Header(frame_id="camera")
        header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        self.sent[stamp_ns] = {
            "camera_info": serialize_message(messages.camera_message(frame.camera, header)),
            "image": serialize_message(messages.colour_message(frame.image, header)),
            "sparse_depth/image": serialize_message(
                messages.depth_message(frame.sparse, header, "32FC1")),
        }
        start_s = time.monotonic()
        for topic, raw in self.sent[stamp_ns].items():
            self.publishers[topic].publish(raw)
        return start_s

    def _receive(self, topic: str, stamp_ns: int, raw: bytes) -> None:
        now_s = time.monotonic()
        self.received.setdefault(stamp_ns, {})[topic] = raw
        if topic == "depth/completed":
            self.arrival_s[stamp_ns] = now_s


def spin(executor: SingleThreadedExecutor, process: Watched, ready: Callable[[], bool],
         timeout_s: float) -> bool:
    """Serve messages until ``ready``, False when it is too late; SdimError when the node ends."""
    end_s = time.monotonic() + timeout_s
    while not ready():
        process.check()
        if time.monotonic() > end_s:
            return False
        executor.spin_once(timeout_sec=0.05)
    return True


def write_bag(path: Path, recording: Recording) -> None:
    """Write all messages as one MCAP file, which Foxglove and rosbag2 open."""
    kinds = {
        topic: f"sensor_msgs/msg/{kind.__name__}" for topic, kind in (SENT | HEARD).items()}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        bag = Path(folder) / path.stem
        with BagWriter(bag) as writer:
            for topic, stamp_ns, data in recording.messages:
                writer.raw(f"/{topic}", kinds[topic], stamp_ns, data)
        next(bag.glob("*.mcap")).replace(path)
