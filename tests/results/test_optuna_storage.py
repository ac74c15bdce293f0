"""Searches as a storage of Optuna that is only read."""

from __future__ import annotations

import inspect
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.distributions import IntDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

import pixeltune as pt
from pixeltune.errors import StoreError
from pixeltune.results import live_search, live_table, optuna_storage
from pixeltune.results.compaction import compact
from pixeltune.results.optuna_storage import GalleryStore, ReadOnlyError, ReadOnlyStorage
from pixeltune.results.schema import Status
from pixeltune.results.store import SearchStore
from pixeltune.results.table_folder import StoreWarning
from tests.support.made_up_search import write_results
from tests.support.report_pages import make_final
from tests.support.results import NOW, make_report, make_row, make_space, make_store


@pytest.fixture(autouse=True)
def always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the files at every call."""
    for module in (live_search, optuna_storage):
        monkeypatch.setattr(module, "_SECONDS", {False: -1.0, True: -1.0})
    monkeypatch.setattr(live_search, "_HOLDER_SECONDS", {False: -1.0, True: -1.0})


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchStore:
    """A search of 30 trials with every outcome."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    statuses = ("finished", "pruned", "diverged", "oom", "failed", "interrupted", "rejected", "running")
    return write_results(str(tmp_path), "toy", trials=30, statuses=statuses)


def study_of(storage: ReadOnlyStorage, name: str = "toy") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=storage)


def seen(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a folder, with its bytes and its time."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_ended_trials_are_those_of_a_study_and_running_ones_run(tmp_path: Path, toy: SearchStore) -> None:
    shown = study_of(ReadOnlyStorage(str(tmp_path)))
    wanted = pt.study(toy.folder)
    running = [row["trial"] for row in toy.trials() if row["status"] == Status.RUNNING]
    ended = {trial.user_attrs["trial"]: trial for trial in shown.trials if trial.state is not TrialState.RUNNING}
    assert running
    assert [t.user_attrs["trial"] for t in shown.trials if t.state is TrialState.RUNNING] == running
    assert len(ended) == len(wanted.trials) == 30 - len(running)
    for trial in wanted.trials:
        found = ended[trial.user_attrs["trial"]]
        for name in ("state", "values", "params", "distributions", "intermediate_values", "constraints", "user_attrs"):
            assert getattr(found, name) == getattr(trial, name), name
        assert (found.datetime_start, found.datetime_complete) == (trial.datetime_start, trial.datetime_complete)
    assert (shown.directions, shown.metric_names) == (wanted.directions, ["valid_bits_per_dim"])
    assert [trial.number for trial in shown.trials] == [row["number"] for row in toy.trials()]
    for row, trial in zip(toy.trials(), shown.trials, strict=True):
        assert trial.user_attrs["status"] == row["status"]
        assert trial.user_attrs.get("num_parameters") == row["num_parameters"]


def test_a_running_trial_has_its_reports_so_far(tmp_path: Path) -> None:
    store = make_store(tmp_path, "toy")
    store.write_trial(make_row(0, status="running"))
    store.write_curve("00000", 1, [make_report(1600, 2.5)])
    storage = ReadOnlyStorage(str(tmp_path))
    [trial] = study_of(storage).trials
    assert (trial.state, trial.values, trial.intermediate_values) == (TrialState.RUNNING, None, {1600: 2.5})
    assert trial.datetime_complete is None
    store.write_curve("00000", 1, [make_report(1600, 2.5), make_report(3200, 2.25)])
    assert study_of(storage).trials[0].intermediate_values == {1600: 2.5, 3200: 2.25}
    store.write_trial(make_row(0, finished_at=NOW, valid_bits_per_dim=2.25))
    assert study_of(storage).best_value == 2.25


def test_ids_stay_over_changes_and_starts(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_store(tmp_path, name).write_trial(make_row(3, valid_bits_per_dim=2.0))
    first = ReadOnlyStorage(str(tmp_path))
    ids = {study.study_name: study._study_id for study in first.get_all_studies()}
    trials = {name: [trial._trial_id for trial in first.get_all_trials(number)] for name, number in ids.items()}
    SearchStore(str(tmp_path), "one").write_trial(make_row(4, status="running"))
    assert [trial.number for trial in first.get_all_trials(ids["one"])] == [3, 4]
    for storage in (first, ReadOnlyStorage(str(tmp_path))):
        assert {study.study_name: study._study_id for study in storage.get_all_studies()} == ids
        for name, number in ids.items():
            assert storage.get_study_id_from_name(name) == number
            assert [trial._trial_id for trial in storage.get_all_trials(number)][:1] == trials[name]
            assert storage.get_trial(trials[name][0]).number == 3
            assert storage.get_trial_id_from_study_id_trial_number(number, 3) == trials[name][0]
    assert len({*ids.values(), *trials["one"], *trials["two"]}) == 4


def test_only_files_that_changed_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, "toy")
    for number in range(5):
        store.write_trial(make_row(number, valid_bits_per_dim=2.0 + number))
        store.write_curve(f"{number:05d}", 1, [make_report(1600, 3.0)])
    storage = ReadOnlyStorage(str(tmp_path))
    assert len(study_of(storage).trials) == 5
    asked: list[str] = []
    read = live_table.TableFolder.contents

    def counted(table: Any, names: list[str]) -> Any:
        asked.extend(names)
        return read(table, names)

    monkeypatch.setattr(live_table.TableFolder, "contents", counted)
    assert len(study_of(storage).trials) == 5
    assert asked == []
    store.write_curve("00002", 1, [make_report(1600, 3.0), make_report(3200, 2.5)])
    assert study_of(storage).trials[2].intermediate_values == {1600: 3.0, 3200: 2.5}
    assert asked == ["00002-1.parquet"]


def test_a_search_that_begins_later_is_shown_and_one_that_is_removed_is_not(tmp_path: Path) -> None:
    storage = ReadOnlyStorage(str(tmp_path))
    assert storage.get_all_studies() == []
    store = make_store(tmp_path, "later")
    [study] = storage.get_all_studies()
    assert (study.study_name, storage.get_all_trials(study._study_id)) == ("later", [])
    store.write_trial(make_row(0, valid_bits_per_dim=2.0))
    assert len(storage.get_all_trials(study._study_id)) == 1
    (tmp_path / "later" / "search.json").unlink()
    with pytest.warns(StoreWarning, match=r"left out .*later: it has trials without their search\.json"):
        assert storage.get_all_studies() == []
    with pytest.raises(KeyError):
        storage.get_all_trials(study._study_id)


def test_a_search_that_began_again_under_its_name_is_another_study(tmp_path: Path) -> None:
    make_store(tmp_path, "toy").write_trial(make_row(0, valid_bits_per_dim=2.0))
    storage = ReadOnlyStorage(str(tmp_path))
    [before] = storage.get_all_studies()
    location = tmp_path / "toy" / "search.json"
    (tmp_path / "toy" / "trials" / "00000-1.parquet").unlink()
    manifest = SearchStore(str(tmp_path), "toy").manifest()
    tree = json.loads(manifest.to_json()) | {"created_at": "2027-01-01T00:00:00+00:00", "id": "f" * 32}
    tree.pop("digest", None)
    location.write_text(json.dumps({name: value for name, value in tree.items() if "sha" not in name}))
    [after] = storage.get_all_studies()
    assert after._study_id != before._study_id
    assert storage.get_all_trials(after._study_id) == []


def test_only_the_named_searches_are_shown(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        make_store(tmp_path, name)
    storage = ReadOnlyStorage(str(tmp_path), ["one", "three"])
    make_store(tmp_path, "four")
    assert sorted(study.study_name for study in storage.get_all_studies()) == ["one", "three"]
    with pytest.raises(StoreError, match="must have been begun"):
        ReadOnlyStorage(str(tmp_path), ["onne"])


def test_damaged_and_foreign_folders_are_left_out_with_a_line(tmp_path: Path) -> None:
    make_store(tmp_path, "sound")
    make_store(tmp_path, "damaged")
    (tmp_path / "damaged" / "search.json").write_text("{")
    (tmp_path / "photos").mkdir()
    with pytest.warns(StoreWarning) as found:
        storage = ReadOnlyStorage(str(tmp_path))
    lines = sorted(str(each.message) for each in found)
    assert len(lines) == 2
    assert lines[0].startswith(f"left out {tmp_path}/damaged: search.json must be whole")
    assert lines[1] == f"left out {tmp_path}/photos: it has neither search.json nor trials"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        assert [study.study_name for study in storage.get_all_studies()] == ["sound"]


def test_a_storage_must_exist_and_be_no_search(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is nothing at"):
        ReadOnlyStorage(str(tmp_path / "missing"))
    store = make_store(tmp_path, "toy")
    store.write_trial(make_row(0))
    with pytest.raises(StoreError, match="must be a folder of searches"):
        ReadOnlyStorage(store.folder)


def test_a_damaged_row_is_left_where_it_is(tmp_path: Path) -> None:
    store = make_store(tmp_path, "toy")
    for number in range(3):
        store.write_trial(make_row(number, valid_bits_per_dim=2.0))
    damaged = tmp_path / "toy" / "trials" / "00001-1.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    before = seen(tmp_path)
    storage = ReadOnlyStorage(str(tmp_path))
    with pytest.warns(StoreWarning, match="left out .*00001-1.parquet"):
        assert [trial.number for trial in study_of(storage).trials] == [0, 2]
    assert seen(tmp_path) == before
    store.write_trial(make_row(1, valid_bits_per_dim=2.5))
    assert [trial.number for trial in study_of(storage).trials] == [0, 1, 2]


def test_a_compaction_changes_nothing_that_is_shown(tmp_path: Path, toy: SearchStore) -> None:
    storage = ReadOnlyStorage(str(tmp_path))
    before = study_of(storage).trials
    assert compact(toy).written
    for trials in (study_of(storage).trials, study_of(ReadOnlyStorage(str(tmp_path))).trials):
        assert [vars(trial) for trial in trials] == [vars(trial) for trial in before]


def test_a_storage_that_does_not_answer_leaves_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(tmp_path, "toy").write_trial(make_row(0, valid_bits_per_dim=2.0))
    storage = ReadOnlyStorage(str(tmp_path))
    [study] = storage.get_all_studies()
    assert len(storage.get_all_trials(study._study_id)) == 1

    def fail(*_: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pixeltune.files.stamps", fail)
    monkeypatch.setattr("pixeltune.files.list_folders", fail)
    with pytest.warns(StoreWarning, match="Input/output error"):
        assert len(storage.get_all_trials(study._study_id)) == 1


# The best trial


def test_the_best_trial_keeps_the_constraints_and_is_confirmed(tmp_path: Path) -> None:
    store = make_store(tmp_path, "toy", make_space(constraints={"num_parameters": 100.0}))
    store.write_trial(make_row(0, valid_bits_per_dim=1.0, num_parameters=200))
    store.write_trial(make_row(1, valid_bits_per_dim=1.5, num_parameters=50, bits_verified=False))
    store.write_trial(make_row(2, valid_bits_per_dim=1.7))
    store.write_trial(make_row(3, valid_bits_per_dim=2.0, num_parameters=50))
    store.write_trial(make_row(4, valid_bits_per_dim=2.5, num_parameters=50))
    storage = ReadOnlyStorage(str(tmp_path))
    study = study_of(storage)
    assert study.best_trial.number == 3
    assert [trial.state for trial in study.trials][1] is TrialState.FAIL
    feasible = [all(value <= 0 for value in trial.system_attrs.get("constraints", [])) for trial in study.trials]
    assert feasible == [False, True, False, True, True]


def test_the_front_is_that_of_the_results(tmp_path: Path) -> None:
    objectives = ("valid_bits_per_dim", "num_parameters")
    space = make_space(objectives=objectives, scheduler=None, constraints={"peak_memory_bytes": 10.0})
    store = make_store(tmp_path, "toy", space)
    for number, (bits, size, memory) in enumerate([(1.0, 10, 20), (2.0, 20, 5), (3.0, 15, 5), (4.0, 30, 5)]):
        row = make_row(number, valid_bits_per_dim=bits, num_parameters=size, peak_memory_bytes=memory)
        store.write_trial(row)
    storage = ReadOnlyStorage(str(tmp_path))
    search = storage.search(storage.get_study_id_from_name("toy"))
    best = search.best()
    assert [trial.number for trial in search.trials() if trial._trial_id in best] == [1, 2]


def test_the_test_set_names_no_best_trial(tmp_path: Path) -> None:
    make_final(tmp_path, {"00003": 80.0, "00007": 85.0})
    storage = ReadOnlyStorage(str(tmp_path))
    search = storage.search(storage.get_study_id_from_name("toy-final"))
    assert len(search.trials()) == 6
    assert search.best() == frozenset()
    assert search.user_attrs()["kind"] == "final of toy"


# Galleries


def test_galleries_are_artifacts_of_their_trials(tmp_path: Path) -> None:
    store = make_store(tmp_path, "toy")
    for number in range(2):
        store.write_trial(make_row(number, valid_bits_per_dim=2.0))
    samples = tmp_path / "toy" / "samples"
    samples.mkdir()
    names = ("00001.png", "00001-1600-images.png", "00001-12800-images.png")
    for name in names:
        (samples / name).write_bytes(name.encode())
    (samples / "secret.txt").write_text("no picture")
    storage = ReadOnlyStorage(str(tmp_path))
    first, second = storage.get_all_trials(storage.get_study_id_from_name("toy"))
    found = [json.loads(value) for key, value in second.system_attrs.items() if key.startswith("artifacts:")]
    assert [each["filename"] for each in found] == list(names)
    assert not any(key.startswith("artifacts:") for key in first.system_attrs)
    store_of_galleries = GalleryStore(storage)
    for each in found:
        assert each["mimetype"] == "image/png"
        assert store_of_galleries.open_reader(each["artifact_id"]).read() == each["filename"].encode()
    (samples / names[0]).unlink()
    for artifact_id in ("../../search.json", "0" * 32, found[0]["artifact_id"]):
        with pytest.raises(ArtifactNotFound):
            store_of_galleries.open_reader(artifact_id)


# Nothing is written

CALLS: dict[str, Callable[[ReadOnlyStorage, int, FrozenTrial], Any]] = {
    "create_new_study": lambda storage, _study, _trial: storage.create_new_study([StudyDirection.MINIMIZE], "new"),
    "create_new_trial": lambda storage, study, trial: storage.create_new_trial(study, trial),
    "delete_study": lambda storage, study, _trial: storage.delete_study(study),
    "set_study_system_attr": lambda storage, study, _trial: storage.set_study_system_attr(study, "dashboard:note", "n"),
    "set_study_user_attr": lambda storage, study, _trial: storage.set_study_user_attr(study, "name", 1),
    "set_trial_intermediate_value": lambda storage, _study, trial: storage.set_trial_intermediate_value(
        trial._trial_id, 1, 2.0
    ),
    "set_trial_param": lambda storage, _study, trial: storage.set_trial_param(
        trial._trial_id, "model.layers", 2.0, IntDistribution(1, 3)
    ),
    "set_trial_state_values": lambda storage, _study, trial: storage.set_trial_state_values(
        trial._trial_id, TrialState.COMPLETE, [1.0]
    ),
    "set_trial_system_attr": lambda storage, _study, trial: storage.set_trial_system_attr(trial._trial_id, "name", 1),
    "set_trial_user_attr": lambda storage, _study, trial: storage.set_trial_user_attr(trial._trial_id, "name", 1),
    "get_all_studies": lambda storage, _study, _trial: storage.get_all_studies(),
    "get_all_trials": lambda storage, study, _trial: storage.get_all_trials(study),
    "get_study_directions": lambda storage, study, _trial: storage.get_study_directions(study),
    "get_study_id_from_name": lambda storage, _study, _trial: storage.get_study_id_from_name("toy"),
    "get_study_name_from_id": lambda storage, study, _trial: storage.get_study_name_from_id(study),
    "get_study_system_attrs": lambda storage, study, _trial: storage.get_study_system_attrs(study),
    "get_study_user_attrs": lambda storage, study, _trial: storage.get_study_user_attrs(study),
    "get_trial": lambda storage, _study, trial: storage.get_trial(trial._trial_id),
}


def test_every_abstract_method_is_called_below() -> None:
    abstract = {name for name, _ in inspect.getmembers(BaseStorage, lambda each: hasattr(each, "__isabstractmethod__"))}
    assert abstract == CALLS.keys()


@pytest.mark.parametrize("method", sorted(CALLS))
def test_no_method_changes_anything(tmp_path: Path, method: str) -> None:
    store = make_store(tmp_path, "toy")
    store.write_trial(make_row(0, status="running"))
    store.write_curve("00000", 1, [make_report(1600)])
    storage = ReadOnlyStorage(str(tmp_path))
    study = storage.get_study_id_from_name("toy")
    [trial] = storage.get_all_trials(study)
    before = seen(tmp_path)
    if method.startswith("get_"):
        CALLS[method](storage, study, trial)
    else:
        with pytest.raises(ReadOnlyError, match="results are only read here"):
            CALLS[method](storage, study, trial)
    assert seen(tmp_path) == before
    assert [vars(each) for each in storage.get_all_trials(study)] == [vars(trial)]
