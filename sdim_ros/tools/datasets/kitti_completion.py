"""KITTI depth completion: the validation selection, with filtered LiDAR points.

J. Uhrig et al., "Sparsity Invariant CNNs", 3DV 2017,
https://www.cvlibs.net/datasets/kitti/eval_depth.php?benchmark=depth_completion
"""

from __future__ import annotations

import re
from pathlib import Path

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.files import (
    find_folder, read_camera_text, read_image, read_registered_depth,
)
from sdim_ros.tools.datasets.frames import Frames, Sample
from sdim_ros.tools.datasets.protocol_filter import drop_hidden_points

UNITS_PER_M = 256.0
FOLDERS = ("image", "velodyne_raw", "groundtruth_depth", "intrinsics")
PARENT = "val_selection_cropped"
WHERE = (f"KITTI depth completion: {PARENT} from https://s3.eu-central-1.amazonaws.com/"
         "avg-kitti/data_depth_selection.zip")
# 2011_10_03_drive_0047_sync_image_0000000761_image_02; other folders name themselves in it.
IMAGE_NAME = re.compile(r"(.+_sync)_image_(\d{10})_(image_0[23])")


class KittiCompletion(Frames):
    """The 1000 frames of 1216 x 352, with the LiDAR points that the camera can see.

    Raises:
        BadInput: a folder is missing or holds no frames; names what was looked for.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = find_folder(
            Path(folder), (PARENT, f"depth_selection/{PARENT}", f"data_depth_selection/{PARENT}"),
            FOLDERS, WHERE)
        images = sorted(path.stem for path in (self.folder / "image").glob("*.png"))
        self.parts = [match.groups() for match in map(IMAGE_NAME.fullmatch, images) if match]
        if not self.parts:
            raise BadInput(
                "dataset", f"{self.folder / 'image'} holds {len(images)} PNG files, none named "
                f"DRIVE_sync_image_NUMBER_image_02.png: expected {WHERE}")
        self.names = ["_".join(parts) for parts in self.parts]

    def read(self, number: int) -> Sample:
        image = read_image(self._path(number, "image", "image", ".png"))
        size = image.shape[:2]
        points, truth = (
            read_registered_depth(self._path(number, kind, kind, ".png"), UNITS_PER_M, size)
            for kind in ("velodyne_raw", "groundtruth_depth"))
        camera = read_camera_text(self._path(number, "intrinsics", "image", ".txt"), size)
        return Sample(self.names[number], image, drop_hidden_points(points), truth, camera)

    def _path(self, number: int, folder: str, kind: str, ending: str) -> Path:
        drive, frame, camera = self.parts[number]
        return self.folder / folder / f"{drive}_{kind}_{frame}_{camera}{ending}"
