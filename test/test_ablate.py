"""An ablation: short trainings from one base, one result for each row and seed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from training_runs import small_values, write_frames

from sdim_ros.core.types import BadSetting
from sdim_ros.tools import ablate, train
from sdim_ros.tools.training import recipe


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """Two rows of two steps each, on a base of two steps."""
    common = small_values(write_frames(tmp_path / "frames"), steps=2, images=1, pixels=4)
    base = ablate.changed(common, {"sdim.fusion.style": "none"})
    qwen = common.pop("qwen")
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({
        "seeds": [0, 1], "judge": {"frames": 2, "points": 60, "pixels": 20},
        "base": {**base, "qwen": qwen},
        "common": {**common, "lora": {"rank": 4, "alpha": 8}},
        "rows": [{"name": "soft", "what": "as in the paper", "set": {}, "paper": [0.1, 0.2]},
                 {"name": "he", "what": "no zeros", "set": {"sdim.fusion.style": "he"}}]}))
    return path


def arguments(plan: Path, **changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{
        "config": plan, "out": plan.parent / "out", "cache": plan.parent / "scenes",
        "only": None, "threads": 1, "workers": 0, **changes})


def test_every_row_and_seed_gets_one_result_and_is_not_run_again(
        plan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert ablate.run(arguments(plan, only="he")) == 0
    out = plan.parent / "out"
    first = ablate.read_results(out / "rows.jsonl")
    assert [(r["name"], r["seed"]) for r in first] == [("he", 0), ("he", 1)]
    assert ablate.run(arguments(plan)) == 0
    results = ablate.read_results(out / "rows.jsonl")
    assert results[:2] == first
    assert [(r["name"], r["seed"]) for r in results[2:]] == [("soft", 0), ("soft", 1)]
    assert all(0 < r["mae"] < r["rmse"] and r["linear_mae"] > 0 for r in results)
    assert len({r["mae"] for r in results}) == 4 and len({r["linear_mae"] for r in results}) == 1
    monkeypatch.setattr(train, "run", lambda *_: pytest.fail("trained again"))
    assert ablate.run(arguments(plan)) == 0
    table = (out / "table.md").read_text()
    assert "as in the paper" in table and "0.100 / 0.200" in table and "±" in table
    assert not list((out / "runs").iterdir())


def test_an_interrupted_row_is_taken_up_again(plan: Path, monkeypatch: pytest.MonkeyPatch
                                              ) -> None:
    trained = train.run

    def interrupted(args: argparse.Namespace) -> int:
        if "he-0" in str(args.out):
            args.steps = 1
            return trained(args) or 130
        return trained(args)

    monkeypatch.setattr(train, "run", interrupted)
    assert ablate.run(arguments(plan, only="he")) == 130
    assert not ablate.read_results(plan.parent / "out" / "rows.jsonl")
    monkeypatch.setattr(train, "run", trained)
    assert ablate.run(arguments(plan, only="he")) == 0
    assert len(ablate.read_results(plan.parent / "out" / "rows.jsonl")) == 2


def test_unknown_rows_and_missing_plans_are_named(plan: Path) -> None:
    with pytest.raises(BadSetting, match="hard: expected some of soft, he"):
        ablate.run(arguments(plan, only="hard"))
    with pytest.raises(BadSetting, match="there is no such file"):
        ablate.read_plan(plan.with_name("none.yaml"))
    plan.write_text(json.dumps({"rows": []}))
    with pytest.raises(BadSetting, match="expected the sections base"):
        ablate.read_plan(plan)


def test_the_shipped_plan_has_the_papers_rows_and_every_row_is_a_recipe() -> None:
    plan, rows = ablate.read_plan(REPOSITORY / "config" / "ablations.yaml")
    assert [row.name for row in rows if row.paper] == list("abcdef")
    recipe.parse(plan["base"])
    seen = {}
    for row in rows:
        parsed = recipe.parse(ablate.changed(
            plan["common"], {**row.set, "base": "stock", "seed": 0}))
        seen[row.name] = parsed.content()
    assert len({json.dumps(content) for content in seen.values()}) == len(rows)
    assert seen["f"]["data.labels"] == "dense" and seen["e"]["data.labels"] == "sparse"
    assert seen["both"]["sdim.neighbours"] == 4 and seen["both"]["sdim.told"] == "both"
