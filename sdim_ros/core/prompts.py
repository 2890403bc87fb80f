"""The words: SDIM's mask prompts, the fixed-width number grammar and the token ids.

The paper tells the model which pixels are measured ("mask 1: preserve") and which are missing
("mask 0: predict"), asks one fixed question and reads "The pixel is 04.230 meters away from the
camera." The wording below is our own; the paper's exact sentences are not public.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sdim_ros.core.types import BadInput

SYSTEM = "<|im_start|>user\n"
IMAGE_START, IMAGE_PAD, IMAGE_END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
INSTRUCTION = (
    "A sparse depth map is given. Where the mask value is 0, the depth is missing: predict the "
    "distance. Where the mask value is 1, the depth is measured: preserve the distance. "
)
QUESTION = "How far is the current pixel from the camera?"
TURN = "<|im_end|>\n<|im_start|>assistant\n"
PIXEL = "The current pixel is at x {x}, y {y}. "
MASK_0 = "The mask value is 0, predict the distance. "
MASK_1 = "The mask value is 1, the measured distance is {value} meters, preserve it. "
MASK_1_ALONE = "The mask value is 1, preserve the distance. "
ANSWER = "The pixel is "
# Never asked for: the number is all that is decoded. It stands in the tiny vocabulary.
ANSWER_END = " meters away from the camera."

DIGITS = "0123456789"

# What the prompt tells of the mask: the paper's whole prompt, and what it is compared with.
PROMPTS = ("mask_value", "mask", "none")


@dataclass(frozen=True)
class NumberFormat:
    """How a depth is spelled: fixed width and zero-padded, so digit order is numeric order.

    Attributes:
        integer_digits, decimals: digits before and after the point: 2 and 3 give ``04.230``.
        unit: ``metres``, or ``median`` = multiples of the median of the frame's measured depths.
        decimal_point: whether the point is a token of the answer (always in literal text).
    """

    integer_digits: int = 2
    decimals: int = 3
    unit: str = "metres"
    decimal_point: bool = True

    @property
    def digits(self) -> int:
        return self.integer_digits + self.decimals

    @property
    def resolution(self) -> float:
        """Smallest step, in the format's unit."""
        return 10.0**-self.decimals

    @property
    def largest(self) -> float:
        """Largest value that can be spelled, in the format's unit."""
        return 10.0**self.integer_digits - self.resolution

    @property
    def place_values(self) -> np.ndarray:
        """(digits,) float64: what one step of each digit is worth, in the format's unit."""
        return 10.0 ** np.arange(self.integer_digits - 1, -self.decimals - 1, -1)

    def covers(self, values: np.ndarray) -> np.ndarray:
        """(...,) bool: whether each value, in the format's unit, can be spelled and is not 0."""
        steps = np.round(np.asarray(values, np.float64) / self.resolution)
        return (steps >= 1) & (steps <= round(self.largest / self.resolution))

    def spell(self, values: np.ndarray) -> np.ndarray:
        """(N,) values in the format's unit -> (N, digits) int64, most significant first.

        Raises:
            BadInput: ``out_of_range`` when a value does not fit.
        """
        values = np.asarray(values, np.float64)
        if not self.covers(values).all():
            bad = values[~self.covers(values)][0]
            raise BadInput(
                "out_of_range",
                f"depth {bad:g} cannot be spelled with {self.integer_digits} integer digits and "
                f"{self.decimals} decimals: expected {self.resolution:g} to {self.largest:g} "
                f"({self.unit}); leave it out or use a checkpoint with another number format",
            )
        steps = np.round(values / self.resolution).astype(np.int64)
        return steps[:, None] // 10 ** np.arange(self.digits - 1, -1, -1) % 10

    def value(self, digits: np.ndarray) -> np.ndarray:
        """(N, digits) int -> (N,) float64 in the format's unit."""
        return np.asarray(digits) @ self.place_values

    def text(self, value: float) -> str:
        """One value as the model reads and writes it: ``04.230``."""
        spelled = "".join(str(d) for d in self.spell(np.array([value]))[0])
        return f"{spelled[:self.integer_digits]}.{spelled[self.integer_digits:]}"


@dataclass(frozen=True)
class Vocabulary:
    """The few token ids that the engine handles by itself.

    Attributes:
        encode: text -> token ids, special tokens included.
        digits: ids of "0" to "9".
        point: id of ".".
        image_pad: id of the image placeholder.
        prompt: one of ``PROMPTS``.
    """

    encode: Callable[[str], list[int]]
    digits: tuple[int, ...]
    point: int
    image_pad: int
    prompt: str = "mask_value"

    @classmethod
    def of(cls, encode: Callable[[str], list[int]], prompt: str = "mask_value") -> Vocabulary:
        """Resolve the ids at run time.

        Args:
            encode, prompt: as the attributes.

        Raises:
            ValueError: when a digit, the point or the placeholder is not one single token.
        """
        ids = {}
        for text in (*DIGITS, ".", IMAGE_PAD):
            tokens = encode(text)
            if len(tokens) != 1:
                raise ValueError(f"the tokenizer splits {text!r} into {len(tokens)} tokens")
            ids[text] = tokens[0]
        return cls(encode, tuple(ids[d] for d in DIGITS), ids["."], ids[IMAGE_PAD], prompt)

    def prefix(self) -> tuple[list[int], list[int]]:
        """Token ids before and after the image: all the text that is the same for every pixel."""
        before = self.encode(SYSTEM + IMAGE_START)
        instruction = "" if self.prompt == "none" else INSTRUCTION
        after = self.encode(IMAGE_END + instruction + QUESTION + TURN)
        return before, after

    def pixel_question(self, x: int, y: int, value: str | None) -> list[int]:
        """The literal prompt of one pixel, up to the first digit of the answer.

        Args:
            x, y: the pixel in the image that the model sees (after resizing), from 0.
            value: the measured distance as text (mask 1), or None where it is missing (mask 0).
        """
        measured = MASK_1 if self.prompt == "mask_value" else MASK_1_ALONE
        mask = MASK_0 if value is None else measured.format(value=value)
        told = "" if self.prompt == "none" else mask
        return self.encode(PIXEL.format(x=x, y=y) + told + ANSWER)
