"""A search from Python: it runs, answers from its results and resumes, as the command does."""

from __future__ import annotations

from pathlib import Path

import pytest

import pixeltune as pt
from pixeltune.cluster import launch
from pixeltune.errors import ConfigError, StoreError
from tests.support.imitated_machines import ImitatedMachines
from tests.support.toy_search import toy_config, toy_space


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> ImitatedMachines:
    machines = ImitatedMachines()
    monkeypatch.setattr(launch, "RayBackend", lambda _address: machines)
    return machines


SPACE = toy_space(
    base=toy_config().override({"data.num_valid": 100}),
    scheduler=None,
    budget=pt.Budget(trials=3),
    resources=pt.Resources(gpus=1.0),
)


def test_a_search_runs_answers_and_is_extended(
    machines: ImitatedMachines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pt.run_search(SPACE, "mine", tmp_path, max_concurrent=1)
    assert list(frame["status"]) == ["finished"] * 3
    said = capsys.readouterr().out
    assert "Runs on this machine alone" in said
    assert "1 trial at a time" in said
    assert "Ended: all 3 trials are done." in said
    assert len(pt.run_search(SPACE, "mine", tmp_path, quiet=True)) == 3
    assert capsys.readouterr().out == ""
    assert len(machines.rounds) == 1, "the second call answers from the results"
    assert len(pt.run_search(SPACE.override({"budget.trials": 4}), "mine", tmp_path, quiet=True)) == 4


@pytest.mark.usefixtures("machines")
def test_a_file_gives_the_name_and_a_space_needs_one(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from tests.cluster.test_launch import SPACE as search\n", encoding="utf-8")
    assert list(pt.run_search(tmp_path / "own.py", storage=tmp_path, quiet=True)["search"].unique()) == ["own"]
    with pytest.raises(ConfigError, match="a search must have a name for its folder"):
        pt.run_search(SPACE, storage=tmp_path)
    with pytest.raises(StoreError, match=r"model\.layers"):
        pt.run_search(SPACE.override({"model.layers": 3}), "own", tmp_path, quiet=True)
