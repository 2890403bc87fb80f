"""The node with a fake completer and a fake adaptation that fails, hangs back or loses the GPU.

Run as a script it is that process. Environment: ``FAKE_PIECES`` names what the pieces of work do,
separated by commas, the last one for ever: ``ok``, ``raise``, ``lose``; each takes
``FAKE_PIECE_S`` seconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ros_process import FakeCompleter

from sdim_ros.core.config import AdaptationSettings
from sdim_ros.core.types import Frame, ModelLost


class FakeAdaptation:
    """Learns nothing, one step a piece, from the first frame on."""

    version = 0

    def __init__(self, completer: FakeCompleter, settings: AdaptationSettings) -> None:
        self.settings, self._pieces = settings, os.environ["FAKE_PIECES"].split(",")
        self.reset()

    def observe(self, frame: Frame) -> None:
        self.status.frames += 1

    def work(self) -> bool:
        if not self.status.frames:
            return False
        time.sleep(float(os.environ.get("FAKE_PIECE_S", 0)))
        piece = self._pieces.pop(0) if len(self._pieces) > 1 else self._pieces[0]
        if piece == "raise":
            raise ValueError("the fake was told to raise")
        if piece == "lose":
            raise ModelLost("the fake was told to lose its GPU")
        self.status.steps += 1
        return True

    def reset(self) -> None:
        self.status = SimpleNamespace(
            state="learning", steps=0, error_before=float("nan"), error_now=float("nan"),
            rollbacks=0, dropped_steps=0, frames=0, refused=Counter())


if __name__ == "__main__":
    from sdim_ros.ros.process import main

    sys.exit(main(completer_factory=FakeCompleter, adaptation_factory=FakeAdaptation))
