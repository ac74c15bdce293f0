"""What a search says at its end: leaderboard, published numbers, where the results lie, the best trial's images."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from pixeltune import files
from pixeltune.results.leaderboard import comparison_lines, leaderboard, status_counts
from pixeltune.results.store import SearchStore
from pixeltune.search.ledger import Ledger
from pixeltune.search.trial import weights_file
from pixeltune.space import SearchSpace

_TOP = 10
_GRID_SIDE = 8
_MOST_SAMPLING_SECONDS = 60.0
_DIGITS = {
    "valid_bits_per_dim": ".4f",
    "valid_nats": ".2f",
    "below_baseline_percent": ".1f",
    "seconds": ".1f",
    "sample_images_per_second": ".2f",
}


def show_outcome(out: Console, space: SearchSpace, store: SearchStore, ledger: Ledger) -> None:
    """Print all of it; the sample grid comes last, for it may take a while."""
    rows = list(ledger.ended.values())
    counts = ", ".join(f"{count} {status}" for status, count in status_counts(rows).items())
    out.print(f"Trials: {counts or 'none'}.", highlight=False)
    places = leaderboard(rows, space.objectives[0], _TOP, list(space.vary))
    if not places:
        return
    out.print(_table(places, list(space.vary), space.objectives))
    best = next(row for row in rows if row["trial"] == places[0]["trial"])
    for line in comparison_lines(best):
        out.print(line, highlight=False, soft_wrap=True)
    out.print(
        f'Rows: {store.trials_folder}    pd.read_parquet("{store.trials_folder}")', highlight=False, soft_wrap=True
    )
    _show_samples(out, store, best)


def _table(places: list[dict[str, Any]], keys: list[str], objectives: tuple[str, ...]) -> Table:
    """The usual columns, then the objectives that are not among them."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    shown = {
        "rank": "#",
        "trial": "trial",
        "status": "status",
        **{key: key.rpartition(".")[2] if key != "likelihood.name" else "likelihood" for key in keys},
        "valid_bits_per_dim": "bits/dim",
        "valid_nats": "nats",
        "below_baseline_percent": "% below baseline",
        "num_parameters": "parameters",
        "images_seen": "images",
        "seconds": "seconds",
    }
    shown |= {name: name for name in objectives if name not in shown}
    for name, title in shown.items():
        table.add_column(title, justify="left" if name in ("trial", "status", "likelihood.name") else "right")
    for place in places:
        table.add_row(*(_cell(name, place.get(name)) for name in shown))
    return table


def _cell(name: str, value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return format(value, _DIGITS.get(name, ".3g")) if math.isfinite(value) else str(value)
    return f"{value:,}" if isinstance(value, int) and name != "rank" else str(value)


def _show_samples(out: Console, store: SearchStore, best: dict[str, Any]) -> None:
    """Write a grid of the best trial's samples, unless it is there already or would take long."""
    grid = files.join(store.folder, "samples", f"{best['trial']}.png")
    weights = weights_file(store.checkpoint(best["trial"]))
    if files.exists(grid):
        out.print(f"Samples: {grid}", highlight=False, soft_wrap=True)
        return
    if not files.exists(weights):
        return
    from pixeltune.cli.model import load_on_best_device, write_samples
    from pixeltune.sampling import forecast

    model = load_on_best_device(weights).model
    seconds = forecast(model, _GRID_SIDE**2)
    if seconds > _MOST_SAMPLING_SECONDS:
        reference = f"{store.search}/{best['trial']}"
        out.print(
            f"Samples: about {seconds / 60:.0f} min on this machine; pixeltune sample {reference} draws them",
            highlight=False,
        )
        return
    write_samples(model, _GRID_SIDE**2, seed=0, location=grid)
    out.print(f"Samples of trial {best['trial']}: {grid}", highlight=False, soft_wrap=True)
