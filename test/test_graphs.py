"""Recorded passes give what launched ones give; needs a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import frame, random_model

from sdim_ros.core.completer import Completer
from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.types import Frame

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def test_recorded_passes_answer_as_launched_ones_frame_after_frame() -> None:
    model = random_model().cuda()
    settings = with_values(Settings(), {"queries.budget": 200})
    recorded, launched = Completer(settings, model), Completer(settings, model)
    launched._recorder = None
    launched.reconfigure(settings)
    for seed in (0, 1, 0):
        given = Frame(*frame(seed))
        a, b = recorded.complete(given), launched.complete(given)
        np.testing.assert_allclose(a.answers.depth, b.answers.depth, rtol=1e-4)
        np.testing.assert_allclose(a.depth, b.depth, rtol=1e-4)


def test_weights_that_change_in_place_change_the_recorded_answers() -> None:
    model, given = random_model().cuda(), Frame(*frame())
    completer = Completer(with_values(Settings(), {"queries.budget": 50}), model)
    before = completer.complete(given).answers.depth
    with torch.no_grad():
        model.qwen.lm_head.weight.mul_(-1)
    assert (completer.complete(given).answers.depth != before).any()
