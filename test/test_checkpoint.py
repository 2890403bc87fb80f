"""A checkpoint is the one that was saved, or it is refused with path and reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from models import random_model
from safetensors.torch import load_file, save_file

from sdim_ros.core import checkpoint
from sdim_ros.core.config import ModelSettings
from sdim_ros.core.fusion import FusionConfig
from sdim_ros.core.lora import LoraSettings, add_lora
from sdim_ros.core.model import SdimModel
from sdim_ros.core.types import ModelUnavailable

LORA = LoraSettings(rank=4, alpha=8.0)


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


def save_adapted(folder: Path, norm: str = "group", lora: LoraSettings | None = LORA
                 ) -> SdimModel:
    """A model as training would leave it: its base in folder/base, its adapter in folder/adapter.
    """
    fusion = FusionConfig(8, 8, 16, 8, norm)
    checkpoint.save_stock(random_model(sharpen=1.0, fusion=fusion), folder / "base")
    model, base = checkpoint.load_base(
        str(folder / "base"), None, local_only=True, dtype=torch.float32,
        config=random_model(fusion=FusionConfig(8, 8, 16, 8, norm)).config)
    if lora is not None:
        add_lora(model, lora)
    torch.manual_seed(7)
    with torch.no_grad():
        for name, value in checkpoint.sdim_state(model).items():
            if value.is_floating_point() and "running" not in name:
                value.normal_(0, 0.05)
    checkpoint.save_adapter(model, folder / "adapter", base, lora)
    return model.eval()


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("lora", [None, LORA])
def test_an_adapter_restores_what_was_trained_on_its_base(
        norm: str, lora: LoraSettings | None, tmp_path: Path) -> None:
    model = save_adapted(tmp_path, norm, lora)
    loaded = checkpoint.load(ModelSettings(checkpoint=str(tmp_path / "adapter")), merge=False)
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    written = load_file(tmp_path / "adapter" / "sdim.safetensors")
    assert any(".lora_A." in name for name in written) == (lora is not None)
    assert not any(name.endswith("q_proj.base_layer.weight") for name in written)


def test_a_loaded_adapter_is_merged_for_use(tmp_path: Path) -> None:
    model = save_adapted(tmp_path)
    merged = load(tmp_path / "adapter")
    assert not any(".lora_" in name for name in merged.state_dict())
    layer = "qwen.model.language_model.layers.1.mlp.up_proj."
    state = model.state_dict()
    expected = state[f"{layer}base_layer.weight"] + LORA.alpha / LORA.rank * (
        state[f"{layer}lora_B.default.weight"] @ state[f"{layer}lora_A.default.weight"])
    torch.testing.assert_close(merged.state_dict()[f"{layer}weight"], expected)


def test_an_adapter_on_another_base_is_refused(tmp_path: Path) -> None:
    save_adapted(tmp_path)
    checkpoint.save_stock(random_model(seed=1, sharpen=1.0), tmp_path / "base")
    with pytest.raises(ModelUnavailable, match=f"base {tmp_path}/base is not the one that it was"):
        load(tmp_path / "adapter")


def test_a_base_that_lacks_a_tensor_is_refused_instead_of_made_up(tmp_path: Path) -> None:
    checkpoint.save_stock(random_model(sharpen=1.0), tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    weights = load_file(path)
    [name] = [name for name in weights if name.endswith("layers.1.mlp.up_proj.weight")
              and "visual" not in name]
    del weights[name]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ModelUnavailable, match="1 of its tensors are missing.*up_proj"):
        checkpoint.load_base(str(tmp_path / "base"), None, local_only=True, dtype=torch.float32,
                             config=random_model().config)


def test_an_adapter_finds_a_base_that_was_named_from_another_folder(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint.save_stock(random_model(sharpen=1.0), tmp_path / "models" / "base")
    model, base = checkpoint.load_base("models/base", None, local_only=True, dtype=torch.float32,
                                       config=random_model().config)
    checkpoint.save_adapter(model, tmp_path / "adapter", base, None)
    monkeypatch.chdir("/")
    load(tmp_path / "adapter")


def test_an_adapter_says_when_its_base_is_gone(tmp_path: Path) -> None:
    save_adapted(tmp_path)
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelUnavailable, match=f"base {tmp_path}/base: .* no such folder"):
        load(tmp_path / "adapter")


def test_an_adapter_whose_base_is_not_in_the_local_cache_fails_without_the_network(
        tmp_path: Path) -> None:
    save_adapted(tmp_path)
    path = tmp_path / "adapter" / "sdim.json"
    section = json.loads(path.read_text())
    section["base"].update(name="nobody/no-such-model-here", revision="0123abc")
    path.write_text(json.dumps(section))
    with pytest.raises(ModelUnavailable, match="nobody/no-such.*--allow-download"):
        load(tmp_path / "adapter")


@pytest.mark.parametrize("damage", ["flipped", "shape", "integers", "missing", "rank", "keys"])
def test_a_damaged_adapter_is_refused_with_its_folder(damage: str, tmp_path: Path) -> None:
    save_adapted(tmp_path)
    path, description = (tmp_path / "adapter" / name for name in ("sdim.safetensors", "sdim.json"))
    weights, section = load_file(path), json.loads(description.read_text())
    if damage == "shape":
        weights["fusion.out.bias"] = torch.zeros(7)
    elif damage == "integers":
        weights["fusion.out.bias"] = torch.zeros(3, dtype=torch.int64)
    elif damage == "missing":
        del weights["point.near"]
    elif damage == "rank":
        section["lora"]["rank"] = 5
    elif damage == "keys":
        del section["base"]["digest"]
    if damage == "flipped":
        path.write_bytes(path.read_bytes()[:-5] + b"wrong")
    else:
        save_file(weights, path)
        section["sha256"] = checkpoint._sha256(path)
    description.write_text(json.dumps(section))
    with pytest.raises(ModelUnavailable, match=f"checkpoint {tmp_path}/adapter.*: ."):
        load(tmp_path / "adapter")


def test_a_base_from_the_hub_is_pinned_to_its_revision(tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer revision in the cache does not take the place of the one trained on."""
    cache, old, new = tmp_path / "models--some--base", "a" * 40, "b" * 40
    checkpoint.save_stock(random_model(sharpen=1.0), cache / "snapshots" / old)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(old)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    model, base = checkpoint.load_base("some/base", None, local_only=True, dtype=torch.float32,
                                       config=random_model().config)
    assert (base.name, base.revision) == ("some/base", old)
    checkpoint.save_adapter(model, tmp_path / "adapter", base, None)
    checkpoint.save_stock(random_model(seed=1, sharpen=1.0), cache / "snapshots" / new)
    (cache / "refs" / "main").write_text(new)
    name = "qwen.model.language_model.layers.0.mlp.up_proj.weight"
    assert torch.equal(load(tmp_path / "adapter").state_dict()[name], model.state_dict()[name])


def test_the_base_is_recognised_in_whatever_number_type_it_is_loaded(tmp_path: Path) -> None:
    save_adapted(tmp_path)
    assert load(tmp_path / "adapter", dtype="bfloat16").dtype == torch.bfloat16


def test_an_id_that_is_not_in_the_local_cache_fails_at_once_without_the_network() -> None:
    with pytest.raises(ModelUnavailable, match="allow_download is not set"):
        load("nobody/no-such-model-here", allow_untrained=True)


def cached(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an id in a cache of Hugging Face, to be filled."""
    cache, revision = folder / f"models--{name.replace('/', '--')}", "c" * 40
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(revision)
    (cache / "snapshots").mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return cache / "snapshots" / revision


def test_a_trained_checkpoint_loads_by_its_id(saved: Path, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(saved, cached(tmp_path, "alice/sdim", monkeypatch))
    ours, theirs = load("alice/sdim").state_dict(), load(saved).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_an_adapter_loads_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_adapted(tmp_path)
    shutil.copytree(tmp_path / "adapter", cached(tmp_path / "hub", "alice/adapted", monkeypatch))
    ours, theirs = load("alice/adapted").state_dict(), load(tmp_path / "adapter").state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_stock_model_of_the_hub_is_refused_before_its_weights_are_fetched(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cached(tmp_path, "some/stock", monkeypatch)
    checkpoint.save_stock(random_model(sharpen=1.0), folder)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(ModelUnavailable, match="some/stock: a stock .* no trained SDIM parts"):
        load("some/stock")


def test_a_folder_may_begin_with_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                ) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    checkpoint.save_stock(random_model(sharpen=1.0), tmp_path / "stock")
    assert load("~/stock", allow_untrained=True).parameter_count() > 1000


def test_a_device_that_is_too_small_is_named_with_the_remedy(
        saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")

    monkeypatch.setattr(SdimModel, "to", full)
    with pytest.raises(ModelUnavailable, match="cannot be put on cpu.*out of memory.*model.dtype"):
        load(saved)


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
