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
        ``frames``: how many the protocol has, 0 where the dataset is no benchmark.
        ``rows``: one for each method, with ``method``, ``dataset``, ``mae_m`` and ``rmse_m``
        (metres, None where the source states none), ``source``, and ``note``, which says how the
        row was measured otherwise; empty where it was measured by the protocol.
        ``caveats``: sentences that belong beside the rows.
    """
    figures = _figures()
    entry = figures["datasets"].get(dataset)
    if entry is None:
        return {"frames": 0, "rows": [], "caveats": []}
    rows = [{"method": row["method"], "dataset": dataset, "mae_m": row["mae_m"],
             "rmse_m": row["rmse_m"], "source": figures["sources"][row["source"]],
             "note": row.get("note", "")} for row in entry["rows"]]
    return {"frames": entry["frames"], "rows": rows,
            "caveats": [*entry["caveats"], *figures["caveats"]]}


@lru_cache(maxsize=1)
def _figures() -> dict[str, Any]:
    return json.loads(FIGURES_FILE.read_text(encoding="utf-8"))
