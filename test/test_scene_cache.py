"""Shards of rendered scenes: stored almost without loss, and made once."""

from __future__ import annotations

import numpy as np

from sdim_ros.tools.scene_cache import load_shard, save_shard, save_shards
from sdim_ros.tools.scenes import render


def test_a_shard_gives_back_its_frames(tmp_path):
    path = save_shard(tmp_path / "shard.npz", range(4), 96, 72)
    loaded = load_shard(path)
    assert len(loaded) == 4 and list(tmp_path.iterdir()) == [path]
    frames = [render(seed, 96, 72) for seed in range(4)]
    for (image, depth, camera), (image_there, depth_there, camera_there) in zip(loaded, frames):
        np.testing.assert_array_equal(image, image_there)
        np.testing.assert_allclose(depth, depth_there, rtol=1e-4)
        assert depth.dtype == np.float32 and camera == camera_there


def test_parallel_shards_continue_where_they_stopped(tmp_path):
    first = save_shards(tmp_path, 2, 1, workers=2, width=64, height=48)
    written = [path.stat().st_mtime_ns for path in first]
    again = save_shards(tmp_path, 3, 1, workers=1, width=64, height=48)
    assert again[:2] == first and len(again) == 3 and again[2].exists()
    assert [path.stat().st_mtime_ns for path in first] == written
