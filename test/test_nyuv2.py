"""NYU-Depth V2, on files in the formats of both releases."""

from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.nyuv2 import open_nyuv2

SIZE = (228, 304)


def write_prepared(folder, frames=2, points=500):
    """The two files of "Sparsity Agnostic Depth Completion"; returns references and points."""
    generator = np.random.default_rng(0)
    gt = generator.uniform(0.7, 9, (frames, *SIZE, 1)).astype(np.float32)
    gt[:, :3] = 0
    hints = np.zeros_like(gt)
    for number in range(frames):
        drawn = generator.choice(np.flatnonzero(gt[number]), points, replace=False)
        hints[number].flat[drawn] = gt[number].flat[drawn]
    image = np.zeros((frames, *SIZE, 3), np.uint8)
    image[..., 0] = 250
    with h5py.File(folder / "nyu_img_gt.h5", "w") as file:
        file["img"], file["gt"] = image, gt
    with h5py.File(folder / "nyu_pred_with_500.h5", "w") as file:
        file["hints"], file["preds"] = hints, gt
    return gt[..., 0], hints[..., 0]


def write_labelled(folder, frames=3, test=(3, 1)):
    """nyu_depth_v2_labeled.mat as MATLAB 7.3 writes it, axes from the last to the first.

    The red of a pixel is its column, the green its row and the blue its frame; depth is
    row + column / 1000 + 1.
    """
    rows, cols = np.mgrid[:480, :640]
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        images = file.create_dataset("images", (frames, 3, 640, 480), np.uint8)
        depths = file.create_dataset("depths", (frames, 640, 480), np.float32)
        for number in range(frames):
            image = np.stack([cols // 4, rows // 4, np.full_like(rows, number)])
            images[number] = image.transpose(0, 2, 1)
            depths[number] = (rows + cols / 1000 + 1).T
        for dataset, kind in ((images, "uint8"), (depths, "single")):
            dataset.attrs["MATLAB_class"] = np.bytes_(kind)
    with (folder / "nyu_depth_v2_labeled.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    if test:
        savemat(folder / "splits.mat", {
            "trainNdxs": np.array([[2]], np.uint16), "testNdxs": np.array([test], np.uint16).T})


def test_the_prepared_frames_come_with_their_reference_and_their_points(tmp_path):
    truth, points = write_prepared(tmp_path)
    frames = open_nyuv2(tmp_path)
    assert len(frames) == 2 and frames.names == ["0000", "0001"]
    for number, sample in enumerate(frames):
        np.testing.assert_array_equal(sample.truth, truth[number])
        np.testing.assert_array_equal(sample.sparse, points[number])
        assert np.count_nonzero(sample.sparse) == 500
        assert sample.sparse.dtype == sample.truth.dtype == np.float32
        assert sample.image.shape == (*SIZE, 3) and tuple(sample.image[0, 0]) == (250, 0, 0)


def test_the_camera_is_that_of_the_halved_and_cropped_image(tmp_path):
    write_prepared(tmp_path, frames=1)
    camera = open_nyuv2(tmp_path)[0].camera
    assert (camera.width, camera.height) == (304, 228)
    np.testing.assert_allclose(
        [camera.fx, camera.fy, camera.cx, camera.cy], [259.4290, 259.7348, 154.7912, 120.8681],
        atol=1e-4)


def test_maps_without_an_axis_for_the_channel_are_read_too(tmp_path):
    truth, points = write_prepared(tmp_path, frames=1)
    with h5py.File(tmp_path / "nyu_pred_with_500.h5", "w") as file:
        file["hints"] = points
    np.testing.assert_array_equal(open_nyuv2(tmp_path)[0].sparse, points[0])


def test_the_labelled_frames_of_the_test_split_are_halved_and_cropped(tmp_path):
    write_labelled(tmp_path)
    frames = open_nyuv2(tmp_path)
    assert frames.names == ["0001", "0003"]
    sample = frames[1]
    assert sample.sparse is None and sample.measured is sample.truth
    assert sample.truth.shape == SIZE and sample.image.shape == (*SIZE, 3)
    # The crop starts at row 6 and column 8 of the halved map: 12 and 16 of the full one.
    assert sample.truth[0, 0] == np.float32(12 + 0.016 + 1)
    assert sample.truth[-1, -1] == np.float32(12 + 454 + (16 + 606) / 1000 + 1)
    red, green, blue = sample.image[100, 50].tolist()
    assert (red, green, blue) == ((16 + 100) // 4, (12 + 200) // 4, 2)
    assert sample.camera.width == 304 and sample.camera.fx == pytest.approx(259.429, abs=1e-3)


def test_without_the_split_all_labelled_frames_are_read(tmp_path):
    write_labelled(tmp_path, test=())
    assert open_nyuv2(tmp_path).names == ["0001", "0002", "0003"]


def test_the_prepared_files_win_where_both_releases_lie(tmp_path):
    write_prepared(tmp_path)
    write_labelled(tmp_path)
    assert open_nyuv2(tmp_path)[0].sparse is not None


def test_a_wrong_folder_says_which_files_were_looked_for(tmp_path):
    with pytest.raises(BadInput, match="holds no frames of NYU.*nyu_img_gt.h5 and nyu_pred"):
        open_nyuv2(tmp_path)
    write_prepared(tmp_path)
    (tmp_path / "nyu_pred_with_500.h5").unlink()
    with pytest.raises(BadInput, match="holds nyu_img_gt.h5: expected .*releases/tag/v0.1.0"):
        open_nyuv2(tmp_path)


@pytest.mark.parametrize("name, spoil, expected", [
    ("nyu_img_gt.h5", lambda f: f.write_bytes(b"no HDF5"), "nyu_img_gt.h5 cannot be read"),
    ("nyu_pred_with_500.h5", lambda f: f.write_bytes(f.read_bytes()[:5000]),
     "nyu_pred_with_500.h5 cannot be read.*download it again"),
    ("nyu_img_gt.h5", lambda f: rewrite(f, img=np.zeros((2, 4, 4, 3))), "no gt, only img"),
    ("nyu_pred_with_500.h5", lambda f: rewrite(f, hints=np.zeros((1, *SIZE))),
     "2 images, 2 references and 1 maps of points"),
    ("nyu_pred_with_500.h5", lambda f: rewrite(f, hints=np.zeros((2, 9, 9))),
     r"hints of shape \(9, 9\)"),
    ("nyu_img_gt.h5", lambda f: rewrite(f, img=np.zeros((2, *SIZE, 3)), gt=np.zeros((2, *SIZE))),
     "img 0 is float64"),
])
def test_damaged_prepared_files_are_named(tmp_path, name, spoil, expected):
    write_prepared(tmp_path)
    spoil(tmp_path / name)
    with pytest.raises(BadInput, match=expected):
        open_nyuv2(tmp_path)[0]


def test_damaged_labelled_files_are_named(tmp_path):
    write_labelled(tmp_path, test=(9,))
    with pytest.raises(BadInput, match="splits.mat: testNdxs holds 1 numbers .* 1 to 3"):
        open_nyuv2(tmp_path)
    (tmp_path / "splits.mat").write_bytes(b"no MATLAB file")
    with pytest.raises(BadInput, match="splits.mat cannot be read.*testNdxs"):
        open_nyuv2(tmp_path)
    (tmp_path / "splits.mat").unlink()
    rewrite(tmp_path / "nyu_depth_v2_labeled.mat", images=np.zeros((1, 3, 8, 6), np.uint8),
            depths=np.zeros((1, 8, 6)))
    with pytest.raises(BadInput, match=r"frame 0001 has an image of uint8 \(6, 8, 3\)"):
        open_nyuv2(tmp_path)[0]


def test_without_h5py_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    write_prepared(tmp_path, frames=1)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BadInput, match="pip install h5py"):
        open_nyuv2(tmp_path)


def rewrite(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
