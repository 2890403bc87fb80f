"""Ctrl-C and SIGTERM ask a long run to end after its step instead of tearing it apart."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stop:
    """While entered, the first signal is noted; a second Ctrl-C ends at once.

    SIGTERM never counts as the second one: launchers send it after the terminal's Ctrl-C.

    Args:
        unit: what is done to its end before the run stops, for people.

    Attributes:
        signal: number of the signal that came, 0 = none.
    """

    def __init__(self, unit: str = "step") -> None:
        self.unit = unit
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None,
                 trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        if not self.signal:
            # Printing is not safe in the middle of another print.
            text = f"\nStopping after this {self.unit}; Ctrl-C again stops at once.\n"
            os.write(2, text.encode())
        self.signal = self.signal or number


def leave_signals_to_the_parent() -> None:
    """For helper processes: terminals and job schedulers signal the whole group.

    Only the parent's own SIGTERM ends a helper; a helper that died by itself would tear the
    parent out of its step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
