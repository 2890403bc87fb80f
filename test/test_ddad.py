"""DDAD, on small files in the layout that VPP4DC's converter writes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.ddad import Ddad

SIZE = (19, 31)


def write_frame(folder, number=0):
    """One frame of the folder val, with the converter's own calls; returns its stem."""
    depth = np.zeros(SIZE)
    depth[9, 3], depth[9, 5], depth[9, 25], depth[2, 2] = 12, 13.75, 201.5, 30 + number
    hints = np.where(depth == 30 + number, 0, depth)
    image = np.zeros((*SIZE, 3), np.uint8)
    image[..., 2] = 250  # red, as OpenCV writes
    for kind, values in (("rgb", image), ("gt", (depth * 256.0).astype(np.uint16)),
                         ("hints", (hints * 256.0).astype(np.uint16))):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / kind / f"{number:010d}.png"), values)
    (folder / "intrinsics").mkdir(exist_ok=True)
    np.savetxt(folder / "intrinsics" / f"{number:010d}.txt",
               np.array([[2181.5, 0, 928.0], [0, 2182.5, 615.9], [0, 0, 1]]))
    return f"{number:010d}"


def test_the_reference_is_the_lidar_and_hidden_points_are_not_given(tmp_path):
    write_frame(tmp_path)
    sample, = Ddad(tmp_path)
    assert sample.name == "0000000000"
    assert sorted(sample.truth[sample.truth > 0]) == [12, 13.75, 30, 201.5]
    # 13.75 m lies 1.75 m behind the point two pixels beside it.
    assert sorted(sample.sparse[sample.sparse > 0]) == [12, 201.5]
    assert tuple(sample.image[0, 0]) == (250, 0, 0)


def test_intrinsics_are_the_matrix_of_their_file(tmp_path):
    write_frame(tmp_path)
    camera = Ddad(tmp_path)[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (2181.5, 2182.5, 928.0, 615.9)
    assert (camera.width, camera.height) == SIZE[::-1]


@pytest.mark.parametrize("inside", [".", "val", "pregenerated/val"])
def test_the_folder_may_be_that_of_the_archive(tmp_path, inside):
    for number in (0, 3949):
        write_frame(tmp_path / inside, number)
    frames = Ddad(tmp_path)
    assert frames.names == ["0000000000", "0000003949"]
    assert frames[1].truth[2, 2] == np.float32((30 + 3949) * 256 % 65536 / 256)


def test_a_wrong_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(BadInput, match="rgb, gt, hints, intrinsics in .*none.*ddad_pregenerated"):
        Ddad(tmp_path)
    for kind in ("rgb", "gt", "hints", "intrinsics"):
        (tmp_path / kind).mkdir()
    with pytest.raises(BadInput, match="gt holds no PNG files"):
        Ddad(tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path):
    name = write_frame(tmp_path)
    (tmp_path / "hints" / f"{name}.png").write_bytes(b"no PNG")
    with pytest.raises(BadInput, match=f"hints/{name}.png is not an image"):
        Ddad(tmp_path)[0]
    (tmp_path / "rgb" / f"{name}.png").unlink()
    with pytest.raises(BadInput, match=f"rgb/{name}.png does not exist"):
        Ddad(tmp_path)[0]
