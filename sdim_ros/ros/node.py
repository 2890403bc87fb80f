"""The lifecycle node ``completion_node``: transitions, topics, services and timers.

Callbacks only hand messages on; everything slow happens on the worker thread (``pipeline``).
"""

from __future__ import annotations

import functools
import gc
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool

from sdim_ros.core.config import AdaptationSettings, Settings
from sdim_ros.core.frame_reader import BadMessage, FrameReader, Job
from sdim_ros.core.learning import Learning
from sdim_ros.core.types import ModelLost, SdimError
from sdim_ros.core.worker import Worker
from sdim_ros.ros import compat, diagnostics
from sdim_ros.ros.adaptation_services import AdaptationServices
from sdim_ros.ros.intake import Intake
from sdim_ros.ros.outputs import Outputs
from sdim_ros.ros.parameters import NodeParameters
from sdim_ros.ros.pipeline import Completer, Pipeline
from sdim_ros.ros.qos_overrides import QOS_OVERRIDES
from sdim_ros.ros.subscriptions import QUEUE_DEPTH, incompatible_text, topic_names
from sdim_ros.ros.transforms import Transforms

CHECK_PERIOD_S = 0.5
STOP_TIMEOUT_S = 3.0
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class WorkerExhausted(SdimError):
    """The worker thread died or hung too often, or lost its GPU; only a new process can help."""


def load_completer(settings: Settings) -> Completer:
    """The real completer; importing it loads PyTorch, so it happens at configure only."""
    from sdim_ros.core.completer import Completer
    from sdim_ros.core.evidence import RecentErrors

    completer = Completer(settings)
    completer.recent = RecentErrors()
    return completer


def make_adaptation(completer: Completer, settings: AdaptationSettings) -> Any:
    """What tunes the real completer; it too needs PyTorch."""
    from sdim_ros.core.adaptation import Adaptation

    return Adaptation(completer, settings)


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
        adaptation_factory: completer and settings -> adaptation; raises SdimError when it cannot.

    Raises:
        BadSetting: listing every parameter that is unusable at start.
    """

    def __init__(
        self, completer_factory: Callable[[Settings], Completer] = load_completer,
        adaptation_factory: Callable[[Completer, AdaptationSettings], Any] = make_adaptation,
        **kwargs: Any,
    ) -> None:
        super().__init__("completion_node", **kwargs)
        self._completer_factory = completer_factory
        self._adaptation_factory = adaptation_factory
        self._completer: Completer | None = None
        self._learning: Learning | None = None
        self._model_error: str | None = None
        self._outputs: Outputs | None = None
        self._intake: Intake | None = None
        self._worker: Worker[Job] | None = None
        self._worker_trouble: str | None = None
        self._lost: str | None = None  # why the model can never work again
        self._enabled = True
        self._node_parameters = NodeParameters(
            self, lambda: self._completer is not None, self._reconfigure)
        self._transforms = Transforms(compat.tf_buffer(self))
        self._health = diagnostics.Health(self.get_logger().warning)
        self._drops = self._health.drops
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", QUEUE_DEPTH)
        self.create_service(SetBool, "~/enable", self._on_enable)
        AdaptationServices(self, lambda: (self._learning, self._worker))
        # Health must go on when /clock stops, so these timers do not follow ROS time.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._check_timer = self.create_timer(CHECK_PERIOD_S, self._check, clock=steady)
        self._report_timer = self.create_timer(
            self.settings.diagnostics.period_s, self._report, clock=steady)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1)),
            post_callback=self._on_clock_jump)

    @property
    def _image_topic(self) -> str:
        return topic_names(self, self.settings.input)["image"]

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
            completer = self._completer_factory(self.settings)
            self._learning = self._begin_learning(completer)
        except SdimError as problem:
            self._model_error = str(problem)
            self.get_logger().error(f"cannot configure: {problem}")
            return FAILURE
        except Exception as problem:
            self._model_error = f"{type(problem).__name__}: {problem}"
            raise
        self._model_error, self._completer = None, completer
        self._outputs = Outputs(self._create_output, self.destroy_lifecycle_publisher)
        self.get_logger().info(
            f"loaded {self._completer.description} in {time.perf_counter() - started:.1f} s")
        return super().on_configure(state)

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and listen."""
        result = super().on_activate(state)
        topics = topic_names(self, self.settings.input)
        self._health.listen_to(topics.values())
        reader = FrameReader(topics, self._transforms, self._drops.warn)
        pipeline = Pipeline(
            self._completer, topics, reader, self._outputs,
            lambda: self.get_clock().now().nanoseconds, self.context.ok,
            self._health.add_result, self._learning.observe)
        limits = self.settings.worker
        self._worker = Worker(
            pipeline.run, self._on_error, extra=self._learning.work,
            watchdog_s=limits.watchdog_s,
            max_restarts_per_minute=limits.max_restarts_per_minute)
        self._worker.start()
        self._intake = Intake(
            self, topics, self.settings, self._health, self._worker.submit,
            self._outputs.any_listener, self._transforms.clear)
        if not self._enabled:
            self._intake.close()
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

    def _begin_learning(self, completer: Completer) -> Learning:
        """What the camera learnt before is in use from here on, also while nothing is learnt."""
        settings = self.settings
        learning = Learning(
            functools.partial(self._adaptation_factory, completer),
            settings.model.checkpoint or "the embedded checkpoint", settings.adaptation,
            lambda reason, line: self._drops.warn("adaptation", reason, line))
        learning.begin()
        figures = learning.report()[1]
        if figures.get("adapter", "none") != "none":
            self.get_logger().info(
                f"adapter {figures['adapter']} of {figures['steps']} steps is in use")
        return learning

    def _stop(self) -> bool:
        if self._intake is not None:
            self._intake.close()
        self._intake = None
        worker, self._worker = self._worker, None
        stopped = worker is None or worker.stop(STOP_TIMEOUT_S)
        if not stopped:
            self.get_logger().warning(
                f"the frame in hand takes longer than {STOP_TIMEOUT_S} s; its result is discarded")
        if self._learning is not None and (saved := self._learning.close()):
            self.get_logger().info(saved)
        return stopped

    def _release(self) -> None:
        if self._outputs is not None:
            self._outputs.close()
        self._outputs = self._completer = self._learning = None
        gc.collect()

    def _create_output(self, message_type: type, topic: str) -> Any:
        name = self.resolve_topic_name(topic)
        return self.create_lifecycle_publisher(
            message_type, topic, QoSProfile(depth=QUEUE_DEPTH),
            qos_overriding_options=QOS_OVERRIDES,
            event_callbacks=PublisherEventCallbacks(
                incompatible_qos=lambda event: self._drops.warn(
                    name, "incompatible_qos", incompatible_text("subscriber", event))))

    # Control, on the executor's thread.

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response
                   ) -> SetBool.Response:
        self._enabled = request.data
        if self._intake is not None:
            (self._intake.listen if self._enabled else self._intake.close)()
        response.success = True
        response.message = "listening" if self._enabled else "not listening"
        if self._intake is None:
            response.message += " as soon as the node is active" if self._enabled else \
                ", and the node is not active"
        return response

    def _on_clock_jump(self, jump: Any) -> None:
        self._transforms.clear()
        if self._intake is not None:
            self._intake.reset()

    def _reconfigure(self, settings: Settings) -> None:
        if self._intake is not None:
            self._intake.reconfigure(settings)
        if self._worker is not None:
            self._worker.watchdog_s = settings.worker.watchdog_s
            self._worker.max_restarts_per_minute = settings.worker.max_restarts_per_minute
        if self._learning is not None:
            self._learning.reconfigure(settings.adaptation)
            if self._worker is not None:
                self._worker.nudge()
        self._report_timer.timer_period_ns = int(settings.diagnostics.period_s * 1e9)

    # Results, on the worker thread.

    def _on_error(self, job: Job | None, problem: BaseException) -> None:
        if not self.context.ok():
            return
        if isinstance(problem, BadMessage):
            self._drops.add(problem.topic, problem.reason, str(problem))
        elif isinstance(problem, TimeoutError):
            self._drops.add(
                self._image_topic, "hung", f"frame lost: {problem}; raise worker.watchdog_s, or "
                "lower queries.tile or queries.budget")
        elif isinstance(problem, ModelLost):
            self._lost = str(problem)
        elif isinstance(problem, SdimError):
            self._drops.add(self._image_topic, "model_failed", f"frame lost: {problem}")
        else:
            trace = "".join(traceback.format_exception(problem)).rstrip()
            self._drops.add(
                self._image_topic, "exception",
                f"frame lost, please report this {type(problem).__name__}: {problem}\n{trace}")

    # Health, on timers.

    def _check(self) -> None:
        if self._worker is None:
            return
        if self._lost is not None:
            raise WorkerExhausted(f"{self._lost}; giving up")
        state = self._worker.check()
        if state == "exhausted":
            limit = self.settings.worker.max_restarts_per_minute
            raise WorkerExhausted(
                "the worker thread died or hung once more after worker.max_restarts_per_minute = "
                f"{limit} restarts; giving up")
        if state in ("dead", "hung"):
            self._worker_trouble = state
            self._drops.warn("worker", state, f"the thread is {state}; started a new one")
        self._intake.check()

    def _report(self) -> None:
        me = (self.get_name(), self.get_namespace())
        if self.get_node_names_and_namespaces().count(me) > 1:
            self._drops.warn(
                self.get_fully_qualified_name(), "duplicate_name", "another node has this name: "
                "expected one; parameters and services reach either, give one a namespace")
        tasks = [self._health.inputs_task()]
        if self._intake is not None:
            tasks.append(diagnostics.sync_task(
                self._intake.counters, self._intake.complaint(),
                self._intake.why_not_listening))
        if self._worker is not None:
            # A replaced thread looks well again: report what was found since the last message.
            state, self._worker_trouble = self._worker_trouble or self._worker.state, None
            tasks.append(diagnostics.worker_task(
                state, asdict(self._worker.counters), self._worker.heartbeat_age_s))
        if self._learning is not None:
            tasks.append(diagnostics.adaptation_task(*self._learning.report()))
        description = self._completer.description if self._completer is not None else None
        tasks.append(self._health.model_task(description, self._model_error))
        self._diagnostics.publish(diagnostics.diagnostic_array(
            tasks, self.get_fully_qualified_name().lstrip("/"), self.get_clock().now().to_msg()))
