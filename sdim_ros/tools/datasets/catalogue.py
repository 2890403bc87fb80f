"""Opens a dataset by its name or its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets import (
    ddad, hypersim, ibims, kitti_completion, nyuv2, virtual_kitti, void,
)
from sdim_ros.tools.datasets.frames import Frames, Sample
from sdim_ros.tools.datasets.frames_folder import FramesFolder
from sdim_ros.tools.datasets.motorcycle import motorcycle
from sdim_ros.tools.training.data_recipe import SourceRecipe

# A real scene from a package, and rendered scenes that no training sees.
BUILT_IN = ("motorcycle", "procedural")
# The benchmarks of the paper, each measured as its protocol says: how they are opened, and which
# files they need from where.
PROTOCOLS: dict[str, tuple[Callable[..., Frames], str]] = {
    "nyuv2": (nyuv2.open_nyuv2, nyuv2.WHERE),
    "ibims1": (ibims.Ibims, ibims.WHERE),
    **{f"void_{density}": (partial(void.Void, density=density), void.WHERE)
       for density in void.DENSITIES},
    "kitti_completion": (kitti_completion.KittiCompletion, kitti_completion.WHERE),
    "ddad": (ddad.Ddad, ddad.WHERE),
}
# Sets that the paper trains on, judged at the frames that no training sees.
HELD_OUT: dict[str, tuple[Callable[..., Frames], str]] = {
    "hypersim": (hypersim.Hypersim,
                 f"{hypersim.LAYOUT}, from https://github.com/apple/ml-hypersim"),
    "virtual_kitti": (virtual_kitti.VirtualKitti,
                      f"{virtual_kitti.LAYOUT}, from Virtual KITTI 2"),
}
DATASETS = (*BUILT_IN, *PROTOCOLS, *HELD_OUT)


def open_dataset(
    folder: str | None, name: str | None, void_clip: bool = False
) -> Sequence[Sample]:
    """What ``--data`` and ``--dataset`` mean together.

    Args:
        folder: a frames folder where it stands alone, else the files of the named dataset.
        name: one of `DATASETS`. Those of `BUILT_IN` need no folder.
        void_clip: judge VOID from 0.2 to 5 m only, as its authors do.

    Raises:
        BadInput: one of the two is missing or too much, or the folder does not hold the dataset;
            says what is needed and where to get it.
    """
    if void_clip and not (name or "").startswith("void_"):
        raise BadInput("dataset", "--void-clip is for VOID: expected --dataset void_150, void_500 "
                       "or void_1500 with it")
    if name is None:
        if folder is None:
            raise BadInput("dataset", "nothing to read: give --data FOLDER, a frames folder, or "
                           f"--dataset NAME, one of {', '.join(DATASETS)}")
        return FramesFolder(folder)
    if name in BUILT_IN:
        return _built_in(name, folder)
    if name not in DATASETS:
        raise BadInput("dataset", f"--dataset {name}: expected one of {', '.join(DATASETS)}")
    opened, where = (PROTOCOLS | HELD_OUT)[name]
    if folder is None:
        raise BadInput(
            "dataset", f"--dataset {name} needs --data FOLDER, where its files lie: {where}")
    frames = opened(folder, **({"clip": True} if void_clip else {}))
    return _HeldOut(frames) if name in HELD_OUT else frames


def open_source(source: SourceRecipe) -> Frames:
    """The frames of a recipe's source, other than rendered scenes.

    Raises:
        BadInput: nothing of that kind is there; names the files looked for and the remedy.
    """
    if source.kind == "hypersim":
        return hypersim.Hypersim(source.folder)
    if source.kind == "virtual_kitti":
        return virtual_kitti.VirtualKitti(source.folder)
    if source.kind == "bag":
        # Imported here: bags need a package of their own.
        from sdim_ros.tools.datasets.bag_frames import BagFrames
        return BagFrames(source.folder, source.topics, source.extrinsics)
    return FramesFolder(source.folder)


def _built_in(name: str, folder: str | None) -> Sequence[Sample]:
    if folder is not None:
        raise BadInput(
            "dataset", f"--dataset {name} needs no files, --data {folder} is another dataset: "
            "give one of the two")
    if name == "procedural":
        from sdim_ros.tools.scene_cache import ReservedScenes
        return ReservedScenes()
    return [motorcycle()]


class _HeldOut(Frames):
    """The frames of a dataset that never train."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.numbers = np.flatnonzero(frames.held_out)
        self.names = [frames.names[number] for number in self.numbers]

    def read(self, number: int) -> Sample:
        return self.frames.read(int(self.numbers[number]))
