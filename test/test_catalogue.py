"""What --data and --dataset open together."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from test_ddad import write_frame as write_ddad
from test_hypersim import STANDARD, write_cameras
from test_hypersim import write_frame as write_hypersim
from test_ibims import write_scene
from test_kitti_completion import write_frame as write_kitti
from test_nyuv2 import write_prepared
from test_virtual_kitti import write_frame as write_virtual_kitti
from test_void import write_release

from sdim_ros.core.types import BadInput
from sdim_ros.tools.datasets.catalogue import DATASETS, HELD_OUT, PROTOCOLS, open_dataset
from sdim_ros.tools.datasets.frames import frame_names

WRITERS = {"nyuv2": lambda f: write_prepared(f, frames=1), "ibims1": write_scene,
           "void_150": write_release, "void_500": lambda f: write_release(f, 500),
           "void_1500": lambda f: write_release(f, 1500), "kitti_completion": write_kitti,
           "ddad": write_ddad}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_benchmark_gives_points_reference_and_camera_by_its_name(tmp_path, name):
    WRITERS[name](tmp_path)
    sample = open_dataset(str(tmp_path), name)[0]
    assert sample.sparse.any() and sample.truth.any()
    assert sample.sparse.shape == sample.truth.shape == sample.image.shape[:2]
    assert (sample.camera.height, sample.camera.width) == sample.truth.shape


@pytest.mark.parametrize("name", [*PROTOCOLS, *HELD_OUT])
def test_a_named_dataset_without_its_files_says_where_they_come_from(tmp_path, name):
    with pytest.raises(BadInput, match=f"--dataset {name} needs --data FOLDER.*(http|Virtual)"):
        open_dataset(None, name)
    with pytest.raises(BadInput, match=f"{tmp_path}.*(expected|download)"):
        open_dataset(str(tmp_path), name)


def test_a_folder_alone_is_a_frames_folder(tmp_path):
    (tmp_path / "rgb").mkdir()
    cv2.imwrite(str(tmp_path / "rgb" / "a.png"), np.zeros((4, 6, 3), np.uint8))
    (tmp_path / "frames.json").write_text(
        json.dumps({"depth_scale": 256, "frames": [{"name": "a"}]}))
    assert open_dataset(str(tmp_path), None)[0].image.shape == (4, 6, 3)


def test_built_in_scenes_need_a_name_alone(tmp_path):
    assert open_dataset(None, "motorcycle")[0].name == "motorcycle"
    with pytest.raises(BadInput, match=f"motorcycle needs no files, --data {tmp_path}"):
        open_dataset(str(tmp_path), "motorcycle")


def test_neither_folder_nor_name_and_unknown_names_are_refused(tmp_path):
    with pytest.raises(BadInput, match="give --data FOLDER.* or --dataset NAME, one of motorcycle"):
        open_dataset(None, None)
    with pytest.raises(BadInput, match="--dataset nyu: expected one of .*nyuv2"):
        open_dataset(str(tmp_path), "nyu")
    assert len(set(DATASETS)) == len(DATASETS)


def test_void_is_clipped_only_when_asked(tmp_path):
    write_release(tmp_path)
    whole, clipped = (open_dataset(str(tmp_path), "void_150", clip)[0] for clip in (False, True))
    assert whole.truth.max() > 5 > clipped.truth.max() > 0
    for name in (None, "motorcycle", "ddad"):
        with pytest.raises(BadInput, match="--void-clip is for VOID"):
            open_dataset(str(tmp_path), name, void_clip=True)


def test_training_sets_are_judged_at_the_frames_that_never_train(tmp_path):
    write_virtual_kitti(tmp_path, "Scene01", size=(30, 100))
    write_virtual_kitti(tmp_path, "Scene06", number=1, size=(30, 100))
    frames = open_dataset(str(tmp_path), "virtual_kitti")
    assert frame_names(frames) == ["Scene01/clone/frames/rgb/Camera_0/00000"]
    assert frames[0].truth.any() and frames[-1].name == frames.names[0]
    write_cameras(tmp_path, ai_001_001=STANDARD)
    for number in range(2):
        write_hypersim(tmp_path, "ai_001_001", number)
    assert open_dataset(str(tmp_path), "hypersim").names == ["ai_001_001/cam_00/frame.0001"]
