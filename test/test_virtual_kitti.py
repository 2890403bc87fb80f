"""Virtual KITTI 2, on small files in its published format."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.catalogue import open_source
from sdim_ros.tools.datasets.virtual_kitti import VirtualKitti
from sdim_ros.tools.training.data_recipe import SourceRecipe


def write_frame(folder, scene="Scene02", variation="clone", camera=0, number=0, depth=None,
                parts=("", ""), size=(375, 1242)):
    image_folder, depth_folder = (
        folder / part / scene / variation / "frames" / kind / f"Camera_{camera}"
        for part, kind in zip(parts, ("rgb", "depth")))
    for path in (image_folder, depth_folder):
        path.mkdir(parents=True, exist_ok=True)
    image = np.zeros((*size, 3), np.uint8)
    image[..., 2] = 250  # red, as OpenCV writes
    cv2.imwrite(str(image_folder / f"rgb_{number:05d}.jpg"), image)
    path = depth_folder / f"depth_{number:05d}.png"
    centimetres = np.full(size, 1234, np.uint16) if depth is None else depth
    cv2.imwrite(str(path), centimetres)
    return path


def test_centimetres_become_metres_and_the_sky_is_unknown(tmp_path):
    centimetres = np.full((375, 1242), 1234, np.uint16)
    centimetres[0, :3] = 65535, 65534, 0
    write_frame(tmp_path, depth=centimetres)
    sample = VirtualKitti(tmp_path)[0]
    assert sample.truth.dtype == np.float32
    np.testing.assert_array_equal(
        sample.truth[0, :4], np.array([0, 655.34, 0, 12.34], np.float32))
    assert sample.image[0, 0, 0] > 200 > 50 > sample.image[0, 0, 2]
    assert sample.sparse is None


def test_the_camera_is_the_published_one(tmp_path):
    write_frame(tmp_path)
    camera = VirtualKitti(tmp_path)[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (725.0087, 725.0087, 620.5, 187.0)
    assert (camera.width, camera.height) == (1242, 375)
    small = tmp_path / "small"
    write_frame(small, size=(30, 100))
    assert VirtualKitti(small)[0].camera is None


def test_scenes_variations_and_both_cameras_are_found(tmp_path):
    for variation, camera, number in (("clone", 0, 0), ("15-deg-left", 1, 12), ("fog", 0, 3)):
        write_frame(tmp_path, "Scene18", variation, camera, number, size=(30, 100))
    frames = open_source(SourceRecipe("virtual_kitti", folder=tmp_path))
    assert frames.names == [
        "Scene18/15-deg-left/frames/rgb/Camera_1/00012",
        "Scene18/clone/frames/rgb/Camera_0/00000", "Scene18/fog/frames/rgb/Camera_0/00003"]


def test_the_folders_of_the_archives_may_lie_side_by_side(tmp_path):
    write_frame(tmp_path, parts=("vkitti_2.0.3_rgb", "vkitti_2.0.3_depth"), size=(30, 100))
    assert (VirtualKitti(tmp_path)[0].truth == np.float32(12.34)).all()


def test_scene01_is_held_out_where_others_train(tmp_path):
    write_frame(tmp_path, "Scene01", size=(30, 100))
    for number in range(2):
        write_frame(tmp_path, "Scene06", number=number, size=(30, 100))
    assert VirtualKitti(tmp_path).held_out.tolist() == [True, False, False]


def test_one_scene_alone_holds_out_its_last_frames(tmp_path):
    for number in range(3):
        write_frame(tmp_path, "Scene01", number=number, size=(30, 100))
    assert VirtualKitti(tmp_path).held_out.tolist() == [False, False, True]


def test_what_judges_shares_no_place_with_what_trains(tmp_path):
    """Weathers and cameras of a scene have the same depth."""
    for scene in ("Scene02", "Scene18"):
        write_frame(tmp_path / "two", scene, size=(30, 100))
    assert VirtualKitti(tmp_path / "two").held_out.tolist() == [False, True]
    for weather in ("clone", "fog"):
        for number in range(3):
            write_frame(tmp_path / "one", "Scene02", weather, number=number, size=(30, 100))
    held = VirtualKitti(tmp_path / "one")
    assert [name[-1] for name, judges in zip(held.names, held.held_out) if judges] == ["2", "2"]


def test_frames_that_lack_a_file_are_left_out(tmp_path):
    write_frame(tmp_path, number=0, size=(30, 100))
    write_frame(tmp_path, number=1, size=(30, 100)).unlink()
    assert len(VirtualKitti(tmp_path)) == 1


def test_an_empty_folder_says_which_layout_was_expected(tmp_path):
    with pytest.raises(BadInput, match=f"{tmp_path} holds no frames.*SceneXX/VARIATION/frames"):
        VirtualKitti(tmp_path)


def test_damaged_and_mismatched_files_are_named(tmp_path):
    path = write_frame(tmp_path, size=(30, 100))
    cv2.imwrite(str(path), np.zeros((30, 50), np.uint16))
    with pytest.raises(BadInput, match=f"{path} is 50x30, its image is 100x30"):
        VirtualKitti(tmp_path)[0]
    cv2.imwrite(str(path), np.zeros((30, 100), np.uint8))
    with pytest.raises(BadInput, match=f"{path} is uint8.*16 bits"):
        VirtualKitti(tmp_path)[0]
