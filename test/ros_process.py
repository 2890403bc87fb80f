"""The node in a process of its own with a fake completer, and the peer that talks to it.

Run as a script it is that process: ``python test/ros_process.py --ros-args ...``
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from sdim_ros.core.config import Settings
from sdim_ros.core.fill import nearest
from sdim_ros.core.projection import clean_depth
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.core.types import (
    Answers, BadInput, DenseDepth, Frame, ModelFailed, ModelLost, ModelUnavailable, Stats)

WIDTH, HEIGHT = 32, 24
LAUNCH_KILLS_S = 10  # after Ctrl-C: 5 s later it sends SIGTERM, and in another 5 s SIGKILL
# The top left pixel tells the fake to misbehave.
RAISE, DIE, FAIL, LOSE = ((255, 0, 255 - i) for i in range(4))


class FakeCompleter:
    """Nearest fill instead of a model; confidence 1 where measured, 0.5 elsewhere.

    Refuses a checkpoint that does not exist. Environment: a frame is ``FAKE_STEPS`` steps (default
    1) of ``FAKE_DELAY_S`` seconds, with a beat after each; loading takes ``FAKE_LOAD_S`` seconds.
    """

    description = "fake completer"

    def __init__(self, settings: Settings) -> None:
        checkpoint = settings.model.checkpoint
        if checkpoint and not Path(checkpoint).exists():
            raise ModelUnavailable(f"checkpoint {checkpoint}: no such folder")
        time.sleep(float(os.environ.get("FAKE_LOAD_S", 0)))
        self.settings = settings

    @contextmanager
    def turn(self, beat: Callable[[], None]) -> Iterator[Callable[[], None]]:
        yield beat

    def reconfigure(self, settings: Settings) -> None:
        self.settings = settings

    def complete(self, frame: Frame, *, beat: Callable[[], None] | None = None) -> DenseDepth:
        for _ in range(int(os.environ.get("FAKE_STEPS", 1))):
            time.sleep(float(os.environ.get("FAKE_DELAY_S", 0)))
            if beat is not None:
                beat()
        signal_pixel = tuple(int(v) for v in frame.image[0, 0])
        if signal_pixel == RAISE:
            raise RuntimeError("the fake was told to raise")
        if signal_pixel == FAIL:
            raise ModelFailed("the fake was told to fail")
        if signal_pixel == LOSE:
            raise ModelLost("the fake was told to lose its GPU")
        if signal_pixel == DIE:
            raise SystemExit("the fake was told to die")
        limits = self.settings.input
        sparse, cleaned = clean_depth(frame.sparse, limits.min_depth_m, limits.max_depth_m)
        points = int((sparse > 0).sum())
        if points == 0 and limits.on_empty_sparse == "skip":
            raise BadInput("no_points", "0 measured pixels: expected at least 1; check the sensor")
        depth = nearest(sparse)
        confidence = np.select([np.isnan(depth), sparse > 0], [0, 1], 0.5)
        none = np.empty(0, np.float32)
        return DenseDepth(
            depth=depth, confidence=confidence.astype(np.float32),
            fill_only=depth, answers=Answers(none.astype(int), none.astype(int), none, none),
            stats=Stats(points=points, cleaned=cleaned, fill="nearest"))


class NodeProcess:
    """The node in a child process; its log is collected in a file."""

    def __init__(self, *ros_args: str, parameters: dict[str, Any] | None = None,
                 command: list[str] | None = None, **environment: str) -> None:
        settings = [part for name, value in (parameters or {}).items()
                    for part in ("-p", f"{name}:={value}")]
        self._log = tempfile.NamedTemporaryFile("w+", prefix="sdim_node_", suffix=".log")
        self.process = subprocess.Popen(
            [sys.executable, *(command or [__file__]), "--ros-args", *settings, *ros_args],
            stdout=self._log, stderr=subprocess.STDOUT, cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(
                filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))),
                 "OMP_NUM_THREADS": "1", "RCUTILS_LOGGING_BUFFERED_STREAM": "0", **environment})

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            # A killed process leaves its shared memory behind, 32 MiB each.
            self.process.send_signal(signal.SIGINT)
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def log(self) -> str:
        """What the process has written so far."""
        return Path(self._log.name).read_text()

    def stop(self, signal_number: int = signal.SIGINT) -> int:
        """Signal the process; the exit code with which it ends before launch would kill it."""
        self.process.send_signal(signal_number)
        return self.process.wait(timeout=LAUNCH_KILLS_S)


class Peer:
    """Publishes what a robot would, records what the node gives, calls its services."""

    def __init__(self, target: str = "/completion_node", namespace: str = "") -> None:
        self.target = target
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(
            "peer", context=self.context, namespace=namespace)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        sensor = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self.image = self.node.create_publisher(Image, "image", sensor)
        self.info = self.node.create_publisher(CameraInfo, "camera_info", sensor)
        self.sparse = self.node.create_publisher(Image, "sparse_depth/image", sensor)
        self.cloud = self.node.create_publisher(PointCloud2, "points", sensor)
        self.received: dict[str, list[Any]] = {}
        self.record("/diagnostics", DiagnosticArray)
        self.results = self.record("depth/completed", Image)
        self._time_ns = 1_000_000_000
        self._clients: dict[str, Any] = {}
        self._client(ChangeState, f"{target}/change_state")  # before get_state: see transition
        self._client(GetState, f"{target}/get_state")

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def record(self, topic: str, message_type: type, *, name: str | None = None,
               reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE) -> list[Any]:
        """Collect a topic into a list that grows while the peer spins."""
        messages = self.received.setdefault(name or topic, [])
        self.node.create_subscription(
            message_type, topic, messages.append, QoSProfile(depth=5, reliability=reliability))
        return messages

    def spin_until(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> bool:
        """Spin until the condition holds; False when it did not in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.executor.spin_once(timeout_sec=0.02)
        return True

    def next_ns(self) -> int:
        """A stamp 0.1 s after the one before."""
        self._time_ns += 100_000_000
        return self._time_ns

    def send(self, image: Image, sparse: Image | PointCloud2, *,
             info: CameraInfo | None = None, time_ns: int | None = None) -> int:
        """Publish a pair under one stamp and return it; its camera_info goes first."""
        time_ns = self.next_ns() if time_ns is None else time_ns
        info = camera_info(image.height, image.width) if info is None else info
        self.info.publish(stamped(info, time_ns))
        (self.sparse if isinstance(sparse, Image) else self.cloud).publish(
            stamped(sparse, time_ns))
        self.image.publish(stamped(image, time_ns))
        return time_ns

    def publisher(self, message_type: type, topic: str) -> Any:
        """A reliable publisher that the node has matched already."""
        made = self.node.create_publisher(
            message_type, topic, QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE))
        assert self.spin_until(made.get_subscription_count), f"nobody listens to {topic}"
        return made

    def send_each(self, *pairs: tuple[Any, Any], time_ns: int | None = None) -> int:
        """Publish messages, each by its publisher, under one stamp and return it."""
        time_ns = self.next_ns() if time_ns is None else time_ns
        for publisher, message in pairs:
            frame_id = message.header.frame_id or "camera_optical"
            publisher.publish(stamped(message, time_ns, frame_id))
        return time_ns

    def send_good(self) -> int:
        """Publish a pair that the node can use; returns its stamp."""
        return self.send(colour_image(), depth_image(sparse_depth()))

    def worker_is(self, state: str) -> bool:
        """Wait for this state of the worker on /diagnostics; False when it does not come."""
        return self.spin_until(lambda: self.diagnosed("worker").get("state") == state)

    def keep_busy(self) -> bool:
        """Send pairs until the worker computes: before discovery is over they go astray."""
        return self.spin_until(lambda: (
            self.send_good(), self.spin_until(lambda: False, 0.1),
            self.diagnosed("worker").get("state") == "busy")[-1], 30)

    def result_of(self, time_ns: int, timeout_s: float = 10.0) -> Image | None:
        """The depth map with this stamp, or None when it does not come in time."""
        self.spin_until(lambda: self._find(time_ns) is not None, timeout_s)
        return self._find(time_ns)

    def warm_up(self, timeout_s: float = 30.0) -> None:
        """Send pairs until results come back: discovery is over on both sides."""
        inputs = (self.image, self.info, self.sparse, self.cloud)
        assert self.spin_until(
            lambda: all(p.get_subscription_count() for p in inputs), timeout_s)
        first, deadline = self.send_good(), time.monotonic() + timeout_s
        while not self.spin_until(
                lambda: self.results and stamp_ns(self.results[-1].header) >= first, 0.5):
            assert time.monotonic() < deadline, "the node gives no results"
            self.send_good()

    def _find(self, time_ns: int) -> Image | None:
        return next((m for m in reversed(self.results) if stamp_ns(m.header) == time_ns), None)

    def call(self, service_type: type, name: str, request: Any, timeout_s: float = 20.0,
             ask_again_s: float = 2.0) -> Any:
        """Call a service and wait for its response; without one the same is asked again.

        A service drops a response when it has not seen for 0.1 s who reads it; on a busy machine
        it may hear of a new client later than that.
        """
        client = self._client(service_type, name)
        assert self.spin_until(client.service_is_ready, timeout_s), f"{name} is not there"
        deadline = time.monotonic() + timeout_s
        future = client.call_async(request)
        while not self.spin_until(future.done, ask_again_s):
            assert time.monotonic() < deadline, f"{name} does not answer"
            future = client.call_async(request)
        return future.result()

    def _client(self, service_type: type, name: str) -> Any:
        if name not in self._clients:
            self._clients[name] = self.node.create_client(service_type, name)
        return self._clients[name]

    def transition(self, name: str, timeout_s: float = 20.0) -> bool:
        """Run a lifecycle transition: configure, activate, deactivate, cleanup."""
        self.state()  # that it answers means that it has seen the older client too: once is enough
        identity = getattr(Transition, f"TRANSITION_{name.upper()}")
        return self.call(ChangeState, f"{self.target}/change_state", ChangeState.Request(
            transition=Transition(id=identity)), timeout_s, ask_again_s=timeout_s).success

    def state(self) -> str:
        """The lifecycle state of the node."""
        return self.call(
            GetState, f"{self.target}/get_state", GetState.Request()).current_state.label

    def set_parameters(self, **values: Any) -> Any:
        """Set parameters at once; a dot is written as two underscores."""
        request = SetParametersAtomically.Request(parameters=[
            Parameter(name.replace("__", "."), value=value).to_parameter_msg()
            for name, value in values.items()])
        return self.call(
            SetParametersAtomically, f"{self.target}/set_parameters_atomically", request).result

    def parameter(self, name: str) -> Any:
        """The value of one parameter of the node."""
        values = self.call(GetParameters, f"{self.target}/get_parameters",
                           GetParameters.Request(names=[name])).values
        return parameter_value_to_python(values[0])

    def diagnosed(self, task: str) -> dict[str, str]:
        """The values of a diagnostics task in the newest message that has it; at first none, and
        an empty message."""
        for message in reversed(self.received["/diagnostics"]):
            for status in message.status:
                if status.name.endswith(f": {task}"):
                    return {"level": status.level[0], "message": status.message,
                            **{pair.key: pair.value for pair in status.values}}
        return {"message": ""}


def stamped(message: Any, time_ns: int, frame_id: str = "camera_optical") -> Any:
    """The message with this stamp and frame."""
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(time_ns, 1_000_000_000)
    message.header.frame_id = frame_id
    return message


def colour_image(height: int = HEIGHT, width: int = WIDTH,
                 first: tuple[int, int, int] = (1, 2, 3)) -> Image:
    """An rgb8 ramp whose first pixel is ``first``."""
    pixels = np.arange(height * width * 3, dtype=np.uint32).astype(np.uint8)
    pixels = pixels.reshape(height, width, 3)
    pixels[0, 0] = first
    message = Image(height=height, width=width, encoding="rgb8", step=width * 3)
    message.data.frombytes(pixels.tobytes())
    return message


def depth_image(depth: np.ndarray, encoding: str = "32FC1") -> Image:
    """A depth image of (H, W) values already in the encoding's unit."""
    pixels = depth.astype({"32FC1": "<f4"}.get(encoding, "<u2"))
    height, width = depth.shape
    message = Image(height=height, width=width, encoding=encoding, step=width * pixels.itemsize)
    message.data.frombytes(pixels.tobytes())
    return message


def sparse_depth(height: int = HEIGHT, width: int = WIDTH, metres: float = 2.5) -> np.ndarray:
    """A map with two measured pixels."""
    depth = np.zeros((height, width), np.float32)
    depth[height // 4, width // 4] = metres
    depth[height // 2, width // 2] = 2 * metres
    return depth


def camera_info(height: int = HEIGHT, width: int = WIDTH) -> CameraInfo:
    """A plausible calibrated camera."""
    k = [float(width), 0.0, width / 2, 0.0, float(width), height / 2, 0.0, 0.0, 1.0]
    return CameraInfo(height=height, width=width, distortion_model="plumb_bob",
                      d=[0.0] * 5, k=k, p=[*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0])


if __name__ == "__main__":
    from sdim_ros.ros.process import main

    sys.exit(main(completer_factory=FakeCompleter))
