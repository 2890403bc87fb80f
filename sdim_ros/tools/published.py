"""What the papers state for the benchmarks, to stand beside a measurement of one's own."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

FIGURES_FILE = Path(__file__).with_name("published.json")


def published_for(dataset: str) -> dict[str, Any]:
    """The published figures of a dataset.

    Args:
        dataset: a name as in `datasets.catalogue.DATASETS`.

    Returns:
        ``frames``: how many the protocol has.
        ``rows``: one for each method, with ``method``, ``dataset``, ``mae_m`` and ``rmse_m``
        (metres, None where the source states none) and ``source``, an address. The method's name
        says where it was measured otherwise than by the protocol.
        ``caveats``: sentences that belong beside the rows.
        Empty where the dataset is no benchmark.
    """
    figures = _figures()
    entry = figures["datasets"].get(dataset)
    if entry is None:
        return {}
    rows = [{**row, "dataset": dataset, "source": figures["sources"][row["source"]]}
            for row in entry["rows"]]
    return {"frames": entry["frames"], "rows": rows,
            "caveats": [*entry["caveats"], *figures["caveats"]]}


@lru_cache(maxsize=1)
def _figures() -> dict[str, Any]:
    return json.loads(FIGURES_FILE.read_text(encoding="utf-8"))
