"""DDAD: long-range LiDAR of driving, front camera, in the form that VPP4DC prepared.

V. Guizilini et al., "3D Packing for Self-Supervised Monocular Depth Estimation", CVPR 2020;
L. Bartolomei et al., "Revisiting Depth Completion from a Stereo Matching Perspective for
Cross-domain Generalization", 3DV 2024, https://github.com/bartn8/vppdc
"""

from __future__ import annotations

from pathlib import Path

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.files import (
    find_folder, read_camera_text, read_image, read_registered_depth,
)
from sdim_ros.tools.datasets.frames import Frames, Sample
from sdim_ros.tools.datasets.protocol_filter import drop_hidden_points

UNITS_PER_M = 256.0
FOLDERS = ("rgb", "gt", "hints", "intrinsics")
WHERE = ("DDAD as VPP4DC prepared it: ddad_pregenerated.zip, which "
         "https://github.com/prs-eth/Marigold-DC/blob/main/DATASETS.md links, or the output of "
         "convert_ddad.py of https://github.com/bartn8/vppdc")


class Ddad(Frames):
    """The 3950 validation frames of 1936 x 1216, with a fifth of their LiDAR points.

    Of that fifth only the points that the camera can see are given. The reference is the LiDAR
    itself, filtered when it was prepared.

    Raises:
        BadInput: a folder is missing or holds no frames; names what was looked for.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = find_folder(
            Path(folder), ("val", "pregenerated/val"), FOLDERS, WHERE)
        self.names = sorted(path.stem for path in (self.folder / "gt").glob("*.png"))
        if not self.names:
            raise BadInput("dataset", f"{self.folder / 'gt'} holds no PNG files: expected {WHERE}")

    def read(self, number: int) -> Sample:
        name = self.names[number]
        image = read_image(self.folder / "rgb" / f"{name}.png")
        size = image.shape[:2]
        points, truth = (
            read_registered_depth(self.folder / kind / f"{name}.png", UNITS_PER_M, size)
            for kind in ("hints", "gt"))
        camera = read_camera_text(self.folder / "intrinsics" / f"{name}.txt", size)
        return Sample(name, image, drop_hidden_points(points), truth, camera)
