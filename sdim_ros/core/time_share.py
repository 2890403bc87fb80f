"""How much of a thread's time a side task has had, and when it may have more."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WINDOW_S = 10.0


class TimeShare:
    """Keeps the pieces of a side task to a share of any 10 s, or longer where one needs it.

    One thread does the pieces; any may ask what they took.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pieces: deque[tuple[float, float]] = deque()  # start and end
        self._share = 1.0

    @contextmanager
    def piece(self) -> Iterator[None]:
        """Note how long a piece takes, also when it raises."""
        start = self._clock()
        try:
            yield
        finally:
            self._pieces.append((start, self._clock()))

    def wait_s(self, share: float) -> float:
        """Seconds until the next piece may begin; 0 = now, inf = never.

        It may take as long as the longest of the last ones.

        Args:
            share: that all pieces together may take of the time, 0 to 1.
        """
        if share <= 0:
            return math.inf
        self._share = share
        longest, window = self._longest_s(), self._window_s()
        since = self._clock() - window
        while self._pieces and self._pieces[0][1] <= since:
            self._pieces.popleft()
        too_much = self._taken_s(since) + longest - share * window
        if too_much <= 1e-9:
            return 0.0
        for start, end in self._pieces:  # the oldest leave the window first
            inside = end - max(start, since)
            if inside >= too_much:
                return max(start, since) + too_much - since
            too_much -= inside
        return 0.0

    def taken(self) -> float:
        """Their share of the last 10 s, or of as long as the longest needs; 0 to 1."""
        window = self._window_s()
        return self._taken_s(self._clock() - window) / window

    def _longest_s(self) -> float:
        return max((end - start for start, end in tuple(self._pieces)), default=0.0)

    def _window_s(self) -> float:
        return max(WINDOW_S, self._longest_s() / self._share)

    def _taken_s(self, since: float) -> float:
        return sum(max(0.0, end - max(start, since)) for start, end in tuple(self._pieces))
