"""Which trial `SEARCH/TRIAL` means, and where its weights lie."""

from __future__ import annotations

from pixeltune import files
from pixeltune.errors import StoreError
from pixeltune.results.rows import Row
from pixeltune.results.store import SearchStore
from pixeltune.search.trial import weights_file
from pixeltune.space.metrics import not_met


def find_weights(reference: str, storage: str) -> str:
    """The weights file that a reference means: a path to one, or SEARCH/TRIAL, where a unique beginning is enough.

    `digits_quick` alone means the best trial of that search whose weights were kept; a number means that trial.
    """
    if reference.endswith(".safetensors"):
        return reference
    search, _, trial = reference.partition("/")
    store = SearchStore(storage, search)
    store.manifest()  # a search that is not there says so
    kept = _kept(store)
    if not kept:
        raise StoreError(f"{search} must have a trial with kept weights, but {store.checkpoints} holds none")
    chosen = kept[0] if not trial else _matching(trial, kept, reference)
    return weights_file(store.checkpoint(chosen))


def _kept(store: SearchStore) -> list[str]:
    """Trials with weights, best first; those that break the search's constraints last."""
    rows = [row for row in store.trials() if files.exists(weights_file(store.checkpoint(row["trial"])))]
    bounds = store.manifest().constraints
    rows.sort(key=lambda row: (bool(not_met(bounds, row)), _bits(row)))
    return [row["trial"] for row in rows]


def _bits(row: Row) -> float:
    return float("inf") if row["valid_bits_per_dim"] is None else float(row["valid_bits_per_dim"])


def _matching(wanted: str, kept: list[str], reference: str) -> str:
    exact = [trial for trial in kept if wanted.isdigit() and int(trial) == int(wanted)]
    found = exact or [trial for trial in kept if trial.startswith(wanted)]
    if len(found) != 1:
        what = "none" if not found else ", ".join(found)
        raise StoreError(
            f"a trial must be named by a unique beginning, but {reference!r} fits {what}; "
            f"weights are kept of {', '.join(sorted(kept))}"
        )
    return found[0]
