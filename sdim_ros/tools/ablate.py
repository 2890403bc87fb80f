"""``sdim ablate``: the paper's ablation and the choices that it leaves open, by short trainings.

The rows of a seed start from one base that has learnt to tell depth from images alone: a
vision-language model that knows nothing yet has nothing that a careful start could protect.
"""

from __future__ import annotations

import argparse
import copy
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from sdim_ros.core import checkpoint, fill
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import ModelSettings, Settings
from sdim_ros.core.types import BadSetting, Camera, Frame
from sdim_ros.core.whole_files import write_text
from sdim_ros.tools import train
from sdim_ros.tools.complete import make_folder
from sdim_ros.tools.sampling import sample_points
from sdim_ros.tools.scenes import render_reserved

SECTIONS = {"seeds", "judge", "base", "common", "rows"}
FINGERPRINT = "fingerprint.txt"  # beside a base


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="YAML plan of the rows")
    parser.add_argument("--out", type=Path, required=True,
                        help="folder of the results; rows that are there are not run again")
    parser.add_argument("--cache", type=Path, default=Path("runs/scenes"),
                        help="folder of the rendered scenes (default: %(default)s)")
    parser.add_argument("--only", help="names of rows, separated by commas")
    parser.add_argument("--threads", type=int, default=os.cpu_count(),
                        help="CPU threads (default: all, %(default)s)")
    parser.add_argument("--workers", type=int, default=1,
                        help="processes that make batches; 0 = the training itself (default 1)")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: for files and ``--only``.
        what: for people.
        set: what differs from the common recipe, by dotted name.
        paper: MAE and RMSE that the paper reports for it, where it does.
    """

    name: str
    what: str
    set: Mapping[str, Any]
    paper: tuple[float, float] | None = None


def run(args: argparse.Namespace) -> int:
    """Train and judge every row that has no result yet; writes rows.jsonl and table.md.

    Raises:
        BadSetting: the plan or --only cannot be used, or --out holds results of another plan.
    """
    train.check_processes(args)
    plan, rows = read_plan(args.config)
    wanted = _wanted(rows, args.only)
    console, results = Console(), make_folder(args.out) / "rows.jsonl"
    _mend(results)
    _refuse_another_plan(plan, rows, args.out, read_results(results))
    code = 0
    # Seed after seed, so that an unfinished table has all rows.
    for seed in plan["seeds"]:
        done = {(result["name"], result["seed"]) for result in read_results(results)}
        todo = [row for row in wanted if (row.name, seed) not in done]
        base = args.out / f"base-{seed}"
        code = code or (_train_base(plan["base"], seed, base, args) if todo else 0)
        for row in todo:
            if code:
                break
            console.print(f"[bold]{row.name}[/bold], seed {seed}: {row.what}")
            folder = args.out / "runs" / f"{row.name}-{seed}"
            start = {"seed": seed, "base": str(base / "stock")}
            code = _train(changed(plan["common"], {**row.set, **start}), folder, args)
            if code == 0:
                figures = judge(folder / "checkpoint", **plan["judge"])
                _append(results, {"name": row.name, "seed": seed, **figures,
                                  "fingerprint": _fingerprint_of(row, plan)})
                shutil.rmtree(folder)
    table = as_markdown(rows, read_results(results))
    write_text(args.out / "table.md", table)
    console.print(table, markup=False)
    return code


def read_plan(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """The YAML plan, and its rows.

    Raises:
        BadSetting: the file is missing, is no YAML, or lacks something or has what nobody knows.
    """
    if not path.is_file():
        raise BadSetting(f"plan {path}: there is no such file; try config/ablations.yaml")
    try:
        plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as problem:
        raise BadSetting(f"plan {path}: this is not YAML: {problem}") from None
    if not isinstance(plan, dict) or set(plan) != SECTIONS:
        raise BadSetting(f"plan {path}: expected the sections {', '.join(sorted(SECTIONS))}")
    _check_keys(f"plan {path}: judge", plan["judge"], ("frames", "points", "pixels"))
    for number, row in enumerate(plan["rows"]):
        _check_keys(f"plan {path}: row {number}", row, ("name", "what", "set"), ("paper",))
    return plan, [Row(**row) for row in plan["rows"]]


def _check_keys(where: str, values: Any, needed: tuple[str, ...], more: tuple[str, ...] = ()
                ) -> None:
    """Before hours of training, not after them."""
    found = set(values) if isinstance(values, dict) else set()
    if not set(needed) <= found <= {*needed, *more}:
        raise BadSetting(f"{where} has {', '.join(sorted(map(str, found))) or 'nothing'}: expected "
                         f"{', '.join(needed)}{''.join(f', and maybe {name}' for name in more)}")


def changed(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested dictionaries with values set by dotted name, None = taken away."""
    result = copy.deepcopy(dict(recipe))
    for name, value in changes.items():
        *sections, key = name.split(".")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
        if value is None:
            place.pop(key, None)
        else:
            place[key] = value
    return result


def judge(folder: Path, frames: int, points: int, pixels: int) -> dict[str, float]:
    """Answers of a checkpoint on reserved scenes, and linear interpolation at the same pixels.

    Args:
        frames: number of scenes.
        points, pixels: random measured points, and missing pixels asked, of each.

    Returns:
        ``mae`` and ``rmse`` of the answers, ``linear_mae`` and ``linear_rmse``: each in medians
        of the frame's measured depths, the mean over the frames.
    """
    completer = Completer(Settings(model=ModelSettings(checkpoint=str(folder))))
    errors = []
    for seed in range(frames):
        image, depth, _ = _reserved(seed)
        sparse = sample_points(depth, str(points), seed)
        askable = np.flatnonzero((depth > 0) & (sparse == 0))
        at = np.random.default_rng(seed).choice(askable, pixels, replace=False)
        rows, cols = np.unravel_index(at, depth.shape)
        said = completer.ask(Frame(image, sparse), rows, cols).depth
        both = np.stack([said, fill.linear_at(sparse, rows, cols)]) - depth[rows, cols]
        both /= np.median(sparse[sparse > 0])
        errors.append([np.abs(both).mean(axis=1), np.sqrt(np.square(both).mean(axis=1))])
    (mae, linear_mae), (rmse, linear_rmse) = np.mean(errors, axis=0)
    names = ("mae", "rmse", "linear_mae", "linear_rmse")
    return dict(zip(names, map(float, (mae, rmse, linear_mae, linear_rmse))))


@functools.cache
def _reserved(seed: int) -> tuple[np.ndarray, np.ndarray, Camera]:
    """Every row is judged on the same scenes; rendering takes as long as asking."""
    return render_reserved(seed)


def read_results(path: Path) -> list[dict[str, Any]]:
    """One dictionary per trained and judged row."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def as_markdown(rows: list[Row], results: list[dict[str, Any]]) -> str:
    """The table: mean and standard deviation over the seeds, in percent of the median depth."""
    lines = ["| row | | MAE % | RMSE % | paper, VOID 150: MAE / RMSE m |", "|---|---|---|---|---|"]
    for row in rows:
        found = [r for r in results if r["name"] == row.name]
        if found:
            paper = "{:.3f} / {:.3f}".format(*row.paper) if row.paper else ""
            lines.append(f"| {row.name} | {row.what} | {_spread(found, 'mae')} | "
                         f"{_spread(found, 'rmse')} | {paper} |")
    if results:
        linear = f"{100 * results[0]['linear_mae']:.2f} | {100 * results[0]['linear_rmse']:.2f}"
        lines.append(f"| | linear interpolation at the same pixels | {linear} | |")
    return "\n".join(lines) + "\n"


def _spread(found: list[dict[str, Any]], name: str) -> str:
    values = [100 * result[name] for result in found]
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def _wanted(rows: list[Row], only: str | None) -> list[Row]:
    names = [name.strip() for name in only.split(",")] if only else [row.name for row in rows]
    unknown = set(names) - {row.name for row in rows}
    if unknown:
        raise BadSetting(f"--only {', '.join(sorted(unknown))}: expected some of "
                         f"{', '.join(row.name for row in rows)}")
    return [row for row in rows if row.name in names]


def _train_base(
    recipe: Mapping[str, Any], seed: int, folder: Path, args: argparse.Namespace
) -> int:
    """What the rows of this seed start from, a stock model: without any part of SDIM."""
    if (folder / "stock" / "config.json").is_file():
        return 0
    code = _train({**recipe, "seed": recipe["seed"] + seed}, folder / "run", args)
    if code == 0:
        model = checkpoint.load(ModelSettings(checkpoint=str(folder / "run" / "checkpoint")))
        # First: a base without one passes for an older one, of which nothing is known.
        write_text(folder / FINGERPRINT, _fingerprint(recipe))
        checkpoint.save_stock(model, folder / "stock")
        shutil.rmtree(folder / "run")
    return code


def _train(recipe: Mapping[str, Any], folder: Path, args: argparse.Namespace) -> int:
    """``sdim train`` on a recipe; returns its exit code."""
    path = make_folder(folder) / "recipe.yaml"
    path.write_text(yaml.safe_dump(dict(recipe)), encoding="utf-8")
    return train.run(argparse.Namespace(
        config=path, out=folder, cache=args.cache, steps=None, threads=args.threads,
        workers=args.workers, device="auto", allow_download=False))


def _fingerprint(content: Any) -> str:
    """Of a part of a plan, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, default=str)  # YAML knows dates, JSON does not
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _fingerprint_of(row: Row, plan: Mapping[str, Any]) -> str:
    """Of all that the figures of a row depend on, but the seed."""
    return _fingerprint([plan["base"], changed(plan["common"], row.set), plan["judge"]])


def _refuse_another_plan(plan: Mapping[str, Any], rows: list[Row], out: Path,
                         results: list[dict[str, Any]]) -> None:
    """What was trained and judged in another way must not stand in the same table.

    Results and bases without a fingerprint are older than fingerprints and taken as they are.
    """
    expected = {row.name: _fingerprint_of(row, plan) for row in rows}
    for result in results:
        name, seen = result["name"], result.get("fingerprint")
        if seen is not None and seen != expected.get(name, seen):
            raise BadSetting(
                f"row {name}, seed {result['seed']}, of {out / 'rows.jsonl'} is of another plan "
                f"(fingerprint {seen}, expected {expected[name]}): its recipe, base or judge has "
                "changed since; give another --out, or delete that line to train it again")
    for seed in plan["seeds"]:
        path = out / f"base-{seed}" / FINGERPRINT
        seen = path.read_text(encoding="utf-8") if path.is_file() else None
        if seen is not None and seen != _fingerprint(plan["base"]):
            raise BadSetting(
                f"base {path.parent} is of another recipe (fingerprint {seen}, expected "
                f"{_fingerprint(plan['base'])}): the plan's base has changed since; give another "
                "--out, or delete that folder to train it again")


def _mend(path: Path) -> None:
    """Drop a last line that a kill cut short, so that the next one has a line of its own."""
    text = path.read_bytes() if path.is_file() else b""
    last = text.rpartition(b"\n")[2]
    if not last:
        return
    try:
        json.loads(last)
    except ValueError:
        os.truncate(path, len(text) - len(last))
    else:  # an editor left out the end of the line
        with path.open("ab") as file:
            file.write(b"\n")


def _append(path: Path, result: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
