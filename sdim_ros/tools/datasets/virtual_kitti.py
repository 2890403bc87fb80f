"""Virtual KITTI 2: synthetic streets with dense depth, in the folders that are published.

Y. Cabon, N. Murray, M. Humenberger, "Virtual KITTI 2", 2020, arXiv:2001.10773
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdim_ros.core.types import BadInput, Camera
from sdim_ros.tools.datasets.files import read_image, read_registered_depth
from sdim_ros.tools.datasets.frames import Frames, Sample

UNITS_PER_M = 100.0  # centimetres in 16 bits
SKY = np.iinfo(np.uint16).max  # 655.35 m: the sky, and all that is as far or farther
WIDTH, HEIGHT = 1242, 375
FOCAL_PX, CENTRE_PX = 725.0087, (620.5, 187.0)  # of every frame, as in its intrinsic.txt
HELD_OUT_SCENE = "Scene01"
LAYOUT = ("SceneXX/VARIATION/frames/rgb/Camera_Y/rgb_IIIII.jpg and "
          "SceneXX/VARIATION/frames/depth/Camera_Y/depth_IIIII.png")


class VirtualKitti(Frames):
    """All frames of both cameras, every scene and variation that lie in a folder.

    The scenes lie in the folder itself, or in the folders ``vkitti_2.0.3_rgb`` and
    ``vkitti_2.0.3_depth`` in it. Scene01 is held out, as is usual.

    Raises:
        BadInput: no frames there; names the layout that was expected.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.images, self.depths = (
            self.folder / part if (self.folder / part).is_dir() else self.folder
            for part in ("vkitti_2.0.3_rgb", "vkitti_2.0.3_depth"))
        self.frames = [
            (camera, number) for camera in sorted(self.images.glob("Scene*/*/frames/rgb/Camera_?"))
            for number in self._complete_frames(camera)]
        if not self.frames:
            raise BadInput(
                "dataset", f"{self.folder} holds no frames of Virtual KITTI 2: expected {LAYOUT}, "
                "from vkitti_2.0.3_rgb.tar and vkitti_2.0.3_depth.tar")
        self.names = [f"{camera.relative_to(self.images).as_posix()}/{number}"
                      for camera, number in self.frames]

    @property
    def held_out(self) -> np.ndarray:
        """(N,) bool: Scene01, else the last scene; of a single one the last tenth of its numbers.

        Weathers and both cameras of a scene see the same depths, so none of them is split off.
        """
        scenes = np.array([name.split("/")[0] for name in self.names])
        if len(set(scenes)) > 1:
            return scenes == (HELD_OUT_SCENE if HELD_OUT_SCENE in scenes else max(scenes))
        numbers = np.array([int(number) for _, number in self.frames])
        kept = np.unique(numbers)
        return numbers >= kept[-max(len(kept) // 10, 1)] if len(kept) > 1 else super().held_out

    def read(self, number: int) -> Sample:
        camera, frame = self.frames[number]
        image = read_image(camera / f"rgb_{frame}.jpg")
        path = self._depth_folder(camera) / f"depth_{frame}.png"
        depth = read_registered_depth(path, UNITS_PER_M, image.shape[:2])
        depth[depth >= np.float32(SKY / UNITS_PER_M)] = 0
        # Other sizes than the published one have been resized in a way that is not known here.
        known = Camera(FOCAL_PX, FOCAL_PX, *CENTRE_PX, WIDTH, HEIGHT) if (
            depth.shape == (HEIGHT, WIDTH)) else None
        return Sample(self.names[number], image, None, depth, known)

    def _depth_folder(self, camera: Path) -> Path:
        scene, variation, frames, _, name = camera.relative_to(self.images).parts
        return self.depths / scene / variation / frames / "depth" / name

    def _complete_frames(self, camera: Path) -> list[str]:
        """Numbers of the frames that have both files."""
        pictures = {path.stem.removeprefix("rgb_") for path in camera.glob("rgb_?????.jpg")}
        depths = {path.stem.removeprefix("depth_")
                  for path in self._depth_folder(camera).glob("depth_?????.png")}
        return sorted(pictures & depths)
