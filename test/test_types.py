"""What crosses a border is checked there, and an error says what was seen and expected."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sdim_ros.core.types import (
    Answers,
    BadInput,
    BadSetting,
    Camera,
    Frame,
    ModelFailed,
    ModelUnavailable,
    SdimError,
)

GOOD_CAMERA = {"fx": 500.0, "fy": 501.0, "cx": 320.0, "cy": 240.0, "width": 640, "height": 480}


def test_camera_matrix_holds_the_intrinsics() -> None:
    np.testing.assert_array_equal(
        Camera(**GOOD_CAMERA).matrix(), [[500, 0, 320], [0, 501, 240], [0, 0, 1]])


@pytest.mark.parametrize(
    "change",
    [{"fx": 0.0}, {"fy": -1.0}, {"fx": np.nan}, {"cx": np.inf}, {"fx": 0, "fy": 0, "cx": 0}],
)
def test_uncalibrated_camera_is_refused_with_its_values(change: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=f"fx={(GOOD_CAMERA | change)['fx']}") as caught:
        Camera(**GOOD_CAMERA | change)
    assert caught.value.reason == "uncalibrated"


@pytest.mark.parametrize("change", [{"width": 0}, {"height": -480}])
def test_camera_without_pixels_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="positive width and height") as caught:
        Camera(**GOOD_CAMERA | change)
    assert caught.value.reason == "camera_size"


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 6), np.uint8),
        np.zeros((4, 6, 4), np.uint8),
        np.zeros((4, 6, 3), np.float32),
    ],
)
def test_frame_refuses_an_image_that_is_not_rgb8(image: np.ndarray) -> None:
    with pytest.raises(BadInput, match="uint8 RGB; convert") as caught:
        Frame(image, np.zeros((4, 6), np.float32))
    assert caught.value.reason == "image_shape"


def test_frame_refuses_sparse_depth_of_another_size() -> None:
    with pytest.raises(BadInput, match=r"\(6, 4\).*\(4, 6\).*register") as caught:
        Frame(np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4), np.float32))
    assert caught.value.reason == "size_mismatch"


def test_frame_accepts_unclean_depth_and_needs_no_camera() -> None:
    frame = Frame(np.zeros((1, 3, 3), np.uint8), np.array([[np.nan, -1, np.inf]], np.float32))
    assert frame.camera is None


def test_frame_cannot_be_changed() -> None:
    frame = Frame(np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.float32))
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.stamp_ns = 1


def test_answers_have_a_length() -> None:
    pixels, values = np.arange(3), np.ones(3, np.float32)
    assert len(Answers(pixels, pixels, values, values)) == 3


@pytest.mark.parametrize("error", [BadSetting, ModelUnavailable, ModelFailed])
def test_every_error_on_purpose_can_be_caught_as_one(error: type[SdimError]) -> None:
    with pytest.raises(SdimError, match="why"):
        raise error("why")


def test_bad_input_carries_a_reason_to_count_by_and_a_message() -> None:
    error = BadInput("encoding", "encoding 'x'")
    assert isinstance(error, SdimError)
    assert (error.reason, str(error)) == ("encoding", "encoding 'x'")
