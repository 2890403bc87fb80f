"""Values on the command line: settings by their name, ``--set NAME=VALUE``, and numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from sdim_ros.core.types import BadInput, BadSetting


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Values by the setting's name, each read as YAML.

    Raises:
        BadSetting: another form than NAME=VALUE, or a value that is no YAML.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise BadSetting(f"--set {text}: expected NAME=VALUE")
        try:
            values[name] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as problem:
            raise BadSetting(
                f"--set {text}: {value!r} is not a value in YAML: expected e.g. 0.5, true or "
                "edge_aware") from problem
    return values


def parse_numbers(flag: str, text: str | None, count: int) -> list[float]:
    """Of ``"1,2.5"``; none where the flag is not given.

    Raises:
        BadInput: ``arguments``: they are not as many, or no numbers.
    """
    if text is None:
        return []
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise BadInput("arguments", f"{flag} {text}: expected {count} numbers separated by commas")
    return numbers
