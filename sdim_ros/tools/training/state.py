"""What a resumed run needs, on disk: weights and moments, step, recipe; each file whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sdim_ros.core import checkpoint
from sdim_ros.core.types import BadSetting
from sdim_ros.core.whole_files import write_text
from sdim_ros.tools.training.parallel import like, whole
from sdim_ros.tools.training.recipe import FREE_KEYS, Recipe

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: optimiser steps done.
        best: smallest validation error so far; None = not validated yet.
        validated: the step of the last validation.
        parts: batches that make one step, over all processes.
        recipe: of the run, by dotted names.
        file: name of the file beside it with the weights and the optimizer's moments.
        base: digest of the base that it adapts; empty = from nothing, or not known.
    """

    parts: int
    recipe: dict[str, Any]
    step: int = 0
    best: float | None = None
    validated: int = 0
    file: str = ""
    base: str = ""


def tensors_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and moments, whole and on the CPU; every process must ask."""
    tensors = {f"model.{name}": value for name, value in weights_of(model).items()}
    for name, value in changing(model).items():
        for key, moment in optimizer.state.get(value, {}).items():
            tensors[f"optimizer.{key}.{name}"] = _on_cpu(moment)
    return tensors


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """All of the model that training changes, whole and on the CPU; every process must ask."""
    return {name: _on_cpu(value) for name, value in changing(model).items()}


def _on_cpu(tensor: Tensor) -> Tensor:
    # A copy: files of tensors refuse those that share memory, as tied weights do.
    return whole(tensor.detach()).to("cpu", copy=True).contiguous()


def changing(model: nn.Module) -> dict[str, Tensor]:
    """Trained parameters, and the buffers of the state, by name.

    Frozen weights of a base are left out: they are where the base is.
    """
    kept = model.state_dict(keep_vars=True)
    return {n: v for n, v in kept.items()
            if not isinstance(v, nn.Parameter) or v.requires_grad}


@torch.no_grad()
def restore(tensors: Mapping[str, Tensor], model: nn.Module,
            optimizer: torch.optim.Optimizer) -> None:
    """The reverse of ``tensors_of``."""
    for name, value in changing(model).items():
        value.copy_(like(tensors[f"model.{name}"], value))
        moments = {key: tensors[f"optimizer.{key}.{name}"] for key in MOMENTS
                   if f"optimizer.{key}.{name}" in tensors}
        if moments:
            optimizer.state[value] = {
                key: m if key == "step" else like(m, value) for key, m in moments.items()}


def write(folder: Path, progress: Progress, tensors: dict[str, Tensor]) -> None:
    """Replace the state of the run; ``state.json`` comes last and names the other file."""
    progress.file = f"state-{progress.step}.safetensors"
    checkpoint.write_tensors(folder / progress.file, tensors)
    write_progress(folder, progress)
    for old in folder.glob("state-*.safetensors"):
        if old.name != progress.file:
            old.unlink()


def write_progress(folder: Path, progress: Progress) -> None:
    """Replace ``state.json`` alone; the file that it names must be there."""
    write_text(folder / "state.json", json.dumps(asdict(progress), indent=1) + "\n")


def read(folder: Path, recipe: Recipe, parts: int, processes: int
         ) -> tuple[Progress, dict[str, Tensor]]:
    """The state of an interrupted run, or of a new one without tensors.

    Raises:
        BadSetting: the run was started with another recipe or another size of a step, or its
            state cannot be read.
    """
    fresh = Progress(parts, recipe.content())
    if not (folder / "state.json").is_file():
        return fresh, {}
    remedy = f"use another --out, or delete {folder} to start anew"
    try:
        progress = Progress(**json.loads((folder / "state.json").read_text()))
        tensors = load_file(folder / progress.file)
    except Exception as problem:  # a damaged file makes its reader raise almost anything
        raise BadSetting(f"run {folder}: its state cannot be read ({problem}); {remedy}"
                         ) from problem
    changes = _changes(progress.recipe, fresh.recipe)
    if changes:
        raise BadSetting(f"run {folder}: it was started with another recipe ({changes}); take "
                         f"the changes back, {remedy}")
    if progress.parts != parts:
        raise BadSetting(
            f"run {folder}: each step had {progress.parts} batches, and {processes} processes "
            f"x training.accumulate {recipe.training.accumulate} give {parts}; change "
            f"training.accumulate so that the product is {progress.parts}, or {remedy}")
    progress.recipe = fresh.recipe
    return progress, tensors


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What decides the learning and differs; a key that the run did not know yet does not."""
    changed = [name for name in sorted(before)
               if name not in FREE_KEYS and before[name] != now.get(name, "absent")]
    return ", ".join(f"{name}: {before[name]} -> {now.get(name, 'absent')}" for name in changed)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for part in (folder, folder / "last", folder / "checkpoint"):
        for left in part.glob(".*.*.[0-9]*"):
            left.unlink()
