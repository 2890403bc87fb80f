"""The tables of report.html as rows of text, with what is best in each."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdim_ros.tools.results import AT_ASKED_PIXELS, METHODS, with_fewest_holes

UNKNOWN = "–"
UNCLEAR = "not clear"
SPACE = "\u00a0"        # at which no line breaks
FRAMES = 500            # rows of the list of frames
ADDRESS = 40            # characters shown of an address
METRICS = {
    "mae": "MAE m", "rmse": "RMSE m", "imae": "iMAE 1/m", "irmse": "iRMSE 1/m", "rel": "REL",
    "delta1": "δ < 1.25", "delta105": "δ < 1.05", "missing": "missing",
}
INVERSE = ("imae", "irmse")
SHARES = ("delta1", "delta105", "missing")
LARGER_IS_BETTER = ("delta1", "delta105")


@dataclass(frozen=True)
class Cell:
    """Attributes:
        kind: "best", "good", "bad" or nothing.
        bar: length of a bar below the text, 0-1, or None.
        address: what the text links to, if anything.
    """

    text: str
    kind: str = ""
    bar: float | None = None
    address: str = ""


@dataclass(frozen=True)
class Group:
    """Rows, each with its name, under a title that may be empty."""

    title: str
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class Table:
    """Attributes:
        columns: the headings; the first is that of the names.
        left_out: rows that are not shown.
    """

    columns: list[str]
    groups: list[Group] = field(default_factory=list)
    left_out: int = 0


def known(value: Any) -> bool:
    """Whether a value of the report is a number that can be shown."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def metres(value: Any, signed: bool = False) -> str:
    """A number of metres, without the unit, or of a ratio."""
    if not known(value):
        return UNKNOWN
    digits = 4 if abs(value) < 0.1 or signed else 3 if abs(value) < 10 else 1
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def percent(value: Any, signed: bool = False) -> str:
    """A share as percent."""
    if not known(value):
        return UNKNOWN
    return f"{100 * value:{'+' if signed else ''}.1f}{SPACE}%".replace("-", "−")


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods that are judged on the whole map first, each part in the order of METHODS."""
    present = list(methods)
    ordered = [name for name in METHODS if name in present]
    ordered += [name for name in present if name not in METHODS]
    return sorted(ordered, key=lambda name: name in AT_ASKED_PIXELS)


def whole_maps(methods: Iterable[str]) -> list[str]:
    """The methods that may be compared with each other."""
    return [name for name in in_order(methods) if name not in AT_ASKED_PIXELS]


def error(method: Mapping[str, Any], metric: str = "mae") -> Any:
    """The error where no point was given, or of the protocol where points were given everywhere."""
    return (method.get("held_out") or method.get("protocol") or {}).get(metric)


def errors(methods: Mapping[str, Any], kind: str) -> Table | None:
    """All errors of one kind, ``held_out`` or ``protocol``; None where there are none.

    Errors of the held-out pixels come with their intervals and the time of a frame.
    """
    judged = {name: methods[name][kind] for name in in_order(methods) if methods[name].get(kind)}
    metrics = [metric for metric in METRICS if any(metric in row for row in judged.values())]
    if kind == "held_out":
        metrics = [metric for metric in metrics if metric not in INVERSE]
    if not metrics:
        return None
    detailed = kind == "held_out"
    columns = ["method"]
    for metric in metrics:
        columns += [METRICS[metric]]
        columns += ["95 % interval"] if detailed and metric in ("mae", "rmse") else []
    columns += ["ms a frame"] if detailed else []
    best = {metric: _best(judged, metric) for metric in metrics}
    groups = []
    for asked, title in ((False, ""), (True, "only at the pixels that the model was asked")):
        rows = []
        for name in judged:
            if (name in AT_ASKED_PIXELS) == asked:
                cells = _errors_of(judged[name], metrics, detailed, {} if asked else best)
                time = methods[name].get("ms_per_frame", {}).get("median")
                cells += [Cell(f"{time:,.0f}" if known(time) else UNKNOWN)] if detailed else []
                rows.append((name, _with_bar(cells, judged, name, asked)))
        groups += [Group(title, rows)] if rows else []
    return Table(columns, groups)


def _errors_of(row: Mapping[str, Any], metrics: Sequence[str], detailed: bool,
               best: Mapping[str, float | None]) -> list[Cell]:
    cells = []
    for metric in metrics:
        value = row.get(metric)
        is_best = known(value) and value == best.get(metric) and metric != "missing"
        cells.append(Cell(_shown(metric, value), "best" if is_best else ""))
        if detailed and metric in ("mae", "rmse"):
            cells.append(Cell(_interval((row.get("ci95") or {}).get(metric))))
    return cells


def _with_bar(cells: list[Cell], judged: Mapping[str, Any], name: str, asked: bool) -> list[Cell]:
    """The first cell, which is the MAE, with a bar that compares it with the other maps."""
    most = max((judged[other]["mae"] for other in whole_maps(judged)
                if known(judged[other].get("mae"))), default=0)
    if asked or not most or not known(judged[name].get("mae")):
        return cells
    return [Cell(cells[0].text, cells[0].kind, judged[name]["mae"] / most), *cells[1:]]


def _best(judged: Mapping[str, Mapping[str, Any]], metric: str) -> float | None:
    fair = with_fewest_holes({name: judged[name].get("missing") for name in whole_maps(judged)})
    values = [judged[name][metric] for name in fair if known(judged[name].get(metric))]
    if len(values) < 2:
        return None
    return (max if metric in LARGER_IS_BETTER else min)(values)


def _shown(metric: str, value: Any) -> str:
    if metric in SHARES:
        return percent(value)
    if metric in INVERSE:
        return f"{value:.4f}" if known(value) else UNKNOWN
    return metres(value)


def _interval(ends: Any, signed: bool = False) -> str:
    if not _is_interval(ends):
        return UNKNOWN
    low, high = (metres(end, signed) for end in ends)
    return f"{low} to {high}"


def paired(comparison: Mapping[str, Any]) -> dict[str, Any] | None:
    """The differences to the other methods on the same images, and what they say."""
    rows: dict[str, list[tuple[str, list[Cell]]]] = {}
    for other, kinds in (comparison.get("against") or {}).items():
        for metric, found in (kinds.get("held_out") or {}).items():
            rows.setdefault(metric, []).append((other, _difference(found)))
    if not rows:
        return None
    method = comparison.get("method", "sdim")
    return {"method": method, "table": Table(
        ["against", "change", f"{method} is", "difference m", "95 % interval", "images"],
        [Group(METRICS.get(metric, metric), found) for metric, found in rows.items()])}


def evidence(comparison: Mapping[str, Any], other: str) -> str:
    """How far the MAE's difference to another method can be trusted, as a sentence, or nothing."""
    kinds = (comparison.get("against") or {}).get(other) or {}
    found = (kinds.get("held_out") or {}).get("mae") or {}
    if not known(found.get("difference")):
        return ""
    if not _is_interval(found.get("ci95")):
        return "How far this holds on other images is not known: an interval takes several."
    images = f" on {found['images']:,} images" if known(found.get("images")) else ""
    text = f"95{SPACE}% interval of the change in MAE{images}: " \
           f"{_interval(found['ci95'], signed=True)}{SPACE}m"
    return text + (", so there may be none." if _verdict(found) == UNCLEAR else ".")


def _is_interval(ends: Any) -> bool:
    return bool(ends) and len(ends) == 2 and all(map(known, ends))


def _verdict(found: Mapping[str, Any]) -> str:
    ends = found.get("ci95")
    if not _is_interval(ends) or ends[0] * ends[1] <= 0:
        return UNCLEAR
    return "better" if ends[1] < 0 else "worse"


def _difference(found: Mapping[str, Any]) -> list[Cell]:
    verdict, ends = _verdict(found), found.get("ci95")
    return [
        Cell(percent(found.get("relative"), signed=True)),
        Cell(verdict, {"better": "good", "worse": "bad"}.get(verdict, "")),
        Cell(metres(found.get("difference"), signed=True)),
        Cell(_interval(ends, signed=True)), Cell(str(found.get("images", UNKNOWN))),
    ]


def certainty(methods: Mapping[str, Any]) -> Table | None:
    """What the map says about its own errors, and what was found; None where nothing was."""
    found = (methods.get("sdim") or {}).get("certainty")
    if not found:
        return None
    ends = [percent(end) for end in found.get("coverage_ci95") or ()]
    rows = [
        ("truths inside of the 80 % interval", percent(found.get("coverage")),
         f"{ends[0]} to {ends[1]}" if len(ends) == 2 else UNKNOWN),
        ("half of its width, m", metres(found.get("interval_m")), UNKNOWN),
        ("MAE of the 80 % most confident pixels, m", metres(found.get("mae_confident_m")),
         f"{percent(-found['mae_reduction'], signed=True)} against all"
         if known(found.get("mae_reduction")) else UNKNOWN),
        ("confidence, off by", percent(found.get("calibration_error")), UNKNOWN),
    ]
    return Table(["", "found", "95 % interval, or change"], [Group("", [
        (name, [Cell(text), Cell(note)]) for name, text, note in rows])])


def published(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Numbers of others; the source of each is its last cell."""
    if not rows:
        return None
    return Table(["method", "dataset", "MAE m", "RMSE m", "source"], [Group("", [
        (str(row.get("method", UNKNOWN)), [
            Cell(str(row.get("dataset", UNKNOWN))), Cell(metres(row.get("mae_m"))),
            Cell(metres(row.get("rmse_m"))), _source(str(row.get("source") or UNKNOWN)),
        ]) for row in rows])])


def _source(text: str) -> Cell:
    scheme, _, place = text.partition("://")
    if scheme not in ("https", "http"):
        return Cell(text)
    return Cell(place if len(place) <= ADDRESS else place[:ADDRESS - 1] + "…", address=text)


def levels(names: Sequence[str], methods: Mapping[str, Any], order: Sequence[str]) -> Table:
    """Errors of each method at each level of an axis, and what is missing where something is."""
    incomplete = any(known(share) and share > 0
                     for method in methods.values() for share in method.get("missing") or ())
    groups = [
        Group(METRICS[metric], [
            (name, [Cell(_shown(metric, value)) for value in methods[name][metric]])
            for name in order if methods[name].get(metric)])
        for metric in ("mae", "rmse", *(["missing"] if incomplete else []))]
    return Table(["method", *names], [group for group in groups if group.rows])


def ranges(by_range: Mapping[str, Any], order: Sequence[str]) -> Table:
    """MAE of each method in each range of distance."""
    edges = by_range["edges_m"]
    names = [f"{low:g}–{high:g} m" for low, high in zip(edges, edges[1:])]
    return Table(["", *names, f"over {edges[-1]:g} m"], [
        Group("", [("pixels", [Cell(f"{count:,}") for count in by_range["pixels"]])]),
        Group("MAE m", [(name, [Cell(metres(value)) for value in by_range["mae"][name]])
                        for name in order])])


def frames(runs: Sequence[Mapping[str, Any]], order: Sequence[str]) -> Table | None:
    """One row per frame and seed, the first FRAMES of them; those made harder come last."""
    if not runs:
        return None
    judged = whole_maps(order)
    rows = []
    for run in sorted(runs, key=lambda run: bool(run.get("axis")))[:FRAMES]:
        ms, found = run.get("ms"), run.get("metrics") or {}
        time = ms.get("sdim") if isinstance(ms, Mapping) else ms
        harder = f" ({run['axis']} {run.get('level')})" if run.get("axis") else ""
        rows.append((f"{run.get('name', UNKNOWN)}{harder}", [
            Cell(str(run.get("seed", UNKNOWN))), *(
                Cell(f"{run[key]:,}" if known(run.get(key)) else UNKNOWN)
                for key in ("points", "queries")),
            Cell(f"{run['trust']:.2f}" if known(run.get("trust")) else UNKNOWN),
            Cell(f"{time:,.0f}" if known(time) else UNKNOWN),
            *(Cell(metres(error(found.get(name, {})))) for name in judged),
            Cell(str(run.get("fill") or UNKNOWN)),
        ]))
    return Table(["frame", "seed", "points", "pixels asked", "trust", "ms",
                  *(f"MAE {name}" for name in judged), "fill"],
                 [Group("", rows)], max(0, len(runs) - FRAMES))
