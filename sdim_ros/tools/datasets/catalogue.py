"""Opens a dataset by its name or its kind."""

from __future__ import annotations

from collections.abc import Sequence

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.frames import Frames, Sample
from sdim_ros.tools.datasets.frames_folder import FramesFolder
from sdim_ros.tools.datasets.motorcycle import motorcycle
from sdim_ros.tools.training.data_recipe import SourceRecipe

# A real scene from a package, and rendered scenes that no training sees.
DATASETS = ("motorcycle", "procedural")


def open_dataset(folder: str | None, name: str | None) -> Sequence[Sample]:
    """A frames folder by its path, or a known dataset by its name; exactly one of the two."""
    if (folder is None) == (name is None):
        raise BadInput("dataset", "give exactly one of --data FOLDER and --dataset NAME")
    if name == "procedural":
        from sdim_ros.tools.scene_cache import ReservedScenes
        return ReservedScenes()
    return FramesFolder(folder) if folder is not None else [motorcycle()]


def open_source(source: SourceRecipe) -> Frames:
    """The frames of a recipe's source, other than rendered scenes.

    Raises:
        BadInput: nothing of that kind is there; names the files looked for and the remedy.
    """
    # Imported here: each needs packages of its own.
    if source.kind == "hypersim":
        from sdim_ros.tools.datasets.hypersim import Hypersim
        return Hypersim(source.folder)
    if source.kind == "virtual_kitti":
        from sdim_ros.tools.datasets.virtual_kitti import VirtualKitti
        return VirtualKitti(source.folder)
    if source.kind == "bag":
        from sdim_ros.tools.datasets.bag_frames import BagFrames
        return BagFrames(source.folder, source.topics, source.extrinsics)
    return FramesFolder(source.folder)
