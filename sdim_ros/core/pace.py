"""How long each kind of work takes, learnt as it is done, and how many queries fit into a frame."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Each reading counts half as much as the next: a machine that slows down is noticed at once.
KEPT = 0.5
# Of the time that is left; the rest is for what went slower than it ever did before.
PLANNED = 0.95
# Queries of the first round where nothing tells how long they take, and of any round at least.
PROBE, LEAST = 64, 16


@dataclass
class Stopwatch:
    """Milliseconds by stage; a stage that comes again adds up.

    Attributes:
        beat: called at every stage and between passes: a sign of life that may end the frame.
        clock: seconds.
    """

    beat: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.perf_counter
    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.beat()
        start = self.clock()
        yield
        self.ms[name] = self.ms.get(name, 0.0) + 1000 * (self.clock() - start)


class Pace:
    """Milliseconds for each unit of work, by the kind of work.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._work: dict[str, tuple[float, float]] = {}  # kind -> ms, units

    @contextmanager
    def measured(self, kind: str, units: float) -> Iterator[None]:
        """Learn from the work inside of it; what fails teaches nothing."""
        start = self.clock()
        yield
        self.learn(kind, 1000 * (self.clock() - start), units)

    def learn(self, kind: str, ms: float, units: float) -> None:
        """So many units took so long; no units teach nothing."""
        if units > 0:
            before_ms, before = self._work.get(kind, (0.0, 0.0))
            self._work[kind] = (KEPT * before_ms + ms, KEPT * before + units)

    def ms(self, kind: str, units: float, unknown: float = 0.0) -> float:
        """What so many units take; ``unknown`` where that kind was never done."""
        if kind not in self._work:
            return unknown
        ms, before = self._work[kind]
        return units * ms / before

    def fitting(self, kind: str, ms: float) -> int | None:
        """How many units fit into that time, 0 at least; None where that kind was never done."""
        if kind not in self._work:
            return None
        return max(0, int(PLANNED * ms / max(self.ms(kind, 1.0), 1e-9)))


class TimeLeft:
    """What is left of a frame's time for queries, once all that must follow is set aside.

    Args:
        budget_ms: milliseconds of the whole frame, from now on; 0 = no limit.
        pixels: of the image.
        every: a map is made after every round, not only after the last one.
    """

    def __init__(self, pace: Pace, budget_ms: float, pixels: int, every: bool) -> None:
        self._pace, self._pixels, self._every = pace, pixels, every
        self._ends = pace.clock() + budget_ms / 1000 if budget_ms else math.inf

    def queries(self, answers: int, tile: int) -> float:
        """How many more a round may ask; 0 = there is no time for another round.

        Half of what fits, as the first half tells how fast the machine is just now, until one
        pass is enough. The first round asks ``LEAST`` whatever it takes: a frame needs answers.

        Args:
            answers: there are so many already.
            tile: queries in one pass.
        """
        if self._ends == math.inf:
            return math.inf
        pace, pixels = self._pace, self._pixels
        # Before the first map of all, the classical fills of this frame tell.
        fills = pace.ms("prepare", pixels)
        mapped = pace.ms("fill", pixels, fills / 2) + pace.ms("confidence", pixels, fills / 2)
        left = 1000 * (self._ends - pace.clock()) - mapped
        if answers:
            left -= pace.ms("choose", pixels, fills / 4)
            left -= mapped if self._every else 0
        fitting = pace.fitting("query", left)
        if fitting is None:
            fitting = pace.fitting("hidden", left)
        if fitting is None:
            return PROBE
        if answers and fitting <= max(tile, LEAST):
            return fitting if fitting >= LEAST else 0
        return max(LEAST, fitting // 2)
