"""Pairs messages by their stamps, where ``message_filters`` is not installed or not wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class MinimalFilter:
    """Hands every signalled message to the registered callbacks."""

    def __init__(self) -> None:
        self._callbacks: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def registerCallback(self, callback: Callable[..., None], *args: Any) -> int:  # noqa: N802
        """Call ``callback(message, *args)`` for every message; returns its index."""
        self._callbacks.append((callback, args))
        return len(self._callbacks) - 1

    def signalMessage(self, *messages: Any) -> None:  # noqa: N802
        """Pass messages on."""
        for callback, args in self._callbacks:
            callback(*messages, *args)


class MinimalSynchronizer(MinimalFilter):
    """The part of ``message_filters.ApproximateTimeSynchronizer`` that this package uses.

    Args:
        filters: the inputs, two or more.
        queue_size: messages kept of each input; the oldest stamps go first.
        slop: largest difference of the stamps in a set, seconds.
    """

    def __init__(self, filters: Sequence[MinimalFilter], queue_size: int, slop: float) -> None:
        super().__init__()
        self._queue_size = queue_size
        self._slop_ns = round(slop * 1e9)
        self._queues: list[dict[int, Any]] = [{} for _ in filters]
        for index, source in enumerate(filters):
            source.registerCallback(self._add, index)

    def _add(self, message: Any, index: int) -> None:
        stamp = message.header.stamp
        time_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        queue = self._queues[index]
        queue[time_ns] = message
        while len(queue) > self._queue_size:
            del queue[min(queue)]
        if time_ns not in queue:
            return
        chosen = []
        for other in self._queues:
            nearest = min(other, key=lambda t: abs(t - time_ns), default=None)
            if nearest is None or abs(nearest - time_ns) > self._slop_ns:
                return
            chosen.append(nearest)
        if max(chosen) - min(chosen) > self._slop_ns:
            return
        matched = [other.pop(t) for other, t in zip(self._queues, chosen)]
        self.signalMessage(*matched)
