"""Model, optimiser and step of a training: one step, saving, going on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from sdim_ros.core import checkpoint
from sdim_ros.core.recompute import recompute_layers
from sdim_ros.core.supervision import Batch
from sdim_ros.core.types import BadSetting, ModelFailed
from sdim_ros.tools.training import spelling, state as training_state
from sdim_ros.tools.training.objective import Objective
from sdim_ros.tools.training.parallel import Parallel, whole
from sdim_ros.tools.training.recipe import Recipe
from sdim_ros.tools.training.starting_model import starting_model

# Steps in a row whose gradients are not finite before the run is given up.
MOST_UNUSABLE = 20


class Training:
    """One run in its folder; a run that is there already goes on.

    Args:
        parallel: the processes that train together.
        folder: of the run.
        allow_download: fetch a base that is not in the local cache.
        report: called with the steps of ``spelling.teach`` done and wanted, in a new run.

    Raises:
        BadSetting: the folder holds a run of another recipe.
        ModelUnavailable: the base cannot be loaded.
    """

    def __init__(self, recipe: Recipe, parallel: Parallel, folder: Path,
                 allow_download: bool = False,
                 report: Callable[[int, int], None] = lambda done, wanted: None) -> None:
        self.recipe, self.parallel, self.folder = recipe, parallel, folder
        self.progress, tensors = training_state.read(
            folder, recipe, recipe.training.accumulate * parallel.count, parallel.count)
        self._unusable = 0  # steps in a row
        self.model, self._base = starting_model(recipe, parallel.device, allow_download)
        digest = "" if self._base is None else self._base.digest
        if self.progress.base not in ("", digest):
            raise BadSetting(f"run {folder}: it adapts another base than {recipe.base} is now: "
                             "bring that one back, or use another --out")
        self.progress.base = digest
        if parallel.sharded and self.model.config.addressing == "text":
            raise BadSetting("sdim.addressing: text with shared weights (FSDP): each process asks "
                             "in another number of passes, so they would wait for each other; "
                             "train without FSDP, or with addressing: point")
        if recipe.training.spelling and not tensors:
            spelling.teach(self.model.to(parallel.device), recipe.training, recipe.seed, report)
        if recipe.training.gradient_checkpointing:
            recompute_layers(self.model)
        self.objective = Objective(self.model, recipe.training, keep_ends=parallel.sharded)
        self.wrapped = parallel.wrap(self.objective)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=recipe.training.learning_rate,
            weight_decay=recipe.training.weight_decay, betas=(0.9, 0.98))
        if tensors:
            training_state.restore(tensors, self.model, self.optimizer)
        self._saved = self.step if tensors else None

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.progress.step

    def advance(self, batches: Sequence[Batch]) -> dict[str, float]:
        """One optimiser step on this process's part of it.

        Every process takes as many questions, so the mean of the processes' mean losses, and of
        their gradients, is that of all questions together.

        Returns:
            figures of the step over all processes, by name.
        """
        # What dropout draws depends on the step and the process alone, so a run can resume.
        torch.manual_seed((self.recipe.seed * 1_000_003 + self.step) * 4099 + self.parallel.rank)
        self.wrapped.train()
        seen: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, start=1):
            with self.parallel.accumulating(self.wrapped, last=number == len(batches)):
                loss, parts = self.wrapped(batch)
                (loss / len(batches)).backward()
            for name, value in {"loss": loss.detach(), **parts}.items():
                seen[name] = seen.get(name, 0) + value / len(batches)
        rate, norm = self._update()
        figures = dict(zip(seen, self.parallel.mean(list(seen.values()))))
        return {**figures, "gradient_norm": norm, "learning_rate": rate}

    def _update(self) -> tuple[float, float]:
        """Let the optimiser use the gradients; returns the learning rate and their norm."""
        rate = self.recipe.training.learning_rate * self._schedule()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = float(whole(torch.nn.utils.clip_grad_norm_(
            self.trained, self.recipe.training.clip)))
        # A step that is not finite would destroy the weights; the next batch is another one.
        if math.isfinite(norm):
            self.optimizer.step()
        self._unusable = 0 if math.isfinite(norm) else self._unusable + 1
        if self._unusable == MOST_UNUSABLE:
            raise ModelFailed(
                f"run {self.folder}: the gradients of {MOST_UNUSABLE} steps in a row were not "
                "finite; start anew with a smaller training.learning_rate or more "
                "training.warmup")
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        return rate, norm

    def _schedule(self) -> float:
        """Linear warm-up, then a cosine down to 1 %."""
        warmup = self.recipe.training.warmup
        if self.step < warmup:
            return (self.step + 1) / warmup
        done = (self.step - warmup) / max(1, self.recipe.training.steps - warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def questions(self, batches: Sequence[Batch]) -> int:
        """Pixels asked in a step by all processes."""
        return self.parallel.count * sum(batch.truth.size for batch in batches)

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Around questions to the model; every process must ask as many."""
        self.objective.eval()
        with torch.no_grad(), self.parallel.gathered(self.wrapped), self.objective.precision():
            yield

    def judged(self, error: float) -> None:
        """Take note of a validation error; the best model becomes FOLDER/checkpoint.

        To be called when this step is saved: a run that goes on knows of both or of neither.
        """
        if self.progress.best is None or error < self.progress.best:
            self.progress.best = error
            self._write_checkpoint("checkpoint")
        self.progress.validated = self.step
        if self.parallel.main:
            training_state.write_progress(self.folder, self.progress)

    def save(self) -> None:
        """State and FOLDER/last, both of this step, where they are not there yet."""
        if self._saved == self.step:
            return
        tensors = training_state.tensors_of(self.model, self.optimizer)
        if self.parallel.main:
            training_state.write(self.folder, self.progress, tensors)
        self._write_checkpoint("last")
        self._saved = self.step

    def _write_checkpoint(self, name: str) -> None:
        state = training_state.weights_of(self.model)
        if not self.parallel.main:
            return
        if self._base is None:
            dtype = getattr(torch, self.recipe.training.stored)
            checkpoint.save(self.model, self.folder / name, dtype, state)
        else:
            checkpoint.save_adapter(
                self.model, self.folder / name, self._base, self.recipe.lora, state)
