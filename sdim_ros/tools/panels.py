"""One frame as a small JPEG for the report: input, completed depth, and where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from PIL import Image

from sdim_ros.core import metrics
from sdim_ros.tools import overview
from sdim_ros.tools.overview import DEPTH_COLOURS, ERROR_COLOURS, Page

WIDTH_PX = 1200
# Read in the size of half a page as well as on a phone.
TEXT_PT = 23.0
BYTES = 120_000
# What is tried until the picture is small enough: its width, and the quality of the JPEG.
SIZES = ((WIDTH_PX, 85), (WIDTH_PX, 70), (WIDTH_PX, 55), (1050, 55), (900, 55), (750, 55),
         (600, 50))


def frame_panels(
    image: np.ndarray,
    sparse: np.ndarray,
    depth: np.ndarray,
    reference: np.ndarray,
    other: np.ndarray | None = None,
    other_name: str = "fill_only",
    *,
    name: str = "sdim",
    depth_range: tuple[float, float] | None = None,
    error_max: float | None = None,
) -> bytes:
    """A JPEG of a frame: all depths in one colour scale, blue near, red far; all errors in one.

    The panels are the image with the points over it, the sparse input, the completed depth and
    its absolute error; with ``other`` also the reference and the error of the other map. Grey is
    unknown. The mean in the title of an error is over the pixels that were not given as input
    (over all where every one was).

    Args:
        image: (H, W, 3) uint8, RGB.
        sparse: (H, W) metres, 0 = not measured.
        depth: (H, W) metres, NaN = unknown.
        reference: (H, W) metres, 0 = unknown.
        other: (H, W) metres, NaN = unknown: another map to hold against it.
        other_name: the method that it comes from.
        name: the method that ``depth`` comes from.
        depth_range: metres that the colours span, so that several frames can be compared; from
            the frame itself when None.
        error_max: metres of the brightest error; from the frame when None.

    Returns:
        About 1200 pixels wide, at most about 120 kB.
    """
    columns = 1 if image.shape[1] > overview.WIDE * image.shape[0] else 2
    cells = _cells(other is not None, columns)
    last_depth = cells.get("reference", cells["depth"])
    last_error = cells.get("other", cells["error"])
    page = Page(image.shape[1] / image.shape[0], (len(cells) // columns, columns), TEXT_PT,
                {last_depth[0], last_error[0]})
    depths = overview.metre_range(sparse, depth) if depth_range is None else Normalize(*depth_range)
    _input(page, cells, image, sparse, depths)
    shown = _map(page.panel(cells["depth"], "completed depth"), depth, depths)
    if "reference" in cells:
        _map(page.panel(cells["reference"], "reference"), reference, depths)
    _bar(page, cells["depth"], last_depth, shown)
    maps = {"error": (name, depth)} | ({} if other is None else {"other": (other_name, other)})
    errors = _errors(page, cells, maps, sparse, reference, error_max)
    _bar(page, cells["error"], last_error, errors, "max")
    return _jpeg(page)


def _cells(with_other: bool, columns: int) -> dict[str, tuple[int, int]]:
    """Row and column of each panel; what is to be compared stands side by side."""
    names = ("image", "sparse", "depth", "error")
    if with_other:
        names = ("image", "sparse", "depth", "reference", "error", "other")
    return {name: divmod(place, columns) for place, name in enumerate(names)}


def _input(page: Page, cells: Mapping[str, tuple[int, int]], image: np.ndarray,
           sparse: np.ndarray, depths: Normalize) -> None:
    axes = page.panel(cells["image"], "image with points")
    overview.show(axes, image)
    overview.dots(axes, sparse, DEPTH_COLOURS, depths, 0.35, (1.5, 7.0))
    _map(page.panel(cells["sparse"], f"input: {(sparse > 0).sum():,} points"), sparse, depths)


def _errors(
    page: Page, cells: Mapping[str, tuple[int, int]], maps: Mapping[str, tuple[str, np.ndarray]],
    sparse: np.ndarray, reference: np.ndarray, error_max: float | None,
) -> ScalarMappable:
    """The absolute errors of one or two maps, in the same colours."""
    errors = {cell: overview.absolute_error(depth, reference) for cell, (_, depth) in maps.items()}
    if error_max is None:
        known = np.concatenate([error[np.isfinite(error)] for error in errors.values()])
        error_max = float(np.percentile(known, 98)) if known.size else 1.0
    norm = Normalize(0, max(error_max, 1e-3))
    held_out = metrics.held_out_mask(reference, sparse)
    for cell, error in errors.items():
        known = np.isfinite(error)
        judged = error[known & held_out] if (known & held_out).any() else error[known]
        mean = f"{judged.mean():.3f} m" if judged.size else "unknown"
        # Where a map keeps what was measured its error is 0, and as known as any other.
        shown = _map(page.panel(cells[cell], f"{maps[cell][0]}: error {mean}"),
                     np.maximum(error, 1e-9), norm, ERROR_COLOURS)
    return shown


def _map(axes: Axes, values: np.ndarray, norm: Normalize,
         palette: Colormap = DEPTH_COLOURS) -> ScalarMappable:
    """A map in its colours, or as dots where few pixels are known; 0 and NaN are unknown."""
    known = np.isfinite(values) & (values > 0)
    shown = overview.show(axes, np.where(known, values, np.nan), palette, norm)
    if known.mean() < overview.SPARSE_SHARE:
        overview.dots(axes, values, palette, norm, 0.6, (2.5, 9.0))
    return shown


def _bar(page: Page, first: tuple[int, int], last: tuple[int, int], shown: ScalarMappable,
         extend: str = "neither") -> None:
    """One colour bar below two panels of a row, or below the last of a column."""
    page.bar(first if first[0] == last[0] else last, last, shown, "m", extend)


def _jpeg(page: Page) -> bytes:
    """The page as large and as good as BYTES allow."""
    drawn = BytesIO()
    page.figure.savefig(drawn, format="png", dpi=WIDTH_PX / overview.PAGE_IN, facecolor="white",
                        pil_kwargs={"compress_level": 0})
    picture = Image.open(drawn).convert("RGB")
    for width, quality in SIZES:
        height = round(picture.height * width / picture.width)
        result = BytesIO()
        picture.resize((width, height), Image.Resampling.LANCZOS).save(
            result, "JPEG", quality=quality, optimize=True, progressive=True)
        if result.tell() <= BYTES:
            break
    return result.getvalue()
