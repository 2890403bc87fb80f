"""What a camera's model has learnt, on disk: numbered folders, each of them whole.

``FOLDER/000007/`` holds ``adaptation.safetensors`` (the tensors that learnt) and
``adaptation.json`` (the model that they belong to, how they were learnt, and their SHA-256). It is
written under another name, forced to the disk and then renamed: a process that is killed leaves
the adapters before, or this one as well, and never a part of one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save as to_bytes
from torch import Tensor

from sdim_ros.core.lora import is_lora
from sdim_ros.core.types import ModelUnavailable, SdimError

WEIGHTS, ABOUT = "adaptation.safetensors", "adaptation.json"
KEPT = 3
NUMBERED = re.compile(r"\d{6,}")
UNFINISHED = ".unfinished-"  # saves and removals: what is still there was cut off
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)


class CannotSave(SdimError):
    """An adapter could not be written; those before it are as they were."""


def base_of(name: str, original: Mapping[str, Tensor]) -> dict[str, str]:
    """What tells a model from others, for ``about["base"]``.

    Args:
        name: of the model, for people.
        original: the tensors that learn, by name, as the model was loaded.
    """
    digest = hashlib.sha256()
    for key, value in sorted(original.items()):
        digest.update(f"{key} {tuple(value.shape)}".encode())
        if not is_lora(key):  # begins at random
            # Rounded as when it is loaded in bfloat16, so that both ways give the same.
            rounded = value.detach().to("cpu", torch.bfloat16).contiguous()
            digest.update(rounded.view(torch.int16).numpy().tobytes())
    return {"name": name, "digest": digest.hexdigest()}


def save(folder: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """Write an adapter under the next number; the last three are kept.

    Args:
        folder: of all adapters of a camera; made where it is missing.
        weights: the tensors that learnt, by name.
        about: for ``adaptation.json``, with ``base`` as ``base_of`` gives it.

    Returns:
        the folder of this adapter.

    Raises:
        CannotSave: naming the folder, the reason and the remedy.
    """
    data = to_bytes({name: value.detach().cpu().contiguous() for name, value in weights.items()})
    text = json.dumps({**about, "sha256": hashlib.sha256(data).hexdigest()}, indent=1) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, fcntl.LOCK_EX):
            _remove_leftovers(folder)
            _check_space(folder, 2 * len(data))
            number = max((int(path.name) for path in saved(folder)), default=0) + 1
            path = folder / f"{number:06d}"
            _write(path, {WEIGHTS: data, ABOUT: text.encode()})
            for old in saved(folder)[:-KEPT]:
                _remove(old)
    except OSError as problem:
        raise CannotSave(
            f"adapter in {folder}: cannot be written ({problem.strerror or problem}); those "
            "before it are as they were: expected a folder on a disk with free space that may be "
            "written to; see adaptation.folder") from problem
    return path


def load_newest(
    folder: Path, expected: Mapping[str, Tensor], base: str,
    warn: Callable[[str], Any] = warnings.warn,
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest adapter that is whole.

    Args:
        folder: of all adapters of a camera.
        expected: the tensors that learn, by name, as the model was loaded.
        base: name of that model, for people.
        warn: told of each adapter that is damaged; then the one before it is taken.

    Returns:
        its tensors by name, on the CPU, and what ``adaptation.json`` says, with ``path`` as the
        folder that it is in; None = there is none.

    Raises:
        ModelUnavailable: it belongs to another model, or the folder cannot be read.
    """
    if not folder.exists():
        return None
    here = base_of(base, expected)
    try:
        with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            _remove_leftovers(folder)
    except OSError:
        pass  # read-only, or another process saves: nothing depends on it
    try:
        found = saved(folder)
    except OSError as problem:
        raise ModelUnavailable(
            f"adaptation.folder {folder}: cannot be read ({problem.strerror}); expected a folder "
            "of adapters, or the name of one that is to be made") from problem
    for path in reversed(found):
        try:
            about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
            _refuse_other_base(path, about["base"], here)
            return _read(path, about["sha256"], expected), {**about, "path": str(path)}
        except DAMAGE as problem:
            warn(f"adapter {path}: damaged ({type(problem).__name__}: {problem}); the one before "
                 "it is used, if there is one")
    return None


def _refuse_other_base(path: Path, theirs: Mapping[str, str], here: Mapping[str, str]) -> None:
    if theirs["digest"] != here["digest"]:
        raise ModelUnavailable(
            f"adapter {path}: it was learnt on {theirs['name']} ({theirs['digest'][:12]}...) and "
            f"the model here is {here['name']} ({here['digest'][:12]}...): expected the same "
            "model and the same adaptation.parts; use those, or another adaptation.folder")


def _read(path: Path, checksum: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    data = (path / WEIGHTS).read_bytes()
    seen = hashlib.sha256(data).hexdigest()
    if seen != checksum:
        raise ValueError(f"SHA-256 {seen[:12]}..., expected {checksum[:12]}...")
    weights = load(data)
    if weights.keys() != expected.keys():
        other = sorted(weights.keys() ^ expected.keys())
        raise ValueError(f"{len(other)} tensors are missing or unknown, the first is {other[0]}")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, expected "
                             f"{tuple(expected[name].shape)}")
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise ValueError(f"{name} of type {value.dtype}: expected finite floats")
    return weights


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    """A folder with these files, on the disk for good when it has its name."""
    temporary = path.with_name(f"{UNFINISHED}{path.name}")
    try:
        temporary.mkdir()
        for name, content in files.items():
            with (temporary / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync(temporary)
        temporary.rename(path)
        _sync(path.parent)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """No other process writes; the lock of one that is killed is gone with it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CannotSave(
            f"adapter in {folder}: {free / 2**20:.1f} MB are free, expected at least "
            f"{needed / 2**20:.1f} MB; make room, or set adaptation.folder to another disk")


def saved(folder: Path) -> list[Path]:
    """The adapters in a folder, newest last; some may be damaged."""
    numbered = [path for path in folder.iterdir() if NUMBERED.fullmatch(path.name)]
    return sorted(numbered, key=lambda path: int(path.name))


def _remove(path: Path) -> None:
    """First the name, so that no half of it is ever taken for an adapter."""
    gone = path.with_name(f"{UNFINISHED}old-{path.name}")
    try:
        path.rename(gone)
    except OSError:
        return  # one too many does no harm
    shutil.rmtree(gone, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """What killed processes left; only with the lock, else it may be what another one writes."""
    for path in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)
