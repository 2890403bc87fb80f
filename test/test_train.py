"""Training learns, goes on after an interruption as if there had been none, and judges itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import random_model
from training_runs import (
    figures, finish, small_recipe, small_values, start, write_frames, write_recipe,
)

from sdim_ros.core import checkpoint, engine
from sdim_ros.core.config import ModelSettings
from sdim_ros.core.types import ModelFailed
from sdim_ros.tools.training import recipe as recipes
from sdim_ros.tools.training import log as training_log, validation
from sdim_ros.tools.cli import main
from sdim_ros.tools.training.parallel import Parallel
from sdim_ros.tools.training.recipe import Recipe
from sdim_ros.tools.training.trainer import MOST_UNUSABLE, Training
from sdim_ros.tools.training.batches import TrainingBatches


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("data") / "frames")


@pytest.fixture(autouse=True)
def threads():
    """The command sets the threads of its process, which here is that of all tests."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def training(recipe: Recipe, folder: Path) -> Training:
    folder.mkdir(exist_ok=True)
    return Training(recipe, Parallel(cpu=True), folder)


def curve(run: Training, steps: int) -> list[float]:
    source = TrainingBatches(run.recipe.data, run.model.config, 2, 12, 0, 100, run.folder)
    return [run.advance([source[i]])["loss"] for i in range(run.step, run.step + steps)]


def command(folder: Path, values: dict[str, Any], *more: str) -> int:
    """``sdim train`` in this process, writing into folder/run."""
    recipe = write_recipe(folder / "recipe.yaml", values)
    return main(["train", "--config", str(recipe), "--out", str(folder / "run"), "--workers",
                 "0", "--threads", "1", "--device", "cpu", *more])


def wait_for_steps(process: subprocess.Popen, out: Path, steps: int) -> None:
    while not (out / "log.jsonl").exists() or len(figures(out)) < steps:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def test_the_loss_falls(frames: Path, tmp_path: Path) -> None:
    losses = curve(training(small_recipe(frames), tmp_path), 25)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_a_resumed_run_has_the_same_loss_curve(frames: Path, tmp_path: Path) -> None:
    recipe = small_recipe(frames)
    expected = curve(training(recipe, tmp_path / "through"), 8)
    stopped = training(recipe, tmp_path / "stopped")
    curve(stopped, 4)
    stopped.save()
    curve(stopped, 1)  # work after the save is lost
    resumed = training(recipe, tmp_path / "stopped")
    assert resumed.step == 4
    assert curve(resumed, 4) == expected[4:]


def test_dropout_draws_the_same_in_a_resumed_run(frames: Path, tmp_path: Path) -> None:
    checkpoint.save_stock(random_model(sharpen=1.0), tmp_path / "base")
    values = {**small_values(frames), "base": str(tmp_path / "base"),
              "lora": {"rank": 4, "alpha": 8, "dropout": 0.5}}
    del values["qwen"]
    values["sdim"]["fusion"]["norm"] = "batch"  # its statistics must resume as well
    recipe = recipes.parse(values)
    expected = curve(training(recipe, tmp_path / "through"), 6)
    stopped = training(recipe, tmp_path / "stopped")
    curve(stopped, 3)
    stopped.save()
    assert curve(training(recipe, tmp_path / "stopped"), 3) == expected[3:]


def test_accumulated_steps_are_those_of_larger_batches(frames: Path, tmp_path: Path) -> None:
    recipe = small_recipe(frames)
    source = TrainingBatches(recipe.data, random_model().config, 2, 12, 0, 100, tmp_path)
    parts = training(small_recipe(frames, accumulate=2), tmp_path / "parts")
    halves = [training(recipe, tmp_path / f"half{i}") for i in range(2)]
    seen = parts.advance([source[0], source[1]])
    alone = [half.advance([source[i]])["loss"] for i, half in enumerate(halves)]
    assert seen["loss"] == pytest.approx(np.mean(alone), rel=1e-6)


def test_steps_that_are_not_finite_leave_the_weights_and_end_the_run_when_they_go_on(
        frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = training(small_recipe(frames), tmp_path)
    batch = TrainingBatches(run.recipe.data, run.model.config, 2, 12, 0, 1, tmp_path)[0]
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    logits = engine.training_logits
    monkeypatch.setattr(engine, "training_logits", lambda *seen: logits(*seen) * float("inf"))
    for _ in range(MOST_UNUSABLE - 1):
        assert not np.isfinite(run.advance([batch])["gradient_norm"])
    assert all(torch.equal(value, before[n]) for n, value in run.model.state_dict().items())
    with pytest.raises(ModelFailed, match="20 steps in a row .* smaller training.learning_rate"):
        run.advance([batch])


def test_pixels_can_be_named_by_text(frames: Path, tmp_path: Path) -> None:
    values = small_values(frames)
    values["sdim"]["addressing"] = "text"
    values["sdim"]["number"]["decimal_point"] = True
    run = training(recipes.parse(values), tmp_path)
    assert np.isfinite(curve(run, 2)).all()
    judge = TrainingBatches(run.recipe.data, run.model.config, 1, 64, 0, 1, tmp_path, True)
    assert np.isfinite(validation.validate(run, judge)["answers"])


def test_the_command_writes_checkpoints_figures_and_pictures(frames: Path, tmp_path: Path,
                                                             capsys: pytest.CaptureFixture
                                                             ) -> None:
    values = small_values(frames, steps=4, checkpoint_every=1, validate_every=2, picture_every=4)
    assert command(tmp_path, values) == 0
    out = tmp_path / "run"
    for name in ("checkpoint", "last"):
        loaded = checkpoint.load(ModelSettings(checkpoint=str(out / name)))
        assert loaded.config.max_pixels == 6000
    assert list(figures(out)) == [1, 2, 3, 4]
    assert list(figures(out, "validation")) == [2, 4]
    assert set(figures(out, "validation")[2]) == {"answers", "linear", "edge_aware"}
    assert all(rate > 0 for rate in figures(out, "pixels_per_s").values())
    assert (out / "pictures" / "step-000004.png").stat().st_size > 10_000
    assert command(tmp_path, values) == 0  # nothing is left to do
    assert list(figures(out)) == [1, 2, 3, 4]
    assert "Done, 4 steps" in capsys.readouterr().out


def test_tensorboard_gets_scalars_and_pictures(frames: Path, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    values = small_values(frames, steps=2, picture_every=2)
    assert command(tmp_path, values, "--workers", "2") == 0
    board = events.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    tags = board.Tags()
    assert {"training/loss", "training/cross_entropy", "training/metric_term",
            "training/gradient_norm", "training/learning_rate", "training/pixels_per_s",
            "validation/answers"} <= set(tags["scalars"])
    assert tags["images"] == ["validation"]
    assert [event.step for event in board.Scalars("training/loss")] == [1, 2]


def test_without_tensorboard_it_says_so_once_and_goes_on(frames: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(training_log, "SummaryWriter", None)
    assert command(tmp_path, small_values(frames, steps=3)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("TensorBoard is not installed") == 1
    assert len(figures(tmp_path / "run")) == 3


def test_the_best_checkpoint_is_kept_when_the_model_becomes_worse(frames: Path, tmp_path: Path
                                                                  ) -> None:
    run = training(small_recipe(frames), tmp_path)
    run.judged(0.5)
    best = (tmp_path / "checkpoint" / "model.safetensors").read_bytes()
    curve(run, 1)
    run.judged(0.6)
    assert (tmp_path / "checkpoint" / "model.safetensors").read_bytes() == best
    run.judged(0.4)
    assert (tmp_path / "checkpoint" / "model.safetensors").read_bytes() != best


def test_fewer_validation_frames_than_images_of_a_step_give_figures(frames: Path, tmp_path: Path
                                                                    ) -> None:
    values = small_values(frames, steps=1, images=5)
    assert values["data"]["validation_frames"] == 1
    assert command(tmp_path, values) == 0
    errors = figures(tmp_path / "run", "validation")[1]
    assert all(np.isfinite(error) and error > 0 for error in errors.values())


def test_validation_tells_what_the_fusion_guesses(frames: Path, tmp_path: Path) -> None:
    values = small_values(frames)
    values["sdim"]["told"] = "guess"
    values["sdim"]["fusion"]["fills"] = values["sdim"]["hints"] = ["linear", "edge_aware"]
    run = training(recipes.parse(values), tmp_path)
    judge = TrainingBatches(run.recipe.data, run.model.config, 1, 64, 0, 1, tmp_path, True)
    errors = validation.validate(run, judge)
    assert set(errors) == {"answers", "guess", "linear", "edge_aware"}
    assert 0 < errors["guess"] < errors["answers"]  # untrained: the mean of the fills


def test_validation_is_the_mean_error_of_the_answers(frames: Path, tmp_path: Path) -> None:
    run = training(small_recipe(frames), tmp_path)
    judge = TrainingBatches(run.recipe.data, run.model.config, 1, 64, 0, 3, tmp_path, True)
    errors = validation.validate(run, judge)
    by_hand = [np.abs(b.queries.hints[0, :, 0].numpy() - b.truth[0] / b.unit[0])
               for b in (judge[i] for i in range(3))]
    assert errors["linear"] == pytest.approx(np.mean(by_hand), rel=1e-6)
    assert errors["answers"] > errors["linear"]  # an untrained model knows nothing


def based(frames: Path, base: Path, **training: Any) -> dict[str, Any]:
    """A recipe that adapts a base."""
    values = {**small_values(frames, **training), "base": str(base),
              "lora": {"rank": 4, "alpha": 8}}
    del values["qwen"]
    return values


def test_an_adapted_base_is_written_as_an_adapter_that_loads(frames: Path, tmp_path: Path
                                                             ) -> None:
    checkpoint.save_stock(random_model(sharpen=1.0), tmp_path / "base")
    values = based(frames, tmp_path / "base", steps=2, gradient_checkpointing=True)
    assert command(tmp_path, values) == 0
    assert not (tmp_path / "run" / "last" / "model.safetensors").exists()
    assert checkpoint.load(ModelSettings(checkpoint=str(tmp_path / "run" / "last"))).config == (
        recipes.parse(values).sdim)


def test_a_run_does_not_go_on_with_another_base(frames: Path, tmp_path: Path,
                                                capsys: pytest.CaptureFixture) -> None:
    values = based(frames, tmp_path / "base", steps=2)
    for seed, code in ((0, 0), (0, 0), (1, 2)):
        checkpoint.save_stock(random_model(seed=seed, sharpen=1.0), tmp_path / "base")
        values["training"]["steps"] += 1
        assert command(tmp_path, values) == code
    assert "it adapts another base" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "value", "expected"), [
    ("--steps", "0", "1 or more"), ("--threads", "0", "1 or more"), ("--workers", "-1", "0 (")])
def test_no_steps_at_all_and_no_thread_are_refused(
        frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture, flag: str, value: str,
        expected: str) -> None:
    assert command(tmp_path, small_values(frames), flag, value) == 2
    assert f"{flag} {value}: expected {expected}" in capsys.readouterr().err


def test_sizes_that_cannot_be_are_named(tmp_path: Path, frames: Path,
                                        capsys: pytest.CaptureFixture) -> None:
    values = small_values(frames)
    values["qwen"]["text_config"]["num_attention_heads"] = 0
    assert command(tmp_path, values) == 2
    assert "qwen: Qwen2.5-VL cannot be made with these sizes" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "1"])
def test_data_that_is_not_there_is_named(workers: str, tmp_path: Path,
                                         capsys: pytest.CaptureFixture) -> None:
    frames = write_frames(tmp_path / "frames")
    for picture in (frames / "gt").iterdir():
        picture.unlink()
    assert command(tmp_path, small_values(frames), "--workers", workers) == 2
    assert "no dense depth to ask for" in capsys.readouterr().err


def test_a_killed_run_goes_on_with_the_same_loss_curve(frames: Path, tmp_path: Path) -> None:
    values = small_values(frames, steps=20, checkpoint_every=3)
    recipe, killed, through = tmp_path / "recipe.yaml", tmp_path / "killed", tmp_path / "run"
    process = start(write_recipe(recipe, values), killed)
    try:
        wait_for_steps(process, killed, 7)
    finally:
        process.kill()
    process.communicate()
    assert 7 <= len(figures(killed)) < 20
    assert f"{killed}: going on at step" in finish(start(recipe, killed))
    assert command(tmp_path, values) == 0
    assert figures(killed) == figures(through)
    assert figures(killed, "gradient_norm") == figures(through, "gradient_norm")
    assert (killed / "last" / "model.safetensors").read_bytes() == (
        through / "last" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_saves_and_ends_with_a_sentence(number: int, code: int, frames: Path,
                                                           tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", small_values(frames, steps=10_000))
    process = start(recipe, tmp_path / "run")
    try:
        wait_for_steps(process, tmp_path / "run", 1)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert "Traceback" not in said
    step = len(figures(tmp_path / "run"))
    assert f"Stopped at step {step} of 10000." in said
    loaded = checkpoint.load(ModelSettings(checkpoint=str(tmp_path / "run" / "last")))
    assert loaded.parameter_count() > 1000


def test_ctrl_c_in_the_last_step_loses_no_validation(
        frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = Training.advance

    def interrupted(run: Training, batches: object) -> dict[str, float]:
        if run.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(run, batches)

    monkeypatch.setattr(Training, "advance", interrupted)
    assert command(tmp_path, small_values(frames, steps=2)) == 0
    assert checkpoint.load(ModelSettings(checkpoint=str(tmp_path / "run" / "checkpoint")))


@pytest.mark.parametrize("killed_at", [2, 4])
def test_a_run_killed_while_it_validates_is_validated_when_it_goes_on(
        killed_at: int, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validate = validation.validate

    def killed(run: Training, judge: object) -> dict[str, float]:
        if run.step == killed_at:
            raise SystemExit("killed")
        return validate(run, judge)

    values = small_values(frames, steps=4, validate_every=2)
    monkeypatch.setattr(validation, "validate", killed)
    with pytest.raises(SystemExit, match="killed"):
        command(tmp_path, values)
    monkeypatch.setattr(validation, "validate", validate)
    assert command(tmp_path, values) == 0
    assert list(figures(tmp_path / "run", "validation")) == [2, 4]
    assert checkpoint.load(ModelSettings(checkpoint=str(tmp_path / "run" / "checkpoint")))


def test_a_killed_run_knows_its_best_error_when_it_goes_on(
        frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advance, best = Training.advance, tmp_path / "run" / "checkpoint" / "model.safetensors"

    def killed(run: Training, batches: object) -> dict[str, float]:
        if run.step == 3:
            raise SystemExit("killed")
        return advance(run, batches)

    values = small_values(frames, steps=4, validate_every=2)
    monkeypatch.setattr(Training, "advance", killed)
    monkeypatch.setattr(validation, "validate", lambda run, _: {"answers": float(run.step)})
    with pytest.raises(SystemExit, match="killed"):
        command(tmp_path, values)
    monkeypatch.setattr(Training, "advance", advance)
    of_step_2 = best.read_bytes()
    assert command(tmp_path, values) == 0
    assert list(figures(tmp_path / "run", "validation")) == [2, 4]
    assert best.read_bytes() == of_step_2


def test_depths_nearer_than_a_node_takes_train_and_judge(tmp_path: Path) -> None:
    near = write_frames(tmp_path / "near")
    index = json.loads((near / "frames.json").read_text())
    (near / "frames.json").write_text(json.dumps({**index, "depth_scale": 50_000.0}))
    assert command(tmp_path, small_values(near, steps=2)) == 0
    assert (tmp_path / "run" / "checkpoint").is_dir()


def test_ctrl_c_while_libraries_load_ends_with_a_sentence(tmp_path: Path) -> None:
    # Tests in the background of a shell ignore Ctrl-C, and what they start would as well.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(tmp_path / "recipe.yaml", tmp_path / "run")
    signal.signal(signal.SIGINT, before)
    mapped = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "libtorch" not in mapped.read_text():
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "sdim: stopped\n")
