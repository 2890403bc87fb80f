"""Shards of rendered scenes: stored almost without loss, and made once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import REPOSITORY

from sdim_ros.core.types import BadInput
from sdim_ros.tools import scene_cache
from sdim_ros.tools.datasets.catalogue import open_dataset
from sdim_ros.tools.scene_cache import SceneFrames, render_missing
from sdim_ros.tools.scenes import render


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(scene_cache, "FRAMES_PER_SHARD", 2)


def save(frames: SceneFrames) -> None:
    """In this process, which is faster for a few."""
    for path, seeds in frames.shards.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        scene_cache.save_shard(path, seeds, frames.size)


def test_the_cache_gives_back_what_was_rendered(tmp_path):
    frames = SceneFrames(tmp_path, (96, 72), 3, first_seed=7)
    save(frames)
    assert len(frames) == 3 and frames.names[0] == "scene_000000007"
    for seed, sample in zip((7, 8, 9), frames):
        image, depth, camera = render(seed, 96, 72)
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_allclose(sample.truth, depth, rtol=1e-4)
        assert sample.truth.dtype == np.float32 and sample.camera == camera
        assert sample.sparse is None


def test_unknown_depth_stays_unknown(tmp_path, monkeypatch):
    image, depth, camera = render(0, 96, 72)
    depth[:, :5] = 0
    monkeypatch.setattr(scene_cache, "render", lambda *_: (image, depth, camera))
    frames = SceneFrames(tmp_path, (96, 72), 1)
    save(frames)
    assert not frames[0].truth[:, :5].any()
    np.testing.assert_allclose(frames[0].truth[:, 5:], depth[:, 5:], rtol=1e-4)


def test_only_missing_shards_are_rendered_and_no_half_file_stays(tmp_path):
    first = SceneFrames(tmp_path, (64, 48), 2)
    render_missing([first], workers=1)
    written = [path.stat().st_mtime_ns for path in first.shards]
    reports = []
    more = [SceneFrames(tmp_path, (64, 48), 4), SceneFrames(tmp_path, (48, 64), 1)]
    render_missing(more, 2, lambda done, wanted: reports.append((done, wanted)))
    assert [path.stat().st_mtime_ns for path in first.shards] == written
    assert reports == [(1, 2), (2, 2)]
    assert more[0][3].image.shape == (48, 64, 3) and more[1][0].image.shape == (64, 48, 3)
    assert not list(tmp_path.rglob("*partial*"))


def test_a_missing_or_damaged_shard_is_named_with_the_remedy(tmp_path):
    frames = SceneFrames(tmp_path, (64, 48), 1)
    path = next(iter(frames.shards))
    with pytest.raises(BadInput, match=f"{path} does not exist: start the training again"):
        frames[0]
    save(frames)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadInput, match=f"{path} is damaged.*delete it"):
        frames[0]


def test_the_reserved_scenes_are_the_same_each_time_and_have_exact_depth() -> None:
    scenes = open_dataset(None, "procedural")
    assert len(scenes) == len(set(scenes.names)) == 200
    one, again, other = scenes[3], scenes[3], scenes[4]
    assert (one.image == again.image).all() and (one.truth == again.truth).all()
    assert one.image.shape == (480, 640, 3) and not (one.image == other.image).all()
    assert (one.truth > 0).mean() > 0.4 and one.sparse is None


def test_a_rendering_process_that_is_killed_ends_the_rendering_with_an_error(tmp_path) -> None:
    """As the system does where memory runs out; nothing may wait for the one that is gone."""
    def kill(*_: object) -> None:
        child, *_ = [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
        child.kill()

    with pytest.raises(BrokenProcessPool):
        render_missing([SceneFrames(tmp_path, (64, 48), 1000)], 1, kill)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_rendering_processes_end_with_their_parent_and_at_once(
        tmp_path: Path, number: int) -> None:
    """A killed training must not leave processes behind that wait for ever, and Ctrl-C must not
    wait for all that could be rendered."""
    code = ("import signal, sys\nfrom pathlib import Path\nfrom sdim_ros.tools import scene_cache\n"
            "scene_cache.FRAMES_PER_SHARD = 2\n"
            "if __name__ == '__main__':\n"
            # Tests in the background of a shell ignore Ctrl-C, and what they start would as well.
            "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            f"    frames = scene_cache.SceneFrames({str(tmp_path)!r}, (64, 48), 100_000)\n"
            "    scene_cache.render_missing([frames], 2)\n")
    script = tmp_path / "render.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)],
                              env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    process = psutil.Process(parent.pid)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("64x48/*.npz")):
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    children = process.children(recursive=True)
    parent.send_signal(number)
    parent.wait(timeout=30)
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert len(gone) >= 2 and not alive
