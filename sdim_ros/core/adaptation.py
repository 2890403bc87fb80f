"""Self-supervised learning on the robot: hide measured points, ask for them, learn, judge.

The text supervision is that of training, on the points of the frames that are completed anyway.
Points that never train judge what was learnt. Inference uses the last weights that were judged to
be no worse; those that are clearly worse are thrown away, and in between it learns on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from sdim_ros.core.asking import out_of_memory
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import AdaptationSettings
from sdim_ros.core.frame_memory import FrameMemory, MemoryFrame, divided
from sdim_ros.core.lora import LoraSettings, learning_parameters
from sdim_ros.core.supervision import (
    LossWeights, Posed, collate, pose_questions, split_points, supervised_loss)
from sdim_ros.core.types import AdaptationStatus, BadInput, BadSetting, Frame, ModelFailed

ORIGINAL = 0              # version of the weights that were loaded
JUDGES = 8                # frames of a judgement: half of them the newest
JUDGED_PIXELS = 128       # of each, at most
IMPLAUSIBLE = 3.0         # times the usual error of the original weights: do not believe the frame
BELIEVED_AFTER = 50       # such frames in a row: so it is now
LARGEST_ERROR = 1.0       # of its depth; one wrong point must not outweigh a frame
TOLERANCE, CHANCE = 0.01, 2.0  # less, or within so many standard errors, is not clearly worse
WARM_UP, CLIP = 10, 1.0   # steps; norm of the gradient
SINGLE = 0.7              # of the lessons hide points one by one, the others in blocks or rows
WORSE_THAN_ORIGINAL = 2   # judgements in a row that are clear about it, then it pauses
BACK_OFF, SPEED_UP = 0.5, 1.2  # of the learning rate, after weights were thrown away or used
LORA = LoraSettings(rank=16, alpha=32.0)

Weights = dict[str, Tensor]


class Adaptation:
    """Tunes a completer's model. One thread uses both; the model is whole between two calls.

    Args:
        completer: its model learns, in place.
        settings: what learns, and how fast.
        seed: of every random choice.

    Raises:
        BadSetting: the model's weights are quantized.
    """

    def __init__(self, completer: Completer, settings: AdaptationSettings, seed: int = 0) -> None:
        quantization = completer.settings.model.quantization
        if quantization != "none":
            raise BadSetting(
                f"model.quantization={quantization}: weights of few bits cannot learn; set it to "
                "none, or adaptation.enabled to false")
        self.completer, self.settings = completer, settings
        self.status = AdaptationStatus()
        self._rng = np.random.default_rng(seed)
        self.memory = FrameMemory(settings.buffer_mb * 2**20, seed)
        self._new: MemoryFrame | None = None
        self._usual_error: deque[float] = deque(maxlen=50)
        self._implausible: list[float] = []  # since the last that was not
        self._parameters = learning_parameters(
            completer.model, settings.parts, LORA, settings.lora_layers)
        completer.forget_recordings()  # they know nothing of LoRA
        self._original = {n: p.detach().clone() for n, p in self._parameters.items()}
        self._good, self._good_version, self._version = self._original, ORIGINAL, ORIGINAL
        self._worse, self._speed, self.total_steps = 0, 1.0, 0  # with steps rolled back
        self._judging: list[MemoryFrame] = []
        self._restart()

    def _restart(self) -> None:
        """Learn on from the weights in use."""
        self._master = {n: nn.Parameter(w.float().clone()) for n, w in self._good.items()}
        self._average = {n: w.detach().clone() for n, w in self._master.items()}
        self._optimizer = torch.optim.AdamW(
            self._master.values(), lr=self.settings.learning_rate, weight_decay=0.0,
            betas=(0.9, 0.98))
        self._parts, self._since_start, self._since_judged, self._since_used = 0, 0, 0, 0

    # --- What the owner calls ----------------------------------------------------------------

    def observe(self, frame: Frame) -> None:
        """Take note of a frame; of those that nothing was done with yet the newest stays.

        Raises:
            BadInput: nothing can be learnt from it, or it is not to be believed; it is counted.
        """
        try:
            sparse, _ = self.completer.clean(frame)
            self.memory.check(frame, sparse)  # first: what is believed may cost a pass
            new = divided(frame, self.completer.believed(frame.image, sparse))
            if not len(new.judge):
                raise BadInput("too_few_points", "none of the points fell to those that judge")
        except BadInput as problem:
            self.status.refused[problem.reason] += 1
            raise
        self._new = new

    def work(self) -> bool:
        """Do one piece of work, about as long as a forward and a backward pass of one frame.

        Returns:
            False when there is nothing to do.

        Raises:
            ModelFailed: memory ran out; the model is as it was.
        """
        if self.status.state != "learning":
            return False
        if self._new is not None:
            self._admit()
        elif self._judging:
            self._judge_next()
        elif not self.memory.frames:
            return False
        elif self._since_judged >= self.settings.judge_every:
            self._judging = self._judges()
        else:
            frame = self._next_lesson()
            with self._forgetting(frame):
                self._learn(frame)
        self.status.frames = len(self.memory.frames)
        return True

    def reset(self) -> None:
        """Back to the weights that were loaded; what was learnt is gone, frames stay."""
        self._use(self._original, ORIGINAL)
        self._restart()
        self._judging, self._worse = [], 0
        self.status = AdaptationStatus(frames=len(self.memory.frames),
                                       refused=self.status.refused)

    def start_over(self, seed: int) -> None:
        """As if it had just been made: original weights, no frames, another seed."""
        self.memory.clear(seed)
        self._rng = np.random.default_rng(seed)
        self._usual_error.clear()
        self._implausible.clear()
        self._new, self.total_steps, self._speed = None, 0, 1.0
        self.reset()
        self.status = AdaptationStatus()

    def settle(self) -> None:
        """Judge what was learnt since the last judgement: what is no worse is used."""
        if self._since_judged and self.status.state == "learning" and not self._judging:
            self._judging = self._judges()
        while self._judging:
            self._judge_next()

    @contextmanager
    def as_loaded(self) -> Iterator[None]:
        """Inference with the weights that were loaded, to compare."""
        with self._using(self._original):
            yield

    @property
    def version(self) -> int:
        """Of the weights in use: another number after each change, 0 = those that were loaded."""
        return self._good_version

    @property
    def steps_in_use(self) -> int:
        """Steps that made the weights in use; those of ``status`` may not be used yet."""
        return self.status.steps - self._since_used - self._since_judged

    def weights(self) -> Weights:
        """The tensors in use, by name. Any thread may ask, in the middle of a piece of work too."""
        return {name: value.detach().clone() for name, value in self._good.items()}

    def original(self) -> Weights:
        """The tensors as they were loaded, by name."""
        return {name: value.clone() for name, value in self._original.items()}

    def restore(self) -> None:
        """Put the weights in use into the model, while a thread that was given up may not have."""
        _copy(self._good, self._parameters)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from weights of another run, as the last good ones."""
        self._version += 1
        self._use({n: weights[n].to(p) for n, p in self._parameters.items()}, self._version)
        self._restart()

    # --- Learning ----------------------------------------------------------------------------

    def _next_lesson(self) -> MemoryFrame:
        """The newest frame while it is new, then any."""
        newest = self.memory.frames[-1]
        if newest.lessons == 0:
            return newest
        return self.memory.frames[int(self._rng.integers(len(self.memory.frames)))]

    def _learn(self, frame: MemoryFrame) -> None:
        """Gradients of one frame; with the last one of a step, the step."""
        frame.lessons += 1
        how, model = self.settings, self.completer.model
        posed = self._posed(frame)
        with self._using(self._master), self._training():
            loss, _ = supervised_loss(model, collate([posed], model.config, {}), LossWeights())
            if torch.isfinite(loss):
                (loss / how.frames).backward()
            self._take_gradients()
        self._parts += 1
        if self._parts >= how.frames or not torch.isfinite(loss):
            self._step(bool(torch.isfinite(loss)))

    def _posed(self, frame: MemoryFrame) -> Posed:
        """Questions about points that are hidden, of the frame or of its mirror image.

        Raises:
            BadInput: nothing can be asked.
        """
        how, image = self.settings, frame.image
        single = self._rng.random() < SINGLE
        shown, labels = split_points(frame.sparse(), how.hidden, self._rng, single)
        if self._rng.random() < 0.5:
            image, shown, labels = (np.ascontiguousarray(m[:, ::-1])
                                    for m in (image, shown, labels))
        model = self.completer.model
        return pose_questions(image, shown, labels, model.config, how.pixels, 0.0, self._rng,
                              keep_maps=model.takes_maps(*shown.shape))

    def _step(self, finite: bool) -> None:
        norm = nn.utils.clip_grad_norm_(self._master.values(), CLIP)
        if finite and torch.isfinite(norm):
            rate = self._speed * self.settings.learning_rate * min(
                1.0, (self._since_start + 1) / WARM_UP)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.step()
            self._bound_drift()
            for name, value in self._master.items():
                self._average[name].lerp_(value.detach(), 1 - self.settings.average)
            self._since_start += 1
            self._since_judged += 1
            self.status.steps += 1
            self.total_steps += 1
        else:
            self.status.dropped_steps += 1
        self._optimizer.zero_grad(set_to_none=True)
        self._parts = 0

    def _take_gradients(self) -> None:
        """From the model's parameters, of any number type, to the float32 ones that learn."""
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                master = self._master[name]
                gradient = parameter.grad.float()
                master.grad = gradient if master.grad is None else master.grad + gradient
                parameter.grad = None

    @torch.no_grad()
    def _bound_drift(self) -> None:
        """Pull the weights back to the sphere around the original ones that they may not leave."""
        moved = math.sqrt(sum(float((self._master[n] - w).square().sum())
                              for n, w in self._original.items()))
        length = math.sqrt(sum(float(w.float().square().sum()) for w in self._original.values()))
        limit = self.settings.max_drift * length
        if moved > limit:
            for name, original in self._original.items():
                self._master[name].sub_((self._master[name] - original) * (1 - limit / moved))

    # --- Judging -----------------------------------------------------------------------------

    def _admit(self) -> None:
        """Keep the new frame, unless the original weights find it far stranger than usual."""
        frame, self._new = self._new, None
        with self._using(self._original):
            error = self._error(frame)
        frame.error[ORIGINAL] = error
        usual = float(np.median(self._usual_error)) if len(self._usual_error) >= 5 else math.inf
        if not error <= IMPLAUSIBLE * usual:
            self._implausible.append(error)
            if len(self._implausible) < BELIEVED_AFTER:
                self.status.refused["implausible"] += 1
                return
            self._usual_error = deque(self._implausible, maxlen=50)
        self._implausible.clear()
        self._usual_error.append(error)
        self.memory.add(frame)

    def _judges(self) -> list[MemoryFrame]:
        """The newest frames, and as many of the older ones."""
        frames = self.memory.frames
        newest, older = frames[-JUDGES // 2:], frames[:-JUDGES // 2]
        drawn = self._rng.choice(len(older), min(JUDGES // 2, len(older)), replace=False)
        self._version += 1
        return [*newest, *(older[int(i)] for i in drawn)]

    def _judge_next(self) -> None:
        """One frame by one set of weights; with the last one, the judgement."""
        for frame in self._judging:
            for version, weights in ((self._good_version, self._good),
                                     (self._version, self._average)):
                if version not in frame.error:
                    with self._forgetting(frame), self._using(weights):
                        frame.error[version] = self._error(frame)
                    return
        self._conclude([(f.error[ORIGINAL], f.error[self._good_version], f.error[self._version])
                        for f in self._judging])
        self._judging = []

    def _conclude(self, errors: list[tuple[float, float, float]]) -> None:
        """Use what was learnt, go on learning from it, or throw it away."""
        original, good, now = np.array(errors).T
        judged_steps, self._since_judged = self._since_judged, 0
        if now.mean() <= good.mean():
            self._speed = min(1.0, self._speed * SPEED_UP)
            self._use({n: w.clone() for n, w in self._average.items()}, self._version)
            self._since_used, good = 0, now
        else:
            self._since_used += judged_steps
            if _clearly_worse(now, good):
                self.status.rollbacks += 1
                self._speed *= BACK_OFF
                self.status.steps -= self._since_used
                self._restart()
        self.status.error_before = float(original.mean())
        self.status.error_now = float(good.mean())
        self._worse = self._worse + 1 if _clearly_worse(good, original) else 0
        if self._worse >= WORSE_THAN_ORIGINAL:
            rollbacks, before = self.status.rollbacks, self.status.error_before
            self.reset()
            self.status.rollbacks = rollbacks + 1
            self.status.error_before = self.status.error_now = before
            self.status.state = ("paused: worse than the weights that were loaded; reset or "
                                 "enable adaptation again to go on")
        kept = {ORIGINAL, self._good_version}
        for frame in self.memory.frames:
            frame.error = {v: e for v, e in frame.error.items() if v in kept}

    @contextmanager
    def _forgetting(self, frame: MemoryFrame) -> Iterator[None]:
        """Around its use: a frame that is of no use any more would be tried again and again."""
        try:
            yield
        except BadInput as problem:
            self.status.refused[problem.reason] += 1
            for frames in (self._judging, self.memory.frames):
                frames[:] = [kept for kept in frames if kept is not frame]

    @torch.no_grad()
    def _error(self, frame: MemoryFrame) -> float:
        """Sum of errors over sum of depths at judging points, when the others are shown."""
        rows, cols = np.unravel_index(frame.judge[:JUDGED_PIXELS], frame.image.shape[:2])
        truth = frame.judge_m[:JUDGED_PIXELS]
        said = self.completer.ask(Frame(frame.image, frame.sparse()), rows, cols).depth
        return float(np.minimum(np.abs(said - truth), LARGEST_ERROR * truth).sum() / truth.sum())

    def _use(self, weights: Weights, version: int) -> None:
        """Let inference use these weights from now on."""
        self._good, self._good_version = weights, version
        _copy(weights, self._parameters)

    @contextmanager
    def _using(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """The model with other weights; those in use are back afterwards, whatever happens."""
        _copy(weights, self._parameters)
        try:
            yield
        finally:
            _copy(self._good, self._parameters)

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Gradients for what learns; statistics of batches stay frozen, as in inference."""
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)
        try:
            with torch.enable_grad():
                yield
        except RuntimeError as problem:
            if not out_of_memory(problem):
                raise
            raise ModelFailed("out of memory while learning: lower adaptation.pixels") from problem
        finally:
            for parameter in self._parameters.values():
                parameter.grad = None
                parameter.requires_grad_(False)


def _clearly_worse(errors: np.ndarray, others: np.ndarray) -> bool:
    """Whether the mean of the first is higher by more than the tolerance and than chance."""
    difference = errors - others
    error = difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else 0
    return bool(difference.mean() > max(TOLERANCE * others.mean(), CHANCE * error))


@torch.no_grad()
def _copy(weights: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])
