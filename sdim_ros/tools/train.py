"""``sdim train``: text supervision on frames with known depth, resumable at any step."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from sdim_ros.core.types import BadSetting
from sdim_ros.tools.training import recipe as recipes
from sdim_ros.tools.training import state as training_state, validation
from sdim_ros.tools.training.batch_loader import batches_of_steps, share
from sdim_ros.tools.complete import make_folder
from sdim_ros.tools.training.parallel import Parallel
from sdim_ros.tools.training.recipe import Recipe
from sdim_ros.tools.training.stop import Stop
from sdim_ros.tools.training.trainer import Training
from sdim_ros.tools.training.batches import TrainingBatches, prepare_scenes
from sdim_ros.tools.training.log import TrainingLog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="YAML recipe")
    parser.add_argument("--out", type=Path, required=True,
                        help="folder of the run; an interrupted run there goes on")
    parser.add_argument("--cache", type=Path, default=Path("runs/scenes"),
                        help="folder of the rendered scenes (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="stop earlier than the recipe says")
    parser.add_argument("--threads", type=int, default=os.cpu_count(),
                        help="CPU threads (default: all, %(default)s)")
    parser.add_argument("--workers", type=int, default=1,
                        help="processes that make batches; 0 = the training itself (default 1)")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto",
                        help="auto = the GPUs that are there")
    parser.add_argument("--allow-download", action="store_true",
                        help="fetch a base that is not in the local cache")


def check_processes(args: argparse.Namespace) -> None:
    """Whether --threads and --workers can be used; before anything is rendered or trained."""
    if args.threads < 1:
        raise BadSetting(f"--threads {args.threads}: expected 1 or more")
    if args.workers < 0:
        raise BadSetting(f"--workers {args.workers}: expected 0 (the training itself makes its "
                         "batches) or more")


def run(args: argparse.Namespace) -> int:
    """Train, or go on with a run that was interrupted.

    Returns:
        0 at the end of the run, 130 or 143 when Ctrl-C or SIGTERM came before.
    """
    recipe = recipes.read(args.config)
    if args.steps is not None and args.steps < 1:
        raise BadSetting(f"--steps {args.steps}: expected 1 or more")
    check_processes(args)
    torch.set_num_threads(args.threads)
    _keep_freed_memory()
    parallel = Parallel(cpu=args.device == "cpu")
    console = Console(quiet=not parallel.main, soft_wrap=True)
    make_folder(args.out)
    if parallel.main:
        training_state.sweep(args.out)
        _render(recipe, args.cache, args.threads, console)
    parallel.wait()

    with _reported(console, "learning to write numbers") as report:
        training = Training(recipe, parallel, args.out, args.allow_download, report)
    every, end = recipe.training, min(args.steps or 10**9, recipe.training.steps)
    if training.step:
        console.print(f"{args.out}: going on at step {training.step} of {end}")
    frames = _Frames(recipe, training, args.cache)
    log = TrainingLog(args.out, training.step, console, writes=parallel.main)
    numbers = share(range(training.step, end), every.accumulate, parallel.rank, parallel.count)
    with Stop() as stop, _progress(console) as bar:
        _judge(training, end, frames, log, console)  # of a run that was killed while it validated
        task = bar.add_task("training", total=end, completed=training.step, note="")
        since = time.perf_counter()
        for batches in batches_of_steps(frames.training, numbers, every.accumulate, args.workers):
            figures = training.advance(batches)
            figures["pixels_per_s"] = training.questions(batches) / (time.perf_counter() - since)
            log.figures(training.step, "training", figures)
            bar.update(task, completed=training.step, note=_note(figures))
            stopped = parallel.sum([stop.signal])[0] > 0
            _judge(training, end, frames, log, console)
            if not stopped and _due(training.step, every.picture_every):
                path = args.out / "pictures" / f"step-{training.step:06d}.png"
                validation.draw(training, frames.picture[0], path)
                log.picture(training.step, path)
            if stopped or _due(training.step, every.checkpoint_every):
                training.save()
            if stopped:
                break
            since = time.perf_counter()
    log.close()
    parallel.close()
    return _farewell(console, args.out, training.step, end, stop.signal)


class _Frames:
    """What is trained on, what judges, and what is drawn."""

    def __init__(self, recipe: Recipe, training: Training, cache: Path) -> None:
        every, data, config = recipe.training, recipe.data, training.model.config
        length = every.steps * every.accumulate * training.parallel.count

        def batches(images: int, pixels: int, count: int, judge: bool) -> TrainingBatches:
            return TrainingBatches(data, config, images, pixels, recipe.seed, count, cache, judge)

        self.training = batches(every.images, every.pixels, length, False)
        self.validation = batches(1, validation.PIXELS, data.validation_frames, True)
        self.picture = batches(1, validation.PICTURE_PIXELS, 1, True)


def _judge(training: Training, end: int, frames: _Frames, log: TrainingLog, console: Console
           ) -> None:
    """Validate where it is due and was not done before the run was interrupted."""
    step, every = training.step, training.recipe.training.validate_every
    due = step > 0 and (step == end or _due(step, every))
    if not due or training.progress.validated == step:
        return
    training.save()  # first: whatever happens here must not cost the steps
    errors = validation.validate(training, frames.validation)
    training.judged(errors["answers"])
    log.figures(step, "validation", errors)
    console.print(_verdict(step, errors))


def _render(recipe: Recipe, cache: Path, workers: int, console: Console) -> None:
    """Fill the cache of rendered scenes where the recipe wants some that are not there."""
    with _reported(console, f"rendering scenes into {cache}, once") as report:
        prepare_scenes(recipe.data, cache, workers, report)


def _keep_freed_memory() -> None:
    """A step takes the memory that the one before freed: a tenth faster than new pages each time.

    Only glibc knows these two of its ``malloc.h``; elsewhere nothing changes.
    """
    mmap_max, trim_threshold = -4, -1
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _note(figures: Mapping[str, float]) -> str:
    return f"loss {figures['loss']:.3f}  {figures['pixels_per_s']:.0f} pixels/s"


def _verdict(step: int, errors: Mapping[str, float]) -> str:
    shown = ", ".join(f"{name} {error:.4f}" for name, error in errors.items())
    return f"step {step}: mean error on unseen frames, in the unit of the numbers: {shown}"


def _farewell(console: Console, out: Path, step: int, end: int, signal_number: int) -> int:
    if step < end:
        console.print(f"Stopped at step {step} of {end}. {out} holds all of it: the same command "
                      "goes on from there.")
        return 128 + (signal_number or signal.SIGINT)
    console.print(f"Done, {step} steps: {out / 'checkpoint'} is the best on unseen frames, "
                  f"{out / 'last'} the last.")
    return 0


@contextmanager
def _reported(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that shows up with the first report of what is done and wanted."""
    with _progress(console) as bar:
        task = bar.add_task(what, note="", visible=False)

        def report(done: int, wanted: int) -> None:
            bar.update(task, completed=done, total=wanted, visible=True)

        yield report


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description} {task.completed}/{task.total}"), BarColumn(),
        TextColumn("{task.fields[note]}"), TimeRemainingColumn(), console=console)
