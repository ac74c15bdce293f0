"""Every search that ships: it loads, each of its corners is a model that can be built, and its stopping fits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from optuna.distributions import CategoricalDistribution

from pixeltune.config import FAMILIES, LIKELIHOODS, DataConfig, ImageSpec, TrialConfig
from pixeltune.data import outline_of
from pixeltune.errors import ConfigError
from pixeltune.models import build_model
from pixeltune.space import Asha, Pareto, SearchSpace, list_searches, load_search, search_folder, summarise_search

SEARCHES = list_searches()
every_search = pytest.mark.parametrize("name", SEARCHES)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIXELTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@cache
def form_of(data: DataConfig) -> ImageSpec:
    """Return the form of the images, without the images where they would have to be downloaded."""
    return outline_of(data).form


def structures(search: SearchSpace) -> list[TrialConfig]:
    """Every combination of choices, at the small ends of the ranges; and each family's last corner, the largest."""
    small, large = {}, {}
    for corner in search.corners():
        choices = [(key, corner[key]) for key in corner if isinstance(search.vary[key], CategoricalDistribution)]
        config = search.configure(corner)
        small.setdefault(tuple(choices), config)
        large[config.model.family] = config
    return [*small.values(), *large.values()]


def test_the_searches_are_the_files_of_the_folder() -> None:
    assert sorted(path.stem for path in search_folder().glob("*.py") if not path.stem.startswith("_")) == SEARCHES
    assert "digits_quick" in SEARCHES


@every_search
def test_a_search_says_what_it_is(name: str) -> None:
    search = load_search(name)
    assert search.title
    assert "\n" not in search.title
    assert len(search.title) <= 100
    assert search.vary, "a search must vary something"
    assert search.budget.trials > 1


@every_search
def test_every_corner_builds_a_model(name: str) -> None:
    search = load_search(name)
    built = structures(search)
    assert built
    for config in built:
        form = form_of(config.data)
        config.model.require_form(form)
        config.likelihood.require_form(form)
        with torch.device("meta"):
            model = build_model(config, form)
        assert model.num_parameters() > 0
        assert all(parameter.is_meta for parameter in model.parameters())
        assert tuple(model.order().shape) == form.shape


@every_search
def test_trial_0_is_one_of_those_that_may_be_drawn(name: str) -> None:
    search = load_search(name)
    suggestion = search.base_suggestion()
    assert search.configure(suggestion) == search.base
    for key, value in suggestion.items():
        distribution = search.vary[key]
        assert distribution._contains(distribution.to_internal_repr(value))


@every_search
def test_trials_are_judged_before_their_end_and_where_they_report(name: str) -> None:
    search = load_search(name)
    if not isinstance(search.scheduler, Asha | Pareto):
        return
    for corner in search.corners():
        train = search.configure(corner).train
        assert train.report_every is not None
        assert all(rung % train.report_every == 0 for rung in search.scheduler.rungs)
        assert search.scheduler.rungs[-1] < train.images, "the last rung must come before the end, or it stops nothing"


@every_search
def test_base_keys_are_written_so_that_a_file_can_hold_them(name: str) -> None:
    base = load_search(name).base
    assert base.model.family in FAMILIES
    assert base.likelihood.name in LIKELIHOODS
    assert base.data.path is None, "a shipped search must not name a folder of one machine"
    assert TrialConfig.model_validate_json(base.model_dump_json()) == base


@every_search
def test_the_guide_names_the_search(name: str) -> None:
    assert f"| `{name}` |" in (Path(__file__).parents[2] / "docs/guides/searches.md").read_text(encoding="utf-8")


SMALL = """
from optuna.distributions import IntDistribution
from pixeltune import SearchSpace, TrialConfig
from dataclasses import replace
base = TrialConfig.build(
    {"data": {"name": "digits"}, "model": {"family": "gated"}, "likelihood": {"name": "categorical"}}
)
"""


@pytest.mark.parametrize(
    ("last_lines", "title"),
    [
        ("search = SearchSpace(base=base, title='as written')", "as written"),
        ("search = SearchSpace(title='first', base=base)\nsearch = SearchSpace(title='last', base=base)", "last"),
        ("name = 'computed'\nsearch = SearchSpace(base=base, title=f'{name} title')", "computed title"),
        ("other = SearchSpace(base=base, title='other')\nsearch = replace(other, title='replaced')", "replaced"),
        ("search = SearchSpace(base=base, title='1')\nsearch = replace(search, title='2')", "2"),
        (
            "name = 'digits'\nsearch = SearchSpace(title='computed', base=TrialConfig.build({'data': {'name': name}, "
            "'model': {'family': 'gated'}, 'likelihood': {'name': 'categorical'}}))",
            "computed",
        ),
        ("search = SearchSpace(base=base)", ""),
    ],
)
def test_a_title_is_that_of_the_search_however_it_is_written(last_lines: str, title: str, tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(SMALL + last_lines)
    summary, search = summarise_search(tmp_path / "small.py"), load_search(tmp_path / "small.py")
    assert summary.title == search.title == title
    assert summary.data["name"] == search.base.data.name == "digits"


@every_search
def test_the_summary_of_a_shipped_search_is_read_without_running_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    search = load_search(name)
    monkeypatch.setattr("pixeltune.space.search_files.load_search", None)
    summary = summarise_search(name)
    assert summary.title == search.title
    assert search.base.data == search.base.data.model_validate(summary.data)


def test_a_file_that_does_not_parse_has_no_title(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("search = (")
    with pytest.raises(ConfigError, match="a search file must run"):
        summarise_search(tmp_path / "broken.py")
