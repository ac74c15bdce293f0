"""A search with repeats as the commands show it: means with standard errors, seeds, and what a final makes of it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import pixeltune as pt
from pixeltune.config import ImageSpec
from pixeltune.data import resolve
from pixeltune.results.dataframes import configurations_of
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.store import SearchStore
from pixeltune.search.final import choose
from pixeltune.search.progress import Progress
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.state import SearchState
from pixeltune.search.trial import weights_file
from pixeltune.search.trial_reference import find_best, find_trial, find_weights
from pixeltune.search.warm_start import read_warm_start
from pixeltune.space import Budget
from tests.support.commands import done, refused
from tests.support.toy_search import BEGUN, FACTS, FINISHED, play, reported, toy_config, toy_space

BASE = toy_config().override({"data.num_valid": 100})
VALUES = (2.0, 2.2, 2.5, 1.9)
"""The base, its repeat, another trial, and a contender."""


@pytest.fixture
def state() -> SearchState:
    """A search of two seeds: 00000 has 2.1 in the mean, 00003 has 1.9 with one seed."""
    space = toy_space(base=BASE, repeats=2, scheduler=None, budget=Budget(trials=4))
    facts = FACTS | {"data_checksum": resolve(BASE).data.identity.checksum, "evaluated_split": "valid", "num_test": 1}
    store = SearchStore("results", "toy")
    store.open(SearchManifest.of(space, "toy", baseline_bits_per_dim=3.0))
    state = SearchState(space, store, baseline=3.0)
    searcher = OptunaSearcher(space, state)
    for bits in VALUES:
        plan = searcher.next_plan()
        assert plan is not None
        begun = BEGUN | {"facts": facts | {"config_key": plan.config.key(), "is_bound": False}}
        play(state, plan, begun, reported(400, bits), FINISHED)
    return state


@pytest.fixture
def proven(state: SearchState) -> SearchState:
    """The same after the contender's repeat: 1.95 in the mean."""
    plan = OptunaSearcher(state.space, state).next_plan()
    assert plan is not None
    facts = {name: state.ended["00000"][name] for name in (*FACTS, "evaluated_split", "num_test")}
    begun = BEGUN | {"facts": facts | {"config_key": plan.config.key(), "is_bound": False}}
    play(state, plan, begun, reported(400, 2.0), FINISHED)
    return state


def test_the_leaderboard_has_means_and_names_the_contender(state: SearchState) -> None:
    said = done("leaderboard", "toy")
    assert [line.split()[:2] for line in said.splitlines() if "finished" in line][1:] == [
        ["1", "00000"],
        ["–", "00003"],
        ["2", "00002"],
    ]
    assert "2.1000 ± 0.1000" in said
    assert "1.9000 ±" not in said, "one seed has no error"
    assert "Numbers are means over seeds, ± one standard error; the best of many is a little optimistic." in said
    assert (
        "Trial 00003 has a better valid_bits_per_dim with 1 of 2 seeds; it counts as the best once it has all." in said
    )
    rows = list(csv.DictReader(io.StringIO(done("leaderboard", "toy", "--csv"))))
    assert [(row["rank"], row["seeds"], row["runs"]) for row in rows] == [
        ("1", "2", "00000 00001"),
        ("", "1", "00003"),
        ("2", "1", "00002"),
    ]
    assert float(rows[0]["valid_bits_per_dim_error"]) == pytest.approx(0.1)
    assert rows[1]["valid_bits_per_dim_error"] == ""
    assert r"2.1000 $\pm$ 0.1000" in done("leaderboard", "toy", "--latex")


def test_once_it_has_its_seeds_it_is_the_best(proven: SearchState) -> None:
    first = json.loads(done("leaderboard", "toy", "--json"))[0]
    assert (first["rank"], first["trial"], first["seeds"], first["seeds_left"]) == (1, "00003", 2, 0)
    assert first["valid_bits_per_dim"] == pytest.approx(1.95)
    assert "counts as the best once" not in done("leaderboard", "toy")


def test_status_and_list_show_the_best_that_counts(state: SearchState) -> None:
    said = done("status", "toy")
    assert "Best: 2.1000 ± 0.1000 bits/dim (00000, 2 seeds), 30.0% below the baseline 3.0000" in said
    assert "Better so far, with fewer seeds: 00003\n" in said
    found = json.loads(done("status", "toy", "--json"))
    assert (found["best"]["seeds"], found["contenders"]) == (2, ["00003"])
    assert "2.1000 ± 0.1000" in done("list")
    plan = OptunaSearcher(state.space, state).next_plan()
    assert plan is not None
    state.start(plan, state.space.resources)
    assert "repeats 00003" in done("status", "toy") or "left behind" in done("status", "toy")


def test_before_one_has_all_of_its_seeds_the_best_so_far_says_so(tmp_path: Path) -> None:
    space = toy_space(base=BASE, repeats=3, scheduler=None)
    store = SearchStore("results", "young")
    store.open(SearchManifest.of(space, "young", baseline_bits_per_dim=3.0))
    state = SearchState(space, store, baseline=3.0)
    plan = OptunaSearcher(space, state).next_plan()
    assert plan is not None
    play(state, plan, BEGUN, reported(400, 2.0), FINISHED)
    said = done("status", "young")
    assert "Best: 2.0000 bits/dim (00000, 1 of 3 seeds)" in said
    assert "with fewer seeds" not in said


def test_references_take_the_best_by_its_mean_with_its_own_row(state: SearchState) -> None:
    assert [found.row["trial"] for found in find_best("toy", "results")] == ["00000", "00003", "00002", "00001"]
    assert find_trial("toy", "results").row["valid_bits_per_dim"] == 2.0, "its own number, not the mean"
    repeat = find_trial("toy/1", "results")
    assert repeat.config() == BASE.override({"seed": 6})
    for trial in ("00002", "00003"):
        weights = Path(weights_file(state.store.checkpoint(trial)))
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"x")
    assert find_weights("toy", "results") == weights_file(state.store.checkpoint("00003"))


def test_a_final_chooses_by_means_and_takes_seeds_of_its_own(proven: SearchState) -> None:
    rows, manifest = proven.store.trials(), proven.store.manifest()
    found = choose(rows, manifest, top=2)
    assert [(item.trial, item.value) for item in found.chosen] == [
        ("00003", pytest.approx(1.95)),
        ("00000", pytest.approx(2.1)),
    ]
    assert list(found.seeds(2)) == [7, 8], "5 and 6 were those of the search"
    assert [item.trial for item in choose(rows, manifest, top=9).chosen] == ["00003", "00000", "00002"]
    one = choose(rows, manifest, top=None, trials=("1",))
    assert [(item.trial, item.value) for item in one.chosen] == [("00001", 2.2)]
    assert list(one.seeds(1)) == [7]


def test_a_contender_is_not_the_first_choice_of_a_final(state: SearchState) -> None:
    found = choose(state.store.trials(), state.store.manifest(), top=2)
    assert [item.trial for item in found.chosen] == ["00000", "00003"]


def test_a_warm_start_takes_each_configuration_once_with_its_mean(state: SearchState) -> None:
    rows = read_warm_start(["results/toy"], state.space, resolve(BASE)).rows
    assert [(row["trial"], row["valid_bits_per_dim"], row["repeats"]) for row in rows] == [
        ("00000", pytest.approx(2.1), None),
        ("00002", 2.5, None),
        ("00003", 1.9, None),
    ]
    state.store.write_warm_start(rows)
    assert len(state.store.warm_start()) == 3


def test_compare_takes_the_mean(state: SearchState, proven: SearchState) -> None:
    frame = pt.read_results("results/toy")
    assert list(frame["repeat_of"].dropna()) == ["00000", "00003"]
    merged = configurations_of(frame)
    assert list(merged["trial"]) == ["00000", "00002", "00003"]
    assert merged["valid_bits_per_dim"].tolist() == pytest.approx([2.1, 2.5, 1.95])
    assert merged.dtypes["status"] == frame.dtypes["status"]
    one_seed = frame.assign(repeats=pd.Series([None] * len(frame), dtype="Int32"))
    assert configurations_of(one_seed) is one_seed
    front = pt.pareto(frame, ("valid_bits_per_dim", "num_parameters"))
    assert list(front["trial"][front["on_front"]]) == ["00003", "00004"]


def test_the_study_and_the_dashboard_have_a_trial_a_configuration(proven: SearchState) -> None:
    from pixeltune.results.optuna_storage import ReadOnlyStorage

    study = pt.study("results/toy")
    assert [trial.user_attrs["trial"] for trial in study.trials] == ["00000", "00002", "00003"]
    assert study.best_trial.user_attrs["runs"] == ["00003", "00004"]
    assert study.best_value == pytest.approx(1.95)
    storage = ReadOnlyStorage("results", ("toy",))
    [found] = storage.get_all_studies()
    assert [trial.number for trial in storage.get_all_trials(found._study_id)] == [0, 2, 3]
    assert storage.get_best_trial(found._study_id).number == 3


@pytest.mark.needs("plotly", "jinja2")
def test_a_report_has_the_means_and_every_training(proven: SearchState) -> None:
    from pixeltune.report.figures.key_axes import measured
    from pixeltune.report.sections.commands import rerun
    from pixeltune.report.sections.leaderboard import board
    from pixeltune.report.sections.summary import summary
    from pixeltune.report.snapshot import read_snapshot

    snapshot = read_snapshot(proven.store)
    about = summary(snapshot)
    assert "Best by validation bits/dim: trial 00003 (2 seeds) with 1.9500 ± 0.0500, 35.0% below" in about.headline
    assert ("Repeats", "2 seeds of each configuration that would be the best") in about.facts
    found = board(snapshot, 1)
    names = [column.name for column in found.columns]
    lines = [{name: cell.text for name, cell in zip(names, line.cells, strict=True)} for line in found.lines]
    assert [(line["trial"], line["rank"], line["seeds"], line["repeat_of"]) for line in lines] == [
        ("00003", "1", "2", "–"),
        ("00000", "2", "2", "–"),
        ("00002", "3", "1", "–"),
        ("00001", "–", "–", "00000"),
        ("00004", "–", "–", "00003"),
    ]
    assert (lines[0]["valid_bits_per_dim"], lines[0]["valid_bits_per_dim_error"]) == ("1.9500", "0.05")
    assert [row["trial"] for row in measured(snapshot)] == ["00000", "00002", "00003"]
    assert any("--repeats 2" in command.command for command in rerun(snapshot))


@pytest.mark.parametrize("with_repeat", [False, True])
def test_the_display_marks_a_new_best_when_its_last_seed_ends(state: SearchState, *, with_repeat: bool) -> None:
    console = Console(file=io.StringIO(), width=120)
    display = Progress(console)
    display.begin(state, state.space.resources, 1, ImageSpec(1, 8, 8, 17))
    plan = OptunaSearcher(state.space, state).next_plan()
    assert plan is not None
    facts = {"data_checksum": state.ended["00000"]["data_checksum"]}
    play(state, plan, BEGUN | {"facts": facts}, reported(400, 2.0 if with_repeat else 9.0), FINISHED)
    display.change()
    assert isinstance(console.file, io.StringIO)
    line = console.file.getvalue().splitlines()[-1]
    assert "repeats 00003" in line
    assert line.endswith("best so far") == with_repeat
    trial = "00003, 2 seeds" if with_repeat else "00000, 2 seeds"
    assert f"bits/dim ({trial})" in display._best()


def test_a_plan_says_what_repeats_are() -> None:
    said = done("search", "--search", "digits_quick", "--repeats", "3", "--dry-run")
    words = "Repeats: a trial that would be the best is trained with 3 seeds, 2 trials of the budget more, before it"
    assert f"{words} counts as the best" in " ".join(said.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--repeats 0", "--repeats"),
        ("--repeats two", "--repeats"),
        ("--repeats 1.5", "--repeats"),
        ("--repeats", "--repeats"),
        ("--set repeats=2", "repeats"),
    ],
)
def test_bad_repeats_are_one_line(words: str, says: str) -> None:
    said = refused("search", "--search", "digits_quick", *words.split())
    assert says in said
    assert not Path("results").exists()


def test_repeats_of_a_search_that_varies_its_seed_are_refused() -> None:
    Path("seeds.py").write_text(
        "from optuna.distributions import IntDistribution\n"
        "from dataclasses import replace\n"
        "from pixeltune import load_search\n"
        'search = replace(load_search("digits_quick"), vary={"seed": IntDistribution(0, 9)})\n'
    )
    assert "repeats must be 1 where vary has the seed" in refused("search", "--search", "seeds.py", "--repeats", "2")
    assert not Path("results").exists()
