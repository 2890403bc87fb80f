"""VOID, on small files in the layout of its release."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.catalogue import open_dataset
from sdim_ros.tools.datasets.void import Void

SIZE = (12, 16)
K = "5.471837e+02 0.0 3.204e+02\n0.0 5.471e+02 2.405e+02\n0.0 0.0 1.0\n"
PARTS = ("image", "sparse_depth", "validity_map", "ground_truth")


def write_release(root, density=150, frames=2, prefix=None):
    """A folder void_N: six lists for testing, and the files of one sequence."""
    folder = root / f"void_{density}"
    prefix = f"void_{density}/" if prefix is None else prefix
    sequence = f"{prefix}data/mechanical_lab3"
    base = root if prefix else folder
    lists = {part: [] for part in (*PARTS, "absolute_pose", "intrinsics")}
    for number in range(frames):
        stamp = f"155209796{number}.1370"
        for part in PARTS:
            path = base / sequence / part / f"{stamp}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture(part, number))
            lists[part].append(f"{sequence}/{part}/{stamp}.png")
        lists["absolute_pose"].append(f"{sequence}/absolute_pose/{stamp}.txt")
        lists["intrinsics"].append(f"{sequence}/K.txt")
    (base / sequence / "K.txt").write_text(K)
    folder.mkdir(exist_ok=True)
    for part, lines in lists.items():
        (folder / f"test_{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


def picture(part, number):
    if part == "image":
        image = np.zeros((*SIZE, 3), np.uint8)
        image[..., 2] = 250  # red, as OpenCV writes
        return image
    depth = np.zeros(SIZE, np.uint16)
    if part == "sparse_depth":
        depth[3, 4] = 640 + number
    if part == "ground_truth":
        depth[0, :6] = 51, 52, 256, 1279, 1280, 1500
    return depth


def test_the_lists_name_image_points_reference_and_intrinsics(tmp_path):
    write_release(tmp_path)
    frames = Void(tmp_path, 150)
    assert frames.names == ["mechanical_lab3/1552097960.1370", "mechanical_lab3/1552097961.1370"]
    sample = frames[1]
    assert sample.sparse[3, 4] == 641 / 256 and np.count_nonzero(sample.sparse) == 1
    np.testing.assert_array_equal(
        sample.truth[0, :7], np.array([51, 52, 256, 1279, 1280, 1500, 0], np.float32) / 256)
    assert tuple(sample.image[0, 0]) == (250, 0, 0)
    camera = sample.camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (547.1837, 547.1, 320.4, 240.5)


def test_the_validity_map_is_not_applied(tmp_path):
    write_release(tmp_path)  # its validity maps are 0 everywhere
    assert Void(tmp_path, 150)[0].truth.any()


def test_clipping_judges_what_lies_between_0_2_and_5_metres(tmp_path):
    write_release(tmp_path)
    sample = Void(tmp_path, 150, clip=True)[0]
    np.testing.assert_array_equal(  # 51 / 256 = 0.199 m, 1280 / 256 = 5 m
        sample.truth[0, :6], np.array([0, 52, 256, 1279, 0, 0], np.float32) / 256)
    assert sample.sparse[3, 4] == 2.5


@pytest.mark.parametrize("given", ["", "void_release", "void_release/void_500"])
def test_the_folder_may_be_the_release_or_the_density(tmp_path, given):
    (tmp_path / "void_release").mkdir()
    write_release(tmp_path / "void_release", 500)
    assert len(Void(tmp_path / given, 500)) == 2


def test_paths_may_start_in_the_folder_of_the_lists(tmp_path):
    folder = write_release(tmp_path, 1500, prefix="")
    assert Void(folder, 1500)[0].sparse.any()


def test_each_density_has_its_own_name(tmp_path):
    for density in (150, 500, 1500):
        write_release(tmp_path, density, frames=density // 150)
    for density in (150, 500, 1500):
        assert len(open_dataset(str(tmp_path), f"void_{density}")) == density // 150


def test_a_wrong_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(BadInput, match=f"test_image.txt.*{tmp_path}/void_150.*none of them"):
        Void(tmp_path, 150)
    folder = write_release(tmp_path)
    (folder / "test_intrinsics.txt").unlink()
    with pytest.raises(BadInput, match="only test_image.txt, test_sparse_depth.txt.*void_release"):
        Void(tmp_path, 150)


def test_the_lists_of_another_density_are_refused(tmp_path):
    folder = write_release(tmp_path, 1500)
    with pytest.raises(BadInput, match="test_image.txt lists void_1500, not void_150"):
        Void(folder, 150)


def test_lists_of_unequal_length_are_refused(tmp_path):
    (write_release(tmp_path) / "test_ground_truth.txt").write_text("one\n")
    with pytest.raises(BadInput, match="have 2, 2, 1, 2 lines"):
        Void(tmp_path, 150)


def test_lists_without_their_images_are_refused(tmp_path):
    folder = write_release(tmp_path)
    (folder / "data" / "mechanical_lab3" / "image" / "1552097960.1370.png").unlink()
    with pytest.raises(BadInput, match="neither in .* nor in"):
        Void(tmp_path, 150)


def test_damaged_files_are_named(tmp_path):
    data = write_release(tmp_path) / "data" / "mechanical_lab3"
    frames = Void(tmp_path, 150)
    (data / "K.txt").write_text("1 2 3")
    with pytest.raises(BadInput, match="K.txt gives no intrinsics.*nine numbers"):
        frames[0]
    path = data / "ground_truth" / "1552097960.1370.png"
    cv2.imwrite(str(path), np.zeros((5, 5), np.uint16))
    with pytest.raises(BadInput, match=f"{path} is 5x5, its image is 16x12"):
        frames[0]
    (data / "image" / "1552097960.1370.png").write_bytes(b"no PNG")
    with pytest.raises(BadInput, match="1552097960.1370.png is not an image"):
        frames[0]
