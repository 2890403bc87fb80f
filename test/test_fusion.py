"""Sparse depth in the image tokens: gently at first, as wide as the pyramid, in three styles."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from models import CONFIG, frame, random_model

from sdim_ros.core.fusion import FusionConfig, SoftFusion

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
    model = random_model(fusion=dataclasses.replace(CONFIG.fusion, fills=("nearest", "edge_aware")))
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
    guess = network(image, depth).guess
    torch.testing.assert_close(guess, depth[:, 2:].mean(1, keepdim=True))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        error = (network(image, depth).guess - depth[:, 2:3] - 0.2).abs().mean()
        error.backward()
        optimizer.step()
    assert error < 0.5 * (guess - depth[:, 2:3] - 0.2).abs().mean()
    assert SoftFusion(FusionConfig(8, 8, 8, 8, norm="group"))(image, depth[:, :2]).guess is None


def test_the_fusion_survives_the_way_through_json_and_names_unknown_keys() -> None:
    config = FusionConfig(pyramid=(32, 48), fills=("nearest",))
    assert FusionConfig.from_dict({**dataclasses.asdict(config), "pyramid": [32, 48]}) == config
    with pytest.raises(TypeError, match="levels"):
        FusionConfig.from_dict({"levels": 3})
