"""pixeltune: choose layers, channels, mixture count and split count of PixelCNN-family density models.

    import pixeltune as pt
    search = pt.load_search("digits_quick")
    for report in pt.fit(search.base):
        print(report.images_seen, report.valid_bits_per_dim)

Names resolve on first use, so that importing pixeltune loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixeltune.lazy import importer

if TYPE_CHECKING:
    from pixeltune.cluster.launch import run_search
    from pixeltune.config import TrialConfig
    from pixeltune.data import load_data
    from pixeltune.data.resolve import resolve
    from pixeltune.models import build_model
    from pixeltune.published.compare import compare, compare_speeds, load_published
    from pixeltune.results.dataframes import read_curves, read_final, read_images, read_results
    from pixeltune.results.optuna_study import study
    from pixeltune.results.ranking import pareto
    from pixeltune.sampling import complete, sample, save_grid
    from pixeltune.search.trial_reference import load_model
    from pixeltune.space import (
        Asha,
        Budget,
        ChoiceWeights,
        LogNormal,
        Median,
        Normal,
        Pareto,
        Patience,
        Resources,
        SearchSpace,
        load_search,
    )
    from pixeltune.training.evaluation import evaluate
    from pixeltune.training.loop import fit
    from pixeltune.training.weights import save_weights

_HOMES = {
    "TrialConfig": "pixeltune.config",
    "SearchSpace": "pixeltune.space",
    "Asha": "pixeltune.space",
    "Budget": "pixeltune.space",
    "ChoiceWeights": "pixeltune.space",
    "LogNormal": "pixeltune.space",
    "Normal": "pixeltune.space",
    "Median": "pixeltune.space",
    "Pareto": "pixeltune.space",
    "Resources": "pixeltune.space",
    "Patience": "pixeltune.space",
    "load_search": "pixeltune.space",
    "run_search": "pixeltune.cluster.launch",
    "load_data": "pixeltune.data",
    "resolve": "pixeltune.data.resolve",
    "build_model": "pixeltune.models",
    "complete": "pixeltune.sampling",
    "sample": "pixeltune.sampling",
    "save_grid": "pixeltune.sampling",
    "fit": "pixeltune.training.loop",
    "evaluate": "pixeltune.training.evaluation",
    "load_model": "pixeltune.search.trial_reference",
    "save_weights": "pixeltune.training.weights",
    "read_results": "pixeltune.results.dataframes",
    "read_curves": "pixeltune.results.dataframes",
    "read_final": "pixeltune.results.dataframes",
    "read_images": "pixeltune.results.dataframes",
    "study": "pixeltune.results.optuna_study",
    "pareto": "pixeltune.results.ranking",
    "load_published": "pixeltune.published.compare",
    "compare": "pixeltune.published.compare",
    "compare_speeds": "pixeltune.published.compare",
}

__all__ = [
    "Asha",
    "Budget",
    "ChoiceWeights",
    "LogNormal",
    "Median",
    "Normal",
    "Pareto",
    "Patience",
    "Resources",
    "SearchSpace",
    "TrialConfig",
    "build_model",
    "compare",
    "compare_speeds",
    "complete",
    "evaluate",
    "fit",
    "load_data",
    "load_model",
    "load_published",
    "load_search",
    "pareto",
    "read_curves",
    "read_final",
    "read_images",
    "read_results",
    "resolve",
    "run_search",
    "sample",
    "save_grid",
    "save_weights",
    "study",
]


__getattr__ = importer(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
