"""What the doctor's table says of nodes that differ, from faked facts; and the line that refuses a search by it."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from pixeltune.cli import doctor as verb
from pixeltune.errors import SearchError
from pixeltune.preflight.checks import NodeFacts
from pixeltune.preflight.node_table import COLUMNS, NodeRow, Wanted, node_rows, require_fit, to_do

VERSIONS = {"python": "3.11.7", "torch": "2.15.0", "ray": "2.60.0", "optuna": "5.0.0", "pixeltune": "0.1"}
HEAD = NodeFacts("head (10.0.0.1)", VERSIONS, data="abc")
WORKER = NodeFacts(
    "worker (10.0.0.2)",
    VERSIONS,
    ahead=0.1,
    data="abc",
    gpus=("NVIDIA A10G",),
    ray_gpus=1.0,
    host_address="10.0.0.2",
)
WANTED = Wanted(
    VERSIONS, storage="s3://bucket/r", seen=frozenset({HEAD.name, WORKER.name}), data="mnist", checksum="abc", gpus=1.0
)
MEET = replace(WANTED, gpus=0.0, meet=True)
COMPILED = replace(WANTED, compiles=True)


def cell(column: str, wanted: Wanted = WANTED, **changes: object) -> tuple[str, str, bool]:
    """Of the worker, changed: verdict, words, whether it says what to do."""
    (row,) = node_rows([replace(WORKER, **changes)], wanted)
    found = row.cells[column]
    return str(found.verdict), found.found, bool(found.advice)


@pytest.mark.parametrize(
    ("got", "verdict", "words"),
    [
        (cell("versions"), "ok", "as here"),
        (cell("versions", versions=VERSIONS | {"pixeltune": None}), "ok", "as here"),
        (cell("versions", versions=VERSIONS | {"optuna": None}), "warn", "optuna missing (here 5.0.0)"),
        *[
            (cell("versions", versions=VERSIONS | {name: "1.0"}), "fail", f"{name} 1.0 (here {VERSIONS[name]})")
            for name in ("python", "torch", "ray")
        ],
        (cell("GPU"), "ok", "NVIDIA A10G"),
        (cell("GPU", gpus=()), "fail", "1 for Ray, none for torch"),
        (cell("GPU", gpus=(), ray_gpus=0.0), "ok", "none"),
        (cell("GPU", replace(WANTED, gpus=0.0)), "skipped", "not asked for"),
        (cell("storage"), "ok", "shared"),
        (cell("storage", replace(WANTED, seen=frozenset())), "fail", "of its own: what it writes is not seen here"),
        (cell("storage", storage_error="Read-only"), "fail", "not writable (Read-only)"),
        (cell("storage", replace(WANTED, storage="")), "skipped", "one machine"),
        (cell("data"), "ok", "mnist abc"),
        (cell("data", data="x"), "fail", "mnist, other images than here"),
        (cell("data", data=None, data_error="no file"), "fail", "mnist missing (no file)"),
        (cell("data", data=None, data_download="is not in /d"), "warn", "mnist is not in /d"),
        (cell("data", replace(WANTED, data="")), "skipped", "not asked for"),
        (cell("clock"), "ok", "+0.1 s"),
        (cell("clock", ahead=5.0), "warn", "5.0 s ahead"),
        (cell("clock", ahead=-600.0), "fail", "600.0 s behind"),
        (cell("address", MEET), "ok", "10.0.0.2"),
        (cell("address", MEET, host_address="127.0.1.1"), "warn", "hostname resolves to 127.0.1.1"),
        (cell("address", MEET, host_address="::1"), "warn", "hostname resolves to ::1"),
        (cell("address", MEET, host_address=""), "warn", "hostname does not resolve"),
        (cell("address", host_address="127.0.1.1"), "skipped", "not needed"),
        (cell("compiler"), "skipped", "not needed"),
        (cell("compiler", COMPILED), "ok", "installed"),
        (
            cell("compiler", COMPILED, compiler_error="g++ is not installed", compiler_advice="install g++"),
            "fail",
            "g++ is not installed",
        ),
    ],
)
def test_cells(got: tuple[str, str, bool], verdict: str, words: str) -> None:
    assert got == (verdict, words, verdict in ("warn", "fail"))


def differing() -> list[NodeRow]:
    old = replace(
        WORKER,
        name="third (10.0.0.3)",
        versions=VERSIONS | {"torch": "2.14.0", "optuna": "4.9.0"},
        gpus=(),
        ahead=-75.0,
        data=None,
        data_error="[/data]/mnist/raw must hold train-images-idx3-ubyte",
    )
    return node_rows([HEAD, replace(WORKER, ahead=3.0), old], WANTED)


def test_a_search_is_refused_in_one_line_that_names_node_and_thing() -> None:
    with pytest.raises(SearchError) as refused:
        require_fit(differing())
    line = str(refused.value)
    assert "\n" not in line
    for words in (
        "third (10.0.0.3) has versions: torch 2.14.0 (here 2.15.0), optuna 4.9.0 (here 5.0.0), "
        "GPU: 1 for Ray, none for torch, storage: of its own: what it writes is not seen here, data: mnist missing (",
        "clock: 75.0 s behind",
        "install the same versions on all nodes",
        "let NTP set the clocks",
    ):
        assert words in line
    assert "head (" not in line
    assert "worker (" not in line, "a warning refuses nothing"


def test_warnings_are_lines_and_a_fit_cluster_is_none() -> None:
    rows = node_rows([HEAD, replace(WORKER, ahead=3.0)], WANTED)
    (line,) = require_fit(rows)
    assert line.startswith("worker (10.0.0.2) has clock: 3.0 s ahead; let NTP set")
    assert require_fit(node_rows([HEAD, WORKER], WANTED)) == []
    assert to_do(node_rows([HEAD, WORKER], WANTED)) == []


def test_what_to_do_stands_once_with_its_nodes() -> None:
    lines = to_do(differing())
    assert [line for line in lines if "NTP" in line] == [
        "worker (10.0.0.2), third (10.0.0.3): let NTP set the clocks; times in the rows, and leases on object storage, "
        "follow them."
    ]


@pytest.mark.parametrize("columns", [80, 140])
def test_the_table_has_a_row_a_node_and_says_verdicts_in_words(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    monkeypatch.setattr(verb, "console", lambda: Console(width=columns, file=sys.stdout))
    verb.show_nodes(differing())
    said = capsys.readouterr().out
    lines = said.splitlines()
    asked = [column for column in COLUMNS if column not in ("address", "compiler")]
    assert lines[0].split() == ["node", *asked]
    assert max(map(len, lines)) <= columns
    flat = "".join(said.split())
    for words in ("fail:75.0s", "warn:3.0s", "NVIDIAA10G"):
        assert words in flat
    assert "[/data]" in flat or columns == 80, "brackets of what was found are no markup"
    assert "\x1b" not in said
