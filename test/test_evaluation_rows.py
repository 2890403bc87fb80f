"""An evaluation goes on where it was stopped, and never mixes two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdim_ros.core.types import BadInput
from sdim_ros.tools.evaluation_rows import Crew, Rows
from sdim_ros.tools.results import FrameResult

QUESTION = {"points": "500"}


def result(name: str) -> FrameResult:
    return FrameResult(name, 0, 5, {"linear": {"held_out": {"mae": 0.1}}})


def crew(rank: int = 0) -> Crew:
    made = Crew()
    made.rank = rank
    return made


def test_what_was_judged_before_a_stop_is_there_after_it(tmp_path: Path) -> None:
    before = Rows(tmp_path / "rows", QUESTION, crew())
    before.add("a", result("a"))
    before.add("b", "no reference")
    after = Rows(tmp_path / "rows", QUESTION, crew())
    # What could not be judged is tried again: its cause may be gone.
    assert len(after) == 1 and "a" in after and "b" not in after and "c" not in after
    after.add("b", "no reference")
    after.add("c", result("c"))
    results, skipped = after.collect(["c", "b", "a"])
    assert [r.name for r in results] == ["c", "a"] and skipped == {"b": "no reference"}


def test_a_line_that_a_kill_cut_short_is_judged_again(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows", QUESTION, crew())
    rows.add("a", result("a"))
    rows.add("b", result("b"))
    rows.close()
    path = tmp_path / "rows" / "0.jsonl"
    path.write_text(path.read_text()[:-20])
    again = Rows(tmp_path / "rows", QUESTION, crew())
    assert "a" in again and "b" not in again
    again.add("b", result("b"))
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_every_process_knows_what_all_have_done(tmp_path: Path) -> None:
    Rows(tmp_path / "rows", QUESTION, crew(0)).add("a", result("a"))
    second = Rows(tmp_path / "rows", QUESTION, crew(1))
    second.add("b", result("b"))
    assert "a" in second
    first = Rows(tmp_path / "rows", QUESTION, crew(0))
    assert [r.name for r in first.collect(["a", "b"])[0]] == ["a", "b"]


def test_another_evaluation_is_not_mixed_in(tmp_path: Path) -> None:
    Rows(tmp_path / "rows", QUESTION, crew()).add("a", result("a"))
    with pytest.raises(BadInput, match="another evaluation.*another --out"):
        Rows(tmp_path / "rows", {"points": "100"}, crew())
