"""The lifecycle node ``completion_node``: topics, transitions, timers and the process around it.

Callbacks only hand messages on; everything slow happens on the worker thread (``pipeline``).
"""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from sdim_ros.core.config import Settings
from sdim_ros.core.types import BadInput, BadSetting, SdimError
from sdim_ros.core.worker import Worker
from sdim_ros.ros import diagnostics
from sdim_ros.ros.parameters import NodeParameters
from sdim_ros.ros.pipeline import BadMessage, Completer, Job, Outputs, Pipeline, Topics
from sdim_ros.ros.synchronizer import PairSynchronizer

QUEUE_DEPTH = 5
CHECK_PERIOD_S = 0.5
STOP_TIMEOUT_S = 3.0
EXIT_BAD_SETTING, EXIT_WORKER_EXHAUSTED = 2, 3
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class WorkerExhausted(SdimError):
    """The worker thread died or hung too often; only a new process can help."""


def load_completer(settings: Settings) -> Completer:
    """The real completer; importing it loads PyTorch, so it happens at configure only."""
    from sdim_ros.core.completer import Completer

    return Completer(settings)


def logged(transition: Callable) -> Callable:
    """A transition callback whose exceptions reach the log; rclpy alone would swallow them."""
    @functools.wraps(transition)
    def wrapper(node: LifecycleNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception:
            node.get_logger().error(
                f"{transition.__name__} failed, please report this:\n{traceback.format_exc()}")
            raise
    return wrapper


class CompletionNode(LifecycleNode):
    """Completes sparse depth into dense depth.

    Args:
        completer_factory: settings -> completer; raises SdimError when it cannot.

    Raises:
        BadSetting: listing every parameter that is unusable at start.
    """

    def __init__(
        self, completer_factory: Callable[[Settings], Completer] = load_completer, **kwargs: Any
    ) -> None:
        super().__init__("completion_node", **kwargs)
        self._completer_factory = completer_factory
        self._completer: Completer | None = None
        self._model_error: str | None = None
        self._outputs: Outputs | None = None
        self._inputs: list[Any] = []
        self._sync: PairSynchronizer | None = None
        self._worker: Worker[Job] | None = None
        self._info: CameraInfo | None = None
        self._pair: tuple[Image, Image | PointCloud2] | None = None  # waits for camera_info
        self._active_since_s = 0.0
        self._worker_trouble: str | None = None
        self._node_parameters = NodeParameters(
            self, lambda: self._completer is not None, self._reconfigure)
        self._topics = Topics(*(self.resolve_topic_name(name) for name in (
            "image", "camera_info", "sparse_depth/image", "points")))
        self._health = diagnostics.Health(
            self.get_logger().warning, asdict(self._topics).values())
        self._drops = self._health.drops
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", QUEUE_DEPTH)
        # Health must go on when /clock stops, so these timers do not follow ROS time.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._check_timer = self.create_timer(CHECK_PERIOD_S, self._check, clock=steady)
        self._report_timer = self.create_timer(
            self.settings.diagnostics.period_s, self._report, clock=steady)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1)),
            post_callback=self._on_clock_jump)

    @property
    def settings(self) -> Settings:
        """The settings now in force."""
        return self._node_parameters.settings

    def start(self) -> bool:
        """Configure and activate without a lifecycle manager; False when either failed."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def close(self) -> bool:
        """Stop the worker; call it before ``destroy_node``. False when it still computes."""
        self._jump_handle.unregister()
        return self._stop()

    # Transitions.

    @logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model; FAILURE, with path and reason in the log, when it cannot be used."""
        started = time.perf_counter()
        try:
            self._completer = self._completer_factory(self.settings)
        except SdimError as problem:
            self._model_error = str(problem)
            self.get_logger().error(f"cannot configure: {problem}")
            return FAILURE
        self._model_error = None
        self._outputs = Outputs(
            depth=self._create_output(Image, "depth/completed"),
            camera_info=self._create_output(CameraInfo, "depth/camera_info"),
            confidence=self._create_output(Image, "depth/confidence"),
            points=self._create_output(PointCloud2, "depth/points"))
        self.get_logger().info(
            f"loaded {self._completer.description} in {time.perf_counter() - started:.1f} s")
        return super().on_configure(state)

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and listen."""
        result = super().on_activate(state)
        pipeline = Pipeline(
            self._completer, self._topics, self._outputs, self.context.ok,
            self._health.add_result)
        limits = self.settings.worker
        self._worker = Worker(
            pipeline.run, self._on_error, watchdog_s=limits.watchdog_s,
            max_restarts_per_minute=limits.max_restarts_per_minute)
        self._worker.start()
        self._sync = PairSynchronizer(
            self.settings.sync, self._on_pair, self._on_pair_error,
            image_topic=self._topics.image,
            sparse_topics=f"{self._topics.sparse_depth} or {self._topics.points}")
        self._info = self._pair = None
        self._active_since_s = time.monotonic()
        self._inputs = [
            self._create_input(Image, "image", self._on_image),
            self._create_input(CameraInfo, "camera_info", self._on_info),
            self._create_input(Image, "sparse_depth/image", self._on_sparse),
            self._create_input(PointCloud2, "points", self._on_sparse)]
        return result

    @logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening and computing; the model stays in memory."""
        self._stop()
        return super().on_deactivate(state)

    @logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._release()
        return SUCCESS

    @logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything, from any state."""
        self._stop()
        self._release()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured after a transition that raised."""
        self._stop()
        self._release()
        return SUCCESS

    def _stop(self) -> bool:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs, self._sync = [], None
        worker, self._worker = self._worker, None
        if worker is None or worker.stop(STOP_TIMEOUT_S):
            return True
        self.get_logger().warning(
            f"the frame in hand takes longer than {STOP_TIMEOUT_S} s; its result is discarded")
        return False

    def _release(self) -> None:
        for publisher in self._outputs or ():
            self.destroy_lifecycle_publisher(publisher)
        self._outputs = self._completer = None
        gc.collect()

    def _create_output(self, message_type: type, topic: str) -> Any:
        return self.create_lifecycle_publisher(
            message_type, topic, QoSProfile(depth=QUEUE_DEPTH),
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def _create_input(self, message_type: type, topic: str, callback: Callable) -> Any:
        return self.create_subscription(
            message_type, topic, callback,
            QoSProfile(depth=QUEUE_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT),
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

    # Messages, on the executor's thread.

    def _on_image(self, message: Image) -> None:
        self._receive(self._topics.image, message, self._sync.add_image)

    def _on_sparse(self, message: Image | PointCloud2) -> None:
        self._receive(self._topics.of(message), message, self._sync.add_sparse)

    def _on_info(self, message: CameraInfo) -> None:
        self._health.count_message(self._topics.camera_info)
        self._info = message
        if self._pair is not None:
            pair, self._pair = self._pair, None
            self._submit(*pair)

    def _receive(self, topic: str, message: Any, add: Callable[[Any], None]) -> None:
        self._health.count_message(topic)
        try:
            add(message)
        except BadInput as problem:
            self._drops.add(topic, problem.reason, str(problem))

    def _on_pair(self, image: Image, sparse: Image | PointCloud2) -> None:
        if isinstance(sparse, Image) and sparse.encoding == "mono16":
            self.get_logger().warning(
                f"{self._topics.sparse_depth}: encoding mono16 is read as 16UC1, millimetres; "
                "have the driver say 16UC1", once=True)
        if self._info is not None:
            self._submit(image, sparse)
        else:
            # Topics are not ordered: the first camera_info may come just after its image.
            self._drop_waiting_pair()
            self._pair = (image, sparse)

    def _submit(self, image: Image, sparse: Image | PointCloud2) -> None:
        self._worker.submit(Job(image, sparse, self._info, self.settings, time.perf_counter()))

    def _drop_waiting_pair(self) -> None:
        if self._pair is not None:
            self._pair = None
            self._drops.count("no_camera_info")

    def _on_pair_error(self, problem: Exception) -> None:
        self._drops.add(self._topics.image, "exception", f"{type(problem).__name__}: {problem}")

    def _on_clock_jump(self, jump: Any) -> None:
        if self._sync is not None:
            self._sync.reset()

    def _reconfigure(self, settings: Settings) -> None:
        if self._sync is not None:
            self._sync.reconfigure(settings.sync)
        if self._worker is not None:
            self._worker.watchdog_s = settings.worker.watchdog_s
            self._worker.max_restarts_per_minute = settings.worker.max_restarts_per_minute
        self._report_timer.timer_period_ns = int(settings.diagnostics.period_s * 1e9)

    # Results, on the worker thread.

    def _on_error(self, job: Job, problem: BaseException) -> None:
        if not self.context.ok():
            return
        if isinstance(problem, BadMessage):
            self._drops.add(problem.topic, problem.reason, str(problem))
        elif isinstance(problem, TimeoutError):
            self._drops.add(
                self._topics.image, "hung", f"frame lost: {problem}; raise worker.watchdog_s, or "
                "lower queries.tile or queries.budget")
        elif isinstance(problem, SdimError):
            self._drops.add(self._topics.image, "model_failed", f"frame lost: {problem}")
        else:
            trace = "".join(traceback.format_exception(problem)).rstrip()
            self._drops.add(
                self._topics.image, "exception",
                f"frame lost, please report this {type(problem).__name__}: {problem}\n{trace}")

    # Health, on timers.

    def _check(self) -> None:
        if self._worker is None:
            return
        state = self._worker.check()
        if state == "exhausted":
            limit = self.settings.worker.max_restarts_per_minute
            raise WorkerExhausted(
                "the worker thread died or hung once more after worker.max_restarts_per_minute = "
                f"{limit} restarts; giving up")
        if state in ("dead", "hung"):
            self._worker_trouble = state
            self._drops.warn("worker", state, f"the thread is {state}; started a new one")
        waited_s = time.monotonic() - self._active_since_s
        if self._info is None and waited_s >= self.settings.sync.warn_after_s:
            self._drop_waiting_pair()
            self._drops.warn(
                self._topics.camera_info, "no_camera_info", f"no message for {waited_s:.0f} s: "
                "expected the intrinsics of the image; frames are dropped until it comes, check "
                "that it is published and its name")
        elif complaint := self._sync.complaint():
            self._drops.warn("sync", "no_pairs", complaint)

    def _report(self) -> None:
        tasks = [self._health.inputs_task()]
        if self._sync is not None:
            tasks.append(diagnostics.sync_task(self._sync.counters, self._sync.complaint()))
        if self._worker is not None:
            # A replaced thread looks well again: report what was found since the last message.
            state, self._worker_trouble = self._worker_trouble or self._worker.state, None
            tasks.append(diagnostics.worker_task(
                state, asdict(self._worker.counters), self._worker.heartbeat_age_s))
        description = self._completer.description if self._completer is not None else None
        tasks.append(self._health.model_task(description, self._model_error))
        self._diagnostics.publish(diagnostics.diagnostic_array(
            tasks, self.get_fully_qualified_name().lstrip("/"), self.get_clock().now().to_msg()))


def main(
    args: list[str] | None = None,
    completer_factory: Callable[[Settings], Completer] = load_completer,
) -> int:
    """Run the node until it is told to stop.

    Returns:
        The exit code: 0 after SIGINT or SIGTERM, 2 for unusable parameters, 3 when the worker
        gave up (a launch file's ``respawn`` then starts a new process).
    """
    # Before rclpy adds its own handler: a signal while the model loads must interrupt as well,
    # SIGINT too where a background shell has handed it down as ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    node, code, stopped = None, 0, True
    try:
        _init(args)
        node = CompletionNode(completer_factory)
        if node.settings.autostart:
            node.start()
        executor = SingleThreadedExecutor()
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
        if node is not None:
            stopped = node.close()
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
        raise BadSetting(str(problem)) from problem


if __name__ == "__main__":
    sys.exit(main())
