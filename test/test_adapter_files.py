"""Adapters on disk: the newest whole one is used, and no kill, full disk or bit ever hides it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY

from sdim_ros.core import adapter_files
from sdim_ros.core.adapter_files import CannotSave, base_of, load_newest, save
from sdim_ros.core.types import ModelUnavailable

ORIGINAL = {"fusion.a": torch.linspace(-1, 1, 12).view(3, 4), "point.b": torch.ones(5)}
NAME = "embedded tiny checkpoint"


def learnt(number: float) -> dict[str, torch.Tensor]:
    return {name: value + number for name, value in ORIGINAL.items()}


def save_number(folder: Path, number: float, original: dict[str, torch.Tensor] = ORIGINAL) -> Path:
    return save(folder, learnt(number), {"base": base_of(NAME, original), "steps": number})


def newest(folder: Path, **changes: object) -> int | None:
    """The number of the adapter that is loaded, checked against its tensors."""
    found = load_newest(folder, **{"expected": ORIGINAL, "base": NAME, **changes})
    if found is None:
        return None
    weights, about = found
    for name, value in learnt(about["steps"]).items():
        assert torch.equal(weights[name], value)
    return about["steps"]


@pytest.fixture(autouse=True)
def no_surprises() -> Iterator[None]:
    """A warning that the test does not expect fails it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_the_newest_comes_back_exactly_and_the_last_three_stay(tmp_path: Path) -> None:
    folder = tmp_path / "adapters" / "front"
    assert newest(folder) is None
    for number in range(1, 12):
        assert save_number(folder, number).name == f"{number:06d}"
        assert newest(folder) == number
    assert sorted(os.listdir(folder)) == ["000009", "000010", "000011"]


def test_numbers_go_on_after_a_million(tmp_path: Path) -> None:
    save_number(tmp_path, 1).rename(tmp_path / "999999")
    assert save_number(tmp_path, 2).name == "1000000"
    assert newest(tmp_path) == 2


@pytest.mark.parametrize("at", ["weights", "cut", "no weights", "about", "no about", "nan",
                                "shape", "foreign", "integers"])
def test_a_damaged_newest_is_skipped_with_a_warning(tmp_path: Path, at: str) -> None:
    save_number(tmp_path, 1)
    odd = {"nan": {"point.b": torch.tensor([1, 2, 3, float("nan"), 5])},
           "shape": {"point.b": torch.ones(6)}, "foreign": {"point.c": torch.ones(1)},
           "integers": {"point.b": torch.ones(5, dtype=torch.int32)}}.get(at, {})
    path = save(tmp_path, learnt(2) | odd, {"base": base_of(NAME, ORIGINAL), "steps": 2})
    weights, about = path / adapter_files.WEIGHTS, path / adapter_files.ABOUT
    if at == "weights":
        data = bytearray(weights.read_bytes())
        data[-3] ^= 1
        weights.write_bytes(data)
    elif at == "cut":
        weights.write_bytes(weights.read_bytes()[:50])
    elif at == "about":
        about.write_text(about.read_text()[:40])
    elif at.startswith("no "):
        (weights if at == "no weights" else about).unlink()
    told: list[str] = []
    assert newest(tmp_path, warn=told.append) == 1
    assert len(told) == 1 and str(path) in told[0] and "damaged" in told[0]


def test_when_all_are_damaged_nothing_is_loaded_and_all_are_named(tmp_path: Path) -> None:
    paths = [save_number(tmp_path, number) for number in (1, 2)]
    for path in paths:
        (path / adapter_files.WEIGHTS).write_bytes(b"")
    told: list[str] = []
    assert newest(tmp_path, warn=told.append) is None
    assert [str(path) in line for path, line in zip(reversed(paths), told)] == [True, True]


def test_an_adapter_of_another_base_is_refused_with_both_names(tmp_path: Path) -> None:
    save_number(tmp_path, 1)
    other = {**ORIGINAL, "point.b": torch.full((5,), 1.5)}
    with pytest.raises(ModelUnavailable) as refusal:
        load_newest(tmp_path, other, "my 3B")
    said = str(refusal.value)
    assert NAME in said and "my 3B" in said and "000001" in said and "another" in said


def test_other_parts_are_another_base_and_another_name_is_not(tmp_path: Path) -> None:
    save_number(tmp_path, 1)
    with pytest.raises(ModelUnavailable, match="adaptation.parts"):
        load_newest(tmp_path, {"fusion.a": ORIGINAL["fusion.a"]}, NAME)
    assert newest(tmp_path, base="/the/same/model/moved") == 1


def test_bfloat16_and_what_begins_at_random_make_no_other_base() -> None:
    halves = {name: value.bfloat16() for name, value in ORIGINAL.items()}
    assert base_of(NAME, halves) == base_of(NAME, ORIGINAL)
    lora = [{**ORIGINAL, "q_proj.lora_A.default.weight": torch.randn(2, 3)} for _ in range(2)]
    assert base_of(NAME, lora[0]) == base_of(NAME, lora[1]) != base_of(NAME, ORIGINAL)


def test_about_says_what_it_was_told(tmp_path: Path) -> None:
    path = save_number(tmp_path, 7)
    about = json.loads((path / adapter_files.ABOUT).read_text())
    assert about["steps"] == 7 and about["base"]["name"] == NAME and len(about["sha256"]) == 64


# Saves in a loop, is killed at a random moment, and what is then on disk is loaded; 100 times.
# The children are forked: to load PyTorch for each of them would take minutes.
KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import test_adapter_files as here

folder, random_ = Path(sys.argv[1]), random.Random(0)
last, cut_off = 0, 0
for _ in range(100):
    start = last
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        number = start
        while True:
            number += 1
            here.save_number(folder, number)
            os.write(theirs, number.to_bytes(4, "big"))
    os.close(theirs)
    assert os.read(ours, 4)  # it runs
    time.sleep(random_.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = start + 1
    while number := os.read(ours, 4):
        told = int.from_bytes(number, "big")
    os.close(ours)
    cut_off += any(name.startswith(".unfinished") for name in os.listdir(folder))
    last = here.newest(folder)
    assert last in (told, told + 1), (last, told)
    assert not any(name.startswith(".unfinished") for name in os.listdir(folder))
print(last, cut_off)
"""


def test_after_each_of_100_kills_while_it_saves_the_last_adapter_is_there(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLS, str(tmp_path)], capture_output=True,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(
            (str(REPOSITORY / "test"), str(REPOSITORY)))}, timeout=120)
    assert run.returncode == 0, run.stderr
    saved, cut_off = map(int, run.stdout.split())
    assert saved >= 100 and cut_off >= 10  # else the kills missed what they were for


def test_a_full_disk_is_noticed_before_anything_is_written(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_number(tmp_path, 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    large = {"fusion.a": torch.zeros(2**18), "point.b": torch.ones(5)}
    with pytest.raises(CannotSave, match=r"1\.0 MB are free, expected at least 2\.0 MB"):
        save(tmp_path, large, {"base": base_of(NAME, ORIGINAL), "steps": 2})
    assert os.listdir(tmp_path) == ["000001"] and newest(tmp_path) == 1


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow over 4 kB: writes end in the middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_ends_in_the_middle_leaves_those_before(
        tmp_path: Path, small_files: None) -> None:
    save_number(tmp_path, 1)
    large = {"fusion.a": torch.zeros(10_000), "point.b": torch.ones(5)}
    with pytest.raises(CannotSave, match="cannot be written .*File too large.*as they were"):
        save(tmp_path, large, {"base": base_of(NAME, ORIGINAL), "steps": 2})
    assert os.listdir(tmp_path) == ["000001"] and newest(tmp_path) == 1


@pytest.fixture
def nobody() -> Iterator[None]:
    """Not root, whom no permission stops."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder with one adapter that may only be read, where everybody may look."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_number(folder, 1)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_a_read_only_folder_is_read_and_says_why_nothing_is_saved(
        read_only: Path, nobody: None) -> None:
    assert newest(read_only) == 1
    with pytest.raises(CannotSave, match="Permission denied.*adaptation.folder"):
        save_number(read_only, 2)
    assert newest(read_only) == 1


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ModelUnavailable, match="expected a folder of adapters"):
        newest(path)
    with pytest.raises(CannotSave, match="File exists|Not a directory"):
        save_number(path, 1)
