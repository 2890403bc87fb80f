"""Sparse depth in the image tokens: gently at first, as wide as the pyramid, in three styles."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from models import CONFIG, frame, random_model

from sdim_ros.core.fusion import FusionConfig, SoftFusion, mix_fills

IMAGE, DEPTH = torch.randn(1, 3, 48, 64), torch.zeros(1, 2, 48, 64)


def fused(style: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual without a measurement, and with one."""
    torch.manual_seed(0)
    network = SoftFusion(FusionConfig(8, 8, 16, 8, norm="group", style=style)).eval()
    one = DEPTH.clone()
    one[0, :, 20, 30] = torch.tensor([0.7, 1.0])
    return network(IMAGE, DEPTH).residual, network(IMAGE, one).residual


def test_soft_fusion_starts_without_any_influence() -> None:
    without, with_point = fused("soft")
    assert not without.any() and not with_point.any()


@pytest.mark.parametrize("style", ["he", "hard"])
def test_the_other_styles_disturb_the_image_from_the_start(style: str) -> None:
    without, with_point = fused(style)
    assert without.any() and not torch.equal(without, with_point)


def test_without_fusion_no_token_and_no_feature_knows_of_the_depth() -> None:
    network = SoftFusion(FusionConfig(8, 8, 16, 8, norm="group", style="none")).eval()
    one = DEPTH.clone()
    one[0, :, 20, 30] = 1
    seen, same = network(IMAGE, one), network(IMAGE, DEPTH)
    assert not seen.residual.any() and seen.features.any()
    assert torch.equal(seen.features, same.features)


@pytest.mark.parametrize(("pyramid", "reach"), [((), 6), ((8, 8, 8), 24)])
def test_a_pyramid_sees_farther(pyramid: tuple, reach: int) -> None:
    network = SoftFusion(FusionConfig(8, 8, 8, 8, norm="batch", style="he", pyramid=pyramid))
    network.eval()  # group statistics would couple all pixels
    changed = IMAGE.clone()
    changed[0, :, 24, 32] += 5
    moved = network(IMAGE, DEPTH).features - network(changed, DEPTH).features
    moved = moved.abs().amax((0, 1))
    rows = torch.nonzero(moved.amax(1) > 1e-6)
    assert (rows.max() - rows.min()) // 2 == pytest.approx(reach, abs=0.35 * reach)


def test_a_pyramid_takes_sizes_that_do_not_halve() -> None:
    network = SoftFusion(FusionConfig(8, 8, 8, 8, norm="group", pyramid=(8, 8, 8)))
    image, depth = torch.randn(2, 3, 45, 70), torch.zeros(2, 2, 45, 70)
    assert network(image, depth).features.shape == (2, 8, 45, 70)


def test_fills_are_shown_from_the_points_and_the_guiding_image() -> None:
    fills = ("nearest", "edge_aware")
    model = random_model(fusion=dataclasses.replace(CONFIG.fusion, fills=fills), hints=fills)
    image, sparse = frame()
    grey = torch.full(image.shape, 127, dtype=torch.uint8).numpy()
    plain = model.prepare([image], [sparse])
    blind = model.prepare([grey], [sparse], guides=[image])
    assert plain.depth.shape[1] == 4
    assert torch.equal(plain.depth, blind.depth) and not torch.equal(plain.image, blind.image)
    log, mask, nearest, _ = plain.depth[0]
    torch.testing.assert_close(nearest[mask > 0], log[mask > 0])
    nothing = model.prepare([image], [0 * sparse])
    assert not nothing.depth.any()


def test_a_fresh_guess_is_the_mean_of_the_fills_and_a_trained_one_leaves_it() -> None:
    network = SoftFusion(FusionConfig(8, 8, 8, 8, norm="group", fills=("nearest", "linear")))
    depth = torch.randn(2, 4, 48, 64)
    image = torch.randn(2, 3, 48, 64)

    def guess() -> torch.Tensor:
        return mix_fills(network(image, depth).mixing, depth[:, 2:])

    first = (guess() - depth[:, 2] - 0.2).abs().mean()
    torch.testing.assert_close(guess(), depth[:, 2:].mean(1))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        error = (guess() - depth[:, 2] - 0.2).abs().mean()
        error.backward()
        optimizer.step()
    assert error < 0.5 * first
    assert SoftFusion(FusionConfig(8, 8, 8, 8, norm="group"))(image, depth[:, :2]).mixing is None


def test_with_a_stride_the_residual_keeps_the_size_of_the_image_and_starts_at_zero() -> None:
    network = SoftFusion(FusionConfig(8, 8, 8, 8, norm="group", pyramid=(8,), stride=2))
    fused = network(torch.randn(2, 3, 48, 64), torch.zeros(2, 2, 48, 64))
    assert fused.residual.shape == (2, 3, 48, 64) and not fused.residual.any()
    assert fused.features.shape == (2, 8, 24, 32)
    nn.init.ones_(network.out.bias)  # the residual of each pixel of a block is its own
    network.out.bias.data[1] = 5
    residual = network(torch.randn(2, 3, 48, 64), torch.zeros(2, 2, 48, 64)).residual
    assert (residual[:, 0, ::2, 1::2] == 5).all() and (residual[:, 0, 1::2] == 1).all()


def test_the_mixing_weighs_the_fills_and_corrects_by_how_much_they_disagree() -> None:
    fills = torch.tensor([[0.0, 1.0], [2.0, 1.0]])[None]  # two fills at two pixels
    mixing = torch.zeros(1, 4, 2)
    assert mix_fills(mixing, fills).tolist() == [[1.0, 1.0]]
    mixing[:, 0, 0] = 100  # the first fill alone
    mixing[:, 3] = 0.5  # half of the disagreement, 2 and 0, on top
    assert mix_fills(mixing, fills).tolist() == [[1.0, 1.0]]
    mixing[:, 2] = 1
    torch.testing.assert_close(mix_fills(mixing, fills), torch.tensor([[1.3, 1.3]]))


def test_the_hints_must_be_the_fills_that_are_mixed() -> None:
    fusion = dataclasses.replace(CONFIG.fusion, fills=("nearest", "edge_aware"))
    with pytest.raises(ValueError, match="hints .* expected the fills that the fusion mixes"):
        random_model(fusion=fusion, hints=("linear",))


def test_the_fusion_survives_the_way_through_json_and_names_unknown_keys() -> None:
    config = FusionConfig(pyramid=(32, 48), fills=("nearest",))
    assert FusionConfig.from_dict({**dataclasses.asdict(config), "pyramid": [32, 48]}) == config
    with pytest.raises(TypeError, match="levels"):
        FusionConfig.from_dict({"levels": 3})
