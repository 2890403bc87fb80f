"""Hypersim, on small files in its published format."""

from __future__ import annotations

import csv
import sys

import cv2
import h5py
import numpy as np
import pytest

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.catalogue import open_source
from sdim_ros.tools.datasets.hypersim import Hypersim
from sdim_ros.tools.training.data_recipe import SourceRecipe

HEIGHT, WIDTH = 48, 64
STANDARD = np.array([[0.5773502886169104, 0, 0], [0, 0.4330127164626828, 0], [0, 0, -1.0]])
TILTED = np.array([[0.5881, 0, 0], [0, 0.4330, 0], [0, 0.1121, -1.0186]])
SHIFTED = np.array([[0.5782, 0, -0.0463], [0, 0.4336, 0.0463], [0, 0, -1.0014]])


def rays(matrix: np.ndarray, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(H, W, 3) unit directions through the pixel centres, by the authors' notebook."""
    u = np.linspace(-1 + 1 / width, 1 - 1 / width, width)
    v = np.linspace(1 - 1 / height, -1 + 1 / height, height)
    uv = np.dstack([*np.meshgrid(u, v), np.ones((height, width))])
    directions = uv @ matrix.T
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def write_frame(folder, scene, frame=0, camera="cam_00", distance=None, size=(HEIGHT, WIDTH)):
    images = folder / scene / "images"
    pictures = images / f"scene_{camera}_final_preview"
    depths = images / f"scene_{camera}_geometry_hdf5"
    for path in (pictures, depths):
        path.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((*size, 3), np.uint8)
    picture[..., 2] = 250  # red, as OpenCV writes
    cv2.imwrite(str(pictures / f"frame.{frame:04d}.tonemap.jpg"), picture)
    with h5py.File(depths / f"frame.{frame:04d}.depth_meters.hdf5", "w") as file:
        values = np.full(size, 2.0) if distance is None else distance
        file.create_dataset("dataset", data=values.astype(np.float16), compression="gzip")
    return depths / f"frame.{frame:04d}.depth_meters.hdf5"


def write_cameras(folder, **matrices):
    entries = {f"M_cam_from_uv_{i}{j}": (i, j) for i in range(3) for j in range(3)}
    with (folder / "metadata_camera_parameters.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["scene_name", "settings_output_img_height", *entries, "M_proj_00"])
        for scene, matrix in matrices.items():
            table.writerow([scene, "768.0", *(matrix[at] for at in entries.values()), "1.73"])


def write_split(folder, **partitions):
    with (folder / "metadata_images_split_scene_v1.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["scene_name", "camera_name", "frame_id", "included_in_public_release",
                        "exclude_reason", "split_partition_name"])
        for scene, partition in partitions.items():
            table.writerow([scene, "cam_00", "0", "True", "", partition])
            table.writerow([scene, "cam_00", "1", "False", "CONTENT FLAGGED FOR REMOVAL", ""])


@pytest.mark.parametrize("matrix", [STANDARD, SHIFTED])
def test_distances_to_the_camera_become_planar_depth(tmp_path, matrix):
    """A wall 3 m ahead has the same depth everywhere, and its points stand on the wall."""
    write_cameras(tmp_path, ai_001_001=matrix)
    write_frame(tmp_path, "ai_001_001", distance=3 / -rays(matrix)[..., 2])
    sample = Hypersim(tmp_path)[0]
    assert sample.truth.dtype == np.float32
    np.testing.assert_allclose(sample.truth, 3.0, rtol=1e-3)  # half precision in the file
    camera, (row, col) = sample.camera, (5, 60)
    x = (col - camera.cx) / camera.fx
    y = (row - camera.cy) / camera.fy
    direction = rays(matrix)[row, col]
    np.testing.assert_allclose([x, y], direction[:2] * (1, -1) / -direction[2], rtol=1e-6)


def test_the_standard_camera_is_the_published_one(tmp_path):
    write_cameras(tmp_path, ai_001_001=STANDARD)
    write_frame(tmp_path, "ai_001_001", size=(768, 1024))
    camera = Hypersim(tmp_path)[0].camera
    assert camera.fx == pytest.approx(886.81, abs=0.01) == camera.fy
    assert (camera.cx, camera.cy) == (511.5, 383.5)


def test_image_is_rgb_and_unknown_distances_are_zero(tmp_path):
    write_cameras(tmp_path, ai_001_001=STANDARD)
    distance = np.full((HEIGHT, WIDTH), 2.0)
    distance[0, :4] = np.nan, np.inf, -1, 0
    write_frame(tmp_path, "ai_001_001", distance=distance)
    sample = Hypersim(tmp_path)[0]
    assert not sample.truth[0, :4].any() and (sample.truth.ravel()[4:] > 0).all()
    assert sample.image[0, 0, 0] > 200 > 50 > sample.image[0, 0, 2]
    assert sample.sparse is None


def test_scenes_with_a_tilted_camera_are_dropped_and_listed(tmp_path):
    write_cameras(tmp_path, ai_001_001=STANDARD, ai_001_002=TILTED)
    for scene in ("ai_001_001", "ai_001_002"):
        write_frame(tmp_path, scene)
    frames = Hypersim(tmp_path)
    assert frames.names == ["ai_001_001/cam_00/frame.0000"] and frames.dropped == ["ai_001_002"]


def test_all_cameras_are_found_and_frames_that_lack_a_file_are_left_out(tmp_path):
    write_cameras(tmp_path, ai_001_001=STANDARD)
    write_frame(tmp_path, "ai_001_001", 0)
    write_frame(tmp_path, "ai_001_001", 7, "cam_01")
    write_frame(tmp_path, "ai_001_001", 53).unlink()
    assert Hypersim(tmp_path).names == [
        "ai_001_001/cam_00/frame.0000", "ai_001_001/cam_01/frame.0007"]


def test_the_published_split_holds_out_val_and_leaves_out_test(tmp_path):
    scenes = dict(ai_001_001="train", ai_001_002="val", ai_001_003="test")
    write_cameras(tmp_path, **dict.fromkeys(scenes, STANDARD))
    write_split(tmp_path, **scenes)
    for scene in scenes:
        write_frame(tmp_path, scene)
    frames = Hypersim(tmp_path)
    assert [name[:10] for name in frames.names] == ["ai_001_001", "ai_001_002"]
    assert frames.held_out.tolist() == [False, True]


def test_without_the_split_every_tenth_scene_is_held_out(tmp_path):
    scenes = [f"ai_001_{number:03d}" for number in range(1, 12)]
    write_cameras(tmp_path, **dict.fromkeys(scenes, STANDARD))
    for scene in scenes:
        write_frame(tmp_path, scene, 0)
        write_frame(tmp_path, scene, 1)
    held = np.array(Hypersim(tmp_path).names)[Hypersim(tmp_path).held_out]
    assert held.tolist() == ["ai_001_010/cam_00/frame.0000", "ai_001_010/cam_00/frame.0001"]


def test_one_scene_alone_holds_out_its_last_frames(tmp_path):
    write_cameras(tmp_path, ai_001_001=STANDARD)
    for number in range(3):
        write_frame(tmp_path, "ai_001_001", number)
    assert Hypersim(tmp_path).held_out.tolist() == [False, False, True]


def test_a_missing_table_or_empty_folder_says_what_to_download(tmp_path):
    write_frame(tmp_path, "ai_001_001")
    with pytest.raises(BadInput, match="metadata_camera_parameters.csv does not exist: download"):
        Hypersim(tmp_path)
    write_cameras(tmp_path)
    with pytest.raises(BadInput, match="1 scenes, 1 of them with a tilted camera"):
        Hypersim(tmp_path)
    (tmp_path / "metadata_camera_parameters.csv").write_text("scene,a\n")
    with pytest.raises(BadInput, match="has no column M_cam_from_uv_00, .*scene_name"):
        Hypersim(tmp_path)


def test_damaged_and_mismatched_files_are_named(tmp_path):
    write_cameras(tmp_path, ai_001_001=STANDARD)
    path = write_frame(tmp_path, "ai_001_001", distance=np.full((HEIGHT, WIDTH // 2), 2.0))
    with pytest.raises(BadInput, match=f"{path} is 32x48, its image is 64x48"):
        Hypersim(tmp_path)[0]
    path.write_bytes(b"no HDF5")
    with pytest.raises(BadInput, match=f"{path} cannot be read.*download the scene again"):
        Hypersim(tmp_path)[0]
    with h5py.File(path, "w") as file:
        file["depth"] = [1.0]
    with pytest.raises(BadInput, match=f"{path} cannot be read.*'dataset'"):
        Hypersim(tmp_path)[0]


def test_without_h5py_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BadInput, match="pip install h5py"):
        open_source(SourceRecipe("hypersim", folder=tmp_path))
