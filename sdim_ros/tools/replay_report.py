"""What is said of a replay: report.json, report.html with its pictures, and the terminal."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from sdim_ros.core.config import Settings
from sdim_ros.core.types import BadInput, Frame
from sdim_ros.tools import frame_pictures, html_report, live_figures, report
from sdim_ros.tools.bags.outcome import draw_over_time
from sdim_ros.tools.bags.reading import Bag
from sdim_ros.tools.frame_judge import Judged
from sdim_ros.tools.html_report import Facts, Picture
from sdim_ros.tools.results import FrameResult

if TYPE_CHECKING:
    from sdim_ros.tools.replay import Replay

TOLD = 3  # reasons for which frames lack that the terminal shows
SHOWN = ("sdim", "fill_only")


class Gallery:
    """Keeps the frames that report.html shows, a few, however long the bag is.

    Args:
        count: of the frames where the map did worst, and of those where it did best.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: list[tuple[FrameResult, Frame, np.ndarray, Judged]] = []

    def add(self, frame: Frame, reference: np.ndarray, judged: Judged) -> None:
        """Take a judged frame into account."""
        maps = {name: judged.maps[name] for name in SHOWN if name in judged.maps}
        slim = dataclasses.replace(judged, maps=maps, dense=None)
        self._kept.append((judged.result, frame, reference, slim))
        chosen = [id(result) for _, result in self._chosen()]
        self._kept = [entry for entry in self._kept if id(entry[0]) in chosen]

    def pictures(self) -> list[Picture]:
        """The worst first."""
        kept = {id(result): entry for result, *entry in self._kept}
        return frame_pictures.draw(self._chosen(), SHOWN[0], lambda result: kept[id(result)])

    def _chosen(self) -> list[tuple[str, FrameResult]]:
        return frame_pictures.worst_and_best(
            [result for result, *_ in self._kept], SHOWN[0], self._count)


def report_of(args: argparse.Namespace, replay: Replay, settings: Settings,
              topics: Mapping[str, str], model: str, stopped: BaseException | None
              ) -> dict[str, Any]:
    """The content of report.json.

    Args:
        model: what it is.
        stopped: what ended the replay early, or None.
    """
    outcome, counters = replay.outcome, replay.source.counters
    header = report.environment(args.command_line, settings.model.checkpoint, model)
    content = report.build(header, outcome.results)
    content["replay"] = outcome.header(counters["images"], replay.sets) | {
        "bag": str(args.bag), "topics": dict(topics), "gt_topic": replay.truth.topic,
        "points": args.points, "seed": args.seed, "resets": counters["resets"],
        "damage": replay.bag.damage,
        "stopped": None if stopped is None else str(stopped) or type(stopped).__name__}
    return content | {"over_time": outcome.over_time}


def conclude(replay: Replay, content: dict[str, Any], out: Path) -> None:
    """Write the report and the pictures, and tell the result."""
    report.write_json(out / "report.json", content)
    html_report.write(out / "report.html", content, replay.gallery.pictures(), _facts(content))
    if content["over_time"]:
        draw_over_time(out / "error_over_time.png", content["over_time"])
    _tell(Console(), content, out)


def check_damage(args: argparse.Namespace, bag: Bag) -> None:
    """Raise BadInput where not all of the bag could be read."""
    if bag.damage:
        raise BadInput("bag", f"{args.bag} could not be read as a whole: {bag.damage}; the "
                       f"results so far are in {args.out}")


def _tell(console: Console, content: dict[str, Any], out: Path) -> None:
    """The result for people."""
    facts = content["replay"]
    if content.get("live", {}).get("images"):
        console.print(live_figures.table(content["live"]))
    if not facts["completed"]:
        return
    where = f": {out}/completed" if (out / "completed").exists() else ""
    say = [f"{facts['completed']} of {facts['sets']} sets completed, from {facts['images']} images"
           f"{where}"]
    if facts["resets"]:
        say.append(f"stamps jumped back {facts['resets']} times: the bag loops")
    told = {"without a result": content["live"]["drops"]} if "live" in content else {
        "skipped": facts["skipped"]}
    for kind, tally in (told | {kind: facts[kind] for kind in ("unjudged", "warnings")}).items():
        for reason, found in list(tally.items())[:TOLD]:
            say.append(f"{kind.rstrip('s')}: {found['count']} {reason}: {found['first']}")
    for line in say:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if content["methods"]:
        console.print(report.table(content))
    console.print(f"{out}/report.html shows it", highlight=False, soft_wrap=True)


def _facts(content: Mapping[str, Any]) -> list[Facts]:
    """What report.html says beside the errors."""
    replay, live = content["replay"], content.get("live")
    found = []
    if live:
        found += [Facts("The node at work", live_figures.rows(live)),
                  Facts("Images without a result", _reasons(live["drops"]))]
    found += [
        Facts("Sets without a result", [] if live else _reasons(replay["skipped"])),
        Facts("Not judged", _reasons(replay["unjudged"])),
        Facts("What looked wrong", _reasons(replay["warnings"])),
        Facts("Median milliseconds by stage", [
            (stage, f"{ms:.1f}") for stage, ms in replay["stages_ms"].items()])]
    return [facts for facts in found if facts.rows]


def _reasons(tally: Mapping[str, Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    return [(f"{found['count']:,} {reason}", found["first"]) for reason, found in tally.items()]
