"""Training learns, and goes on after an interruption as if there had been none."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from models import QWEN

from sdim_ros.core import checkpoint
from sdim_ros.core.config import ModelSettings
from sdim_ros.core.types import BadSetting
from sdim_ros.tools import scene_cache, scenes, train
from sdim_ros.tools.cli import main
from sdim_ros.tools.training_data import SceneBatches, draw

CONFIG = Path(__file__).resolve().parent.parent / "config" / "train_tiny.yaml"


@pytest.fixture(scope="module")
def recipe() -> dict:
    """The shipped recipe with a smaller network and a few small frames."""
    small = train.read_recipe(CONFIG)
    small["qwen"] = copy.deepcopy(QWEN)
    small["sdim"].update(max_pixels=6000, min_pixels=3000)
    small["data"].update(frames=4, validation_frames=4, sizes=[[96, 64]], points=[40, 300])
    small["training"].update(steps=30, images=2, pixels=12, warmup=3, precision="float32")
    return small


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "96x64").mkdir()
    scene_cache.save_shard(folder / "96x64" / "scenes_00000000_6.npz", range(6), 96, 64)
    return folder


def batches(recipe: dict, cache: Path, training: train.Training) -> SceneBatches:
    return SceneBatches(cache, recipe["data"], training.model.config, 2, 12, 0, 100)


def losses(training: train.Training, source: SceneBatches, steps: int) -> list[float]:
    first = training.step
    return [float(training.advance(source[i]).split()[1]) for i in range(first, first + steps)]


def test_the_loss_falls(recipe: dict, cache: Path, tmp_path: Path) -> None:
    training = train.Training(recipe, tmp_path)
    curve = losses(training, batches(recipe, cache, training), 25)
    assert np.mean(curve[-5:]) < 0.7 * np.mean(curve[:5])


def test_a_resumed_run_has_the_same_loss_curve(recipe: dict, cache: Path,
                                               tmp_path: Path) -> None:
    through = train.Training(recipe, tmp_path / "through")
    expected = losses(through, batches(recipe, cache, through), 8)
    stopped = train.Training(recipe, tmp_path / "stopped")
    losses(stopped, batches(recipe, cache, stopped), 4)
    stopped.save()
    losses(stopped, batches(recipe, cache, stopped), 1)  # work after the save is lost
    resumed = train.Training(recipe, tmp_path / "stopped")
    assert resumed.step == 4
    assert losses(resumed, batches(recipe, cache, resumed), 4) == expected[4:]


def test_a_batch_depends_on_the_seed_and_its_number_alone(recipe: dict, cache: Path,
                                                          tmp_path: Path) -> None:
    source = batches(recipe, cache, train.Training(recipe, tmp_path))
    first = source[3]
    source[0]
    again = source[3]
    np.testing.assert_array_equal(first.digits, again.digits)
    np.testing.assert_array_equal(first.images[0], again.images[0])
    assert (source[4].digits != first.digits).any()


def test_questions_are_asked_where_the_model_is_not_shown_the_answer(
        recipe: dict, tmp_path: Path) -> None:
    config = train.Training(recipe, tmp_path).model.config
    image, depth, _ = scenes.render(1, 96, 64)
    rng = np.random.default_rng(0)
    _, sparse, asked, truth, _ = draw(image, depth, rng, {**recipe["data"], "noise": 0.0},
                                      config, 40)
    told = asked.measured[0].numpy() > 0
    assert told.sum() == 2  # 5 % of 40
    xy = asked.position[0].numpy()
    rows, cols = (xy[:, 1] * 64).astype(int), (xy[:, 0] * 96).astype(int)
    np.testing.assert_array_equal(sparse[rows, cols] > 0, told)
    np.testing.assert_allclose(truth, depth[rows, cols], rtol=1e-5)


def test_the_command_trains_and_writes_a_checkpoint_that_loads(
        recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_cache, "FRAMES_PER_SHARD", 4)
    path = tmp_path / "recipe.yaml"
    tiny = copy.deepcopy(recipe)
    tiny["training"].update(steps=2, checkpoint_every=1, validate_every=100)
    path.write_text(yaml.safe_dump(tiny))
    threads = torch.get_num_threads()
    arguments = ["train", "--config", str(path), "--out", str(tmp_path / "run"),
                 "--cache", str(tmp_path / "cache"), "--workers", "0", "--threads", "1"]
    assert main(arguments) == 0
    torch.set_num_threads(threads)
    loaded = checkpoint.load(ModelSettings(checkpoint=str(tmp_path / "run" / "checkpoint")))
    assert loaded.config.max_pixels == 6000


def test_a_missing_recipe_or_section_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="there is no such file"):
        train.read_recipe(tmp_path / "none.yaml")
    (tmp_path / "half.yaml").write_text("seed: 0\ndata: {}\n")
    with pytest.raises(BadSetting, match="qwen, sdim, training missing"):
        train.read_recipe(tmp_path / "half.yaml")
