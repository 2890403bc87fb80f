"""Depth maps that another program made of the same input, judged as a method of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.files import read_depth

ENDINGS = (".npy", ".png")
DEFAULT_SCALE = 256.0


class Predictions:
    """A folder with one depth map for every frame.

    Args:
        folder: holds NAME.npy in metres or NAME.png of 16 bits; a name with slashes is a path.
        names: of the frames that will be judged.
        scale: metres = PNG value / scale.

    Attributes:
        method: the folder's name.

    Raises:
        BadInput: a frame has no map. All frames count, or the comparison would not be fair.
    """

    def __init__(self, folder: Path, names: Sequence[str], scale: float) -> None:
        self.folder, self.scale = folder, scale
        self.method = folder.resolve().name
        if not folder.is_dir():
            raise BadInput("predictions", f"--predictions {folder}: expected a folder")
        without = [name for name in names if self._path(name) is None]
        if without:
            raise BadInput(
                "predictions", f"{folder} has no map for {len(without)} of {len(names)} frames, "
                f"first {without[0]}: expected {without[0]}.npy in metres or {without[0]}.png")

    def read(self, name: str, size: tuple[int, int]) -> np.ndarray:
        """(H, W) float32 metres of a frame; 0, NaN, inf and negative = missing.

        Raises:
            BadInput: the map cannot be read or has another size.
        """
        path = self._path(name)
        depth = read_depth(path, self.scale)
        if depth.shape != size:
            raise BadInput(
                "size_mismatch", f"{path} is {depth.shape[1]}x{depth.shape[0]}, the frame "
                f"{size[1]}x{size[0]}: expected the same size; it is never resized here, since "
                "that makes depth up at edges")
        return depth

    def files(self, names: Iterable[str]) -> list[list[Any]]:
        """Path, size and time of change of the maps of these frames."""
        paths = [self._path(name) for name in names]
        return [[str(p), p.stat().st_size, p.stat().st_mtime] for p in paths if p is not None]

    def _path(self, name: str) -> Path | None:
        paths = (self.folder / (name + ending) for ending in ENDINGS)
        return next((path for path in paths if path.is_file()), None)


def open_predictions(text: str, names: Sequence[str], taken: Collection[str]) -> Predictions:
    """``FOLDER`` or ``FOLDER=SCALE`` as the flag has it.

    Args:
        taken: names of methods that there are already.
    """
    folder, scale_text = text, ""
    if "=" in text and not Path(text).is_dir():  # a name may hold one too
        folder, _, scale_text = text.rpartition("=")
    try:
        scale = float(scale_text) if scale_text else DEFAULT_SCALE
    except ValueError:
        scale = 0.0
    if not 0 < scale < float("inf"):
        raise BadInput("predictions", f"--predictions {text}: expected FOLDER or FOLDER=SCALE "
                       "with a scale above 0, such as 1000 for millimetres")
    predictions = Predictions(Path(folder), names, scale)
    if predictions.method in taken:
        raise BadInput("predictions", f"--predictions {text}: there is a method "
                       f"{predictions.method} already; rename the folder to the method that made "
                       "the maps")
    return predictions
