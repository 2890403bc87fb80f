"""The log of a training: log.jsonl, TensorBoard where it is installed, and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
from rich.console import Console

from sdim_ros.core.whole_files import write_text

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:
    SummaryWriter = None


class TrainingLog:
    """Writes what happens at each step.

    Args:
        folder: of the run.
        step: where the run starts or goes on; what a killed run wrote after it is dropped.
        console: is told once when TensorBoard is not installed.
        writes: whether this is the one process that writes.
    """

    def __init__(self, folder: Path, step: int, console: Console, writes: bool = True) -> None:
        self._path, self._writes, self._board = folder / "log.jsonl", writes, None
        if not writes:
            return
        if self._path.is_file():
            kept = [line for line in self._path.read_text().splitlines()
                    if _step_of(line) <= step]
            write_text(self._path, "".join(f"{line}\n" for line in kept))
        if SummaryWriter is None:
            console.print("TensorBoard is not installed, so figures go to log.jsonl alone; "
                          "pip install tensorboard adds it")
        else:
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def figures(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """One line of figures; the group ``training`` stands without its name in log.jsonl."""
        if not self._writes:
            return
        rounded = {name: float(f"{value:.7g}") for name, value in values.items()}
        line = {"step": step, **(rounded if group == "training" else {group: rounded})}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, step)

    def picture(self, step: int, path: Path) -> None:
        """A picture that lies in the run's folder."""
        if self._board is not None:
            pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            self._board.add_image("validation", pixels, step, dataformats="HWC")

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def _step_of(line: str) -> float:
    """A line that a kill cut in two belongs to no step."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
