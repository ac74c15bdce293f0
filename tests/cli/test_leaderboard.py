"""`pixeltune list` and `pixeltune leaderboard`: searches, finals and trainings; running, damaged, empty, at a URI."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pixeltune.cli.leaderboard import search_table
from pixeltune.results.ranking import leaderboard as ranked
from pixeltune.results.store import SearchStore
from pixeltune.results.table_folder import StoreWarning
from pixeltune.space import SearchSpace
from tests.recorded.recordings import RESULTS
from tests.support.commands import done, refused
from tests.support.results import make_config, make_report, make_row, make_space, make_store

FORM = {"evaluated_split": "valid", "levels": 17, "data_checksum": "abc"}


def _row(number: int, bits: float | None, **columns: Any) -> dict[str, Any]:
    numbers = {"valid_bits_per_dim": bits, "valid_nats": None if bits is None else 40 * bits, "images_seen": 6400}
    return make_row(number, **(FORM | numbers | {"optim.lr": 0.001 * (number + 1)} | columns))


@pytest.fixture
def search() -> SearchStore:
    """Fourteen ranked trials; 5 is the best, 13 failed."""
    store = make_store("results", "wide")
    for number in range(15):
        if number == 13:
            store.write_trial(_row(number, 1.0, status="failed", reason="a reason"))
        else:
            store.write_trial(_row(number, 3.0 + ((number - 5) % 15) / 100))
    return store


@contextmanager
def _terminal(width: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("list", "leaderboard"):
            patch.setattr(f"pixeltune.cli.{name}.console", lambda: _console(width))
        yield


def _console(width: int) -> Console:
    return Console(width=width, force_terminal=True, color_system=None)


def _trials(said: str) -> list[str]:
    return [word for line in said.splitlines() for word in line.split()[1:2] if re.fullmatch(r"\d{5}", word)]


def test_the_best_are_shown_and_all_on_demand(search: SearchStore) -> None:
    said = done("leaderboard", "wide")
    assert said.startswith("Trials of wide: 14 finished, 1 failed.\n")
    assert len(_trials(said)) == 10
    assert _trials(said)[0] == "00005"
    assert "\n… 4 more; --all shows them\n" in said
    assert len(_trials(done("leaderboard", "wide", "--all"))) == 14
    assert "more;" not in done("leaderboard", "wide", "--all")
    assert _trials(done("leaderboard", "wide", "--top", "2")) == ["00005", "00006"]
    assert "… 12 more; --all shows them" in done("leaderboard", "wide", "--top", "2")
    assert "not allowed with" in refused("leaderboard", "wide", "--top", "2", "--all")


def test_it_is_the_order_at_the_end_of_a_search(search: SearchStore) -> None:
    places = ranked(search.trials(), "valid_bits_per_dim", None, list(search.manifest().vary), {})
    assert _trials(done("leaderboard", "wide", "--all")) == [place["trial"] for place in places]


def test_files_have_all_rows_with_all_digits(search: SearchStore) -> None:
    search.write_trial(_row(5, 2.123456789012345))
    rows = list(csv.DictReader(io.StringIO(done("leaderboard", "wide", "--csv"))))
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 15)]
    assert rows[0]["trial"] == "00005"
    assert float(rows[0]["valid_bits_per_dim"]) == 2.123456789012345
    assert rows[0]["images_seen"] == "6400"
    found = json.loads(done("leaderboard", "wide", "--json"))
    assert len(found) == 14
    assert found[0]["valid_bits_per_dim"] == 2.123456789012345
    assert [row["trial"] for row in found] == [row["trial"] for row in rows]
    assert len(json.loads(done("leaderboard", "wide", "--json", "--top", "3"))) == 3
    assert "not allowed with" in refused("leaderboard", "wide", "--csv", "--json")


def test_latex_is_a_tabular_with_every_column(search: SearchStore) -> None:
    lines = done("leaderboard", "wide", "--latex").splitlines()
    assert lines[0] == r"% Needs \usepackage{booktabs}."
    assert (lines[1], lines[-1]) == (r"\begin{tabular}{rlllrrrrrrrrr}", r"\end{tabular}")
    rows = [line for line in lines if line.endswith(r" \\")]
    assert len(rows) == 15
    assert {row.count(" & ") for row in rows} == {12}
    assert not re.search(r"(?<!\\)[_%#]", "\n".join(rows))


def test_bounds_unconfirmed_bits_and_constraints_are_as_at_the_end_of_a_search() -> None:
    space = make_space(constraints={"num_parameters": 1000})
    store = make_store("results", "small", space)
    store.write_trial(_row(0, 2.0, num_parameters=2000))
    store.write_trial(_row(1, 2.1, num_parameters=900, bits_verified=False, bits_unverified_reason="other bits"))
    store.write_trial(_row(2, 3.0, num_parameters=900, is_bound=True))
    said = done("leaderboard", "small")
    lines = {line.split()[1]: line for line in said.splitlines() if re.match(r"[\d–] +0000\d", line)}
    assert list(lines) == ["00002", "00001", "00000"]
    assert lines["00002"].split()[0] == "1"
    assert "≤ 3.0000" in lines["00002"]
    assert lines["00001"].split()[0] == lines["00000"].split()[0] == "–"
    assert "num_parameters 2,000 above 1,000" in lines["00000"]
    assert "Trial 00001 is not confirmed: other bits." in said
    assert r"$\leq$ 3.0000" in done("leaderboard", "small", "--latex")
    store.write_trial(_row(2, 3.0, num_parameters=1001))
    assert "No trial keeps to the constraints, with bits that a code confirms." in done("leaderboard", "small")


def test_several_objectives_have_a_front() -> None:
    store = make_store(
        "results", "two", make_space(objectives=("valid_bits_per_dim", "num_parameters"), scheduler=None)
    )
    for number, (bits, count) in enumerate([(3.0, 100), (3.1, 50), (3.2, 200)]):
        store.write_trial(_row(number, bits, num_parameters=count))
    said = done("leaderboard", "two")
    assert (
        "Front of valid_bits_per_dim and num_parameters: 2 finished trials that no other beats: 00000, 00001." in said
    )
    with _terminal(60):
        assert "parameters" in done("leaderboard", "two").splitlines()[1]


def test_a_final_has_its_means_and_what_validation_chose() -> None:
    shutil.copytree(RESULTS, "results")
    said = done("leaderboard", "toy-final")
    assert said.startswith("Runs of toy-final: 2 finished.\n")
    assert re.search(r"(?m)^1 +00000 +3\.37525 +2 +3\.75490 ± 0\.05226 +166\.573 +lowest mean$", said)
    assert "First on validation: 00000; the test set chooses none." in said
    (row,) = json.loads(done("leaderboard", "toy-final", "--json"))
    assert row["runs"] == ["00000", "00001"]
    (line,) = csv.DictReader(io.StringIO(done("leaderboard", "toy-final", "--csv")))
    assert line["runs"] == "00000 00001"
    assert float(line["bits_per_dim"]) == row["bits_per_dim"]
    assert r"3.75490 $\pm$ 0.05226" in done("leaderboard", "toy-final", "--latex")


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_bits_per_dim_and_trial_are_whole_on_any_terminal(width: int, search: SearchStore) -> None:
    for number in range(3):
        search.write_trial(_row(number, 2.0 + number / 7, is_bound=True))
    shutil.copytree(RESULTS / "toy-final", "results/toy-final")
    with _terminal(width):
        said, final, every = done("leaderboard", "wide"), done("leaderboard", "toy-final"), done("list")
    for number in range(3):
        assert any(f"{number:05d}" in line and f"≤ {2.0 + number / 7:.4f}" in line for line in said.splitlines())
    assert any("00000" in line and "3.75490 ± 0.05226" in line for line in final.splitlines())
    assert any("toy-final" in line and "3.75490 ± 0.05226 (test)" in line for line in every.splitlines())
    assert all(len(line) <= width for line in said.splitlines()[1:12])
    assert ("Not shown in" in said) == (width < 120)


def test_rows_of_one_table_fit_the_other(search: SearchStore) -> None:
    """The table at the end of a search is made of the same columns."""
    places = ranked(search.trials(), "valid_nats", 3, ["optim.lr"], {"gpu_seconds": 5.0})
    columns, rows = search_table(places, ["optim.lr"], ("valid_nats",), {"gpu_seconds": 5.0})
    assert {len(row) for row in rows} == {len(columns)}
    always = [column.title for column in columns if not column.priority]
    assert always == ["trial", "bits/dim", "nats"]
    assert "gpu_seconds unknown" in rows[0]


def test_a_search_that_runs() -> None:
    store = make_store("results", "busy")
    store.write_trial(_row(0, 3.0))
    store.write_trial(_row(1, None, status="running"))
    store.write_curve("00001", 1, [make_report(100, 2.5), make_report(200, 2.7)])
    with store.lock():
        assert "Trials of busy: 1 finished, 1 running." in done("leaderboard", "busy")
        line = done("list").splitlines()[1]
    assert line.split()[:6] == ["busy", "search", "running", "1", "of", "2"]
    assert "2.5000" in line
    assert "00001" in line
    assert done("list").splitlines()[1].split()[2] == "unfinished"


def test_a_damaged_row_is_quarantined_and_the_rest_is_shown(search: SearchStore) -> None:
    (Path(search.trials_folder) / "00005-1.parquet").write_bytes(b"PAR1 damaged")
    with pytest.warns(StoreWarning, match="left out"):
        said = done("leaderboard", "wide")
    assert _trials(said)[0] == "00006"
    assert "3.0100" in done("list")


def test_a_search_that_cannot_be_read_hides_no_other(search: SearchStore) -> None:
    make_store("results", "broken")
    Path("results/broken/search.json").write_text("{", encoding="utf-8")
    shutil.copytree(RESULTS / "toy-final", "results/toy-final")
    next(Path("results/toy-final/images").iterdir()).unlink()
    said = done("list")
    lines = {line.split()[0]: line for line in said.splitlines()[1:4]}
    assert "unreadable" in lines["broken"]
    assert "3.0000" in lines["wide"]
    assert "ended" in lines["toy-final"]
    assert "broken: search.json must be whole" in said
    assert "toy-final: a finished final run must have the nats of its test images" in said
    assert "search.json must be whole" in refused("leaderboard", "broken")


def test_searches_have_a_kind_and_a_status() -> None:
    for name, space, statuses in (
        ("failed", make_space(), ["failed", "failed"]),
        ("stopped", make_space(), ["finished", "interrupted"]),
        ("alone", SearchSpace(base=make_config()), ["finished"]),
        ("begun", make_space(), []),
    ):
        store = make_store("results", name, space)
        for number, status in enumerate(statuses):
            store.write_trial(_row(number, 3.0 + number, status=status))
    shutil.copytree(RESULTS / "toy-final", "results/toy-final")
    found = {each["search"]: each for each in json.loads(done("list", "--json"))}
    assert {name: (each["kind"], each["status"]) for name, each in found.items()} == {
        "alone": ("training", "ended"),
        "begun": ("search", "no trials"),
        "failed": ("search", "no result"),
        "stopped": ("search", "unfinished"),
        "toy-final": ("final of toy", "ended"),
    }
    assert found["toy-final"]["best"]["split"] == "test"
    assert found["failed"]["best"] is None
    assert found["stopped"]["last_at"].startswith("2026-11-22T12:30:15")
    assert "Trials of failed: 2 failed.\nNo trial has a number." in done("leaderboard", "failed")
    assert "Trials of begun: none." in done("leaderboard", "begun")
    assert done("leaderboard", "begun", "--csv") == ""
    assert json.loads(done("leaderboard", "begun", "--json")) == []


def test_searches_are_sorted_and_cut() -> None:
    for number, bits in enumerate([3.2, 3.0, 3.1]):
        store = make_store("results", f"s{number}")
        store.write_trial(_row(0, bits, started_at=make_row()["started_at"].replace(month=number + 1)))
    make_store("results", "empty")

    def names(*words: str) -> list[str]:
        lines = done("list", *words).splitlines()[1:]
        return [line.split()[0] for line in lines if not line.startswith(("…", "One of them"))]

    assert names() == ["empty", "s0", "s1", "s2"]
    assert names("--sort", "best") == ["s1", "s2", "s0", "empty"]
    assert names("--sort", "date")[-3:] == ["s2", "s1", "s0"]
    assert names("--top", "1") == ["empty"]
    assert "… 3 more; --all shows them" in done("list", "--top", "1")


def test_an_empty_storage_has_no_search() -> None:
    assert done("list").startswith("No search in results; ")
    Path("results").mkdir()
    assert done("list").startswith("No search in results; ")
    assert json.loads(done("list", "--json")) == []
    assert "there is nothing at elsewhere" in refused("list", "--storage", "elsewhere")
    assert "a search must have been begun to be read" in refused("leaderboard", "none")


def test_a_storage_may_be_a_uri_or_a_folder_of_one_search(search: SearchStore) -> None:
    uri = Path("results").absolute().as_uri()
    said = done("list", "--storage", uri)
    assert said.splitlines()[:-1] == done("list").splitlines()[:-1]
    assert said.splitlines()[-1] == f"One of them: pixeltune leaderboard NAME --storage {uri}"
    assert done("leaderboard", "wide", "--storage", uri) == done("leaderboard", "wide")
    assert "wide" in done("list", "--storage", "results/wide")
