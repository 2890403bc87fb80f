"""The house rules that can be checked: who may import whom, and how long a file may be."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "sdim_ros"
FILES = sorted(PACKAGE.rglob("*.py"))
ROS = {"rclpy", "sensor_msgs", "std_msgs", "std_srvs", "geometry_msgs", "diagnostic_msgs",
       "stereo_msgs", "lifecycle_msgs", "rcl_interfaces", "builtin_interfaces", "tf2_ros",
       "launch", "launch_ros", "message_filters", "cv_bridge", "sensor_msgs_py"}
# The tools that play to the real node.
LIVE = tuple(PACKAGE / "tools" / f"{name}.py" for name in (
    "live", "live_bench", "live_contact", "live_replay"))


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_ros_to_core_and_tools_to_core(path: Path) -> None:
    names = imports(path)
    foreign = {n for n in names if n.split(".")[0] in ROS}
    ours = {n.split(".")[1] for n in names if n.startswith("sdim_ros.") and "." in n}
    if part(path) == "core":
        assert not foreign and not ours & {"ros", "tools"}
    if part(path) == "tools" and path not in LIVE:
        assert not foreign and "ros" not in ours
    if part(path) == "ros":
        assert "tools" not in ours


def test_one_file_imports_transformers() -> None:
    users = [p for p in FILES if any(n.split(".")[0] == "transformers" for n in imports(p))]
    assert users == [PACKAGE / "core" / "model.py"]


@pytest.mark.parametrize("path", [p for p in FILES if part(p) == "ros"], ids=lambda p: p.name)
def test_the_ros_shell_does_no_arithmetic_on_images(path: Path) -> None:
    """It may reshape buffers with NumPy; image libraries belong to the core."""
    assert not {n.split(".")[0] for n in imports(path)} & {"cv2", "scipy", "torch", "PIL"}


@pytest.mark.parametrize(
    "path", [*FILES, *sorted(Path(__file__).parent.glob("*.py"))], ids=lambda p: p.name)
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_function_is_longer_than_60_lines(path: Path) -> None:
    long = [f"{node.name} ({node.end_lineno - node.lineno + 1})"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            and node.end_lineno - node.lineno + 1 > 60]
    assert not long
