"""The table of faults is complete, and the tests that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
ROWS = re.findall(r"^\| F(\d+) \| (.+?) \| (.+?) \| (.*?) ?\|$",
                  (TESTS / "FAULTS.md").read_text(), re.M)


def test_every_fault_stands_once_in_the_table():
    assert [int(number) for number, *_ in ROWS] == list(range(1, 64))


def test_every_test_that_the_table_names_exists():
    for number, _, how, test in ROWS:
        if not test:
            assert "yet" in how, f"F{number} has no test and does not say why"
            continue
        file, name = test.strip("`").split("::")
        assert f"def {name}(" in (TESTS / file).read_text(), f"F{number}: {test}"
