"""What the text loss rewards."""

from __future__ import annotations

import pytest
import torch

from sdim_ros.core.losses import guess_loss, text_loss
from sdim_ros.core.prompts import NumberFormat

NUMBER = NumberFormat(1, 2)


def certain(*digits: int) -> torch.Tensor:
    return 20 * torch.nn.functional.one_hot(torch.tensor(digits), 10).float()


def test_the_right_number_costs_nothing() -> None:
    assert text_loss(certain(4, 2, 3), torch.tensor([4, 2, 3]), NUMBER, 1.0) < 1e-6


def test_the_metric_term_is_the_error_in_metres_over_the_value() -> None:
    truth = torch.tensor([4, 0, 0])
    entropy = text_loss(certain(5, 0, 0), truth, NUMBER, 0.0)
    both = text_loss(certain(5, 0, 0), truth, NUMBER, 1.0)
    assert (both - entropy).item() == pytest.approx(1.0 / 4.0, abs=1e-4)


def test_wrong_digits_cannot_cancel_each_other() -> None:
    """3.99 against 4.00 costs 1 + 0.9 + 0.09 steps, although the numbers are 0.01 apart."""
    truth = torch.tensor([4, 0, 0])
    metric = (text_loss(certain(3, 9, 9), truth, NUMBER, 1.0)
              - text_loss(certain(3, 9, 9), truth, NUMBER, 0.0))
    assert metric.item() == pytest.approx((1 + 0.9 + 0.09) / 4, abs=1e-4)


def test_slots_can_weigh_less() -> None:
    truth = torch.tensor([4, 0, 0])
    logits = certain(4, 0, 7)
    full = text_loss(logits, truth, NUMBER, 0.0)
    light = text_loss(logits, truth, NUMBER, 0.0, slot_weights=(1.0, 1.0, 0.25))
    assert light.item() == pytest.approx(full.item() / 4, rel=1e-5)


PLAIN = torch.zeros(1, 3, 2, 2)  # one fill as it is


def test_the_guess_loss_is_zero_at_the_truth_and_counts_known_pixels_alone() -> None:
    labels = torch.tensor([[[1.0, 2.0], [0.0, 4.0]]])
    right = torch.tensor([[[[1.0, 2.0], [77.0, 4.0]]]]).log()
    assert guess_loss(PLAIN, right, labels) == pytest.approx(0, abs=1e-6)
    off = torch.tensor([[[[1.5, 2.0], [77.0, 4.0]]]]).log()
    assert guess_loss(PLAIN, off, labels) == pytest.approx((0.5 + 0.5) / 2 / 3)
    assert guess_loss(PLAIN, off, torch.zeros_like(labels)) == 0


def test_one_wild_pixel_does_not_outweigh_the_others_in_metres() -> None:
    labels = torch.full((1, 4, 4), 100.0)
    wild = labels.clone()[None]
    wild[..., 0, 0] = 1000
    assert guess_loss(PLAIN, wild.log(), labels) < (900 / 100 + 5.1) / 2 / 16


def test_a_coarser_guess_is_compared_at_the_size_of_the_labels() -> None:
    fills = torch.full((2, 1, 6, 8), 3.0).log()
    mixing = PLAIN.expand(2, 3, 2, 2)
    assert guess_loss(mixing, fills, torch.full((2, 13, 17), 3.0)) == pytest.approx(0, abs=1e-5)


def test_against_the_fills_an_image_that_is_hard_to_fill_counts_as_much_as_an_easy_one() -> None:
    labels = torch.full((2, 2, 2), 2.0)
    fills = torch.tensor([2.2, 6.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2).log()  # easy and hard
    plain = PLAIN.expand(2, 3, 2, 2)
    easy, hard = (guess_loss(plain[:1], fills[n:n + 1], labels[:1], against_fills=True)
                  for n in (0, 1))
    assert easy == pytest.approx(0.15 / 0.16, rel=1e-3) and hard == pytest.approx(1, abs=0.01)
    assert guess_loss(plain, fills, labels, against_fills=True) == pytest.approx(
        (easy.item() + hard.item()) / 2)
    assert guess_loss(plain, labels[:, None].log(), labels, against_fills=True) == 0
