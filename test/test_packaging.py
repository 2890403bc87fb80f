"""The package installs with colcon and with pip, and both find what they installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

COLCON = Path(sys.executable).with_name("colcon")
SHARED = ["package.xml", "launch/completion.launch.py", "launch/replay.launch.py",
          "config/completion.yaml", "config/completion.rviz", "config/fastdds_shm.xml"]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "runs", "demo_out", "build", "install", "log", "*.egg-info", "__pycache__")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources in a fresh workspace: builds write beside them."""
    shutil.copytree(REPOSITORY, tmp_path / "src" / "sdim_ros", ignore=LEFT_OUT)
    return tmp_path


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.skipif(not COLCON.exists() and not shutil.which("colcon"),
                    reason="colcon is not installed")
def test_colcon_builds_the_package_and_runs_its_tests(copy: Path) -> None:
    colcon = str(COLCON if COLCON.exists() else shutil.which("colcon"))
    run(colcon, "build", cwd=copy)
    installed = copy / "install" / "sdim_ros"
    for name in SHARED:
        assert (installed / "share" / "sdim_ros" / name).is_file()
    started = installed / "lib" / "sdim_ros" / "completion_node"
    assert os.access(started, os.X_OK)
    # Not the Python that colcon runs in: the active environment's, which has PyTorch.
    assert started.read_text().startswith("#!/usr/bin/env python3\n")
    assert (installed / "share/ament_index/resource_index/packages/sdim_ros").is_file()
    run(colcon, "test", "--pytest-args", "test/test_types.py", "test/test_prompts.py", cwd=copy)
    result = run(colcon, "test-result", "--verbose", cwd=copy)
    # Without its test extra the package would have no tests, and colcon would call that green.
    count = re.search(r"Summary: (\d+) tests, 0 errors, 0 failures", result)
    assert count and int(count[1]) > 20, result


def test_colcon_in_the_active_python_links_a_node_that_runs_in_it(copy: Path) -> None:
    pytest.importorskip("colcon_core", reason="colcon is not installed in this environment")
    run(sys.executable, "-m", "colcon", "build", "--symlink-install", cwd=copy)
    started = copy / "install" / "sdim_ros" / "lib" / "sdim_ros" / "completion_node"
    assert os.access(started, os.X_OK)
    python = Path(started.read_text().splitlines()[0].removeprefix("#!"))
    assert python.samefile(sys.executable)
    described = run("bash", "-c", f". install/setup.bash && {started.parent / 'sdim'} --help",
                    cwd=copy)
    assert "evaluate" in described


def test_a_wheel_holds_the_checkpoint_and_the_share_files(copy: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
        "-w", copy, ".", cwd=copy / "src" / "sdim_ros")
    wheel, = copy.glob("sdim_ros-*.whl")
    target = copy / "prefix"
    run(sys.executable, "-m", "venv", "--without-pip", target, cwd=copy)
    run(sys.executable, "-m", "pip", "--python", target, "install", "-q", "--no-deps", wheel,
        cwd=copy)
    for name in SHARED:
        assert (target / "share" / "sdim_ros" / name).is_file()
    assert os.access(target / "lib" / "sdim_ros" / "completion_node", os.X_OK)
    assert os.access(target / "bin" / "sdim", os.X_OK)
    package, = target.glob("lib/python*/site-packages/sdim_ros")
    assert {f.name for f in (package / "checkpoints" / "tiny").iterdir()} >= {
        "config.json", "model.safetensors", "tokenizer.json"}
    index = pytest.importorskip("ament_index_python.packages")
    found = run(sys.executable, "-c", f"import {index.__name__} as index;"
                "print(index.get_package_share_directory('sdim_ros'))", cwd=copy,
                AMENT_PREFIX_PATH=str(target))
    assert Path(found.strip()) == target / "share" / "sdim_ros"
