"""A run goes on from what it wrote, or says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from models import random_model
from training_runs import small_recipe, write_frames

from sdim_ros.core import checkpoint
from sdim_ros.core.config import ModelSettings
from sdim_ros.core.model import SdimModel
from sdim_ros.core.types import BadSetting
from sdim_ros.tools.training import state as training_state
from sdim_ros.tools.training.batches import TrainingBatches
from sdim_ros.tools.training.parallel import Parallel
from sdim_ros.tools.training.state import Progress
from sdim_ros.tools.training.trainer import Training


def stepped(model: SdimModel) -> torch.optim.Optimizer:
    """An optimiser after one step, so that it has moments."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    sum(p.square().sum() for p in model.parameters() if p.requires_grad).backward()
    optimizer.step()
    return optimizer


def written(folder: Path, step: int = 3, parts: int = 1) -> dict[str, torch.Tensor]:
    model, recipe = random_model(), small_recipe()
    tensors = training_state.tensors_of(model, stepped(model))
    training_state.write(folder, Progress(
        parts, recipe.content(), step=step, best=0.5), tensors)
    return tensors


def test_weights_and_moments_come_back_exactly(tmp_path: Path) -> None:
    tensors = written(tmp_path)
    progress, read = training_state.read(tmp_path, small_recipe(), 1, 1)
    assert (progress.step, progress.best) == (3, 0.5)
    other = random_model(seed=1)
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-3)
    training_state.restore(read, other, optimizer)
    again = training_state.tensors_of(other, optimizer)
    assert again.keys() == tensors.keys()
    assert sum(name.startswith("optimizer.exp_avg_sq.") for name in again) > 60
    for name, value in tensors.items():
        assert torch.equal(again[name], value), name


def test_frozen_weights_are_not_written() -> None:
    model = random_model()
    model.qwen.requires_grad_(False)
    names = training_state.tensors_of(model, stepped(model))
    assert any(n.startswith("model.fusion.") for n in names)
    assert not any("language_model" in n for n in names)


def test_a_new_folder_starts_at_step_0(tmp_path: Path) -> None:
    progress, tensors = training_state.read(tmp_path, small_recipe(), 2, 2)
    assert (progress.step, progress.best, progress.parts, tensors) == (0, None, 2, {})


def test_only_the_newest_state_stays(tmp_path: Path) -> None:
    written(tmp_path, step=3)
    written(tmp_path, step=6)
    assert {f.name for f in tmp_path.iterdir()} == {"state.json", "state-6.safetensors"}


def test_a_write_that_fails_leaves_the_old_state(tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, step=3)

    def full_disk(_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path, step=6)
    assert training_state.read(tmp_path, small_recipe(), 1, 1)[0].step == 3
    assert {f.name for f in tmp_path.iterdir()} == {"state.json", "state-3.safetensors"}


def test_another_recipe_is_refused_with_the_changes_and_the_remedy(tmp_path: Path) -> None:
    written(tmp_path)
    changed = small_recipe(learning_rate=2e-3, pixels=13, steps=99)
    with pytest.raises(BadSetting) as refused:
        training_state.read(tmp_path, changed, 1, 1)
    said = str(refused.value)
    assert "training.learning_rate: 0.0015 -> 0.002, training.pixels: 12 -> 13)" in said
    assert "steps" not in said
    assert f"use another --out, or delete {tmp_path}" in said


def test_length_and_intervals_may_change(tmp_path: Path) -> None:
    written(tmp_path)
    changed = small_recipe(steps=99, checkpoint_every=1, validate_every=1, picture_every=1,
                           gradient_checkpointing=True)
    progress, _ = training_state.read(tmp_path, changed, 1, 1)
    assert progress.recipe["training.steps"] == 99


def test_a_run_goes_on_although_recipes_have_got_a_new_key_since(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "state.json"
    state = json.loads(path.read_text())
    del state["recipe"]["training.guess_weight"]
    path.write_text(json.dumps(state))
    assert training_state.read(tmp_path, small_recipe(), 1, 1)[0].step == 3


def test_another_size_of_the_steps_is_refused(tmp_path: Path) -> None:
    written(tmp_path, parts=4)
    assert training_state.read(tmp_path, small_recipe(accumulate=2), 4, 2)[0].step == 3
    with pytest.raises(BadSetting, match=r"each step had 4 batches, and 3 processes x "
                                         r"training\.accumulate 2 give 6; .* product is 4"):
        training_state.read(tmp_path, small_recipe(accumulate=2), 6, 3)


@pytest.mark.parametrize("damage", ["no_weights", "half_weights", "no_json", "other_json"])
def test_a_damaged_state_is_refused_with_the_remedy(damage: str, tmp_path: Path) -> None:
    written(tmp_path)
    weights, description = tmp_path / "state-3.safetensors", tmp_path / "state.json"
    if damage == "no_weights":
        weights.unlink()
    elif damage == "half_weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        description.write_text("{" if damage == "no_json" else json.dumps({"step": 3}))
    with pytest.raises(BadSetting, match=f"run {tmp_path}: its state cannot be read .*delete"):
        training_state.read(tmp_path, small_recipe(), 1, 1)


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "last").mkdir()
    left = [tmp_path / ".state-9.safetensors.1234", tmp_path / "last" / ".config.json.77"]
    for path in left:
        path.write_text("half")
    training_state.sweep(tmp_path)
    assert not any(path.exists() for path in left)
    assert training_state.read(tmp_path, small_recipe(), 1, 1)[0].step == 3


def advanced(frames: Path, folder: Path, stored: str) -> tuple[Training, list[float]]:
    """A run after two more steps, saved, and their losses."""
    folder.mkdir(exist_ok=True)
    run = Training(small_recipe(frames, stored=stored), Parallel(cpu=True), folder)
    source = TrainingBatches(run.recipe.data, run.model.config, 2, 12, 0, 100, folder)
    losses = [run.advance([source[i]])["loss"] for i in range(run.step, run.step + 2)]
    run.save()
    return run, losses


def test_a_checkpoint_can_be_stored_in_16_bits_while_the_run_goes_on_in_32(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames")
    sizes = {}
    for stored in ("float32", "float16"):
        run, _ = advanced(frames, tmp_path / stored, stored)
        sizes[stored] = (tmp_path / stored / "last" / "model.safetensors").stat().st_size
    assert sizes["float16"] < 0.6 * sizes["float32"]
    loaded = checkpoint.load(ModelSettings(checkpoint=str(tmp_path / "float16" / "last")))
    assert loaded.dtype == torch.float32
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-6)
    (_, half), (_, whole) = (advanced(frames, tmp_path / stored, stored)
                             for stored in ("float16", "float32"))
    assert half == pytest.approx(whole, rel=1e-6)
