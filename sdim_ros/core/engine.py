"""The query engine: many pixels answered in digits over one shared prefix.

Only the digits are decoded; everything else in an answer is fixed. Numbers have a fixed width,
so the digit where the cumulative probability crosses 1/2, slot after slot, spells the exact
median of the model's distribution, which is the best reading for the mean absolute error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdim_ros.core.attention import OwnCache
from sdim_ros.core.model import Prefix, SdimModel
from sdim_ros.core.passes import OwnKeys, query_pass
from sdim_ros.core.point_token import PixelQueries
from sdim_ros.core.prompts import NumberFormat


@dataclass(frozen=True, slots=True)
class DigitPath:
    """One decoded number per query.

    Attributes:
        digits: (N, D) int64, as spelled; the last place may be left out.
        probabilities: (N, D, 10) float64: what the model thought of each digit on that path.
        rest: (N,) float64 from 0 to 1: where the median lies within the last digit spelled; 0
            where all digits are.
    """

    digits: np.ndarray
    probabilities: np.ndarray
    rest: np.ndarray | float = 0.0

    @classmethod
    def of(cls, spelled: Spelled) -> DigitPath:
        """What was spelled, brought to the host."""
        return cls(*(x.cpu().numpy() for x in spelled))

    def value(self, number: NumberFormat) -> np.ndarray:
        """(N,) float64, in the format's unit."""
        place = number.place_values[:self.digits.shape[1]]
        return self.digits @ place + self.rest * place[-1]


# The fields of a DigitPath on the model's device.
Spelled = tuple[Tensor, Tensor, Tensor]


def following(positions: Tensor, length: int) -> Tensor:
    """(3, length) float32 positions of text after (3, L) others: one count in all three rows."""
    steps = torch.arange(1, length + 1, dtype=torch.float32, device=positions.device)
    return positions.max() + steps.expand(3, -1)


def decode(model: SdimModel, prefix: Prefix, suffix: Tensor, readout: str) -> DigitPath:
    """Decode one whole number per query; see ``spell``."""
    return DigitPath.of(spell(model, prefix, suffix, readout))


@torch.no_grad()
def spell(model: SdimModel, prefix: Prefix, suffix: Tensor, readout: str,
          stop_early: bool = False, quantile: float = 0.5) -> Spelled:
    """Read digit after digit, each fed back before the next. Never waits for a GPU.

    Args:
        prefix: of B images.
        suffix: (B * K, S, C), what each of K queries of each image adds to it.
        readout: ``median`` or ``greedy``.
        stop_early: leave the last digit to where the median lies within the one before it.
        quantile: of the model's distribution, which ``median`` reads instead of the half.
    """
    number, text = model.config.number, model.qwen.model.language_model
    slots = number.digits - int(stop_early and number.digits > 1 and readout == "median")
    n, s, _ = suffix.shape
    own = OwnKeys(len(text.layers), s + number.digits)
    embeds, positions = suffix, following(prefix.positions, s)
    target = suffix.new_full((n,), quantile, dtype=torch.float64)
    digits, probabilities = [], []
    for slot in range(slots):
        hidden = query_pass(text, embeds, positions, own, prefix.cache, model.steps)
        digit, p, target = _read_slot(model, hidden, target, readout)
        digits.append(digit)
        probabilities.append(p)
        if slot < slots - 1:
            fed = fed_back(model, slot, digit)
            embeds, positions = model.embed(fed), following(positions, fed.shape[1])
    rest = target if slots < number.digits else torch.zeros_like(target)
    return torch.stack(digits, 1), torch.stack(probabilities, 1), rest


@torch.no_grad()
def decode_plainly(model: SdimModel, embeds: Tensor, positions: Tensor, readout: str
                   ) -> DigitPath:
    """The reference: transformers' own forwards, in which each sequence holds the whole prefix.

    Args:
        embeds: (N, L, C) at (3, L) positions, the first tokens of every sequence.
        readout: ``median`` or ``greedy``.
    """
    own, target = OwnCache(), embeds.new_full((len(embeds),), 0.5, dtype=torch.float64)
    digits, probabilities = [], []
    for slot in range(model.config.number.digits):
        hidden = model.language(embeds, positions, own)[:, -1]
        digit, p, target = _read_slot(model, hidden, target, readout)
        digits.append(digit)
        probabilities.append(p)
        fed = fed_back(model, slot, digit)
        if fed.shape[1] > 1:  # the plain attention masks right for one new token at a time only
            positions = following(positions, 1)
            model.language(model.embed(fed[:, :1]), positions, own)
            fed = fed[:, 1:]
        embeds, positions = model.embed(fed), following(positions, fed.shape[1])
    return DigitPath.of(
        (torch.stack(digits, 1), torch.stack(probabilities, 1), torch.zeros_like(target)))


def _read_slot(model: SdimModel, hidden: Tensor, target: Tensor, readout: str
               ) -> tuple[Tensor, Tensor, Tensor]:
    """The digit of each last hidden state (N, C), all digits' probabilities, the new target."""
    p = model.digit_logits(hidden).double().softmax(-1)
    digit, target = _choose(p, target, readout)
    return digit, p, target


def fed_back(model: SdimModel, slot: int, digit: Tensor) -> Tensor:
    """Token ids that follow the answer of ``slot``: the digit, and the point where it stands."""
    number = model.config.number
    ids = model.digit_ids[digit].unsqueeze(1)
    if number.decimal_point and slot == number.integer_digits - 1:
        point = torch.full_like(ids, model.vocabulary.point)
        ids = torch.cat([ids, point], dim=1)
    return ids


def _choose(p: Tensor, target: Tensor, readout: str) -> tuple[Tensor, Tensor]:
    """The next digit, and for a quantile the rest of the way to it inside of that digit."""
    if readout == "greedy":
        return p.argmax(-1), target
    reached = p.cumsum(-1)
    digit = (reached < target.unsqueeze(-1)).sum(-1).clamp(max=9)
    mass = p.gather(1, digit.unsqueeze(1)).squeeze(1)
    below = reached.gather(1, digit.unsqueeze(1)).squeeze(1) - mass
    return digit, ((target - below) / mass.clamp(min=1e-12)).clamp(0, 1)


def teacher_forced(model: SdimModel, prefix: Prefix, suffix: Tensor, digits: Tensor) -> Tensor:
    """Logits of every digit of known answers, in one pass: the packed training step.

    Args:
        prefix: of B images.
        suffix: (B, K, S, C).
        digits: (B, K, D) int64, the answers.

    Returns:
        (B, K, D, 10) float32.
    """
    b, k, s, c = suffix.shape
    number = model.config.number
    fed, reads = [], [s - 1]
    for slot in range(number.digits - 1):
        fed.append(fed_back(model, slot, digits[..., slot].flatten()))
        reads.append(reads[-1] + fed[-1].shape[1])
    embeds = torch.cat([suffix.flatten(0, 1), model.embed(torch.cat(fed, dim=1))], dim=1)
    positions = following(prefix.positions, embeds.shape[1])
    hidden = model.language(embeds, positions, OwnCache(), prefix.cache)
    return model.digit_logits(hidden[:, reads]).view(b, k, number.digits, 10)


def training_logits(model: SdimModel, prefix: Prefix, queries: PixelQueries, digits: Tensor
                    ) -> Tensor:
    """``teacher_forced`` however the checkpoint names a pixel: by a token or by text.

    Args:
        queries: K pixels in each of the B images of the prefix.
        digits: (B, K, D) int64, the answers.

    Returns:
        (B, K, D, 10) float32.
    """
    if model.config.addressing == "point":
        return teacher_forced(model, prefix, model.point_suffix(prefix, queries), digits)
    images = []
    for i in range(len(digits)):
        places, parts = zip(*(
            (at, teacher_forced(model, prefix.image(i), suffix[None], digits[i:i + 1, at])[0])
            for at, suffix in suffixes(model, prefix, queries.image(i), len(queries))))
        order = torch.from_numpy(np.argsort(np.concatenate(places))).to(digits.device)
        images.append(torch.cat(parts)[order])
    return torch.stack(images)


def suffixes(model: SdimModel, prefix: Prefix, queries: PixelQueries, tile: int
             ) -> Iterator[tuple[np.ndarray, Tensor]]:
    """What the queries of one image add to its prefix as text, tile by tile.

    Yields:
        indices (n,) into the queries, n <= tile, and embeddings (n, S, C).
    """
    height, width = prefix.pixels.shape[2:]
    xs, ys = (queries.position[0].cpu().numpy() * (width, height)).astype(int).T
    yield from text_suffixes(model, xs, ys, queries.measured[0].cpu().numpy(), tile)


def text_suffixes(model: SdimModel, xs: np.ndarray, ys: np.ndarray, values: np.ndarray,
                  tile: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """The literal prompts, in tiles of equal length so that nothing is padded.

    Args:
        xs, ys: (N,) int, pixels of the map that the fusion makes: at stride 1 those of the image
            that the model sees.
        values: (N,) measured depths in the number's unit, 0 = missing.
        tile: prompts embedded at a time, at most.

    Yields:
        indices (n,) into the input, and embeddings (n, S, C).
    """
    texts = [None if v <= 0 else model.config.number.text(v) for v in values]
    ids = [model.vocabulary.pixel_question(int(x), int(y), t)
           for x, y, t in zip(xs, ys, texts, strict=True)]
    lengths = np.array([len(i) for i in ids])
    for length in np.unique(lengths):
        group = np.flatnonzero(lengths == length)
        for start in range(0, len(group), tile):
            part = group[start:start + tile]
            yield part, model.embed(torch.tensor([ids[i] for i in part]))


def interval(path: DigitPath, number: NumberFormat) -> np.ndarray:
    """Half width of the interval that holds 80 % of the model's probability.

    At each slot the digits beside the path carry known mass over known ranges; inside of a
    range it is taken as uniform. This costs no further pass.

    Returns:
        (N,) float64, in the format's unit.
    """
    n, slots, _ = path.probabilities.shape
    place = number.place_values[:slots]
    rows = np.arange(n)
    reach, start = np.ones(n), np.zeros(n)
    edges, masses = [], []
    for k in range(slots):
        p = path.probabilities[:, k] * reach[:, None]
        chosen = path.digits[:, k]
        reach = p[rows, chosen]
        if k < slots - 1:
            p[rows, chosen] = 0.0  # split further at the next slot
        edges.append(start[:, None] + np.arange(10) * place[k])
        masses.append(p)
        start = start + chosen * place[k]
    low = np.concatenate(edges, axis=1)  # (N, slots * 10)
    width = np.repeat(place, 10)[None].repeat(n, 0)
    order = np.argsort(low + (np.concatenate(masses, axis=1) == 0) * 1e-9, axis=1, kind="stable")
    weight = np.take_along_axis(np.concatenate(masses, axis=1), order, 1)
    low, width = np.take_along_axis(low, order, 1), np.take_along_axis(width, order, 1)
    reached = weight.cumsum(axis=1)

    def quantile(u: float) -> np.ndarray:
        i = np.minimum((reached < u).sum(axis=1), weight.shape[1] - 1)
        inside = (u - (reached[rows, i] - weight[rows, i])) / np.maximum(weight[rows, i], 1e-12)
        return low[rows, i] + np.clip(inside, 0, 1) * width[rows, i]

    return (quantile(0.9) - quantile(0.1)) / 2
