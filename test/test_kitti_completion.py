"""KITTI depth completion, on small files in its published layout."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.kitti_completion import KittiCompletion

SIZE = (20, 40)
DRIVE = "2011_10_03_drive_0047_sync"
K = "7.188560e+02 0.0 5.980000e+02 0.0 7.180000e+02 1.720000e+02 0.0 0.0 1.0"


def write_frame(folder, number=761, camera="image_02", drive=DRIVE):
    """One frame of val_selection_cropped; returns its four files."""
    names = {"image": f"{drive}_image_{number:010d}_{camera}.png",
             "velodyne_raw": f"{drive}_velodyne_raw_{number:010d}_{camera}.png",
             "groundtruth_depth": f"{drive}_groundtruth_depth_{number:010d}_{camera}.png",
             "intrinsics": f"{drive}_image_{number:010d}_{camera}.txt"}
    image = np.zeros((*SIZE, 3), np.uint8)
    image[..., 2] = 250  # red, as OpenCV writes
    points, truth = np.zeros(SIZE, np.uint16), np.zeros(SIZE, np.uint16)
    points[10, 5], points[10, 7], points[10, 30] = 4 * 256, 20 * 256 + 1, 20 * 256 + number
    truth[3, 4] = 80 * 256 + 128
    for kind, values in (("image", image), ("velodyne_raw", points), ("groundtruth_depth", truth)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / kind / names[kind]), values)
    (folder / "intrinsics").mkdir(exist_ok=True)
    (folder / "intrinsics" / names["intrinsics"]).write_text(K)
    return {kind: folder / kind / name for kind, name in names.items()}


def test_depth_is_in_metres_and_hidden_lidar_points_are_dropped(tmp_path):
    write_frame(tmp_path)
    sample, = KittiCompletion(tmp_path)
    assert sample.name == f"{DRIVE}_0000000761_image_02"
    assert sample.truth[3, 4] == 80.5 and np.count_nonzero(sample.truth) == 1
    # The point at column 7 lies 16 m behind that of column 5; the one at column 30 is alone.
    assert sample.sparse[10, 5] == 4 and sample.sparse[10, 30] == 20 + 761 / 256
    assert np.count_nonzero(sample.sparse) == 2
    assert tuple(sample.image[0, 0]) == (250, 0, 0)


def test_intrinsics_are_the_nine_numbers_of_their_file(tmp_path):
    write_frame(tmp_path)
    camera = KittiCompletion(tmp_path)[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (718.856, 718.0, 598.0, 172.0)
    assert (camera.width, camera.height) == SIZE[::-1]


def test_the_files_of_a_frame_are_matched_by_their_names(tmp_path):
    """Sorted by name, the four folders do not have the same order of drives."""
    write_frame(tmp_path, 5, "image_03")
    write_frame(tmp_path, 5)
    write_frame(tmp_path, 7, drive="2011_09_26_drive_0002_sync")
    frames = KittiCompletion(tmp_path)
    assert frames.names == ["2011_09_26_drive_0002_sync_0000000007_image_02",
                            f"{DRIVE}_0000000005_image_02", f"{DRIVE}_0000000005_image_03"]
    assert [s.sparse[10, 30] * 256 - 20 * 256 for s in frames] == [7, 5, 5]


@pytest.mark.parametrize("inside", [
    "val_selection_cropped", "depth_selection/val_selection_cropped",
    "data_depth_selection/val_selection_cropped"])
def test_the_folder_may_be_that_of_the_archive(tmp_path, inside):
    write_frame(tmp_path / inside)
    assert len(KittiCompletion(tmp_path)) == 1


def test_a_wrong_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(BadInput, match="image, velodyne_raw, .*none of them.*data_depth_selection"):
        KittiCompletion(tmp_path)
    write_frame(tmp_path)["velodyne_raw"].unlink()
    (tmp_path / "velodyne_raw").rmdir()
    with pytest.raises(BadInput, match="only image, groundtruth_depth, intrinsics"):
        KittiCompletion(tmp_path)


def test_images_of_other_names_are_refused(tmp_path):
    write_frame(tmp_path)["image"].rename(tmp_path / "image" / "0000000000.png")
    with pytest.raises(BadInput, match="holds 1 PNG files, none named DRIVE_sync_image"):
        KittiCompletion(tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path):
    files = write_frame(tmp_path)
    frames = KittiCompletion(tmp_path)
    files["intrinsics"].write_text("P2: 1 2 3")
    with pytest.raises(BadInput, match=f"{files['intrinsics']} gives no intrinsics"):
        frames[0]
    cv2.imwrite(str(files["groundtruth_depth"]), np.zeros(SIZE, np.uint8))
    with pytest.raises(BadInput, match=f"{files['groundtruth_depth']} is uint8.*16 bits"):
        frames[0]
    files["velodyne_raw"].unlink()
    with pytest.raises(BadInput, match=f"{files['velodyne_raw']} does not exist"):
        frames[0]
