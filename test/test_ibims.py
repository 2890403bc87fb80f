"""iBims-1, on small files in its published format."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.ibims import Ibims

SIZE = (48, 64)
CALIB = np.array([[571.1, 0, 0], [0, 570.2, 0], [319.5, 239.8, 1]])  # MATLAB's K, transposed


def write_scene(folder, name="corridor_01", **fields):
    """A 1 x 1 struct `data`, as MATLAB saves it; returns its depth."""
    folder.mkdir(parents=True, exist_ok=True)
    depth = np.random.default_rng(len(name)).uniform(0.5, 50, SIZE).astype(np.float32)
    depth[:2] = 0
    masks = {mask: np.ones(SIZE, np.uint8) for mask in ("mask_invalid", "mask_transp")}
    masks["mask_invalid"][2:4] = 0
    masks["mask_transp"][:, :5] = 0
    image = np.zeros((*SIZE, 3), np.uint8)
    image[..., 0] = 250
    data = {"rgb": image, "depth": depth, "calib": CALIB, "edges": np.zeros(SIZE, np.uint8),
            "mask_wall": np.zeros(SIZE, np.uint8), **masks} | fields
    savemat(folder / f"{name}.mat",
            {"data": {key: value for key, value in data.items() if value is not None}},
            do_compression=True)
    return depth


def test_the_reference_is_the_depth_inside_of_both_masks(tmp_path):
    depth = write_scene(tmp_path)
    sample, = Ibims(tmp_path)
    judged = np.ones(SIZE, bool)
    judged[:4], judged[:, :5] = False, False
    np.testing.assert_array_equal(sample.truth, np.where(judged, depth, 0))
    assert sample.name == "corridor_01" and sample.truth.dtype == np.float32
    assert tuple(sample.image[0, 0]) == (250, 0, 0)


def test_a_thousand_points_are_those_of_the_protocol(tmp_path):
    """The protocol shuffles the rows and columns of all judged pixels from one seed a scene."""
    for name in ("corridor_01", "office_1"):
        write_scene(tmp_path, name)
    for sample in Ibims(tmp_path):
        places = np.argwhere(sample.truth > 0)
        np.random.seed(2024)
        np.random.shuffle(places)
        expected = np.zeros(SIZE, bool)
        expected[tuple(places[:1000].T)] = True
        np.testing.assert_array_equal(sample.sparse, np.where(expected, sample.truth, 0))
        assert np.count_nonzero(sample.sparse) == 1000


def test_a_scene_with_fewer_judged_pixels_gives_them_all(tmp_path):
    depth = np.zeros(SIZE)
    depth[10, 10:20] = 3
    write_scene(tmp_path, depth=depth)
    sample = Ibims(tmp_path)[0]
    np.testing.assert_array_equal(sample.sparse, sample.truth)
    assert np.count_nonzero(sample.truth) == 10


def test_the_camera_is_the_transposed_matrix(tmp_path):
    write_scene(tmp_path)
    camera = Ibims(tmp_path)[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (571.1, 570.2, 319.5, 239.8)
    assert (camera.width, camera.height) == SIZE[::-1]


@pytest.mark.parametrize("inside", [
    ".", "ibims1_core_mat", "ibims1_core_mat/ibims1_core_mat"])
def test_the_archive_may_lie_in_folders_of_its_name(tmp_path, inside):
    write_scene(tmp_path / inside, "b")
    write_scene(tmp_path / inside, "a")
    assert Ibims(tmp_path).names == ["a", "b"]


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(BadInput, match=f"{tmp_path}/ibims1_core_mat.*none: expected iBims-1: "):
        Ibims(tmp_path)


@pytest.mark.parametrize("fields, expected", [
    ({"mask_transp": None}, "data has no mask_transp"),
    ({"depth": np.ones((4, 4))}, r"depth \(4, 4\).*expected one size"),
    ({"calib": np.ones(4)}, r"calib of shape \(1, 4\)"),
])
def test_scenes_of_another_format_are_named(tmp_path, fields, expected):
    write_scene(tmp_path, **fields)
    with pytest.raises(BadInput, match=f"corridor_01.mat.*{expected}"):
        Ibims(tmp_path)[0]


def test_damaged_files_are_named(tmp_path):
    write_scene(tmp_path)
    path = tmp_path / "corridor_01.mat"
    whole = path.read_bytes()
    for damaged in (b"", b"no MATLAB file", whole[:300], whole[:len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match=f"{path} cannot be read.*download it again"):
            Ibims(tmp_path)[0]
    savemat(path, {"other": 1})
    with pytest.raises(BadInput, match=f"{path} cannot be read.*variable data"):
        Ibims(tmp_path)[0]
