"""A checkpoint is the one that was saved, or it is refused with path and reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from models import random_model
from safetensors.torch import load_file, save_file

from sdim_ros.core import checkpoint
from sdim_ros.core.config import ModelSettings
from sdim_ros.core.fusion import FusionConfig
from sdim_ros.core.types import ModelUnavailable


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoint.save(random_model(), folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def load(folder: Path | str, **settings: object):
    return checkpoint.load(ModelSettings(checkpoint=str(folder), **settings))


def reseal(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write other weights with a checksum that fits."""
    save_file(weights, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["sdim"]["sha256"] = checkpoint._sha256(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def test_what_is_loaded_is_what_was_saved(saved: Path) -> None:
    loaded, original = load(saved), random_model()
    assert loaded.config == original.config
    for (name, a), b in zip(loaded.state_dict().items(), original.state_dict().values(),
                            strict=True):
        assert torch.equal(a, b), name
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_the_embedded_checkpoint_loads_and_is_small() -> None:
    model = checkpoint.load(ModelSettings())
    assert model.parameter_count() > 1e6
    size = sum(f.stat().st_size for f in checkpoint.embedded().iterdir())
    assert size <= 12 * 2**20


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=f"{tmp_path}/nowhere: there is no such folder"):
        load(tmp_path / "nowhere")


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="no config.json or sdim.json"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "pytorch_model.bin"])
def test_pickled_weights_are_refused_because_they_can_run_code(name: str, copied: Path) -> None:
    (copied / name).write_bytes(b"\x80\x04.")
    with pytest.raises(ModelUnavailable, match="pickled weights can run code"):
        load(copied / name)
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=f"missing; {name} is pickled"):
        load(copied)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
def test_damaged_weights_are_refused(damage: str, copied: Path) -> None:
    path = copied / "model.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[-5] ^= 0xFF
    path.write_bytes({"flipped": data, "truncated": data[:-100], "empty": b""}[damage])
    with pytest.raises(ModelUnavailable, match=r"SHA-256 is .* expected .* damaged"):
        load(copied)


def test_a_tensor_of_another_shape_is_refused_by_name(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    weights["fusion.out.bias"] = torch.zeros(7)
    reseal(copied, weights)
    with pytest.raises(ModelUnavailable, match=r"fusion.out.bias has shape \(7,\), expected \(3,"):
        load(copied)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
@pytest.mark.parametrize("text", [None, "{", "[]", "3"])
def test_a_missing_or_damaged_description_is_refused_with_its_folder(
        name: str, text: str | None, copied: Path) -> None:
    (copied / name).unlink()
    if text is not None:
        (copied / name).write_text(text)
    with pytest.raises(ModelUnavailable, match=f"checkpoint {copied}: ."):
        load(copied)


@pytest.mark.parametrize("change", [{"sdim": 3}, {"sdim": {}}, {"text_config": {
    "num_attention_heads": 0}}, {"vision_config": {"depth": "three"}}])
def test_a_configuration_that_makes_no_sense_is_refused(change: dict, copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and value else value
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnavailable, match=f"checkpoint {copied}: ."):
        load(copied)


def test_a_mistyped_relative_folder_is_named_as_missing() -> None:
    with pytest.raises(ModelUnavailable, match="runs/absent: no such folder"):
        load("runs/absent")


def test_missing_and_unknown_tensors_are_refused(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    weights["other"] = weights.pop("fusion.out.bias")
    reseal(copied, weights)
    with pytest.raises(ModelUnavailable, match="1 tensors are missing and 1 are unknown"):
        load(copied)


def test_weights_that_are_not_finite_are_refused(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    weights["fusion.out.bias"][0] = float("nan")
    reseal(copied, weights)
    with pytest.raises(ModelUnavailable, match="1 tensors hold values that are not finite"):
        load(copied)


def test_a_stock_model_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    model = random_model(sharpen=1.0)
    plain = model.qwen
    plain.model.visual.patch_embed = plain.model.visual.patch_embed.rgb
    plain.save_pretrained(tmp_path)
    model.tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelUnavailable, match="no trained SDIM parts.*allow_untrained"):
        load(tmp_path)
    stock = load(tmp_path, allow_untrained=True)
    expected = plain.state_dict()["model.language_model.embed_tokens.weight"]
    assert torch.equal(stock.qwen.model.language_model.embed_tokens.weight, expected)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_an_adapter_restores_the_sdim_parts_on_its_base(norm: str, tmp_path: Path) -> None:
    model = random_model(sharpen=1.0, fusion=FusionConfig(8, 8, 16, 8, norm))
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    fused = model.qwen.model.visual.patch_embed
    model.qwen.model.visual.patch_embed = fused.rgb
    model.qwen.save_pretrained(base)
    model.tokenizer.backend_tokenizer.save(str(base / "tokenizer.json"))
    model.qwen.model.visual.patch_embed = fused
    with torch.no_grad():
        model.fusion.out.weight.normal_()
    checkpoint.save_adapter(model, adapter, str(base))
    loaded = load(adapter)
    assert torch.equal(loaded.fusion.out.weight, model.fusion.out.weight)
    assert sum(f.stat().st_size for f in adapter.iterdir()) < 0.7 * sum(
        f.stat().st_size for f in base.iterdir())


def test_an_id_that_is_not_in_the_local_cache_fails_at_once_without_the_network() -> None:
    with pytest.raises(ModelUnavailable, match="allow_download is not set"):
        load("nobody/no-such-model-here", allow_untrained=True)


@pytest.mark.parametrize("device", ["cuda:99", "tpu"])
def test_a_device_that_is_not_there_is_named(device: str, saved: Path) -> None:
    with pytest.raises(ModelUnavailable, match=device):
        load(saved, device=device)


def test_a_save_that_fails_leaves_the_old_checkpoint(copied: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    before = (copied / "model.safetensors").read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(random_model(seed=1), copied)
    assert (copied / "model.safetensors").read_bytes() == before
    assert load(copied).config == random_model().config
