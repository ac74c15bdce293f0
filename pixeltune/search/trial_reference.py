"""Trials by name: SEARCH/TRIAL, or SEARCH for its best, as the command line and `pixeltune.load_model` take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixeltune import files
from pixeltune.config import TrialConfig, stored
from pixeltune.errors import StoreError
from pixeltune.format import listed
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import RANKED, best_first
from pixeltune.results.repeats import merge_repeats
from pixeltune.results.storage import storage_or_default, storage_words
from pixeltune.results.store import SearchStore
from pixeltune.search.final import configs_of
from pixeltune.search.trial import weights_file

if TYPE_CHECKING:
    from pixeltune.models import DensityModel

_MOST_NAMED = 10
"""The most trials that an error names."""


@dataclass(frozen=True)
class Found:
    """A trial of the results: its store, its search's manifest, and the row of its latest attempt."""

    store: SearchStore
    manifest: SearchManifest
    row: Row

    @property
    def name(self) -> str:
        """Return SEARCH/TRIAL."""
        return f"{self.store.search}/{self.row['trial']}"

    @property
    def weights(self) -> str:
        """Return the path of its weights, if they were kept."""
        return weights_file(self.store.checkpoint(self.row["trial"]))

    def config(self) -> TrialConfig:
        """Return the configuration as trained; StoreError if the results no longer determine it.

        Code of the user's own that it names is not imported: what trains it builds it again.
        """
        final = self.manifest.final
        if final is None:
            [config] = configs_of([self.row], self.manifest)
            return config
        with stored():
            return final.configs()[self.row["from_trial"]].override({"seed": self.row["seed"]})


def find_trial(reference: str, storage: str) -> Found:
    """Return the trial that SEARCH/TRIAL means, by a unique prefix or a number; SEARCH alone means its best.

    StoreError if there is none, or more than one.
    """
    store, manifest, name = _search_of(reference, storage)
    rows = {row["trial"]: row for row in _best_first(store.trials(), manifest.constraints)}
    if not rows:
        raise StoreError(f"{store.search} must have a trial, but none has begun")
    known = f"there are {listed(sorted(rows), _MOST_NAMED)}"
    return Found(store, manifest, rows[_matching(name, list(rows), reference, known)])


def find_best(search: str, storage: str) -> list[Found]:
    """Return the trials of a search with a number, the best first."""
    store, manifest, _ = _search_of(search, storage)
    rows = _best_first(store.trials(), manifest.constraints)
    return [Found(store, manifest, row) for row in rows if row["status"] in RANKED]


def find_weights(reference: str, storage: str) -> str:
    """Return the weights file that a reference means: a path to one, or SEARCH/TRIAL by a unique prefix.

    `digits_quick` alone means the best trial of that search whose weights were kept; a number means that trial.
    """
    if reference.endswith(".safetensors"):
        return reference
    store, manifest, name = _search_of(reference, storage)
    rows = _best_first(store.trials(), manifest.constraints)
    kept = [row for row in rows if files.exists(weights_file(store.checkpoint(row["trial"])))]
    if not kept:
        meant = _fitting(name, [row["trial"] for row in rows])
        best = next((row for row in rows if row["trial"] in meant), None)
        advice = "" if best is None else rerun_words(best, store, storage)
        raise StoreError(
            f"{store.search} must have a trial with kept weights, but {store.checkpoints} holds none{advice}"
        )
    trials = [row["trial"] for row in kept]
    if not name:
        return weights_file(store.checkpoint(trials[0]))
    known = f"weights are kept of {listed(sorted(trials), _MOST_NAMED)}"
    # Among all trials: a number must not match another trial because that one has weights.
    trial = _matching(name, [row["trial"] for row in rows], reference, known)
    if trial not in trials:
        again = rerun_words(next(row for row in rows if row["trial"] == trial), store, storage)
        raise StoreError(f"{store.search}/{trial} must have kept weights, but has none; {known}{again}")
    return weights_file(store.checkpoint(trial))


def load_model(location: files.Location, storage: files.Location | None = None) -> DensityModel:
    """Return the model of a trial, or of a weights file, in eval mode.

    Nothing in the file is run. A family or a likelihood of your own is imported by the path that the file names, from
    where Python finds it here; a CodeWarning says where its code has changed since the training.

    Args:
        location: `SEARCH/TRIAL`, where a number or a unique beginning of the trial is enough; `SEARCH` for its best
            trial whose weights were kept; or the path or URI of a file that `save_weights` wrote.
        storage: The folder or URI of all results, where the search is; by default PIXELTUNE_STORAGE, or `results`.

    Returns:
        The model, on the CPU.

    Raises:
        StoreError: There is no such search or trial, or its weights were not kept.
        CheckpointError: The file is missing, damaged, cut short or foreign.
        ConfigError: It names a class that cannot be imported here.

    Example:
        >>> model = pt.load_model("digits_quick/10")  # doctest: +SKIP
    """
    from pixeltune.training import weights

    if not isinstance(location, str) or files.is_uri(location) or files.local_path(location).is_file():
        return weights.load_model(location)
    return weights.load_model(find_weights(location, storage_or_default(storage)))


def rerun_words(row: Row, store: SearchStore, storage: str) -> str:
    """Return how to train a trial again, to end an error about its weights; of a final, the trial of its search."""
    search, trial = (row["from_search"], row["from_trial"]) if row["from_trial"] else (store.search, row["trial"])
    return f"; pixeltune rerun {search}/{trial}{storage_words(storage)} trains it again and keeps them"


def _search_of(reference: str, storage: str) -> tuple[SearchStore, SearchManifest, str]:
    search, _, trial = reference.partition("/")
    store = SearchStore(storage, search)
    return store, store.manifest(), trial  # raises if there is no such search


def _best_first(rows: Sequence[Row], bounds: Mapping[str, float]) -> list[Row]:
    """Return rows by bits/dim on validation. No trial is chosen by the test set: runs of a final keep its order.

    In a search with repeats the means order the first trials, whose own rows are returned; repeats come last.
    """
    own = {row["trial"]: row for row in rows}
    first = [row["trial"] for row in best_first(merge_repeats(rows), "valid_bits_per_dim", bounds, ties=())]
    return [own[trial] for trial in first] + [row for row in rows if row["trial"] not in first]


def match_trial(reference: str, trials: Sequence[str], search: str) -> str:
    """Return the trial of a search that a number or a unique beginning means; StoreError if there is not one."""
    return _matching(reference, trials, f"{search}/{reference}", f"there are {listed(sorted(trials), _MOST_NAMED)}")


def _matching(wanted: str, trials: Sequence[str], reference: str, known: str) -> str:
    """Return the wanted one of `trials` (best first); the best if none is named. known: all that exist."""
    if not wanted:
        return trials[0]
    found = _fitting(wanted, trials)
    if len(found) != 1:
        fitting = listed(found, _MOST_NAMED) or "none"
        raise StoreError(f"a trial must be named by a unique beginning, but {reference!r} fits {fitting}; {known}")
    return found[0]


def _fitting(wanted: str, trials: Sequence[str]) -> list[str]:
    """Return the trials of this number, or else with this beginning."""
    exact = [trial for trial in trials if wanted.isdecimal() and int(trial) == int(wanted)]
    return exact or [trial for trial in trials if trial.startswith(wanted)]
