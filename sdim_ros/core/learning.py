"""Adaptation between the frames: its share of the time, its adapters, and what goes wrong."""

from __future__ import annotations

import math
import queue
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdim_ros.core.config import AdaptationSettings
from sdim_ros.core.time_share import TimeShare
from sdim_ros.core.types import BadInput, BadSetting, Frame, ModelLost, SdimError
from sdim_ros.core.worker import Ticket

if TYPE_CHECKING:  # it loads PyTorch, which a node that is not configured does without
    from sdim_ros.core.adaptation import Adaptation

MAX_FAILURES = 3  # in a row
LOOK_AGAIN_S = 0.5


class Stopped(SdimError):
    """The node was stopped before it came to what it was asked for."""


class Learning:
    """Runs an adaptation as the extra task of a worker, and keeps what it learns.

    ``observe`` and ``work`` belong to the worker's thread, the rest to that of the owner.
    Nothing is made, and no weight changes, until learning is enabled or an adapter is there.

    Args:
        make: makes the adaptation; raises SdimError when it cannot.
        base: name of the model, for people.
        settings: in force at the start.
        warn: takes a short reason and a sentence for the log.
        clock: seconds that never go back.
    """

    def __init__(
        self, make: Callable[[AdaptationSettings], Adaptation], base: str,
        settings: AdaptationSettings, warn: Callable[[str, str], Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._base_name, self._settings = make, base, settings
        self._warn, self._clock = warn, clock
        self._adaptation: Adaptation | None = None
        self._share = TimeShare(clock)
        self._asked: queue.SimpleQueue[tuple[Callable[[], str], Future[str]]] = (
            queue.SimpleQueue())
        self._inside: Ticket | None = None  # of the thread that does a piece
        self._paused: str | None = None
        self._failures = self._failed = 0
        self._pieces = math.inf  # since a frame was taken
        self._base: dict[str, str] = {}
        self._steps_before = 0  # of the adapter that was loaded
        self._saved_version, self._saved_at_s = 0, clock()
        self._adapter = "none"  # loaded or saved last
        self._rejected = False  # what was learnt was worse: the next start must not use it either

    # --- The owner's thread -----------------------------------------------------------------

    def begin(self) -> None:
        """Load the newest adapter and make ready to learn, where the settings want either.

        Raises:
            SdimError: the model cannot be adapted, or the adapter is of another one.
        """
        if self._adaptation is None and (self._settings.enabled or self._settings.folder):
            adaptation = self._make(self._settings)
            if self._settings.folder:
                self._load(adaptation)
            self._adaptation = adaptation

    def reconfigure(self, settings: AdaptationSettings) -> None:
        """Use other settings from the next piece on; to enable it ends a pause."""
        if settings.enabled and not self._settings.enabled:
            self.resume()
        self._settings = settings

    def resume(self) -> None:
        """Go on after a pause."""
        self._paused, self._failures = None, 0
        if self._adaptation is not None:
            self._adaptation.status.state = "learning"

    def start(self) -> str:
        """As ``begin``, out of a pause as well; says so."""
        self.resume()
        self.begin()
        return "learning from the frames that are completed"

    def ask(self, action: Callable[[], str]) -> Future[str]:
        """Have the worker call ``start``, ``save`` or ``reset`` between two frames; nudge it."""
        answer: Future[str] = Future()
        self._asked.put((action, answer))
        return answer

    def close(self) -> str | None:
        """Save what was learnt, after the worker was stopped, and refuse what was asked last.

        Returns:
            where it was saved; None = there was nothing to save, or it failed.
        """
        while (asked := self._next_asked()) is not None:
            asked[1].set_exception(Stopped("the node was stopped before it was done"))
        return self._save_news()

    def report(self) -> tuple[str, dict[str, Any]]:
        """``off``, ``learning`` or why it is paused; and figures for people, by name."""
        if self._adaptation is None:
            return self._state(), {}
        status = self._adaptation.status
        errors = {"held-out error before %": 100 * status.error_before,
                  "held-out error now %": 100 * status.error_now}
        return self._state(), {
            "steps": self._steps(),
            **{name: value for name, value in errors.items() if math.isfinite(value)},
            "rollbacks": status.rollbacks, "dropped steps": status.dropped_steps,
            "share of time": self._share.taken(), "frames kept": status.frames,
            **{f"refused: {reason}": n for reason, n in dict(status.refused).items()},
            "failures": self._failed, "adapter": self._adapter}

    # --- What may be asked ------------------------------------------------------------------

    def save(self) -> str:
        """Write an adapter of the weights in use; says where.

        Raises:
            SdimError: why not.
        """
        if not self._settings.folder:
            raise BadSetting(
                "adaptation.folder is empty: expected the name of a folder for the adapters of "
                "this camera; set it while the node is unconfigured")
        from sdim_ros.core import adapter_files

        adaptation, status = self._adaptation, self._adaptation.status
        version, steps = adaptation.version, self._steps_before + adaptation.steps_in_use
        self._saved_at_s = self._clock()  # the next try is as far away, also after a failure
        path = adapter_files.save(_path(self._settings), adaptation.weights(), {
            "base": self._base, "steps": steps,
            "error_before": _number(status.error_before), "error_now": _number(status.error_now),
            "settings": asdict(self._settings)})
        self._saved_version, self._adapter = version, str(path)
        return f"saved {path}, {steps} steps"

    def reset(self) -> str:
        """Back to the weights of the model, and out of a pause; says so."""
        if self._adaptation is not None:
            self._adaptation.reset()
            self._steps_before, self._rejected = 0, False
        self.resume()
        kept = f"; adapters in {self._settings.folder} stay: save, and the next start uses " \
            "these weights" if self._settings.folder else ""
        return f"back to the weights of {self._base_name}{kept}"

    # --- The worker's thread ----------------------------------------------------------------

    def observe(self, frame: Frame) -> None:
        """Take note of a frame that was completed.

        To look at a frame costs a piece of work. Where frames always wait there is one piece
        after each of them, so a new one is taken only after a step was learnt from the last.
        """
        if self._state() != "learning" or self._pieces <= self._settings.frames:
            return
        try:
            self.begin()  # the first frame after learning was enabled counts too
            self._adaptation.observe(frame)
            self._pieces = 0
        except BadInput:
            pass  # counted by reason
        except Exception as problem:
            self._fail(problem)

    def work(self, ticket: Ticket) -> float | None:
        """Do what was asked and at most one piece of learning, where its time allows one.

        Returns:
            seconds until there may be more to do; None = not before the next frame.

        Raises:
            ModelLost: the GPU failed for good.
        """
        if self._inside is not None:  # a thread that was given up, in the middle of a piece
            if self._adaptation is not None:
                self._adaptation.restore()
            return LOOK_AGAIN_S
        self._inside = ticket
        try:
            self._do_what_was_asked()
            wait_s = self._learn()
            if self._until_autosave_s() <= 0:
                self._save_news()
        finally:
            self._inside = None
        due_s = self._until_autosave_s() if self._has_news() else math.inf
        return None if min(wait_s, due_s) == math.inf else max(0.0, min(wait_s, due_s))

    def _do_what_was_asked(self) -> None:
        while (asked := self._next_asked()) is not None:
            action, answer = asked
            try:
                answer.set_result(action())
            except Exception as problem:
                answer.set_exception(problem)

    def _next_asked(self) -> tuple[Callable[[], str], Future[str]] | None:
        with suppress(queue.Empty):  # another thread may have come first
            return self._asked.get_nowait()
        return None

    def _learn(self) -> float:
        """A piece of learning; seconds until the next one, inf = not before the next frame."""
        if self._state() != "learning":
            return math.inf
        if (wait_s := self._share.wait_s(self._settings.max_share)) > 0:
            return wait_s
        try:
            with self._share.piece():
                self.begin()
                self._adaptation.settings = self._settings
                worked = self._adaptation.work()
            self._failures = 0
            self._pieces += 1
        except Exception as problem:
            self._fail(problem)
            return 0.0
        if not self._adaptation.version:
            self._steps_before = 0
        if (state := self._adaptation.status.state) != "learning":
            self._warn("paused", state)
            self._rejected = True
            self._save_news()
        return 0.0 if worked else math.inf

    def _fail(self, problem: Exception) -> None:
        """Count it; pause after several in a row.

        Raises:
            ModelLost: it is no failure of learning.
        """
        if isinstance(problem, ModelLost) or _is_lost(problem):
            raise ModelLost(f"the GPU failed ({problem}): this process cannot use it any more"
                            ) from problem
        self._failures += 1
        self._failed += 1
        trace = "" if isinstance(problem, SdimError) else (
            ", please report this:\n" + "".join(traceback.format_exception(problem)).rstrip())
        self._warn("failed", f"learning failed, frames are completed as before: "
                   f"{type(problem).__name__}: {problem}{trace}")
        if self._failures >= MAX_FAILURES or self._adaptation is None:
            said = str(problem) if isinstance(problem, SdimError) else (
                f"{type(problem).__name__}: {problem}")
            self._paused = f"paused: it failed {self._failures} times in a row, the last: {said}" \
                if self._adaptation is not None else f"paused: it cannot begin: {said}"
            self._warn("paused", f"{self._paused}; enable it again to go on")

    # --- Adapters ---------------------------------------------------------------------------

    def _load(self, adaptation: Adaptation) -> None:
        from sdim_ros.core import adapter_files

        original = adaptation.weights()
        self._base = adapter_files.base_of(self._base_name, original)
        found = adapter_files.load_newest(
            _path(self._settings), original, self._base_name,
            lambda line: self._warn("adapter", line))
        if found is not None:
            weights, about = found
            adaptation.load(weights)
            self._steps_before = int(about.get("steps", 0))
            self._saved_version, self._adapter = adaptation.version, about["path"]

    def _save_news(self) -> str | None:
        try:
            return self.save() if self._has_news() else None
        except Exception as problem:  # a GPU that is lost gives no weights
            self._warn("not_saved", str(problem))
            return None

    def _has_news(self) -> bool:
        """Whether the next start should use other weights than it would, and there is a folder."""
        if not self._settings.folder or self._adaptation is None:
            return False
        version = self._adaptation.version
        return version != self._saved_version and (version != 0 or self._rejected)

    def _until_autosave_s(self) -> float:
        if not self._settings.autosave_minutes:
            return math.inf
        return self._saved_at_s + 60 * self._settings.autosave_minutes - self._clock()

    def _steps(self) -> int:
        return self._steps_before + self._adaptation.status.steps

    def _state(self) -> str:
        if self._inside is not None and not self._inside.is_current:
            return "paused: a thread that was given up is still in the middle of a piece"
        if not self._settings.enabled:
            return "off"
        if self._paused is not None:
            return self._paused
        return "learning" if self._adaptation is None else self._adaptation.status.state


def _path(settings: AdaptationSettings) -> Path:
    return Path(settings.folder).expanduser()


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else None


def _is_lost(problem: Exception) -> bool:
    if not isinstance(problem, RuntimeError):
        return False
    from sdim_ros.core.asking import is_lost

    return is_lost(problem)
