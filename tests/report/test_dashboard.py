"""`pixeltune dashboard`: a server over loopback, its answers, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pixeltune.cli import main
from pixeltune.results import live_search, optuna_storage
from tests.support.optional import require
from tests.support.results import make_report, make_row, make_space, make_store

require("optuna_dashboard")
import optuna_dashboard._storage

from pixeltune.report.dashboard_server import DashboardServer
from pixeltune.results.optuna_storage import ReadOnlyStorage

pytestmark = pytest.mark.needs("optuna_dashboard")


@pytest.fixture(autouse=True)
def always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the files at every request; the dashboard itself keeps trials for two seconds."""
    for module in (live_search, optuna_storage):
        monkeypatch.setattr(module, "_SECONDS", {False: -1.0, True: -1.0})
    monkeypatch.setattr(optuna_dashboard._storage, "timedelta", lambda **_: timedelta(0))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a dashboard of all searches in a folder."""
    with DashboardServer(ReadOnlyStorage(str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server.url.removesuffix("/dashboard")
        finally:
            server.shutdown()
            thread.join()


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def detail_of(base: str, name: str = "toy", query: str = "") -> Any:
    [study] = [each for each in get(f"{base}/api/studies")["study_summaries"] if each["study_name"] == name]
    return get(f"{base}/api/studies/{study['study_id']}{query}")


def test_a_search_that_grows_is_served(tmp_path: Path) -> None:
    store = make_store(tmp_path, "toy")
    with served(tmp_path) as base:
        with urllib.request.urlopen(f"{base}/dashboard", timeout=20) as page:
            assert "text/html" in page.headers["Content-Type"]
        assert detail_of(base)["trials"] == []
        store.write_trial(make_row(0, status="running"))
        store.write_curve("00000", 1, [make_report(1600, 2.5)])
        [trial] = detail_of(base)["trials"]
        assert (trial["state"], trial["intermediate_values"]) == ("Running", [{"step": 1600, "value": 2.5}])
        store.write_trial(make_row(0, valid_bits_per_dim=2.25, num_parameters=1234))
        store.write_trial(make_row(1, status="running"))
        detail = detail_of(base)
        assert [trial["state"] for trial in detail["trials"]] == ["Complete", "Running"]
        assert detail["trials"][0]["values"] == [2.25]
        assert {"key": "num_parameters", "value": "1234"} in detail["trials"][0]["user_attrs"]
        assert [trial["number"] for trial in detail["best_trials"]] == [0]
        assert (detail["directions"], detail["objective_names"]) == (["minimize"], ["valid_bits_per_dim"])
        make_store(tmp_path, "later")
        names = {each["study_name"] for each in get(f"{base}/api/studies")["study_summaries"]}
        assert names == {"toy", "later"}


@pytest.mark.parametrize("query", ["", "?after=0", "?after=3"])
def test_best_trials_are_those_within_the_constraints(tmp_path: Path, query: str) -> None:
    objectives = ("valid_bits_per_dim", "num_parameters")
    bounds = {"peak_memory_bytes": 10.0}
    one = make_store(tmp_path, "one", make_space(constraints=bounds))
    two = make_store(tmp_path, "two", make_space(objectives=objectives, scheduler=None, constraints=bounds))
    none = make_store(tmp_path, "none", make_space(constraints=bounds))
    for number, (bits, size, memory) in enumerate([(1.0, 10, 20), (2.0, 20, 5), (3.0, 15, 5), (4.0, 30, 5)]):
        row = make_row(number, valid_bits_per_dim=bits, num_parameters=size, peak_memory_bytes=memory)
        one.write_trial(row)
        two.write_trial(row)
    none.write_trial(make_row(0, valid_bits_per_dim=1.0, peak_memory_bytes=20))
    with served(tmp_path) as base:
        for name, wanted in {"one": [1], "two": [1, 2], "none": []}.items():
            detail = detail_of(base, name, query)
            assert [trial["number"] for trial in detail["best_trials"]] == wanted, name
        assert len(detail_of(base, "one", query)["trials"]) == (1 if query == "?after=3" else 4)


def test_importances_plots_and_a_table_are_served(tmp_path: Path) -> None:
    store = make_store(tmp_path, "toy")
    for number in range(12):
        row = make_row(number, valid_bits_per_dim=2.0 + (number * 7 % 12) / 10)
        store.write_trial(row | {"model.layers": 2 + number, "optim.lr": 10 ** (-4 + number / 6)})
    with served(tmp_path) as base:
        [study] = get(f"{base}/api/studies")["study_summaries"]
        [importances] = get(f"{base}/api/studies/{study['study_id']}/param_importances")["param_importances"]
        assert {each["name"] for each in importances} >= {"optim.lr", "model.layers"}
        with urllib.request.urlopen(f"{base}/csv/{study['study_id']}", timeout=20) as table:
            lines = table.read().decode().splitlines()
        assert len(lines) == 13
        assert lines[0].startswith("Number,State,valid_bits_per_dim,")


def test_a_gallery_is_served_and_other_files_are_not(tmp_path: Path) -> None:
    store = make_store(tmp_path, "toy")
    store.write_trial(make_row(0, valid_bits_per_dim=2.0))
    (tmp_path / "toy" / "samples").mkdir()
    (tmp_path / "toy" / "samples" / "00000.png").write_bytes(b"\x89PNG picture")
    with served(tmp_path) as base:
        [study] = get(f"{base}/api/studies")["study_summaries"]
        [trial] = detail_of(base)["trials"]
        [artifact] = trial["artifacts"]
        address = f"{base}/artifacts/{study['study_id']}/{trial['trial_id']}/{artifact['artifact_id']}"
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert (answer.headers["Content-Type"], answer.read()) == ("image/png", b"\x89PNG picture")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address[:-1] + "0" * (address[-1] != "0") + "1" * (address[-1] == "0"), timeout=20)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/studies/{study}/note"),
        ("PUT", "/api/studies/{study}/{trial}/note"),
        ("POST", "/api/studies"),
        ("POST", "/api/studies/{study}/rename"),
        ("DELETE", "/api/studies/{study}"),
        ("POST", "/api/studies/{study}/preference"),
        ("PUT", "/api/studies/{study}/preference_feedback_component"),
        ("POST", "/api/trials/{trial}/tell"),
        ("POST", "/api/trials/{trial}/user-attrs"),
        ("POST", "/api/artifacts/{study}/{trial}"),
        ("DELETE", "/api/artifacts/{study}/{trial}/00"),
    ],
)
def test_a_change_is_refused_with_a_reason_and_the_server_goes_on(tmp_path: Path, method: str, path: str) -> None:
    make_store(tmp_path, "toy").write_trial(make_row(0, status="running"))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with served(tmp_path) as base:
        [study] = get(f"{base}/api/studies")["study_summaries"]
        [trial] = detail_of(base)["trials"]
        address = base + path.format(study=study["study_id"], trial=trial["trial_id"])
        body = json.dumps({"version": 1, "body": "a note", "study_name": "new", "directions": ["minimize"]}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(address, body, headers, method=method)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        assert refused.value.code == 403
        assert "only read here" in json.load(refused.value)["reason"]
        assert detail_of(base)["note"]["body"] == ""
        assert len(get(f"{base}/api/studies")["study_summaries"]) == 1
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


# The command


def test_a_port_in_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path, "toy")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        assert main(["dashboard", "--storage", str(tmp_path), "--port", str(number)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith(f"pixeltune: --port must be free on 127.0.0.1, but {number} is not (")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_port_must_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str], port: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", "--storage", str(tmp_path), f"--port={port}"])
    assert ended.value.code == 2
    assert f"must be a port, 1 to 65535, but got '{port}'" in capsys.readouterr().err


def test_a_search_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "missing", "--storage", str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "a search must have been begun to be read" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_command(tmp_path: Path, number: signal.Signals) -> None:
    make_store(tmp_path, "toy")
    with subprocess.Popen(
        [sys.executable, "-m", "pixeltune", "dashboard", "--storage", "."],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Serving 1 search of . at http://127.0.0.1:")
        address = line.split()[6]
        with urllib.request.urlopen(address, timeout=20) as page:
            assert page.status == 200
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
