"""Settings by their name on the command line: ``--set NAME=VALUE``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from sdim_ros.core.types import BadSetting


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
