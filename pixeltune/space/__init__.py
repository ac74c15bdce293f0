"""Searches as data.

A search file in `search_spaces/` defines `search = SearchSpace(...)`. A key is asked only where it exists: with
`likelihood.name` in `vary`, `likelihood.mixtures` is asked when a trial drew logistic_mixture and not otherwise.

Names resolve on first use, as those of `pixeltune`: `--help` and `--list` need names of samplers and of files, but
neither pydantic nor Optuna.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixeltune.lazy import importer

if TYPE_CHECKING:
    from pixeltune.space.final_space import FinalSpace
    from pixeltune.space.metrics import METRICS
    from pixeltune.space.parts import SCHEDULERS, Asha, Budget, Median, Pareto, Patience, Resources, Scheduler
    from pixeltune.space.priors import ChoiceWeights, LogNormal, Normal
    from pixeltune.space.sampler_names import SAMPLERS
    from pixeltune.space.search_files import (
        SearchSummary,
        list_searches,
        load_search,
        search_folder,
        search_path,
        summarise_search,
    )
    from pixeltune.space.search_space import SearchSpace

_HOMES = {
    "METRICS": "pixeltune.space.metrics",
    "SAMPLERS": "pixeltune.space.sampler_names",
    "SCHEDULERS": "pixeltune.space.parts",
    "Asha": "pixeltune.space.parts",
    "Budget": "pixeltune.space.parts",
    "ChoiceWeights": "pixeltune.space.priors",
    "FinalSpace": "pixeltune.space.final_space",
    "LogNormal": "pixeltune.space.priors",
    "Normal": "pixeltune.space.priors",
    "Median": "pixeltune.space.parts",
    "Pareto": "pixeltune.space.parts",
    "Patience": "pixeltune.space.parts",
    "Resources": "pixeltune.space.parts",
    "Scheduler": "pixeltune.space.parts",
    "SearchSpace": "pixeltune.space.search_space",
    "SearchSummary": "pixeltune.space.search_files",
    "list_searches": "pixeltune.space.search_files",
    "load_search": "pixeltune.space.search_files",
    "search_folder": "pixeltune.space.search_files",
    "search_path": "pixeltune.space.search_files",
    "summarise_search": "pixeltune.space.search_files",
}

__all__ = [
    "METRICS",
    "SAMPLERS",
    "SCHEDULERS",
    "Asha",
    "Budget",
    "ChoiceWeights",
    "FinalSpace",
    "LogNormal",
    "Median",
    "Normal",
    "Pareto",
    "Patience",
    "Resources",
    "Scheduler",
    "SearchSpace",
    "SearchSummary",
    "list_searches",
    "load_search",
    "search_folder",
    "search_path",
    "summarise_search",
]


__getattr__ = importer(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
