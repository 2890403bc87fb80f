"""The query engine gives the answers of full forwards, and its training pass their gradients."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from models import frame, random_model

from sdim_ros.core import engine, queries
from sdim_ros.core.losses import text_loss
from sdim_ros.core.model import Prefix, SdimModel, prefix_positions
from sdim_ros.core.point_token import PixelQueries
from sdim_ros.core.prompts import NumberFormat


def ask(model: SdimModel, count: int, told: bool = False, seed: int = 0
        ) -> tuple[Prefix, PixelQueries]:
    """A prefix, and point queries at ``count`` pixels: missing (mask 0) or measured (mask 1)."""
    image, sparse = frame(seed)
    rng = np.random.default_rng(seed)
    at = rng.choice(np.flatnonzero((sparse > 0) == told), count, replace=False)
    rows, cols = np.unravel_index(at, sparse.shape)
    maps = queries.hint_maps(sparse, image, model.config.hints)
    hints = {name: m[rows, cols] for name, m in maps.items()}
    asked = queries.describe(model.config, sparse, rows, cols, hints, model.config.unit_of(sparse),
                             sparse[rows, cols] if told else None)
    return model.encode(model.prepare([image], [sparse])), asked


def full_forwards(model: SdimModel, prefix: Prefix, suffix: torch.Tensor, digits: np.ndarray,
                  shift: int = 0) -> torch.Tensor:
    """Logits of every digit of one query by plain uncached forwards over the whole sequence."""
    before, after = model.vocabulary.prefix()
    rows, columns = prefix.visual.shape[2:]
    head = torch.cat([model.embed(before), prefix.visual.flatten(2).transpose(1, 2),
                      model.embed(after), suffix[None]], dim=1)
    fixed = prefix_positions(len(before), rows, columns, len(after))
    logits, fed = [], torch.zeros(1, 0, dtype=torch.long)
    for slot in range(model.config.number.digits):
        own = len(suffix) + fed.shape[1]
        positions = torch.cat([fixed, engine.following(fixed + shift, own)], dim=1)
        embeds = torch.cat([head, model.embed(fed)], dim=1) if own > len(suffix) else head
        hidden = model.qwen.model.language_model(
            inputs_embeds=embeds, position_ids=positions[:, None], use_cache=False,
            attention_mask={"full_attention": None}).last_hidden_state[:, -1]
        logits.append(model.digit_logits(hidden)[0])
        digit = torch.tensor([int(digits[slot])])
        fed = torch.cat([fed, engine.fed_back(model, slot, digit)], dim=1)
    return torch.stack(logits)


def assert_equals_full_forwards(model: SdimModel, prefix: Prefix, suffix: torch.Tensor) -> None:
    for readout in ("greedy", "median"):
        path = engine.decode(model, prefix, suffix, readout)
        for i, digits in enumerate(path.digits):
            logits = full_forwards(model, prefix, suffix[i], digits).double()
            # Probabilities know logits up to a constant.
            difference = torch.from_numpy(path.probabilities[i]).log() - logits.log_softmax(-1)
            assert difference.abs().max() < 1e-4
            if readout == "greedy":
                assert digits.tolist() == logits.argmax(-1).tolist()
            else:
                assert_is_quantile(logits.softmax(-1).numpy(), digits, 0.5)


def assert_is_quantile(probabilities: np.ndarray, digits: np.ndarray, share: float) -> None:
    """That share of the probability lies below the number, as the full forwards say.

    To the last digit the descent magnifies rounding ten thousand times, so near a boundary the
    digits themselves may differ by one step; the probability at the boundary may not.
    """
    below, mass = 0.0, 1.0
    for p, digit in zip(probabilities, digits, strict=True):
        below += mass * p[:digit].sum()
        mass *= p[digit]
    assert below - 1e-5 <= share <= below + mass + 1e-5


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("told", [False, True], ids=["mask_0", "mask_1"])
@pytest.mark.parametrize("decimal_point", [False, True])
@torch.inference_mode()
def test_point_queries_equal_full_forwards(count: int, told: bool, decimal_point: bool) -> None:
    model = random_model(number=NumberFormat(2, 3, "median", decimal_point))
    prefix, asked = ask(model, count, told)
    assert_equals_full_forwards(model, prefix, model.point_suffix(prefix, asked)[0])


@pytest.mark.parametrize("told", [False, True], ids=["mask_0", "mask_1"])
@torch.inference_mode()
def test_text_queries_equal_full_forwards(told: bool) -> None:
    model = random_model(addressing="text", number=NumberFormat(2, 3, "median", True))
    prefix, _ = ask(model, 1)
    xs, ys = np.array([3, 40, 77, 5, 11]), np.array([2, 30, 9, 41, 55])
    values = np.array([1.0, 0.5, 2.25, 3, 0.75]) if told else np.zeros(5)
    seen = np.zeros(5, bool)
    for at, suffix in engine.text_suffixes(model, xs, ys, values, tile=2):
        assert len(suffix) <= 2
        assert_equals_full_forwards(model, prefix, suffix)
        seen[at] = True
    assert seen.all()


@torch.inference_mode()
def test_tiles_change_nothing() -> None:
    model = random_model()
    prefix, asked = ask(model, 23)
    whole = engine.decode(model, prefix, model.point_suffix(prefix, asked)[0], "greedy")
    for size in (1, 8):
        parts = [engine.decode(model, prefix, model.point_suffix(
            prefix, asked.part(i, i + size))[0], "greedy") for i in range(0, 23, size)]
        digits = np.concatenate([p.digits for p in parts])
        np.testing.assert_array_equal(digits, whole.digits)


@torch.inference_mode()
def test_another_position_image_or_depth_changes_the_answers() -> None:
    model = random_model()
    prefix, asked = ask(model, 9)
    suffix = model.point_suffix(prefix, asked)[0]
    path = engine.decode(model, prefix, suffix, "median")
    expected = full_forwards(model, prefix, suffix[0], path.digits[0])
    shifted = full_forwards(model, prefix, suffix[0], path.digits[0], shift=1)
    assert (shifted - expected).abs().max() > 1e-2

    image, sparse = frame(0)
    for seen, points in ((255 - image, sparse), (image, np.roll(sparse, 5, axis=1))):
        other = model.encode(model.prepare([seen], [points]))
        again = engine.decode(model, other, model.point_suffix(other, asked)[0], "median")
        assert np.abs(again.probabilities - path.probabilities).max() > 1e-3


@torch.inference_mode()
def test_the_prefix_is_the_same_after_the_queries() -> None:
    model = random_model()
    prefix, asked = ask(model, 5)
    before = [k.clone() for k in prefix.cache.keys]
    engine.decode(model, prefix, model.point_suffix(prefix, asked)[0], "median")
    assert len(before) == len(prefix.cache.keys)
    assert all(torch.equal(a, b) for a, b in zip(before, prefix.cache.keys, strict=True))


def test_the_packed_training_pass_has_the_naive_gradients() -> None:
    model = random_model(sharpen=2.0)
    image, sparse = frame(1)
    digits = torch.randint(0, 10, (1, 6, 5), generator=torch.Generator().manual_seed(0))

    def gradients(packed: bool) -> dict[str, torch.Tensor]:
        model.zero_grad()
        _, asked = ask(model, 6, seed=1)
        parts = [(asked, digits)] if packed else [
            (asked.part(i, i + 1), digits[:, i:i + 1]) for i in range(6)]
        for part, truth in parts:
            prefix = model.encode(model.prepare([image], [sparse]))
            suffix = model.point_suffix(prefix, part)
            if packed:
                logits = engine.teacher_forced(model, prefix, suffix, truth)
            else:
                logits = full_forwards(model, prefix, suffix[0, 0], truth[0, 0].numpy())
                logits = logits[None, None]
            loss = text_loss(logits, truth, model.config.number, 0.3)
            (loss if packed else loss / 6).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    packed, naive = gradients(True), gradients(False)
    assert packed.keys() == naive.keys()
    largest = max(g.norm() for g in naive.values())
    compared = 0
    for name, expected in naive.items():
        if expected.norm() > 1e-6 * largest:
            compared += 1
            assert (packed[name] - expected).norm() / expected.norm() < 1e-4, name
    assert compared > 0.8 * len(naive)


@torch.inference_mode()
def test_teacher_forcing_sees_what_decoding_saw() -> None:
    model = random_model(number=NumberFormat(2, 3, "median", True))
    prefix, asked = ask(model, 4)
    suffix = model.point_suffix(prefix, asked)
    path = engine.decode(model, prefix, suffix[0], "median")
    logits = engine.teacher_forced(model, prefix, suffix, torch.from_numpy(path.digits)[None])
    np.testing.assert_allclose(logits[0].softmax(-1), path.probabilities, atol=1e-5)


@pytest.mark.parametrize("quantile", [0.1, 0.9])
@torch.inference_mode()
def test_another_quantile_is_read_as_exactly_as_the_median(quantile: float) -> None:
    model = random_model()
    prefix, asked = ask(model, 5)
    suffix = model.point_suffix(prefix, asked)[0]
    path = engine.DigitPath.of(engine.spell(model, prefix, suffix, "median", quantile=quantile))
    for i, digits in enumerate(path.digits):
        logits = full_forwards(model, prefix, suffix[i], digits)
        assert_is_quantile(logits.softmax(-1).numpy(), digits, quantile)
    median = engine.decode(model, prefix, suffix, "median").digits
    apart = model.config.number.value(path.digits) - model.config.number.value(median)
    assert (apart * (quantile - 0.5) > 0).all()


def test_the_median_descent_is_the_median_of_all_numbers() -> None:
    """Against brute force over every number that two digits can spell."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        first = torch.rand(10, generator=generator, dtype=torch.float64).softmax(-1)
        second = (4 * torch.rand(10, 10, generator=generator, dtype=torch.float64)).softmax(-1)
        joint = (first[:, None] * second).flatten()
        expected = int((joint.cumsum(0) < 0.5).sum())
        a, u = engine._choose(first[None], torch.tensor([0.5], dtype=torch.float64), "median")
        b, _ = engine._choose(second[int(a)][None], u, "median")
        assert int(a) * 10 + int(b) == expected


def test_the_interval_is_narrow_for_a_sure_model_and_wide_for_one_that_knows_nothing() -> None:
    number = NumberFormat(1, 1)
    sure, blank = np.zeros((2, 10)), np.full((2, 10), 0.1)
    sure[0, 4], sure[1, 2] = 1, 1
    path = engine.DigitPath(np.array([[4, 2], [4, 9]]), np.stack([sure, blank]))
    half_widths = engine.interval(path, number)
    assert half_widths[0] == pytest.approx(0.04, abs=1e-6)  # 80 % of one last step
    assert half_widths[1] == pytest.approx(4.0, abs=1e-6)   # 80 % of 0 to 10


def test_greedy_takes_the_likeliest_digit() -> None:
    p = torch.tensor([[0.4, 0.0, 0.3, 0.3, 0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    half = torch.tensor([0.5], dtype=torch.float64)
    assert int(engine._choose(p, half, "greedy")[0]) == 0
    assert int(engine._choose(p, half, "median")[0]) == 2


@torch.inference_mode()
def test_bfloat16_stays_close_to_float32() -> None:
    model = random_model(sharpen=1.5)
    prefix, asked = ask(model, 16)
    expected = engine.decode(model, prefix, model.point_suffix(prefix, asked)[0], "greedy")
    half = random_model(sharpen=1.5).to(torch.bfloat16)
    prefix, asked = ask(half, 16)
    got = engine.decode(half, prefix, half.point_suffix(prefix, asked)[0], "greedy")
    first = np.abs(got.probabilities[:, 0] - expected.probabilities[:, 0])
    assert 0 < first.max() < 0.05


def test_queries_can_be_cut_into_parts_without_loss() -> None:
    _, asked = ask(random_model(), 10)
    parts = [asked.part(i, i + 4) for i in range(0, 10, 4)]
    assert [len(p) for p in parts] == [4, 4, 2]
    for item in dataclasses.fields(asked):
        if item.name not in ("spacing", "aspect"):
            joined = torch.cat([getattr(p, item.name) for p in parts], dim=1)
            assert torch.equal(joined, getattr(asked, item.name))
