"""Checkpoints on disk: found, checked before use, and written so that none is ever half there.

A *whole* model is ``config.json`` (Qwen's, with an ``sdim`` section), ``model.safetensors`` and
``tokenizer.json``. An *adapter* is ``sdim.json`` (the base, the same section) and
``sdim.safetensors`` with the SDIM parts alone. Pickled weights and remote code are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sdim_ros.core import model as network
from sdim_ros.core.config import ModelSettings
from sdim_ros.core.model import SdimConfig, SdimModel
from sdim_ros.core.types import ModelUnavailable

WHOLE, ADAPTER = "model.safetensors", "sdim.safetensors"
# The SDIM parts of the state, the only ones that an adapter holds.
SDIM_PARTS = ("fusion.", "point.", "qwen.model.visual.patch_embed.depth.")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def embedded() -> Path:
    """The folder of the tiny checkpoint that comes with the package."""
    return Path(str(resources.files("sdim_ros") / "checkpoints" / "tiny"))


def load(settings: ModelSettings) -> SdimModel:
    """The model that the settings name, on its device and ready to answer.

    Raises:
        ModelUnavailable: naming path, reason and remedy.
    """
    device = find_device(settings.device)
    dtype = _find_dtype(settings.dtype, device)
    source = settings.checkpoint or str(embedded())
    try:
        model = _load(source, settings, dtype)
    except ModelUnavailable:
        raise
    except Exception as problem:  # a damaged file makes its reader raise almost anything
        raise ModelUnavailable(
            f"checkpoint {source}: cannot be read ({type(problem).__name__}: {problem}); get a "
            "good copy") from problem
    broken = [name for name, value in model.state_dict().items()
              if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise ModelUnavailable(
            f"checkpoint {source}: {len(broken)} tensors hold values that are not finite, the "
            f"first is {broken[0]}; get a good copy")
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False)


def find_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` as a device that is there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ModelUnavailable(f"model.device={name!r}: expected auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelUnavailable(
            f"model.device={name}: this machine has {torch.cuda.device_count()} usable CUDA "
            "devices; use auto, cpu or a device that is there")
    return device


def _find_dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, name)


def _load(source: str, settings: ModelSettings, dtype: torch.dtype) -> SdimModel:
    folder = Path(source).expanduser()
    if folder.is_file():
        kind = "pickled weights can run code" if folder.suffix in PICKLED else "it is a file"
        raise ModelUnavailable(
            f"checkpoint {folder}: {kind}; expected a folder with config.json, {WHOLE} and "
            "tokenizer.json")
    if not folder.is_dir():
        if not HUB_ID.fullmatch(source):
            raise ModelUnavailable(
                f"checkpoint {folder}: there is no such folder, and it is no Hugging Face id "
                "(owner/name) either")
        return _load_stock(source, settings, dtype, "no such folder, taken as a Hugging Face id: ")
    if (folder / "sdim.json").is_file():
        return _load_adapter(folder, settings, dtype)
    if not (folder / "config.json").is_file():
        raise ModelUnavailable(
            f"checkpoint {folder}: no config.json or sdim.json in it; expected the folder that "
            "`sdim train` wrote")
    if "sdim" in _read_json(folder / "config.json"):
        return _load_whole(folder)
    return _load_stock(source, settings, dtype, "")


def _load_whole(folder: Path) -> SdimModel:
    config = _read_json(folder / "config.json")
    section = config.pop("sdim")
    weights = _weights(folder, WHOLE, section.pop("sha256"))
    if not (folder / "tokenizer.json").is_file():
        raise ModelUnavailable(f"checkpoint {folder}: tokenizer.json is missing")
    # Checked against the shapes alone, before any memory is spent on a model.
    with torch.device("meta"):
        model = network.build(config, SdimConfig.from_dict(section),
                              network.load_tokenizer(folder))
    _check(folder / WHOLE, weights, model.state_dict())
    model = network.build(config, SdimConfig.from_dict(section), network.load_tokenizer(folder))
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    return model


def _load_adapter(folder: Path, settings: ModelSettings, dtype: torch.dtype) -> SdimModel:
    section = _read_json(folder / "sdim.json")
    weights = _weights(folder, ADAPTER, section["sha256"])
    base = section["base"]
    model = network.load_stock(base, local_only=not settings.allow_download, dtype=dtype,
                               config=SdimConfig.from_dict(section["sdim"]))
    _check(folder / ADAPTER, weights, sdim_state(model))
    model.load_state_dict({**model.state_dict(), **weights})
    return model


def _load_stock(source: str, settings: ModelSettings, dtype: torch.dtype, found: str
                ) -> SdimModel:
    if not settings.allow_untrained:
        raise ModelUnavailable(
            f"checkpoint {source}: {found}a stock Qwen2.5-VL has no trained SDIM parts, so its "
            "depths would mean nothing; name a folder that `sdim train` wrote, use the embedded "
            "checkpoint (empty name), or set model.allow_untrained to time it")
    try:
        return network.load_stock(source, local_only=not settings.allow_download, dtype=dtype,
                                  config=SdimConfig())
    except OSError as problem:
        hint = "" if settings.allow_download else (
            "; it is not in the local cache and model.allow_download is not set")
        raise ModelUnavailable(f"checkpoint {source}: {problem}{hint}") from problem


def _weights(folder: Path, name: str, checksum: str) -> dict[str, torch.Tensor]:
    path = folder / name
    if not path.is_file():
        pickled = [p.name for p in folder.iterdir() if p.suffix in PICKLED]
        reason = f"; {pickled[0]} is pickled and can run code" if pickled else ""
        raise ModelUnavailable(f"checkpoint {folder}: {name} is missing{reason}")
    seen = _sha256(path)
    if seen != checksum:
        raise ModelUnavailable(
            f"checkpoint {path}: its SHA-256 is {seen[:12]}..., expected {checksum[:12]}...; "
            "the file is damaged or was changed: get a good copy")
    return load_file(path)


def _check(path: Path, weights: Mapping[str, torch.Tensor],
           expected: Mapping[str, torch.Tensor]) -> None:
    missing, foreign = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if missing or foreign:
        raise ModelUnavailable(
            f"checkpoint {path}: {len(missing)} tensors are missing and {len(foreign)} are "
            f"unknown, for example {sorted(missing | foreign)[0]}; it is for another network")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise ModelUnavailable(
                f"checkpoint {path}: {name} has shape {tuple(value.shape)}, expected "
                f"{tuple(expected[name].shape)}; it is for another network")
        # Counters of batch normalisation are integers, and floats after a cast of the model.
        if expected[name].is_floating_point() and not value.is_floating_point():
            raise ModelUnavailable(
                f"checkpoint {path}: {name} is of type {value.dtype}, expected floats")


def sdim_state(model: SdimModel) -> dict[str, torch.Tensor]:
    """The SDIM parts of the model's state: what an adapter holds."""
    return {n: v for n, v in model.state_dict().items() if n.startswith(SDIM_PARTS)}


def save(model: SdimModel, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a whole model, each file at once.

    ``config.json`` names the checksum of the weights and is replaced last: should a kill leave
    new weights beside an old configuration, the mixture is recognised by it and refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {n: v.detach().to("cpu", dtype).contiguous() for n, v in model.state_dict().items()}
    write_tensors(folder / WHOLE, state)
    write_text(folder / "tokenizer.json", model.tokenizer.backend_tokenizer.to_str())
    config = model.qwen.config.to_dict()
    config["sdim"] = {**model.config.to_dict(), "sha256": _sha256(folder / WHOLE)}
    write_text(folder / "config.json", json.dumps(config, indent=1, default=str) + "\n")


def save_adapter(model: SdimModel, folder: Path, base: str) -> None:
    """Write the SDIM parts alone, for use on the stock model ``base``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / ADAPTER,
                  {n: v.detach().cpu().contiguous() for n, v in sdim_state(model).items()})
    section: dict[str, Any] = {
        "base": base, "sdim": model.config.to_dict(), "sha256": _sha256(folder / ADAPTER)}
    write_text(folder / "sdim.json", json.dumps(section, indent=1) + "\n")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write safetensors beside the target, then move them into its place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)  # safetensors lets nobody else read it
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Write text beside the target, then move it into its place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
