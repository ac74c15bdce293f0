"""A finished search on tiny models, and finals of it, that tests share: no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.distributions import FloatDistribution

from pixeltune.data import resolve
from pixeltune.search.final import Request, open_final
from pixeltune.search.state import SearchState
from pixeltune.space import FinalSpace, SearchSpace
from tests.support.results import make_store
from tests.support.toy_search import BEGUN, FINISHED, ended, play, reported, toy_config, toy_space


def searched_space(**changes: Any) -> SearchSpace:
    base = toy_config().override({"data.num_valid": 100})
    vary = {"optim.lr": FloatDistribution(1e-4, 1e-1, log=True)}
    return toy_space(**({"base": base, "vary": vary, "scheduler": None} | changes))


def searched(folder: Path, ends: list[tuple[float | str, int]], **changes: Any) -> SearchState:
    """A search `toy` whose trial n ended so: (its best number or a status, images at its best report) of 400."""
    space = searched_space(**changes)
    store = make_store(folder, "toy", space)
    state = SearchState(space, store)
    checksum = resolve(space.base).data.identity.checksum
    for number, (end, best) in enumerate(ends):
        plan = state.plan({"optim.lr": 0.01 / (1 + number)})
        facts = {"data_checksum": checksum, "config_key": plan.config.key(), "levels": 17, "num_parameters": 9 - number}
        begun = BEGUN | {"facts": facts}
        if isinstance(end, str):
            play(state, plan, begun, reported(100, 0.5), ended(end))
        else:
            reports = [reported(images, end + (images != best)) for images in (100, 200, 300, 400)]
            play(state, plan, begun, *reports, FINISHED)
    return state


def asked(folder: Path, **changes: Any) -> Request:
    plain = {"search": "toy", "storage": str(folder), "top": 2, "seeds": 2, "settings": {}}
    return Request(**(plain | changes))


def final_state(request: Request) -> tuple[SearchState, FinalSpace]:
    """The book of a final as `run_search` opens it."""
    store, _, space = open_final(request)
    return SearchState(space, store), space
