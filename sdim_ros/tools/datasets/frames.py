"""One frame of a dataset, and a sequence of frames that are read when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdim_ros.core.types import BadInput, Camera, Frame

# Of frames without a time of their own; the same every time, since random draws depend on it.
FIRST_STAMP_NS = 1_400_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame of a dataset.

    Attributes:
        name: file name without its ending.
        image: (H, W, 3) uint8, RGB.
        sparse: (H, W) float32, what the sensor measured in metres, 0 = nothing; None = no file.
        truth: (H, W) float32, the reference in metres, 0 = unknown; None = no file.
        camera: intrinsics, where known.
        stamp_ns: time in nanoseconds, 0 where unknown.
        has_sensor: other frames of the set have a sensor's map: the reference is no input then.
    """

    name: str
    image: np.ndarray
    sparse: np.ndarray | None
    truth: np.ndarray | None
    camera: Camera | None = None
    stamp_ns: int = 0
    has_sensor: bool = False

    @property
    def measured(self) -> np.ndarray:
        """(H, W) float32, where inputs are drawn from: the sensor's map, else the reference.

        Raises:
            BadInput: ``no_sparse``, ``no_depth``: there is none.
        """
        if self.sparse is None and self.truth is not None and self.has_sensor:
            raise BadInput("no_sparse", f"frame {self.name} has no sparse/{self.name}.png: "
                           "expected one as other frames have it; a reference is no input then")
        return self._first(self.sparse, self.truth)

    @property
    def reference(self) -> np.ndarray:
        """(H, W) float32, what a prediction is judged by: the reference, else the sensor's map."""
        return self._first(self.truth, self.sparse)

    def frame(self, sparse: np.ndarray) -> Frame:
        """The input of the method, with this sparse depth."""
        return Frame(self.image, sparse, self.camera, self.stamp_ns, self.name)

    def _first(self, *maps: np.ndarray | None) -> np.ndarray:
        for depth in maps:
            if depth is not None:
                return depth
        raise BadInput(
            "no_depth",
            f"frame {self.name} has neither a sparse nor a gt depth map: expected "
            f"sparse/{self.name}.png or gt/{self.name}.png")


class Frames(Sequence[Sample]):
    """Frames that are read when they are asked for.

    Attributes:
        names: of all frames, known without reading them.
        protocol_points: how many of the reference's points a benchmark has drawn as input; None =
            its points are there, or it is none.
    """

    names: Sequence[str]
    protocol_points: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        return self.read(range(len(self))[position])

    @abstractmethod
    def read(self, number: int) -> Sample:
        """The frame at a place from 0 to the length, less one."""

    @property
    def held_out(self) -> np.ndarray:
        """(N,) bool: frames that never train and may judge; here the last tenth.

        One piece at the end: neighbours in time look alike.
        """
        return np.arange(len(self)) >= len(self) - max(len(self) // 10, int(len(self) > 1))


def file_name(name: str) -> str:
    """Of a frame, where all lie in one folder: folders in its name become a part of the file's."""
    return name.replace("/", "__")


def protocol_points(samples: Sequence[Sample]) -> str | None:
    """As in `Frames`."""
    return samples.protocol_points if isinstance(samples, Frames) else None


def frame_names(samples: Sequence[Sample]) -> list[str]:
    """The names of all frames, without reading those of a folder."""
    if isinstance(samples, Frames):
        return list(samples.names)
    return [sample.name for sample in samples]
