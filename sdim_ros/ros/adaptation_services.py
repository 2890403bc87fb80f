"""The services ``~/adaptation/...``: what they ask for is done between two frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from sdim_ros.core.learning import Learning
from sdim_ros.core.types import SdimError
from sdim_ros.core.worker import Worker


class AdaptationServices:
    """Answers once it is done; the executor goes on meanwhile.

    Args:
        node: whose services they are, with the parameter ``adaptation.enabled``.
        parts: what the node has now: None = not configured, and not active.
    """

    def __init__(
        self, node: Node, parts: Callable[[], tuple[Learning | None, Worker[Any] | None]],
    ) -> None:
        self._node, self._parts = node, parts
        node.create_service(SetBool, "~/adaptation/enable", self._on_enable)
        node.create_service(Trigger, "~/adaptation/save", self._on_save)
        node.create_service(Trigger, "~/adaptation/reset", self._on_reset)

    async def _on_enable(self, request: SetBool.Request, response: SetBool.Response
                         ) -> SetBool.Response:
        self._set_enabled(request.data)
        if not request.data:
            response.success = True
            response.message = "not learning; what was learnt stays in use"
        elif self._parts()[0] is None:
            response.success = True
            response.message = "learning as soon as the node is active"
        else:
            await self._answer(response, lambda learning: learning.start())
            if not response.success:
                self._set_enabled(False)
        return response

    async def _on_save(self, request: Trigger.Request, response: Trigger.Response
                       ) -> Trigger.Response:
        return await self._answer(response, lambda learning: learning.save())

    async def _on_reset(self, request: Trigger.Request, response: Trigger.Response
                        ) -> Trigger.Response:
        return await self._answer(response, lambda learning: learning.reset())

    def _set_enabled(self, enabled: bool) -> None:
        self._node.set_parameters([Parameter("adaptation.enabled", value=enabled)])

    async def _answer(self, response: Any, action: Callable[[Learning], str]) -> Any:
        """Do it between two frames, or at once while none are completed; say how it went."""
        learning, worker = self._parts()
        try:
            if learning is None:
                response.message = "the node is not configured: there is no model to adapt"
            elif worker is None:
                response.success, response.message = True, action(learning)
            else:
                done = self._woken_by(learning.ask(lambda: action(learning)))
                worker.nudge()
                response.message = await done
                response.success = True
        except SdimError as problem:
            response.message = str(problem)
        except Exception as problem:  # else it would end the executor
            response.message = f"{type(problem).__name__}: {problem}"
        return response

    def _woken_by(self, asked: Any) -> Future:
        """A future of the executor that ends with one of the worker's thread."""
        executor = self._node.executor
        done = Future(executor=executor)

        def pass_on(asked: Any) -> None:
            problem = asked.exception()
            done.set_exception(problem) if problem else done.set_result(asked.result())
            executor.wake()

        asked.add_done_callback(pass_on)
        return done
