"""overview.png: image, sparse input, dense depth, absolute error and confidence on one page."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import cv2
import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import colormaps  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.cm import ScalarMappable  # noqa: E402
from matplotlib.colors import Colormap, ListedColormap, Normalize  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import MaxNLocator, StrMethodFormatter  # noqa: E402

PAGE_IN = 10.0          # width
GAP_IN = 0.09
BAR_INSET_IN = 0.2
TEXT_PT = 9.0
TITLE_IN = 0.25         # with text of TEXT_PT, as the next
BAR_IN = 0.45           # a colour bar with its numbers
TICKS = 6
POINTS_PER_IN = 72
WIDE = 1.9              # images wider than this stand two in a row
UNKNOWN_COLOUR = "0.75"
# Without turbo's darkest ends: dots of these colours must be seen on a dark image.
DEPTH_COLOURS = ListedColormap(
    colormaps["turbo"](np.linspace(0.08, 0.95, 256))).with_extremes(bad=UNKNOWN_COLOUR)
ERROR_COLOURS = colormaps["inferno"].with_extremes(bad=UNKNOWN_COLOUR)
CONFIDENCE_COLOURS = colormaps["viridis"].with_extremes(bad=UNKNOWN_COLOUR)
SPARSE_SHARE = 0.25     # maps with fewer known pixels are drawn as dots


def draw(
    path: str | Path,
    title: str,
    image: np.ndarray,
    sparse: np.ndarray,
    depth: np.ndarray,
    confidence: np.ndarray,
    reference: np.ndarray | None = None,
    notes: str = "",
) -> None:
    """Draw one frame and what became of it.

    Args:
        path: of the PNG to write.
        title: over the image.
        image: (H, W, 3) uint8, RGB.
        sparse: (H, W) metres, 0 = not measured.
        depth: (H, W) metres, NaN = unknown.
        confidence: (H, W), 0-1.
        reference: (H, W) metres, 0 = unknown; without it the error panel is left out.
        notes: a few short lines, in the free panel.
    """
    page = Page(image.shape[1] / image.shape[0], rows_for(image, reference))
    norm = metre_range(sparse, depth)
    cells = _cells(page.columns, reference is not None)
    show(page.panel(cells["image"], title), image)
    _dots_on(page.panel(cells["sparse"], f"sparse input, {(sparse > 0).sum():,} points"),
             image, sparse, DEPTH_COLOURS, norm)
    dense = show(page.panel(cells["dense"], "completed depth"), depth, DEPTH_COLOURS, norm)
    page.bar(cells["sparse"], cells["dense"], dense, "m")
    sure = show(page.panel(cells["confidence"], "confidence that the error is below 5 %"),
                confidence, CONFIDENCE_COLOURS, Normalize(0, 1))
    page.bar(cells["confidence"], cells["confidence"], sure)
    if reference is not None:
        _error(page, cells["error"], image, depth, reference, sparse > 0)
    if notes and "notes" in cells:
        page.text(cells["notes"], notes)
    page.figure.savefig(path, dpi=160, facecolor="white")


def rows_for(image: np.ndarray, reference: np.ndarray | None) -> tuple[int, int]:
    """How many rows and columns of panels this frame takes."""
    if reference is None:
        return 2, 2
    return (3, 2) if image.shape[1] > WIDE * image.shape[0] else (2, 3)


def _cells(columns: int, with_error: bool) -> dict[str, tuple[int, int]]:
    """Row and column of each panel; sparse and dense stand side by side over one colour bar."""
    if not with_error:
        return {"image": (0, 0), "confidence": (0, 1), "sparse": (1, 0), "dense": (1, 1)}
    if columns == 2:
        return {"image": (0, 0), "notes": (0, 1), "sparse": (1, 0), "dense": (1, 1),
                "error": (2, 0), "confidence": (2, 1)}
    return {"image": (0, 0), "sparse": (0, 1), "dense": (0, 2),
            "notes": (1, 0), "error": (1, 1), "confidence": (1, 2)}


class Page:
    """A grid of panels of one aspect ratio, each with its title above and room for a bar below.

    Args:
        aspect: width over height of a panel.
        grid: rows and columns.
        text_pt: size of the titles on a page of PAGE_IN; the room for them follows it.
        bars: rows that have a colour bar; None = all.
    """

    def __init__(self, aspect: float, grid: tuple[int, int], text_pt: float = TEXT_PT,
                 bars: Collection[int] | None = None) -> None:
        self.rows, self.columns = grid
        self.text_pt = text_pt
        self.bars = range(self.rows) if bars is None else bars
        self.panel_w = (PAGE_IN - GAP_IN * (self.columns + 1)) / self.columns
        self.panel_h = self.panel_w / aspect
        self.title_h, self.bar_h = (size * text_pt / TEXT_PT for size in (TITLE_IN, BAR_IN))
        self.height = self._top(self.rows)
        self.figure = Figure(figsize=(PAGE_IN, self.height))

    def _axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes from inches, measured from the upper left corner of the page."""
        bottom = self.height - top - height
        return self.figure.add_axes((
            left / PAGE_IN, bottom / self.height, width / PAGE_IN, height / self.height))

    def _top(self, row: int) -> float:
        bars = sum(above in self.bars for above in range(row))
        return row * (self.title_h + self.panel_h) + bars * self.bar_h

    def _left(self, column: int) -> float:
        return GAP_IN + column * (self.panel_w + GAP_IN)

    def panel(self, cell: tuple[int, int], title: str) -> Axes:
        axes = self._axes(
            self._left(cell[1]), self._top(cell[0]) + self.title_h, self.panel_w, self.panel_h)
        axes.set_title(title, fontsize=self.text_pt, loc="left", pad=self.text_pt / 3)
        axes.set_axis_off()
        return axes

    def bar(self, first: tuple[int, int], last: tuple[int, int], shown: ScalarMappable,
            unit: str = "", extend: str = "neither") -> None:
        """One horizontal colour bar under the panels from ``first`` to ``last`` of a row."""
        left, right = self._left(first[1]), self._left(last[1]) + self.panel_w
        scale = self.text_pt / TEXT_PT
        inset = BAR_INSET_IN * scale
        width = right - left - 2 * inset
        axes = self._axes(
            left + inset, self._top(first[0]) + self.title_h + self.panel_h + 0.06 * scale,
            width, 0.1 * scale)
        most = min(TICKS, int(width * POINTS_PER_IN / (4 * self.text_pt)))
        bar = self.figure.colorbar(shown, cax=axes, orientation="horizontal", extend=extend,
                                   ticks=MaxNLocator(most, steps=[1, 2, 5, 10]),
                                   format=StrMethodFormatter("{x:g} " + unit))
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8 * scale, length=2 * scale, pad=2 * scale)

    def text(self, cell: tuple[int, int], text: str) -> None:
        axes = self.panel(cell, "")
        axes.text(0.02, 1.0, text, transform=axes.transAxes, fontsize=8, va="top",
                  family="monospace", linespacing=1.3)


def metre_range(sparse: np.ndarray, depth: np.ndarray) -> Normalize:
    """One range for input and output; a few outliers must not wash out all the others."""
    values = np.concatenate([sparse[sparse > 0], depth[np.isfinite(depth)]])
    if not values.size:
        return Normalize(0, 1)
    low, high = np.percentile(values, (0.5, 99.5))
    return Normalize(low, max(high, low + 1e-3))


def show(axes: Axes, values: np.ndarray, palette: Colormap | None = None,
         norm: Normalize | None = None) -> ScalarMappable:
    """A picture, or a map with its colours; unknown pixels are grey."""
    return axes.imshow(values, cmap=palette, norm=norm, interpolation="antialiased")


def _dots_on(axes: Axes, image: np.ndarray, values: np.ndarray, palette: Colormap,
             norm: Normalize) -> ScalarMappable:
    """Each known pixel as a dot, on the darkened image that shows where it lies."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    axes.imshow(grey * 0.35, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    return dots(axes, values, palette, norm)


def dots(axes: Axes, values: np.ndarray, palette: Colormap, norm: Normalize,
         share: float = 0.3, sizes_pt: tuple[float, float] = (0.8, 4.0)) -> ScalarMappable:
    """Each known pixel as a dot that one sees, over what the panel shows already.

    Args:
        values: (H, W); 0 and NaN = unknown.
        share: of the mean distance between dots that their diameter takes.
        sizes_pt: the least and the largest diameter.
    """
    rows, cols = np.nonzero(values > 0)
    height, width = values.shape
    spacing_px = np.sqrt(height * width / max(len(rows), 1))
    inches_per_px = axes.get_position().width * PAGE_IN / width
    diameter_pt = np.clip(share * spacing_px * inches_per_px * POINTS_PER_IN, *sizes_pt)
    return axes.scatter(cols, rows, c=values[rows, cols], s=diameter_pt**2, cmap=palette,
                        norm=norm, linewidths=0)


def absolute_error(depth: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(H, W) metres, NaN where depth or reference is unknown."""
    known = np.isfinite(reference) & (reference > 0) & np.isfinite(depth)
    error = np.full(depth.shape, np.nan)
    error[known] = np.abs(depth[known] - reference[known])
    return error


def _error(page: Page, cell: tuple[int, int], image: np.ndarray, depth: np.ndarray,
           reference: np.ndarray, given: np.ndarray) -> None:
    error = absolute_error(depth, reference)
    known = np.isfinite(error)
    judged = known & ~given if (known & ~given).any() else known
    mean, high = (error[judged].mean(), np.percentile(error[known], 98)) if known.any() else (0, 1)
    axes, norm = page.panel(cell, f"absolute error, mean {mean:.3f} m"), Normalize(0, high + 1e-3)
    if known.mean() < SPARSE_SHARE:
        shown = _dots_on(axes, image, error, ERROR_COLOURS, norm)
    else:
        shown = show(axes, error, ERROR_COLOURS, norm)
    page.bar(cell, cell, shown, "m", "max")
