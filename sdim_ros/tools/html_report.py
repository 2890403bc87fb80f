"""report.html: the answer first, then the tables, curves and pictures behind it, in one file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from rich.text import Text

from sdim_ros.core import fill
from sdim_ros.core.whole_files import write_text
from sdim_ros.tools import report_tables as tables
from sdim_ros.tools.charts import Chart, over_levels, over_ranges
from sdim_ros.tools.report import against_classical, contribution
from sdim_ros.tools.report_tables import SPACE, known, metres, percent

TEMPLATE = "report.html.j2"
SKIPPED = 100           # runs that are listed
# Colours and dashes of the page; methods beyond them share the last.
STYLES = 8
METHOD_NOTES = {
    "sdim": "the map of the model: its answers, and a calibrated fill between them",
    "fill_only": "the same fill without the model's answers",
    "nearest": "each pixel takes the depth of the nearest point",
    "linear": "linear interpolation between the points",
    "edge_aware": "the points, spread along the edges of the image",
    "sdim_blind": "sdim, but the model is shown a grey image",
    "sdim_unquantized": "sdim with the model's whole weights (model.quantization: none)",
    "answers": "the model's own answers, before any fill",
    "answers_linear": "linear, at the pixels that the model was asked",
    "answers_hint": "edge_aware, at the pixels that the model was asked",
    "answers_guess": "the first guess that the model is told at the pixels it is asked",
    "sdim_random": "a model with random weights, asked about the same pixels",
}


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    Attributes:
        title: which frame it shows, and why.
        caption: what is to be seen.
        jpeg: the encoded picture, as from `panels.frame_panels`.
    """

    title: str
    caption: str
    jpeg: bytes

    @property
    def source(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode("ascii")


@dataclass(frozen=True)
class Facts:
    """What else a command has to say: words under a title, each row with its name."""

    title: str
    rows: Sequence[tuple[str, str]]


def write(path: Path, report: Mapping[str, Any], pictures: Sequence[Picture] = (),
          facts: Sequence[Facts] = ()) -> None:
    """Write a report as one HTML file that needs nothing else, and shows on a phone as well.

    The file appears whole or not at all. What the report does not have is left out; numbers that
    are None or not finite are shown as a dash.

    Args:
        path: of the HTML file.
        report: the content of report.json; numbers may be NaN.
        pictures, facts: in the order they are shown.
    """
    text = _template().render(**_page(report), pictures=pictures, facts=facts)
    write_text(path, text)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(TEMPLATE)


def _page(report: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the template shows; None and empty lists are left out there."""
    methods = report.get("methods") or {}
    names = tables.in_order(methods)
    skipped = report.get("skipped") or {}
    by_range = report.get("by_range")
    published = report.get("published") or {}
    return {
        "heading": " ".join((report.get("command") or "sdim").split()[:2]),
        "answer": _answer(report, methods),
        "evidence": tables.evidence(report.get("paired") or {}, "fill_only"),
        "keeps_up": _keeps_up(report, methods),
        "tiles": _tiles(report, methods),
        "styles": {name: min(index, STYLES - 1)
                   for index, name in enumerate(tables.whole_maps(names))},
        "notes": [(name, METHOD_NOTES[name]) for name in names if name in METHOD_NOTES],
        "held_out": tables.errors(methods, "held_out"),
        "protocol": tables.errors(methods, "protocol"),
        "certainty": tables.certainty(methods),
        "paired": tables.paired(report.get("paired") or {}),
        "axes": [axis for axis in map(_axis, report.get("axes") or ()) if axis["charts"]],
        "by_range": _by_range(by_range) if by_range else None,
        "published": tables.published(published.get("rows") or ()),
        "protocol_frames": published.get("frames"),
        "caveats": published.get("caveats") or [],
        "frames": tables.frames(report.get("frames") or (), names),
        "skipped": list(skipped.items())[:SKIPPED],
        "skipped_count": len(skipped),
        "command": report.get("command"),
        "environment": _environment(report),
    }


def _answer(report: Mapping[str, Any], methods: Mapping[str, Any]) -> str:
    """One sentence for whoever reads no further."""
    if not methods:
        replay = report.get("replay")
        return "No frame could be judged." if not replay else \
            f"{replay['completed']:,} of {replay['sets']:,} sets completed; none was judged."
    if _comparable(methods, "sdim", "fill_only") and known(methods["sdim"].get("trust")):
        return _sentence(contribution(report))
    whole = [name for name in tables.whole_maps(methods) if known(tables.error(methods[name]))]
    if not whole:
        return "No method has an error that could be measured."
    best = min(whole, key=lambda name: tables.error(methods[name]))
    return f"{best} has the lowest MAE of {len(whole)} methods: " \
           f"{metres(tables.error(methods[best]))} m."


def _keeps_up(report: Mapping[str, Any], methods: Mapping[str, Any]) -> dict[str, Any] | None:
    """Whether the map is as good as the classical fills, where all of them were measured."""
    if not _comparable(methods, "sdim", *fill.CLASSICAL):
        return None
    good, text = against_classical(report)
    return {"text": _sentence(Text.from_markup(text).plain), "good": good}


def _comparable(methods: Mapping[str, Any], *names: str) -> bool:
    return all(name in methods and known(tables.error(methods[name], metric))
               for name in names for metric in ("mae", "rmse"))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _tiles(report: Mapping[str, Any], methods: Mapping[str, Any]) -> list[dict[str, str]]:
    """The few numbers of the top: a label, the value, and what it is held against."""
    tiles = []
    sdim, without = methods.get("sdim"), methods.get("fill_only")
    for metric in ("mae", "rmse") if sdim else ():
        ours = tables.error(sdim, metric)
        theirs = tables.error(without, metric) if without else None
        tile = {"label": f"{metric.upper()} of sdim", "value": f"{metres(ours)}{SPACE}m",
                "note": "", "kind": ""}
        if known(ours) and known(theirs) and theirs > 0:
            tile["note"] = f"{percent(ours / theirs - 1, signed=True)} against fill_only, " \
                           f"{metres(theirs)}{SPACE}m"
            tile["kind"] = "good" if ours < theirs else "bad" if ours > theirs else ""
        tiles.append(tile)
    time = (sdim or {}).get("ms_per_frame", {}).get("median")
    if known(time):
        tiles.append({"label": "time of sdim", "value": f"{time:,.0f} ms",
                      "note": "a frame, median", "kind": ""})
    return tiles + _doubted(report.get("doubt") or {}) + _count(report)


def _doubted(doubt: Mapping[str, float]) -> list[dict[str, str]]:
    """How many points were doubted, if any; and how many of the wrong ones, if they are known."""
    if not doubt.get("points_per_frame"):
        return []
    note = "a frame"
    if known(doubt.get("recall_far")):
        note += f"; {percent(doubt['recall_far'])} of those that are far off"
    return [{"label": "points doubted", "value": f"{doubt['points_per_frame']:.1f}",
             "note": note, "kind": ""}]


def _count(report: Mapping[str, Any]) -> list[dict[str, str]]:
    frames = [frame for frame in report.get("frames") or () if not frame.get("axis")]
    if not frames:
        return []
    count = len({frame["name"] for frame in frames})
    points = [frame["points"] for frame in frames if known(frame.get("points"))]
    notes = [f"{len(frames):,} runs"] if len(frames) != count else []
    if points:
        low, high = min(points), max(points)
        notes.append(f"{low:,} points each" if low == high else f"{low:,} to {high:,} points")
    return [{"label": "measured on", "value": f"{count:,} frame{'s' if count > 1 else ''}",
             "note": ", ".join(notes), "kind": ""}]


def _axis(axis: Mapping[str, Any]) -> dict[str, Any]:
    """The curves of one axis, and their numbers as a table."""
    levels, label = [str(level) for level in axis["levels"]], axis.get("label") or axis["name"]
    names = tables.whole_maps(axis["methods"])
    charts: list[Chart] = []
    for metric in ("mae", "rmse"):
        series = {name: axis["methods"][name][metric] for name in names
                  if axis["methods"][name].get(metric)}
        chart = over_levels(f"{metric.upper()} in metres", label, levels, series) \
            if levels else None
        charts += [chart] if chart else []
    return {"label": label, "charts": charts, "names": names,
            "table": tables.levels(levels, axis["methods"], tables.in_order(axis["methods"]))}


def _by_range(by_range: Mapping[str, Any]) -> dict[str, Any] | None:
    names = tables.whole_maps(by_range["mae"])
    total = sum(by_range["pixels"]) or 1
    chart = over_ranges(
        "MAE in metres", "distance in metres", by_range["edges_m"],
        [count / total for count in by_range["pixels"]],
        {name: by_range["mae"][name] for name in names})
    return chart and {"chart": chart, "names": names, "table": tables.ranges(by_range, names)}


def _environment(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Whatever else the report says in a word or a number."""
    rows = [(key, str(value)) for key, value in report.items()
            if key != "command" and isinstance(value, (str, int, float)) and value != ""]
    if report.get("seeds"):
        rows.append(("seeds", ", ".join(map(str, report["seeds"]))))
    return rows
