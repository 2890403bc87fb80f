"""Helper processes hand over the batches that the training would have made itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from models import random_model
from training_runs import small_recipe, write_frames

from sdim_ros.core.fusion import FusionConfig
from sdim_ros.core.types import BadInput
from sdim_ros.tools.training.batch_loader import batches_of_steps
from sdim_ros.tools.training.batches import TrainingBatches

FILLS = ("nearest", "linear")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("data") / "frames")


def made_of(frames: Path, fills: tuple[str, ...]) -> TrainingBatches:
    fusion = FusionConfig(8, 8, 16, 8, norm="group", fills=fills)
    config = random_model(fusion=fusion, hints=fills, max_pixels=8000).config
    return TrainingBatches(small_recipe(frames).data, config, 2, 12, 0, 100, frames)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fills", [(), FILLS])
def test_batches_come_whole_and_in_order(frames: Path, fills: tuple[str, ...], workers: int
                                         ) -> None:
    source = made_of(frames, fills)
    steps = list(batches_of_steps(source, range(3, 7), 2, workers))
    assert [len(step) for step in steps] == [2, 2]
    for number, got in enumerate((batch for step in steps for batch in step), start=3):
        wanted = source[number]
        for name in ("images", "sparses", "labels"):
            for one, other in zip(getattr(got, name), getattr(wanted, name), strict=True):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)
        for maps, others in zip(got.maps, wanted.maps, strict=True):
            assert (maps is None) == (others is None) == (not fills)
            for name in fills:
                np.testing.assert_array_equal(maps[name], others[name])
        for one, other in zip(got.queries.tensors(), wanted.queries.tensors(), strict=True):
            assert torch.equal(one, other)
        np.testing.assert_array_equal(got.digits, wanted.digits)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_that_cannot_be_made_is_told_in_one_sentence(frames: Path, workers: int) -> None:
    source = made_of(frames, ())
    source.data = dataclasses.replace(source.data, crops=((64, 48),))
    (frames / "rgb" / "0.png").rename(frames / "hidden.png")
    try:
        with pytest.raises(BadInput, match=r"0\.png") as caught:
            list(batches_of_steps(source, range(20), 1, workers))
        assert "\n" not in str(caught.value)
    finally:
        (frames / "hidden.png").rename(frames / "rgb" / "0.png")
