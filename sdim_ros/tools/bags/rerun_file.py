"""A recording for the Rerun viewer: what went in, what came out and its error, over time.

``rerun-sdk`` is no dependency of this package; it is imported when a recording is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdim_ros.core.types import BadInput, Camera, DenseDepth, Frame
from sdim_ros.tools.overview import DEPTH_COLOURS, metre_range

TIMELINE = "stamp"
CAMERA = "camera/image"  # what lies under it shares its pixels


class RerunFile:
    """A recording that is written while frames are added; to be used in a ``with`` block.

    Args:
        path: of the .rrd file.

    Raises:
        BadInput: ``rerun``: rerun-sdk is missing or too old, or the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self._rerun = _rerun()
        self._camera: Camera | None = None
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch()
            self._recording = self._rerun.RecordingStream("sdim_replay")
            self._recording.save(path)
        except (OSError, RuntimeError) as problem:
            raise BadInput("rerun", f"--rerun {path} cannot be written: {problem}") from problem
        # Optical frame: x right, y down, z forward.
        self._recording.log("/", self._rerun.ViewCoordinates.RDF, static=True)

    def __enter__(self) -> RerunFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._recording.flush()
        self._recording.disconnect()

    def add(self, frame: Frame, dense: DenseDepth, points: np.ndarray, colours: np.ndarray,
            errors: Mapping[str, float]) -> None:
        """Log one frame at the time of its image.

        Args:
            points, colours: (N, 3) metres in the camera's optical frame, and uint8 RGB.
            errors: mean absolute error in metres by method.
        """
        rerun, log = self._rerun, self._recording.log
        self._recording.set_time(TIMELINE, timestamp=np.datetime64(frame.stamp_ns, "ns"))
        if frame.camera is not None and frame.camera != self._camera:
            self._camera = frame.camera
            log(CAMERA, rerun.Pinhole(
                image_from_camera=self._camera.matrix(), width=self._camera.width,
                height=self._camera.height))
        log(f"{CAMERA}/colour", rerun.Image(frame.image))
        log(f"{CAMERA}/depth", rerun.DepthImage(
            np.nan_to_num(dense.depth, nan=0.0), meter=1.0, colormap="turbo"))
        log(f"{CAMERA}/confidence", rerun.Image((255 * dense.confidence).astype(np.uint8)))
        rows, cols = np.nonzero(frame.sparse > 0)
        depths = frame.sparse[rows, cols]
        shades = DEPTH_COLOURS(metre_range(frame.sparse, dense.depth)(depths))
        log(f"{CAMERA}/measured", rerun.Points2D(
            np.stack([cols, rows], axis=1), colors=(255 * shades).astype(np.uint8), radii=1.5))
        log("camera/points", rerun.Points3D(points.reshape(-1, 3), colors=colours.reshape(-1, 3)))
        for method, error_m in errors.items():
            log(f"error/{method}", rerun.Scalars(error_m))


def _rerun() -> Any:
    try:
        import rerun
    except ImportError as problem:
        raise BadInput("rerun", f"--rerun needs the Rerun SDK ({problem}): pip install rerun-sdk"
                       ) from problem
    version = getattr(rerun, "__version__", "unknown")
    if not hasattr(rerun, "Scalars") or not hasattr(rerun.RecordingStream, "set_time"):
        raise BadInput("rerun", f"--rerun with rerun-sdk {version}: expected 0.23 or newer; "
                       "pip install --upgrade rerun-sdk")
    return rerun
