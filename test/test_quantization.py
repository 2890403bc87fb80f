"""Weights in fewer bits: nearly the same answers, the parts that digits hang on untouched."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from models import frame, random_model

from sdim_ros.core import checkpoint
from sdim_ros.core.adaptation import Adaptation
from sdim_ros.core.completer import Completer
from sdim_ros.core.config import AdaptationSettings, ModelSettings, Settings, with_values
from sdim_ros.core.types import BadSetting, Frame, ModelUnavailable
from sdim_ros.tools.frame_judge import FrameJudge


@pytest.fixture(scope="module")
def torchao() -> Iterator[None]:
    """From where ``make setup`` puts it: beside the other packages."""
    beside = str(Path(sys.prefix) / "quantize")
    sys.path.append(beside)
    yield pytest.importorskip("torchao")
    sys.path.remove(beside)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    checkpoint.save(random_model(), path)
    return path


def settings(folder: Path, kind: str) -> Settings:
    return with_values(Settings(), {
        "model.checkpoint": str(folder), "model.quantization": kind, "queries.budget": 60})


def test_eight_bits_give_nearly_the_same_answers_and_leave_head_and_fusion_alone(
        folder: Path, torchao: object) -> None:
    whole, small = (Completer(settings(folder, kind)) for kind in ("none", "int8"))
    layer = small.model.qwen.model.language_model.layers[0]
    assert type(layer.mlp.up_proj.weight) is not type(layer.input_layernorm.weight)
    for name in ("qwen.lm_head.weight", "fusion.high.0.weight", "point.ask_mlp.0.weight"):
        assert torch.equal(small.model.get_parameter(name), whole.model.get_parameter(name))
    rows, cols = np.array([5, 40, 80]), np.array([9, 60, 110])
    a, b = (c.ask(Frame(*frame()), rows, cols).depth for c in (whole, small))
    np.testing.assert_allclose(b, a, rtol=0.1)
    assert (a != b).any()


def test_a_report_holds_the_whole_weights_beside_those_in_fewer_bits(
        folder: Path, torchao: object) -> None:
    image, sparse = frame()
    truth = np.full(sparse.shape, 3, np.float32)
    small = Completer(settings(folder, "int8"))
    result = FrameJudge(("sdim", "sdim_unquantized"), small)(
        Frame(image, sparse), truth, 0).result
    assert {"sdim", "sdim_unquantized"} <= set(result.errors)
    alone = FrameJudge(("sdim",), small)(Frame(image, sparse), truth, 0).result
    assert "sdim_unquantized" not in alone.errors
    plain = FrameJudge(("sdim", "sdim_unquantized"), Completer(settings(folder, "none")))(
        Frame(image, sparse), truth, 0).result
    assert plain.errors["sdim"] == result.errors["sdim_unquantized"]


def test_without_torchao_the_error_names_it(
        folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ModelUnavailable, match="pip install torchao"):
        checkpoint.load(ModelSettings(checkpoint=str(folder), quantization="int8"))


def test_weights_in_fewer_bits_do_not_learn() -> None:
    completer = Completer(with_values(Settings(), {"model.quantization": "int8"}), random_model())
    with pytest.raises(BadSetting, match="model.quantization=int8: .* set it to none"):
        Adaptation(completer, AdaptationSettings())
