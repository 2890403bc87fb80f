"""Several processes train as one does."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import (
    figures, finish, small_values, start_two, write_frames, write_recipe,
)

from sdim_ros.core import checkpoint
from sdim_ros.core.config import ModelSettings
from sdim_ros.tools.training.batch_loader import share
from sdim_ros.tools.cli import main


def test_the_processes_share_the_batches_of_each_step() -> None:
    """Together, and in every step, they take what one process with more parts would take."""
    alone = list(share(range(3, 5), parts=6, rank=0, count=1))
    assert alone == list(range(18, 30))
    for start, stop in ((3, 4), (4, 5)):
        together = [n for rank in range(3)
                    for n in share(range(start, stop), parts=2, rank=rank, count=3)]
        assert sorted(together) == alone[(start - 3) * 6:(stop - 3) * 6]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process: four batches make a step."""
    folder = tmp_path_factory.mktemp("alone")
    values = small_values(write_frames(folder / "frames"), steps=4, accumulate=4,
                          validate_every=2)
    recipe = write_recipe(folder / "recipe.yaml", values)
    assert main(["train", "--config", str(recipe), "--out", str(folder / "run"), "--workers",
                 "0", "--threads", "1", "--device", "cpu"]) == 0
    return folder


@pytest.mark.parametrize("way", ["copies", "shards"])
def test_two_processes_give_the_losses_of_one_at_the_same_global_batch(
        way: str, alone: Path, tmp_path: Path) -> None:
    """With a copy of the model each (DDP); with half of every weight each (FSDP), resumed."""
    values = small_values(alone / "frames", steps=4, accumulate=2, validate_every=2,
                          picture_every=4, gradient_checkpointing=way == "shards")
    recipe = write_recipe(tmp_path / "recipe.yaml", values)
    environment = {"ACCELERATE_USE_FSDP": "true"} if way == "shards" else {}
    for steps in ("2", "4") if way == "shards" else ("4",):
        for process in start_two(recipe, tmp_path / "run", "--steps", steps, **environment):
            finish(process)
    # Rounding differs, and Adam makes more of it in each step.
    for name, tolerance in {"loss": 1e-4, "cross_entropy": 1e-4, "metric_term": 1e-4,
                            "gradient_norm": 1e-3, "learning_rate": 1e-6}.items():
        assert figures(tmp_path / "run", name) == pytest.approx(
            figures(alone / "run", name), rel=tolerance)
    for step, errors in figures(alone / "run", "validation").items():
        assert figures(tmp_path / "run", "validation")[step] == pytest.approx(errors, rel=1e-3)
    state, other = (checkpoint.load(ModelSettings(checkpoint=str(run / "run" / "last")))
                    .state_dict() for run in (alone, tmp_path))
    assert state.keys() == other.keys()
    assert max((state[n] - other[n]).abs().max() for n in state) < 1e-3
