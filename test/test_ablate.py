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

from sdim_ros.core import checkpoint
from sdim_ros.core.types import BadSetting
from sdim_ros.tools import ablate, train
from sdim_ros.tools.training import recipe

FIGURES = {"mae": 0.1, "rmse": 0.2, "linear_mae": 0.3, "linear_rmse": 0.4}


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


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was trained, in no time: nothing is learnt and every judgement is the same."""
    names: list[str] = []
    monkeypatch.setattr(train, "run", lambda args: names.append(args.out.name) or 0)
    monkeypatch.setattr(checkpoint, "load", lambda _: None)
    monkeypatch.setattr(checkpoint, "save_stock", write_stock)
    monkeypatch.setattr(ablate, "judge", lambda *_, **__: FIGURES)
    return names


def write_stock(_: object, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")


def edited(plan: Path, **changes: Any) -> argparse.Namespace:
    """Arguments for the same folder with another plan, values by dotted name."""
    values = ablate.changed(
        yaml.safe_load(plan.read_text()), {k.replace("__", "."): v for k, v in changes.items()})
    path = plan.with_name("edited.yaml")
    path.write_text(yaml.safe_dump(values))
    return arguments(path)


def test_results_of_another_plan_are_refused_by_name_and_never_share_a_table(
        plan: Path, trained: list[str]) -> None:
    assert ablate.run(arguments(plan, only="soft")) == 0
    trained.clear()
    soft, he = yaml.safe_load(plan.read_text())["rows"]
    for changes in ({"rows": [{**soft, "set": {"training.steps": 3}}, he]},
                    {"common__training__steps": 3}, {"base__training__steps": 3},
                    {"judge__frames": 3}):
        with pytest.raises(BadSetting, match="row soft, seed 0, of .*rows.jsonl is of another "
                                             "plan .*give another --out, or delete that line"):
            ablate.run(edited(plan, **changes))
    assert not trained
    (plan.parent / "out" / "rows.jsonl").unlink()
    with pytest.raises(BadSetting, match="base .*base-0 is of another recipe .*another --out, or"):
        ablate.run(edited(plan, base__training__steps=3))
    assert not trained


def test_what_concerns_no_result_may_be_edited(plan: Path, trained: list[str]) -> None:
    assert ablate.run(arguments(plan, only="soft")) == 0
    trained.clear()
    soft, he = yaml.safe_load(plan.read_text())["rows"]
    rows = [{**he, "set": {"sdim.fusion.style": "hard"}}, {**soft, "what": "else", "paper": None}]
    assert ablate.run(edited(plan, rows=rows, seeds=[0])) == 0
    assert trained == ["he-0"]


def test_results_and_bases_without_a_fingerprint_are_taken_as_they_are(
        plan: Path, trained: list[str]) -> None:
    out = plan.parent / "out"
    write_stock(None, out / "base-0" / "stock")
    older = [{"name": name, "seed": seed, **FIGURES} for name in ("soft", "he", "gone")
             for seed in (0, 1)]
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in older))
    assert ablate.run(edited(plan, base__training__steps=3, judge__frames=3)) == 0
    assert not trained and ablate.read_results(out / "rows.jsonl") == older


@pytest.mark.parametrize("kept, again", [(40, ["he-1"]), (-1, [])])
def test_a_line_that_a_kill_cut_short_is_trained_again_and_one_without_an_end_is_not(
        plan: Path, trained: list[str], kept: int, again: list[str]) -> None:
    assert ablate.run(arguments(plan)) == 0
    path = plan.parent / "out" / "rows.jsonl"
    whole = path.read_text()
    *first, last = whole.splitlines(keepends=True)
    path.write_text("".join(first) + last[:kept])
    trained.clear()
    for _ in range(2):
        assert ablate.run(arguments(plan)) == 0
        assert path.read_text() == whole
    assert trained == again


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


@pytest.mark.parametrize(("changes", "words"), [
    ({"judge__points": None}, "judge has frames, pixels: expected frames, points, pixels"),
    ({"judge__samples": 3}, "judge has .*samples: expected"),
    ({"rows": [{"name": "soft", "what": "", "sets": {}}]},
     "row 0 has name, sets, what: expected name, what, set, and maybe paper")])
def test_what_the_plan_lacks_or_nobody_knows_is_named_before_anything_is_trained(
        plan: Path, trained: list[str], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadSetting, match=words):
        ablate.run(edited(plan, **changes))
    assert not trained


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
