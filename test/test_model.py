"""The network is Qwen2.5-VL: the same at the start, and fed as transformers would feed it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from models import frame, random_model
from PIL import Image

from sdim_ros.core import fusion
from sdim_ros.core.fusion import FusionConfig
from sdim_ros.core.model import ModelInput, SdimConfig, normalised, prefix_positions
from sdim_ros.core.prompts import IMAGE_END, IMAGE_PAD, IMAGE_START, NumberFormat


@torch.inference_mode()
def test_at_the_start_the_logits_are_those_of_plain_qwen_to_the_bit() -> None:
    model = random_model(sharpen=1.0)  # as initialised: the zero convolutions are zero
    image, sparse = frame()
    inputs = model.prepare([image], [sparse])
    vision = model.qwen.config.vision_config
    patches, (gh, gw) = fusion.patchify(inputs.image, vision.patch_size, 2, 2)
    ids = torch.tensor([model.vocabulary.encode(
        IMAGE_START + IMAGE_PAD * (gh * gw // 4) + IMAGE_END + "How far is the pixel")])

    def logits(network, values: torch.Tensor) -> torch.Tensor:
        tokens = network.model.visual(values, grid_thw=torch.tensor([[1, gh, gw]])).pooler_output
        embeds = network.model.language_model.embed_tokens(ids).clone()
        embeds[0, 1:1 + len(tokens)] = tokens
        positions = prefix_positions(1, gh // 2, gw // 2, ids.shape[1] - 1 - len(tokens))
        return network.lm_head(network.model.language_model(
            inputs_embeds=embeds, position_ids=positions[:, None],
            attention_mask={"full_attention": None}, use_cache=False).last_hidden_state)

    plain = copy.deepcopy(model.qwen)
    plain.model.visual.patch_embed = plain.model.visual.patch_embed.rgb
    residual = model.fusion(inputs.image, inputs.depth).residual
    fused = torch.cat([patches, fusion.patchify(residual, vision.patch_size, 2, 2)[0]], dim=-1)
    assert torch.equal(logits(plain, patches), logits(model.qwen, fused))
    # The control: once the last zero convolution is trained, the depth counts.
    model.fusion.out.weight.normal_(0, 0.1)
    residual = model.fusion(inputs.image, inputs.depth).residual
    fused = torch.cat([patches, fusion.patchify(residual, vision.patch_size, 2, 2)[0]], dim=-1)
    assert not torch.equal(logits(plain, patches), logits(model.qwen, fused))


def test_the_second_patch_embedding_has_a_gradient_after_one_step() -> None:
    """Two zero layers in series would stay zero for ever; a copy of F_e1 does not."""
    model = random_model(sharpen=1.0)
    image, sparse = frame()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        prefix = model.encode(model.prepare([image], [sparse]))
        prefix.visual.square().mean().backward()
        gradients = {
            "out": model.fusion.out.weight.grad.norm().item(),
            "depth": model.fusion.depth[0].weight.grad.norm().item(),
            "embedding": model.qwen.model.visual.patch_embed.depth.proj.weight.grad.norm().item(),
        }
        optimizer.step()
        assert gradients["out"] > 0
        assert step == 0 or (gradients["depth"] > 0 and gradients["embedding"] > 0)


def test_positions_are_those_of_transformers() -> None:
    model = random_model()
    before, rows, columns, after = 3, 4, 6, 5
    ids = [model.vocabulary.encode("How far is")[0]] * before
    ids += [model.vocabulary.image_pad] * (rows * columns) + [1] * after
    kinds = [0] * before + [1] * (rows * columns) + [0] * after
    model.qwen.config.image_token_id = model.vocabulary.image_pad
    expected, _ = model.qwen.model.get_rope_index(
        torch.tensor([ids]), mm_token_type_ids=torch.tensor([kinds]),
        image_grid_thw=torch.tensor([[1, 2 * rows, 2 * columns]]))
    got = prefix_positions(before, rows, columns, after)
    assert torch.equal(expected[:, 0].float(), got)
    assert got.dtype == torch.float32


def test_patches_are_those_of_qwens_own_image_processor() -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
        Qwen2VLImageProcessorPil,
    )

    image, _ = frame(height=112, width=168)
    small = np.asarray(Image.fromarray(image).resize((168, 112), Image.Resampling.BICUBIC))
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 100_000})
    expected = processor(images=[image], return_tensors="pt")
    got, grid = fusion.patchify(normalised(torch.from_numpy(small)[None]), 14, 2, 2)
    assert expected["image_grid_thw"].tolist() == [[1, *grid]]
    torch.testing.assert_close(got, expected["pixel_values"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(500, 741), (375, 1242), (480, 640), (20, 20), (3000, 4000)])
def test_the_image_seen_is_whole_tokens_within_the_largest_area(size: tuple) -> None:
    model = random_model(max_pixels=30_000, min_pixels=15_000)
    h, w = model.image_size(*size)
    assert h % 16 == 0 and w % 16 == 0
    assert 0.5 * 15_000 < h * w <= 30_000
    assert 0.75 < (w / h) / (size[1] / size[0]) < 1.35


def test_sparse_points_are_scattered_and_never_mixed() -> None:
    model = random_model()
    image, sparse = frame(height=300, width=400, points=200)
    inputs = model.prepare([image], [sparse])
    log, mask = inputs.depth[0]
    kept = np.unique((log[mask > 0].exp().double() * inputs.unit[0]).round(decimals=4))
    assert 0 < len(kept)
    given = np.unique(sparse[sparse > 0].round(4))
    assert np.abs(kept[:, None] - given).min(axis=1).max() < 2e-3


def test_the_unit_is_the_median_of_the_measured_depths_or_a_metre() -> None:
    _, sparse = frame()
    assert random_model().config.unit_of(sparse) == pytest.approx(np.median(sparse[sparse > 0]))
    metres = random_model(number=NumberFormat(3, 3, "metres"))
    assert metres.config.unit_of(sparse) == 1.0
    assert random_model().config.unit_of(np.zeros_like(sparse)) > 0


@torch.inference_mode()
def test_frames_in_one_batch_do_not_see_each_other() -> None:
    model = random_model()
    (a, sa), (b, sb) = frame(0), frame(5)
    together = model.encode(model.prepare([a, b], [sa, sb]))
    alone = model.encode(model.prepare([b], [sb]))
    torch.testing.assert_close(together.visual[1:], alone.visual, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(together.cache.keys[-1][1:], alone.cache.keys[-1],
                               atol=2e-4, rtol=1e-3)


def test_the_configuration_survives_the_way_through_json() -> None:
    config = SdimConfig(number=NumberFormat(3, 2, "metres"), hints=("linear",))
    assert SdimConfig.from_dict(config.to_dict()) == config


def test_inference_sees_what_training_sees_in_windows_and_in_the_whole_image() -> None:
    model = random_model()
    image, sparse = frame(height=104, width=136)  # no whole number of windows of 64 pixels
    inputs = model.prepare([image, image[::-1].copy()], [sparse, sparse])
    trained = model.encode(inputs)
    with torch.no_grad():
        inferred = model.encode(inputs)
    torch.testing.assert_close(inferred.visual, trained.visual.detach(), rtol=1e-4, atol=1e-5)
    for a, b in zip(inferred.cache.keys + inferred.cache.values,
                    trained.cache.keys + trained.cache.values, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-3, atol=1e-4)


def test_frequencies_of_positions_stay_exact_in_any_number_type() -> None:
    """bfloat16 knows 8 bits of them: an error of radians at the hundredth token."""
    model, half = random_model(), random_model().to(torch.bfloat16)
    exact = model.qwen.model.language_model.rotary_emb.inv_freq
    kept = half.qwen.model.language_model.rotary_emb.inv_freq
    assert kept.dtype == torch.float32 and torch.equal(kept, exact)


def test_an_array_that_is_filled_with_the_next_image_is_looked_at_again() -> None:
    """As cameras do that write into one buffer."""
    model, (first, sparse), (second, _) = random_model(), frame(0), frame(1)
    buffer = first.copy()
    model.prepare([buffer], [sparse])
    buffer[:] = second
    again, expected = (model.prepare([image], [sparse]) for image in (buffer, second.copy()))
    assert torch.equal(again.image, expected.image)


def test_small_differences_of_fills_reach_the_fusion_in_half_precision() -> None:
    """Fills a thousandth apart, far away: rounded to bfloat16 first they would be the same."""
    near = torch.full((1, 2, 8, 8), 4.0)
    near[:, 1] = 1.001 * near[:, 0]
    depth = torch.cat([torch.zeros(1, 2, 8, 8), near], dim=1)
    wanted = fusion._relative(depth)[:, 3:]
    assert wanted.abs().min() > 0
    layers = FusionConfig(8, 8, 16, 8, norm="group", fills=("nearest", "linear"))
    model = random_model(fusion=layers, hints=layers.fills, told="guess").to(torch.bfloat16)
    seen = []
    model.fusion.depth.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.fuse(ModelInput(torch.zeros(1, 3, 8, 8), depth, torch.zeros(1, 0, 3), np.ones(1)))
    assert torch.allclose(seen[0][:, 3:].float(), wanted, rtol=0.01)
