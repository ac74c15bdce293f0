from __future__ import annotations

from pathlib import Path

import optuna
from optuna.trial import TrialState

from pixeltune.results.optuna_study import study
from pixeltune.results.schema import Status
from tests.support.results import NOW, make_config, make_report, make_row, make_space, make_store


def test_a_study_tells_every_outcome(tmp_path: Path) -> None:
    store = make_store(tmp_path, "tiny")
    for number, status in enumerate(Status):
        metrics = {"valid_bits_per_dim": 2.0} if status in ("finished", "pruned", "stopped", "rejected") else {}
        store.write_trial(make_row(number, status=str(status), finished_at=NOW, **metrics))
        store.write_curve(f"{number:05d}", 1, [make_report(1600, 2.5), make_report(3200, 2.0)])
    trials = study(str(tmp_path / "tiny")).get_trials()
    states = {trial.user_attrs["status"]: trial.state for trial in trials}
    assert "running" not in states
    assert states.pop("finished") is TrialState.COMPLETE
    assert states.pop("pruned") is TrialState.PRUNED
    assert states.pop("stopped") is TrialState.PRUNED
    assert set(states.values()) == {TrialState.FAIL}
    for pruned in [trial for trial in trials if trial.state is TrialState.PRUNED]:
        assert (pruned.value, pruned.intermediate_values) == (2.0, {1600: 2.5, 3200: 2.0})
    assert all(trial.value is None for trial in trials if trial.state is TrialState.FAIL)


def test_a_study_has_only_the_keys_that_a_trial_has(tmp_path: Path) -> None:
    store = make_store(tmp_path, "tiny")
    for number, likelihood in enumerate(["logistic_mixture", "categorical"]):
        row = make_row(number, valid_bits_per_dim=2.0) | {"likelihood.mixtures": None}
        store.write_trial(row | make_config("gated", likelihood).flat())
    rebuilt = study(str(tmp_path / "tiny"))
    first, second = rebuilt.get_trials()
    assert set(first.params) - set(second.params) == {"likelihood.mixtures"}
    assert first.params["likelihood.mixtures"] == 10
    assert rebuilt.ask().number == 2


def test_a_study_of_several_objectives(tmp_path: Path) -> None:
    objectives = ("valid_bits_per_dim", "num_parameters")
    store = make_store(tmp_path, "tiny", make_space(objectives=objectives, scheduler=None))
    store.write_trial(make_row(0, valid_bits_per_dim=2.0, num_parameters=100))
    store.write_trial(make_row(1, valid_bits_per_dim=2.0))
    store.write_curve("00000", 1, [make_report(1600)])
    first, second = study(str(tmp_path / "tiny")).get_trials()
    assert (first.values, first.intermediate_values) == ([2.0, 100.0], {})
    assert second.state is TrialState.FAIL


def test_a_study_is_made_quietly_and_leaves_the_log_level(tmp_path: Path) -> None:
    make_store(tmp_path, "tiny")
    before = optuna.logging.get_verbosity()
    study(str(tmp_path / "tiny"))
    assert optuna.logging.get_verbosity() == before
