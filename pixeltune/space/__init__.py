"""Searches as data.

A search file in `search_spaces/` defines `search = SearchSpace(...)`. A key is asked only where it exists: with
`likelihood.name` in `vary`, `likelihood.mixtures` is asked when a trial drew logistic_mixture and not otherwise.
"""

from pixeltune.space.final_space import FinalSpace
from pixeltune.space.load import list_searches, load_search, search_folder, search_path
from pixeltune.space.metrics import METRICS
from pixeltune.space.parts import SCHEDULERS, Asha, Budget, Median, Pareto, Patience, Resources, Scheduler
from pixeltune.space.samplers import SAMPLERS
from pixeltune.space.search_space import SearchSpace

__all__ = [
    "METRICS",
    "SAMPLERS",
    "SCHEDULERS",
    "Asha",
    "Budget",
    "FinalSpace",
    "Median",
    "Pareto",
    "Patience",
    "Resources",
    "Scheduler",
    "SearchSpace",
    "list_searches",
    "load_search",
    "search_folder",
    "search_path",
]
