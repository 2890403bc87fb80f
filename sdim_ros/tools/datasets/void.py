"""VOID: indoor and outdoor walks, with the sparse points of a visual-inertial odometry.

A. Wong et al., "Unsupervised Depth Completion from Visual Inertial Odometry", RA-L 2020,
https://github.com/alexklwong/void-dataset
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.files import (
    find_folder, read_camera_text, read_image, read_registered_depth,
)
from sdim_ros.tools.datasets.frames import Frames, Sample

DENSITIES = (150, 500, 1500)
UNITS_PER_M = 256.0
LISTS = ("test_image.txt", "test_sparse_depth.txt", "test_ground_truth.txt",
         "test_intrinsics.txt")
# The range that the authors of the set judge in; the protocol judges everything.
CLIP_M = (0.2, 5.0)
WHERE = "VOID: void_release.zip from https://github.com/alexklwong/void-dataset"


class Void(Frames):
    """The test frames of one density, as the lists of the release name them.

    The folder is ``void_release``, the folder of the density in it, or the folder around them.

    Args:
        density: 150, 500 or 1500, the most points a frame has.
        clip: judge only what is nearer than 5 m and farther than 0.2 m.

    Raises:
        BadInput: lists or images are not there, or belong to another density.
    """

    def __init__(self, folder: str | Path, density: int, clip: bool = False) -> None:
        name = f"void_{density}"
        lists = find_folder(
            Path(folder), (name, f"void_release/{name}", str(density)), LISTS, f"{name} of {WHERE}")
        columns = [(lists / file).read_text(encoding="utf-8").split() for file in LISTS]
        lengths = [len(column) for column in columns]
        if len(set(lengths)) > 1 or not lengths[0]:
            raise BadInput(
                "dataset", f"{lists}: the lists {', '.join(LISTS)} have "
                f"{', '.join(map(str, lengths))} lines: expected as many in each; unpack "
                "void_release.zip again")
        self.rows = list(zip(*columns))
        self.root, self.clip = _root(lists, self.rows[0][0], name), clip
        self.names = [_name(row[0]) for row in self.rows]

    def read(self, number: int) -> Sample:
        image_path, sparse_path, truth_path, camera_path = (
            self.root / path for path in self.rows[number])
        image = read_image(image_path)
        size = image.shape[:2]
        truth = read_registered_depth(truth_path, UNITS_PER_M, size)
        if self.clip:
            truth = np.where((truth > CLIP_M[0]) & (truth < CLIP_M[1]), truth, np.float32(0))
        return Sample(self.names[number], image,
                      read_registered_depth(sparse_path, UNITS_PER_M, size), truth,
                      read_camera_text(camera_path, size))


def _root(lists: Path, image: str, name: str) -> Path:
    """The folder that the paths of the lists start from."""
    named = re.search(r"void_(\d+)(?=/)", image)
    if named and named[0] != name:
        raise BadInput(
            "dataset", f"{lists / LISTS[0]} lists {named[0]}, not {name}: expected {name} of "
            f"{WHERE}")
    places = (lists.parent, lists)
    for place in places:
        if (place / image).is_file():
            return place
    raise BadInput(
        "dataset", f"{lists / LISTS[0]} names {image}, which lies neither in {places[0]} nor in "
        f"{places[1]}: expected the folders of {WHERE}")


def _name(image: str) -> str:
    """sequence/timestamp of .../data/SEQUENCE/image/TIMESTAMP.png."""
    path = Path(image)
    return f"{path.parent.parent.name}/{path.stem}"
