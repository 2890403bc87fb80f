"""Depth of another program is judged as it is, for every frame or not at all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sdim_ros.core.types import BadInput
from sdim_ros.tools.predictions import open_predictions

DEPTH = np.array([[1.0, 2.5, 0.0], [30.25, 4.0, 5.0]], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "Marigold-DC"
    (made / "scene").mkdir(parents=True)
    np.save(made / "a.npy", DEPTH)
    cv2.imwrite(str(made / "scene" / "b.png"), (DEPTH * 256).astype(np.uint16))
    return made


def test_both_formats_are_read_in_metres_under_the_name_of_the_folder(folder: Path) -> None:
    found = open_predictions(str(folder), ["a", "scene/b"], ())
    assert found.method == "Marigold-DC"
    for name in ("a", "scene/b"):
        np.testing.assert_array_equal(found.read(name, (2, 3)), DEPTH)
    in_mm = open_predictions(f"{folder}=1000", ["scene/b"], ())
    np.testing.assert_allclose(in_mm.read("scene/b", (2, 3)), DEPTH * 0.256)


def test_a_frame_without_a_map_is_named_before_anything_is_judged(folder: Path) -> None:
    with pytest.raises(BadInput, match="no map for 2 of 3 frames, first c: expected c.npy"):
        open_predictions(str(folder), ["a", "c", "d"], ())


def test_a_map_of_another_size_is_not_resized(folder: Path) -> None:
    with pytest.raises(BadInput, match="3x2, the frame 6x4"):
        open_predictions(str(folder), ["a"], ()).read("a", (4, 6))


@pytest.mark.parametrize("scale", ["zero", "0", "-1", "inf"])
def test_a_scale_that_is_none_is_refused(folder: Path, scale: str) -> None:
    with pytest.raises(BadInput, match="FOLDER=SCALE"):
        open_predictions(f"{folder}={scale}", ["a"], ())


def test_a_folder_cannot_pass_for_a_method_of_ours(tmp_path: Path) -> None:
    (tmp_path / "sdim").mkdir()
    with pytest.raises(BadInput, match="rename the folder"):
        open_predictions(str(tmp_path / "sdim"), [], ("sdim",))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected a folder"):
        open_predictions(str(tmp_path / "none"), [], ())
