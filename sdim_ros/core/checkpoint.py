"""Checkpoints on disk: found, checked before use, and written so that none is ever half there.

A *whole* model is ``config.json`` (Qwen's, with an ``sdim`` section), ``model.safetensors`` and
``tokenizer.json``. An *adapter* is ``sdim.json`` (the base, the same section, the LoRA settings)
and ``sdim.safetensors`` with the SDIM parts and LoRA alone. Pickled weights and remote code are
refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file

from sdim_ros.core import model as network
from sdim_ros.core.config import ModelSettings
from sdim_ros.core.lora import LoraSettings, add_lora, is_lora, merge_lora
from sdim_ros.core.model import SdimConfig, SdimModel
from sdim_ros.core.types import ModelUnavailable
from sdim_ros.core.whole_files import moved_when_written, write_text

WHOLE, ADAPTER = "model.safetensors", "sdim.safetensors"
# The SDIM parts of the state; an adapter holds these and LoRA.
SDIM_PARTS = ("fusion.", "point.", "qwen.model.visual.patch_embed.depth.")
BASE_FILES = ("*.json", "*.safetensors", "merges.txt")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True, slots=True)
class Base:
    """The stock model that an adapter was trained on.

    Attributes:
        name: Hugging Face id, or folder.
        revision: commit of the id; None for a folder.
        digest: of a sample of the weights, so that another model under this name is noticed.
    """

    name: str
    revision: str | None
    digest: str


def embedded() -> Path:
    """The folder of the tiny checkpoint that comes with the package."""
    return Path(str(resources.files("sdim_ros") / "checkpoints" / "tiny"))


def load(settings: ModelSettings, *, merge: bool = True) -> SdimModel:
    """The model that the settings name, on its device and ready to answer.

    Args:
        merge: add an adapter's LoRA to the weights; otherwise its layers stay beside them.

    Raises:
        ModelUnavailable: naming path, reason and remedy.
    """
    device = find_device(settings.device)
    dtype = find_dtype(settings.dtype, device)
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
    try:
        model = model.to(device=device, dtype=dtype)
        if merge:
            merge_lora(model)
    except RuntimeError as problem:  # of memory, or of a GPU that fails
        raise ModelUnavailable(
            f"checkpoint {source}: it cannot be put on {device} as {dtype} "
            f"({_first_line(problem)}); free memory there, or set model.device, "
            "model.dtype or model.quantization") from problem
    if settings.quantization != "none":
        # Imported here, since few use it: it imports the model.
        from sdim_ros.core.quantization import quantize

        quantize(model, settings.quantization)
    return model.eval().requires_grad_(False)


def load_base(name: str, revision: str | None, *, local_only: bool, dtype: torch.dtype,
              config: SdimConfig) -> tuple[SdimModel, Base]:
    """A stock model with untrained SDIM parts, and what tells it from others.

    Args:
        name: folder or Hugging Face id.
        revision: commit of the id; None = the newest one known.

    Raises:
        ModelUnavailable: naming the base, the reason and the remedy.
    """
    folder = Path(name).expanduser()
    try:
        if not folder.is_dir():
            if not HUB_ID.fullmatch(name):
                raise OSError("there is no such folder, and it is no Hugging Face id either")
            folder = Path(snapshot_download(
                name, revision=revision, local_files_only=local_only,
                allow_patterns=BASE_FILES))
            revision = folder.name  # a snapshot is named by its commit
        else:
            name = str(folder.resolve())  # it may be loaded from another folder
        model = network.load_stock(folder, dtype=dtype, config=config)
    except OSError as problem:
        hint = "; allow the download (model.allow_download, or --allow-download), or name a " \
            "local folder" if local_only and not folder.is_dir() else ""
        raise ModelUnavailable(f"base {name}: cannot be loaded ({problem}){hint}") from problem
    return model, Base(name, revision, _digest(model))


def _digest(model: SdimModel) -> str:
    """SHA-256 of a few values of each of the base's tensors; all 7 GB would take too long."""
    digest = hashlib.sha256()
    for name, value in sorted(model.qwen.state_dict().items()):
        if f"qwen.{name}".startswith(SDIM_PARTS):
            continue
        sample = value.flatten()[::max(1, value.numel() // 16)]
        # Rounded as when it is loaded in bfloat16, so that both ways give the same.
        digest.update(name.encode() + sample.bfloat16().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


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


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto``, ``float32`` or ``bfloat16`` as PyTorch names it."""
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
        folder = _snapshot(source, settings)
    if (folder / "sdim.json").is_file():
        return _load_adapter(folder, settings, dtype)
    if not (folder / "config.json").is_file():
        raise ModelUnavailable(
            f"checkpoint {folder}: no config.json or sdim.json in it; expected the folder that "
            "`sdim train` wrote")
    if _is_stock(folder):
        return _load_stock(folder, source, settings, dtype)
    return _load_whole(folder)


def _is_stock(folder: Path) -> bool:
    """Whether it describes a model that ``sdim train`` did not write."""
    described = folder / "config.json"
    return (described.is_file() and not (folder / "sdim.json").is_file()
            and "sdim" not in _read_json(described))


def _snapshot(name: str, settings: ModelSettings) -> Path:
    """The folder of a Hugging Face id in the local cache, fetched where that is allowed."""
    local = not settings.allow_download
    try:
        # The descriptions first: gigabytes of a model that will be refused are not fetched.
        folder = Path(snapshot_download(name, local_files_only=local, allow_patterns="*.json"))
        if settings.allow_untrained or not _is_stock(folder):
            snapshot_download(name, local_files_only=local, allow_patterns=BASE_FILES)
        return folder
    except OSError as problem:
        hint = "it is not in the local cache and model.allow_download is not set" if local else (
            f"it cannot be fetched ({_first_line(problem)})")
        raise ModelUnavailable(
            f"checkpoint {name}: no such folder, and taken as a Hugging Face id {hint}"
            ) from problem


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
    wanted = Base(**section["base"])
    model, base = load_base(
        wanted.name, wanted.revision, local_only=not settings.allow_download, dtype=dtype,
        config=SdimConfig.from_dict(section["sdim"]))
    if base.digest != wanted.digest:
        raise ModelUnavailable(
            f"checkpoint {folder}: the base {base.name} is not the one that it was trained on: "
            "its weights differ; get that base, or train again")
    if section["lora"] is not None:
        add_lora(model, LoraSettings(**section["lora"]))
    _check(folder / ADAPTER, weights, sdim_state(model))
    model.load_state_dict(weights, strict=False)
    return model


def _load_stock(folder: Path, source: str, settings: ModelSettings, dtype: torch.dtype
                ) -> SdimModel:
    if not settings.allow_untrained:
        raise ModelUnavailable(
            f"checkpoint {source}: a stock Qwen2.5-VL has no trained SDIM parts, so its "
            "depths would mean nothing; name a folder that `sdim train` wrote, use the embedded "
            "checkpoint (empty name), or set model.allow_untrained to time it")
    try:
        return network.load_stock(folder, dtype=dtype, config=SdimConfig())
    except OSError as problem:
        raise ModelUnavailable(f"checkpoint {source}: {problem}") from problem


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
    """The SDIM parts of the model's state and LoRA: what an adapter holds."""
    return {n: v for n, v in model.state_dict().items()
            if n.startswith(SDIM_PARTS) or is_lora(n)}


def save(model: SdimModel, folder: Path, dtype: torch.dtype = torch.float32,
         state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write a whole model.

    Args:
        state: of the model, where it holds shards of its tensors; None = its own.
    """
    state = model.state_dict() if state is None else state
    config = model.qwen.config.to_dict()

    def description(sha256: str) -> str:
        config["sdim"] = {**model.config.to_dict(), "sha256": sha256}
        return json.dumps(config, indent=1, default=str) + "\n"

    _publish(folder / WHOLE,
             {n: v.detach().to("cpu", dtype).contiguous() for n, v in state.items()},
             {"tokenizer.json": lambda _: model.tokenizer.backend_tokenizer.to_str(),
              "config.json": description})


def save_stock(model: SdimModel, folder: Path) -> None:
    """Write the model's Qwen2.5-VL alone, as Hugging Face has it, without any part of SDIM."""
    visual = model.qwen.model.visual
    fused, visual.patch_embed = visual.patch_embed, visual.patch_embed.rgb
    try:
        model.qwen.save_pretrained(folder)
    finally:
        visual.patch_embed = fused
    write_text(folder / "tokenizer.json", model.tokenizer.backend_tokenizer.to_str())


def save_adapter(model: SdimModel, folder: Path, base: Base, lora: LoraSettings | None,
                 state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the SDIM parts and LoRA alone, for use on the stock model ``base``.

    Args:
        state: what ``sdim_state`` gives, where the model holds shards; None = its own.
    """
    state = sdim_state(model) if state is None else state

    def description(sha256: str) -> str:
        section = {"base": asdict(base), "sdim": model.config.to_dict(),
                   "lora": None if lora is None else asdict(lora), "sha256": sha256}
        return json.dumps(section, indent=1) + "\n"

    _publish(folder / ADAPTER, {n: v.detach().cpu().contiguous() for n, v in state.items()},
             {"sdim.json": description})


def _publish(path: Path, tensors: dict[str, torch.Tensor],
             texts: Mapping[str, Callable[[str], str]]) -> None:
    """Write the tensors and the texts beside them, then move all into place.

    The last text names the checksum of the tensors: should a kill hit the few microseconds
    between the moves, the mixture of old and new is recognised by it and refused.

    Args:
        texts: by file name, made from the checksum.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with moved_when_written(path, *(path.with_name(n) for n in texts)) as (weights, *others):
        _save_tensors(tensors, weights)
        sha256 = _sha256(weights)
        for other, text in zip(others, texts.values()):
            other.write_text(text(sha256), encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write safetensors beside the target, then move them into its place."""
    with moved_when_written(path) as (temporary,):
        _save_tensors(tensors, temporary)


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors lets nobody else read it


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _first_line(problem: Exception) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
