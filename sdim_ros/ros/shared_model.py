"""One model for several nodes of a process, a frame of each in turn."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn

from sdim_ros.core.config import AdaptationSettings, ModelSettings, Settings
from sdim_ros.core.evidence import RecentErrors
from sdim_ros.core.types import DenseDepth, Frame, ModelUnavailable
from sdim_ros.ros.pipeline import Completer

# How often a thread that waits for its turn looks whether the one before it still lives.
BEAT_S = 0.2


def refuse_adaptation(completer: Completer, settings: AdaptationSettings) -> NoReturn:
    """In place of an adaptation: what one camera learns would change the depth of the others.

    Raises:
        ModelUnavailable: always.
    """
    raise ModelUnavailable(
        "adaptation.enabled or adaptation.folder is set where the cameras of this process share "
        "one model: expected neither, since it cannot be adapted to each of them; start a "
        "completion_node of its own for every camera that is to learn")


class SharedModel:
    """Loads a completer when the first node asks, and frees it with the last one.

    Args:
        factory: settings -> completer; raises SdimError when it cannot.
    """

    def __init__(self, factory: Callable[[Settings], Completer]) -> None:
        self._factory = factory
        self._loaded: Callable[[], _Loaded | None] = lambda: None

    def completer(self, settings: Settings) -> Completer:
        """A completer for one node.

        Raises:
            ModelUnavailable: it cannot be loaded, or another node uses another model.
        """
        loaded = self._loaded()
        if loaded is None:
            loaded = _Loaded(self._factory(settings), settings.model)
            self._loaded = weakref.ref(loaded)
        if loaded.settings != settings.model:
            raise ModelUnavailable(
                f"{settings.model} where another camera of this process has {loaded.settings}: "
                "expected equal model.* parameters, since the cameras share one model")
        return _Share(loaded, settings)


class _Loaded:
    """A completer and the queue for it."""

    def __init__(self, completer: Completer, settings: ModelSettings) -> None:
        self.completer, self.settings = completer, settings
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._beats = 0  # of those whose turn it was

    @contextmanager
    def turn(self, beat: Callable[[], Any]) -> Iterator[Callable[[], None]]:
        """Wait until all who came before are done; a lock alone would let one thread starve.

        Those who wait show life only as long as the one whose turn it is does: when it hangs in
        the model, the model is lost to all of them, and their watchdogs must say so.

        Yields:
            what the thread calls instead of ``beat``.
        """
        me, seen = object(), -1
        with self._changed:
            self._queue.append(me)
        try:
            with self._changed:
                while not self._changed.wait_for(lambda: self._queue[0] is me, BEAT_S):
                    if self._beats != seen:
                        seen = self._beats
                        beat()

            def counted_beat() -> None:
                self._beats += 1
                beat()

            counted_beat()
            yield counted_beat
        finally:
            with self._changed:
                self._queue.remove(me)
                self._changed.notify_all()


class _Share:
    """The completer of one node."""

    def __init__(self, loaded: _Loaded, settings: Settings) -> None:
        self._loaded, self._settings = loaded, settings
        self._recent = RecentErrors()  # of this camera alone

    @property
    def description(self) -> str:
        return f"{self._loaded.completer.description}, shared"

    def turn(self, beat: Callable[[], None]) -> AbstractContextManager[Callable[[], None]]:
        """Wait for the model; ``complete`` belongs inside."""
        return self._loaded.turn(beat)

    def reconfigure(self, settings: Settings) -> None:
        self._settings = settings

    def complete(self, frame: Frame, *, beat: Callable[[], None] | None = None) -> DenseDepth:
        self._loaded.completer.reconfigure(self._settings)
        self._loaded.completer.recent = self._recent
        return self._loaded.completer.complete(frame, beat=beat)
