"""Files that are whole or not there: written beside their place, then moved into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Replace a file by this text, in UTF-8, in one step."""
    with moved_when_written(path) as (temporary,):
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def moved_when_written(*paths: Path) -> Iterator[list[Path]]:
    """Files to write instead of ``paths``; they take their places, in order, if all goes well."""
    temporaries = [path.with_name(f".{path.name}.{os.getpid()}") for path in paths]
    try:
        yield temporaries
        for temporary, path in zip(temporaries, paths):
            os.replace(temporary, path)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
