"""The results of an evaluation while it runs: one line each, shared by processes, never lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from sdim_ros.core.types import BadInput
from sdim_ros.core.whole_files import write_text
from sdim_ros.tools.results import FrameResult

# A process that is done waits for the slowest; an evaluation may take days.
PATIENCE = timedelta(days=30)


class Crew:
    """The processes of one evaluation: what ``accelerate launch`` started, or this one alone."""

    def __init__(self) -> None:
        self._state: Any = None
        self.rank, self.count = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            import torch
            from accelerate import PartialState

            self._state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
            self.rank, self.count = self._state.process_index, self._state.num_processes

    @property
    def is_first(self) -> bool:
        """Whether this process writes the report."""
        return self.rank == 0

    @property
    def device(self) -> str | None:
        """The GPU of this process, or None to leave the choice to the settings."""
        device = None if self._state is None else self._state.device
        return str(device) if device is not None and device.type == "cuda" else None

    def wait(self) -> None:
        """Return when all processes came here."""
        if self._state is not None:
            self._state.wait_for_everyone()


class Rows:
    """Lines of results in a folder, a file for each process; the same evaluation goes on.

    A line holds what was evaluated (its key) and a `FrameResult`, or why there is none. What had
    no result is tried again, since its cause may be gone; a line that a kill cut short is dropped.

    Args:
        folder: made where it is missing.
        question: everything that the results depend on.
        crew: the processes that share it.

    Raises:
        BadInput: the folder holds a part of another evaluation.
    """

    def __init__(self, folder: Path, question: Mapping[str, Any], crew: Crew) -> None:
        self.folder = folder
        asked = folder / "question.json"
        text = json.dumps(question, indent=1, sort_keys=True)
        if crew.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            if not asked.exists():
                write_text(asked, text)
        crew.wait()
        begun = asked.read_text(encoding="utf-8")
        if begun != text:
            raise BadInput(
                "out", f"{folder} holds a part of another evaluation, with another "
                f"{_different(json.loads(begun), json.loads(text))} (see {asked.name} there): "
                "give the command that began it, to go on, or another --out, or delete it")
        if crew.is_first:
            for path in folder.glob("*.jsonl"):
                kept = [row for row in _lines(path) if "result" in row]
                write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        crew.wait()
        self._done = {row["key"]: row for row in self._read()}
        crew.wait()  # before anybody writes
        self._file = (folder / f"{crew.rank}.jsonl").open("a", encoding="utf-8")

    def __contains__(self, key: str) -> bool:
        return key in self._done

    def __len__(self) -> int:
        return len(self._done)

    def add(self, key: str, outcome: FrameResult | str) -> None:
        """Keep a result, or why there is none."""
        what = {"skipped": outcome} if isinstance(outcome, str) else {"result": outcome.as_row()}
        self._done[key] = {"key": key, **what}
        self._file.write(json.dumps(self._done[key]) + "\n")
        self._file.flush()

    def collect(self, keys: Iterable[str]) -> tuple[list[FrameResult], dict[str, str]]:
        """Results and reasons for none, of all processes, in the order of the keys."""
        self._done |= {row["key"]: row for row in self._read()}
        rows = [self._done[key] for key in keys]
        return ([FrameResult.from_row(row["result"]) for row in rows if "result" in row],
                {row["key"]: row["skipped"] for row in rows if "skipped" in row})

    def close(self) -> None:
        """Stop writing; what was written stays."""
        self._file.close()

    def remove(self) -> None:
        """Delete the folder, when the report holds everything."""
        shutil.rmtree(self.folder)

    def _read(self) -> list[dict[str, Any]]:
        return [row for path in sorted(self.folder.glob("*.jsonl")) for row in _lines(path)]


def _different(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What two questions do not agree on."""
    return ", ".join(sorted(key for key in {*one, *other} if one.get(key) != other.get(key)))


def _lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a file; none where there is no file."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break  # cut short by a kill, so it is the last
    return rows
