"""``sdim train``: text supervision on frames with dense depth, resumable at any step."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from sdim_ros.core import checkpoint, engine, model
from sdim_ros.core.losses import text_loss
from sdim_ros.core.model import SdimConfig, SdimModel
from sdim_ros.core.types import BadSetting
from sdim_ros.tools import tiny
from sdim_ros.tools.scene_cache import VALIDATION_SEED, render_cache
from sdim_ros.tools.training_data import Batch, SceneBatches


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="YAML recipe")
    parser.add_argument("--out", type=Path, required=True,
                        help="folder of the run; an interrupted run there goes on")
    parser.add_argument("--cache", type=Path, default=Path("runs/scenes"),
                        help="folder of the rendered scenes (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="stop earlier than the recipe says")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches")


def run(args: argparse.Namespace) -> int:
    """Train, or go on with a run that was interrupted; writes OUT/checkpoint."""
    recipe = read_recipe(args.config)
    torch.set_num_threads(args.threads)
    console = Console()
    console.print(f"Rendering scenes into {args.cache} (kept for the next run)")
    data = recipe["data"]
    render_cache(args.cache, data, first_seed=0, workers=args.threads)
    few = {**data, "frames": data["validation_frames"], "mask_1": 0.0}
    render_cache(args.cache / "validation", few, VALIDATION_SEED, workers=args.threads)

    training = Training(recipe, args.out)
    steps = training.steps if args.steps is None else min(args.steps, training.steps)
    shape = recipe["training"]["images"], recipe["training"]["pixels"]
    batches = SceneBatches(args.cache, data, training.model.config, *shape,
                           recipe["seed"], steps)
    judge = SceneBatches(args.cache / "validation", few, training.model.config, *shape,
                         recipe["seed"], few["frames"] // shape[0])
    loader = DataLoader(
        batches, batch_size=None, sampler=range(training.step, steps), num_workers=args.workers,
        prefetch_factor=4 if args.workers else None, worker_init_fn=_one_thread)
    with _progress(console) as progress:
        task = progress.add_task("training", total=steps, completed=training.step, note="")
        for batch in loader:
            progress.update(task, advance=1, note=training.advance(batch))
            if training.step % recipe["training"]["checkpoint_every"] == 0:
                training.save()
            if training.step % recipe["training"]["validate_every"] == 0:
                console.print(training.validate(judge))
    training.save()
    console.print(training.validate(judge))
    checkpoint.save(training.model, args.out / "checkpoint")
    console.print(f"Checkpoint: {args.out / 'checkpoint'}")
    return 0


def read_recipe(path: Path) -> dict[str, Any]:
    """The YAML recipe.

    Raises:
        BadSetting: when the file or one of its sections is missing.
    """
    if not path.is_file():
        raise BadSetting(f"recipe {path}: there is no such file; try config/train_tiny.yaml")
    recipe = yaml.safe_load(path.read_text())
    missing = {"seed", "qwen", "sdim", "data", "training"} - set(recipe or {})
    if missing:
        raise BadSetting(f"recipe {path}: {', '.join(sorted(missing))} missing")
    return recipe


def untrained(recipe: dict[str, Any], folder: Path) -> SdimModel:
    """The recipe's network with random weights; its tokenizer is written to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_tokenizer(folder)
    tokenizer = model.load_tokenizer(folder)
    qwen = {**recipe["qwen"], "text_config": {
        **recipe["qwen"]["text_config"], "vocab_size": len(tokenizer),
        "bos_token_id": None, "eos_token_id": None}}
    torch.manual_seed(recipe["seed"])
    return model.build(qwen, SdimConfig.from_dict(recipe["sdim"]), tokenizer)


class Training:
    """Model, optimiser and step: everything that a resumed run needs."""

    def __init__(self, recipe: dict[str, Any], folder: Path) -> None:
        self.recipe, self.folder, self.step = recipe["training"], folder, 0
        self.model = untrained(recipe, folder)
        self.steps = self.recipe["steps"]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.recipe["learning_rate"],
            weight_decay=self.recipe["weight_decay"], betas=(0.9, 0.98))
        self.seconds, self._started = 0.0, time.perf_counter()
        if (folder / "state.json").is_file():
            self._resume()

    def advance(self, batch: Batch) -> str:
        """One optimiser step; returns a line for the progress bar."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe["learning_rate"] * self._schedule()
        logits = self._logits(batch)
        loss = text_loss(logits, torch.from_numpy(batch.digits), self.model.config.number,
                         self.recipe["metric_weight"], tuple(self.recipe["slot_weights"]))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe["clip"])
        # A step that is not finite would destroy the weights; the next batch is another one.
        if torch.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        now = time.perf_counter()
        took, self._started = now - self._started, now
        self.seconds += took
        self._log(step=self.step, loss=round(loss.item(), 4), gradient=round(norm.item(), 3))
        return f"loss {loss.item():.3f}  {batch.digits[..., 0].size / took:.0f} pixels/s"

    def _logits(self, batch: Batch) -> torch.Tensor:
        kind = getattr(torch, self.recipe.get("precision", "float32"))
        with torch.autocast("cpu", dtype=kind, enabled=kind != torch.float32):
            prefix = self.model.encode(self.model.prepare(batch.images, batch.sparses))
            suffix = self.model.point_suffix(prefix, batch.queries)
            return engine.teacher_forced(
                self.model, prefix, suffix, torch.from_numpy(batch.digits))

    def _schedule(self) -> float:
        """Linear warm-up, then a cosine down to 1 %."""
        warmup = self.recipe["warmup"]
        if self.step < warmup:
            return (self.step + 1) / warmup
        done = (self.step - warmup) / max(1, self.steps - warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    @torch.no_grad()
    def validate(self, judge: SceneBatches) -> str:
        """Answers against the hints at the same pixels of frames that were never trained on."""
        self.model.eval()
        errors = {name: [] for name in ("answers", *self.model.config.hints)}
        for index in range(len(judge)):
            batch = judge[index]
            for i, unit in enumerate(batch.unit):
                prefix = self.model.encode(
                    self.model.prepare(batch.images[i:i + 1], batch.sparses[i:i + 1]))
                asked = batch.queries.image(i)
                path = engine.decode(
                    self.model, prefix, self.model.point_suffix(prefix, asked)[0], "median")
                guess = self.model.config.number.value(path.digits) * unit
                errors["answers"].append(np.abs(guess - batch.truth[i]) / unit)
                for k, name in enumerate(self.model.config.hints):
                    hint = asked.hints[0, :, k].numpy()
                    errors[name].append(np.abs(hint - batch.truth[i] / unit))
        figures = {name: round(float(np.mean(e)), 5) for name, e in errors.items()}
        self._log(step=self.step, minutes=round(self.seconds / 60, 1), validation=figures)
        return f"step {self.step}: MAE on unseen scenes, in medians of the frame: {figures}"

    def save(self) -> None:
        """Weights, moments and step, each file whole: the step is written last."""
        names = {p: n for n, p in self.model.named_parameters()}
        tensors = {f"model.{n}": v.contiguous() for n, v in self.model.state_dict().items()}
        for parameter, state in self.optimizer.state.items():
            for key, value in state.items():
                tensors[f"optimizer.{key}.{names[parameter]}"] = value
        name = f"state-{self.step}.safetensors"
        checkpoint.write_tensors(self.folder / name, tensors)
        checkpoint.write_text(self.folder / "state.json", json.dumps(
            {"step": self.step, "seconds": self.seconds, "file": name}))
        for old in self.folder.glob("state-*.safetensors"):
            if old.name != name:
                old.unlink()

    def _resume(self) -> None:
        state = json.loads((self.folder / "state.json").read_text())
        tensors = load_file(self.folder / state["file"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict({
            n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")})
        for name, parameter in self.model.named_parameters():
            self.optimizer.state[parameter] = {
                key: tensors[f"optimizer.{key}.{name}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{key}.{name}" in tensors}

    def _log(self, **line: Any) -> None:
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def _one_thread(_: int) -> None:
    """Batch workers leave the cores to the training."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description} {task.completed}/{task.total}"), BarColumn(),
        TextColumn("{task.fields[note]}"), TimeRemainingColumn(), console=console)
