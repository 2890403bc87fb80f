"""The README's tables and commands are those of the code.

``python test/test_readme.py`` prints the parameter table as it should stand in the README.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import pytest

from sdim_ros.core.config import Setting, Settings, leaves
from sdim_ros.core.projection import pose_matrix
from sdim_ros.core.topics import INPUTS, OUTPUTS, TRANSPORTS
from sdim_ros.tools import cli
from sdim_ros.tools.cli import VERBS

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def row(leaf: Setting) -> str:
    default = "[]" if leaf.value == () else f"{leaf.value}".lower() if isinstance(
        leaf.value, bool) else f"{leaf.value}" or '""'
    return f"| `{leaf.name}`{' †' if leaf.fixed else ''} | {default} | {leaf.description} |"


def table() -> str:
    return "\n".join(["| parameter | default | |", "|---|---|---|",
                      *(row(leaf) for leaf in leaves(Settings()))])


@pytest.mark.parametrize("leaf", leaves(Settings()), ids=lambda leaf: leaf.name)
def test_every_parameter_stands_in_the_readme_as_it_is(leaf: Setting) -> None:
    assert row(leaf) in README


def test_the_readme_names_no_parameter_that_does_not_exist() -> None:
    known = {leaf.name for leaf in leaves(Settings())}
    tabled = README[README.index("<details>"):README.index("</details>")]
    assert set(re.findall(r"^\| `([a-z_.]+)`", tabled, re.M)) == known


def topics(heading: str) -> dict[str, str]:
    """Topic -> type of one of the tables."""
    tabled = README[README.index(f"| {heading} | type |"):]
    rows = re.findall(r"^\| `(\S+)` \| (\S+) \|", tabled[:tabled.index("\n\n")], re.M)
    return {name: kind.rpartition("/")[2] for name, kind in rows}


def test_the_topics_of_the_readme_are_those_of_the_node() -> None:
    assert topics("output") == {**OUTPUTS, "/diagnostics": "DiagnosticArray"}
    transported = {f"{INPUTS[role]}/{name}" for role, name in TRANSPORTS.items()}
    assert set(topics("input")) == {*INPUTS.values(), *transported}


DOCUMENTS = ("README.md", "benchmarks/README.md", "sdim_ros/checkpoints/tiny/README.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_the_documents_exists_with_its_flags(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    # In a block, where lines may go on, or in code within a sentence, which may break anywhere.
    commands = re.findall(r"^sdim (\w+)((?:\\\n|[^\n])*)", text, re.M)
    commands += re.findall(r"`sdim (\w+)([^`]*)`", text)
    assert len(commands) > 3
    for verb, words in commands:
        assert verb in VERBS, verb
        parser = argparse.ArgumentParser()
        cli._tool(verb).add_arguments(parser)
        flags = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", words))
        assert flags <= set(parser._option_string_actions), (verb, words)


def test_every_file_that_the_readme_points_to_is_there() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert (REPOSITORY / target).exists(), target


def test_the_example_turns_a_lidar_that_looks_forward_into_the_optical_frame() -> None:
    numbers = re.search(r"extrinsics: \[(.*?)\]", README)[1]
    turn = pose_matrix([float(n) for n in numbers.split(",")])[:3, :3]
    forward, left, up = turn.T
    np.testing.assert_allclose([forward, left, up], [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-9)


def test_the_readme_has_no_gaps_left() -> None:
    assert not re.findall(r"@[A-Z]+@", README)


if __name__ == "__main__":
    print(table())
