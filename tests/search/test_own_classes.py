"""Trials and searches of families and likelihoods of a user's own. No Ray."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import pixeltune as pt
from pixeltune.cli import main
from pixeltune.config import TrialConfig
from pixeltune.data import resolve
from pixeltune.errors import StoreError
from pixeltune.own_code import import_object
from pixeltune.results.compaction import compact_many
from pixeltune.results.store import SearchStore
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.final import open_final
from pixeltune.search.messages import Message
from pixeltune.search.run import Outcome, Round, open_search, run_search
from pixeltune.search.state import SearchState
from pixeltune.search.trial import run_trial
from pixeltune.search.warm_start import read_warm_start
from pixeltune.space import Budget, Resources, SearchSpace
from tests.support.own_code import (
    FAMILY,
    LEAKING_FAMILY,
    LIKELIHOOD,
    SHALLOW,
    WARM,
    WRONG_LIKELIHOOD,
    forget,
    own_config,
    write_modules,
)
from tests.support.toy_final import asked
from tests.support.toy_search import toy_config, toy_space

CHANGED = FAMILY.replace("super().__init__()", "super().__init__()\n        self.edition = 2")
MARK = "raise RuntimeError('imported')"


class ThisProcess:
    """A backend that runs each trial here, with what its task says alone."""

    def require(self, space: SearchSpace) -> None:
        """Refuse nothing."""

    @contextmanager
    def start(self, state: SearchState, *_: Any) -> Iterator[ThisProcess]:
        self.state = state
        yield self

    def capacity(self, wanted: Resources) -> tuple[Resources, int]:
        return Resources(cpus=wanted.cpus), 1

    def check(self, resources: Resources) -> None:
        """Refuse nothing."""

    def run(self, round_: Round) -> None:
        source = round_.source()
        while round_.trials_left and (plan := source.next_plan()) is not None:
            self.state.start(plan, round_.resources)
            for message in run_trial(plan.to_task(self.state.space, self.state.store, round_.resources)):
                if self.state.receive(plan.trial, message) is not None:
                    break
            self.state.finish(plan.trial)


def mixed_space(trials: int = 5, **changes: Any) -> SearchSpace:
    vary = {
        "model.family": CategoricalDistribution(("gated", SHALLOW)),
        "likelihood.name": CategoricalDistribution(("categorical", WARM)),
        "model.wings": IntDistribution(0, 3),
        "likelihood.temperature": FloatDistribution(0.5, 2.0),
    }
    return SearchSpace(base=own_config(), vary=vary, budget=Budget(trials=trials), sampler="random", **changes)


def launched(space: SearchSpace, folder: Path, name: str = "toy") -> Outcome:
    with SearchStore(str(folder), name).lock():
        store, manifest = open_search(space, name, str(folder))
        return run_search(space, store, manifest, backend=ThisProcess(), callback=SearchCallback())


def ended(folder: Path, config: TrialConfig) -> Message:
    space = SearchSpace(base=config, budget=Budget(trials=1))
    store, _ = open_search(space, "one", str(folder))
    state = SearchState(space, store)
    *_, last = run_trial(state.plan({}).to_task(space, store, Resources()))
    return last


def test_a_mixed_search_is_trained_extended_kept_and_read(code_folder: Path, tmp_path: Path) -> None:
    state = launched(mixed_space(3), tmp_path / "r").state
    assert {row["status"] for row in state.ended.values()} == {"finished"}
    state = launched(mixed_space(6), tmp_path / "r").state
    store = SearchStore(str(tmp_path / "r"), "toy")
    rows = store.trials()
    assert len(rows) == 6
    assert {row["model.family"] for row in rows} == {"gated", SHALLOW}
    assert {row["likelihood.name"] for row in rows} == {"categorical", WARM}
    for row in rows:
        assert row.keys() >= {"model.wings", "likelihood.temperature"}
        assert (row["model.wings"] is not None) == (row["model.family"] == SHALLOW)
        assert (row["likelihood.temperature"] is not None) == (row["likelihood.name"] == WARM)
        assert state.ended[row["trial"]].keys() <= row.keys()
    frame = pt.read_results(tmp_path / "r").set_index("trial")
    assert (str(frame["model.wings"].dtype), str(frame["model.slope"].dtype)) == ("Int64", "float64")
    assert (str(frame["model.is_odd"].dtype), str(frame["model.colour"].dtype)) == ("boolean", "category")
    for row in rows:
        for key in ("model.wings", "likelihood.temperature"):
            value = frame.loc[row["trial"], key]
            assert (None if pd.isna(value) else value) == row[key]
    study = pt.study(tmp_path / "r" / "toy")
    assert {trial.user_attrs["trial"]: trial.params for trial in study.trials} == {
        row["trial"]: {key: row[key] for key in state.space.vary if row[key] is not None} for row in rows
    }
    compact_many(store)
    assert store.trials() == rows


def test_searches_with_and_without_own_keys_are_one_table(code_folder: Path, tmp_path: Path) -> None:
    launched(mixed_space(2), tmp_path / "r", "own")
    plain = SearchSpace(base=toy_config(images=100, report_every=50), budget=Budget(trials=1))
    launched(plain, tmp_path / "r", "plain")
    frame = pt.read_results(tmp_path / "r").set_index("search")
    assert frame.loc["plain", "model.wings"] is pd.NA
    assert frame.loc["own", "model.wings"].notna().any()
    assert "model.wings" not in pt.read_results(tmp_path / "r" / "plain")


def test_the_summary_and_the_leaderboard_have_the_own_keys(
    code_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pixeltune.cli.common import console
    from pixeltune.cli.search_summary import show_outcome

    outcome = launched(mixed_space(3), tmp_path / "r")
    show_outcome(console(), outcome.state.space, outcome.state.store, outcome, storage=str(tmp_path / "r"))
    assert "wings" in capsys.readouterr().out
    assert main(["show", "toy", "--storage", str(tmp_path / "r")]) == 0
    assert "Configuration: " not in capsys.readouterr().out


@pytest.mark.needs("plotly", "jinja2")
def test_a_report_of_a_mixed_search_needs_no_module(code_folder: Path, tmp_path: Path) -> None:
    """With figures of the keys that only one class has, and of a search in which no trial has them."""
    launched(mixed_space(6), tmp_path / "r")
    gated = mixed_space(1, seed=1)
    gated = replace(gated, base=gated.base.override({"model.family": "gated"}))
    launched(gated, tmp_path / "r", "gated")
    write_modules(code_folder, own_shallow=MARK, own_warm=MARK)
    for name in ("toy", "gated"):
        page = tmp_path / f"{name}.html"
        assert main(["report", name, "--storage", str(tmp_path / "r"), "--out", str(page)]) == 0
        assert (f">{SHALLOW}</td>" in page.read_text(encoding="utf-8")) == (name == "toy"), "not only as a choice"
        assert main(["status", name, "--storage", str(tmp_path / "r")]) == 0
    assert not [name for name in sys.modules if name.startswith("own_")]


def test_a_search_that_has_not_met_the_own_class_goes_on(
    code_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No row has the keys that only that class has."""
    from pixeltune.cli.common import console
    from pixeltune.cli.search_summary import show_outcome

    space = mixed_space(1, objectives=("valid_bits_per_dim", "num_parameters"))
    space = replace(space, base=space.base.override({"model.family": "gated", "likelihood.name": "categorical"}))
    for _ in range(2):  # the second one finds its row
        outcome = launched(space, tmp_path / "r")
        show_outcome(console(), space, outcome.state.store, outcome, storage=str(tmp_path / "r"))
        assert "wings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("texts", "changes", "words"),
    [
        ({"own_shallow": LEAKING_FAMILY}, {}, "must not depend on"),
        ({"own_warm": WRONG_LIKELIHOOD}, {"likelihood__name": WARM}, "log"),
        ({"own_warm": LIKELIHOOD.replace("earlier_BjHW)", "earlier_BjHW) * 0.9")}, {"likelihood__name": WARM}, "sum"),
    ],
)
def test_the_audit_judges_code_of_ones_own(
    code_folder: Path, tmp_path: Path, texts: dict[str, str], changes: dict[str, str], words: str
) -> None:
    assert ended(tmp_path / "sound", own_config(**changes))["end"] == "finished"
    write_modules(code_folder, **texts)
    last = ended(tmp_path / "wrong", own_config(**changes))
    assert last["end"] == "rejected"
    assert words in last["reason"]


@pytest.mark.needs("constriction")
def test_the_bits_of_a_likelihood_of_ones_own_are_confirmed(code_folder: Path, tmp_path: Path) -> None:
    for changes in ({}, {"likelihood__name": WARM}, {"model__colour_order": "likelihood", "likelihood__name": WARM}):
        last = ended(tmp_path / str(len(changes)), own_config(**changes))
        assert (last["end"], last["facts"]["bits_verified"]) == ("finished", True)


def test_a_process_finds_the_code_where_its_task_says(
    code_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search file's folder, which is neither the working directory nor on the path of a new process."""
    (code_folder / "mine.py").write_text(
        f"from tests.support.own_code import own_config\nimport pixeltune as pt\nsearch = pt.SearchSpace("
        f"base=own_config(likelihood__name='{WARM}'), budget=pt.Budget(trials=1))\n"
    )
    sys.path.remove(str(code_folder))
    space = pt.load_search(code_folder / "mine.py")
    store, _ = open_search(space, "one", str(tmp_path / "r"))
    task = SearchState(space, store).plan({}).to_task(space, store, Resources())
    assert str(code_folder) in task.code
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not Path(place, "own_shallow.py").exists()])
    forget()
    *_, last = run_trial(replace(task, code=("not/here",)))
    assert last["end"] == "failed"
    assert "there is no module own_shallow" in last["reason"]
    *_, last = run_trial(task)
    assert last["end"] == "finished"


def test_a_machine_with_other_code_does_not_count(code_folder: Path, tmp_path: Path) -> None:
    space = mixed_space(1)
    store, _ = open_search(space, "toy", str(tmp_path / "r"))
    state = SearchState(space, store)
    plan = state.plan(space.base_suggestion())
    state.start(plan, Resources())
    task = plan.to_task(space, store, Resources())
    write_modules(code_folder, own_shallow=CHANGED)
    first = next(iter(run_trial(task)))
    write_modules(code_folder)
    TrialConfig.build(task.config)
    reason = state.receive(plan.trial, first)
    assert reason is not None
    assert reason.startswith(f"the code of {SHALLOW} has fingerprint ")
    assert "all machines must have the same code" in reason
    assert state.finish(plan.trial)["status"] == "failed"


def test_a_search_does_not_go_on_with_other_code(code_folder: Path, tmp_path: Path) -> None:
    launched(mixed_space(3), tmp_path / "r")
    write_modules(code_folder, own_shallow=FAMILY + "\n# a remark\n")
    launched(mixed_space(4), tmp_path / "r")
    write_modules(code_folder, own_shallow=CHANGED)
    for trials in (4, 6):  # one that has ended and one that would go on
        with pytest.raises(StoreError, match=r"must be the code that toy/0000\d was trained with \(fingerprint"):
            launched(mixed_space(trials), tmp_path / "r")
    write_modules(code_folder)
    assert len(launched(mixed_space(5), tmp_path / "r").state.ended) == 5


def test_a_final_retrains_with_the_code_of_its_search(code_folder: Path, tmp_path: Path) -> None:
    launched(mixed_space(3), tmp_path)
    write_modules(code_folder, own_shallow=CHANGED, own_warm=LIKELIHOOD.replace("default=2.0", "default=3.0"))
    with pytest.raises(StoreError, match=r"must be the code that toy/0000. was trained with"):
        open_final(asked(tmp_path, top=3, seeds=1))
    write_modules(code_folder)
    store, manifest, space = open_final(asked(tmp_path, top=1, seeds=1))
    with store.lock():
        outcome = run_search(space, store, manifest, backend=ThisProcess(), callback=SearchCallback())
    (row,) = outcome.state.ended.values()
    assert (row["status"], row["test_bits_per_dim"] > 0) == ("finished", True)
    assert store.trials()[0]["own_keys"] is not None


def test_a_search_learns_from_own_classes_of_another_without_importing_them(code_folder: Path, tmp_path: Path) -> None:
    launched(mixed_space(4), tmp_path / "r")
    with_own = read_warm_start([str(tmp_path / "r" / "toy")], mixed_space(4), resolve(own_config()))
    assert len(with_own.rows) == 4
    write_modules(code_folder, own_shallow=CHANGED)
    changed = read_warm_start([str(tmp_path / "r" / "toy")], mixed_space(4), resolve(own_config()))
    assert changed.left_out["of other code under the same import path"] == 4 - len(changed.rows) > 0
    write_modules(code_folder, own_shallow=MARK, own_warm=MARK)
    plain = toy_space(base=toy_config().override({"data.num_valid": 100}), scheduler=None)
    without = read_warm_start([str(tmp_path / "r" / "toy")], plain, resolve(plain.base))
    assert not without.rows
    assert not [name for name in sys.modules if name.startswith("own_")]


class ThatSurvives(ThisProcess):
    """The same, where a crash of a trial has its traceback in the row, as under Ray."""

    def run(self, round_: Round) -> None:
        source = round_.source()
        while round_.trials_left and (plan := source.next_plan()) is not None:
            self.state.start(plan, round_.resources)
            crash = None
            try:
                for message in run_trial(plan.to_task(self.state.space, self.state.store, round_.resources)):
                    self.state.receive(plan.trial, message)
            except Exception:
                crash = traceback.format_exc()
            self.state.finish(plan.trial, crash=crash)


def _line_of(text: str, words: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if words in line)


@pytest.mark.parametrize(
    ("module", "before", "after", "reason"),
    [
        ("own_shallow", "return self.head(", "return 1 / 0 * self.head(", "{} in forward: ZeroDivisionError: division"),
        ("own_shallow", "super().__init__()", "1 / 0", "raises ZeroDivisionError: division by zero ({} in __init__); "),
        (
            "own_warm",
            "return super().log_prob(",
            "return 1 / 0 + super().log_prob(",
            "{} in log_prob: ZeroDivisionError",
        ),
    ],
)
def test_a_row_says_where_code_of_ones_own_fails(
    code_folder: Path, tmp_path: Path, module: str, before: str, after: str, reason: str
) -> None:
    text = {"own_shallow": FAMILY, "own_warm": LIKELIHOOD}[module].replace(before, after)
    write_modules(code_folder, **{module: text})
    space = SearchSpace(base=own_config(likelihood__name=WARM), budget=Budget(trials=1))
    with SearchStore(str(tmp_path), "toy").lock():
        store, manifest = open_search(space, "toy", str(tmp_path))
        run_search(space, store, manifest, backend=ThatSurvives(), callback=SearchCallback())
    (row,) = store.trials()
    assert row["status"] == "failed"
    assert reason.format(f"{module}.py:{_line_of(text, '1 / 0')}") in row["reason"]
    assert row["traceback"].startswith("Traceback (most recent call last)")
    assert "ZeroDivisionError" in row["traceback"]
    assert f'{module}.py", line' in row["traceback"]


@pytest.mark.needs("constriction")
def test_own_code_that_fails_after_training_costs_one_number(
    code_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_modules(code_folder, own_draw="def draw(*_args, **_options):\n    raise KeyError('draw')\n")
    draw = import_object("own_draw:draw")
    monkeypatch.setattr("pixeltune.search.trial.sampling_facts", draw)
    monkeypatch.setattr("pixeltune.sampling.code_check.verify_bits", draw)
    last = ended(tmp_path, own_config(likelihood__name=WARM))
    why = "KeyError: 'draw' (own_draw.py:2 in draw)"
    assert (last["end"], last["reason"]) == ("finished", f"its sampling speed could not be measured: {why}")
    assert last["facts"]["bits_verified"] is None
    assert last["facts"]["bits_unverified_reason"] == f"coding failed: {why}"
