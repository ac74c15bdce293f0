"""The table of seeded faults fits the code, and its program reads what pytest says."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from benchmarks.mutation_table import MUTATIONS, Mutation
from benchmarks.mutations import ROOT, StaleError, _outcome, mutated, table


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.id)
def test_a_mutation_changes_one_place_of_the_code(mutation: Mutation) -> None:
    source = (ROOT / mutation.file).read_text(encoding="utf-8")
    faulty = mutated(source, mutation)
    assert ast.dump(ast.parse(faulty)) != ast.dump(ast.parse(source))
    assert all((ROOT / path).exists() for path in mutation.tests)


def test_every_mutation_has_a_name_of_its_own() -> None:
    counts = Counter(mutation.id for mutation in MUTATIONS)
    assert counts.most_common(1)[0][1] == 1


def test_a_mutation_that_does_not_fit_is_refused() -> None:
    with pytest.raises(StaleError, match="occurs 2 times"):
        mutated(f"{MUTATIONS[0].old}\n{MUTATIONS[0].old}", MUTATIONS[0])


@pytest.mark.parametrize(
    ("code", "output", "failed", "problem"),
    [
        (0, "3 passed", (), ""),
        (1, "FAILED tests/a.py::test_b[c - d] - assert 1 == 2\n1 failed", ("tests/a.py::test_b[c",), ""),
        (2, "ERROR tests/a.py - ImportError: no\n1 error", ("tests/a.py",), ""),
        (5, "no tests ran", (), "pytest ended with 5: no tests ran"),
        (4, "ERROR: file or directory not found", (), "pytest ended with 4: ERROR: file or directory not found"),
    ],
)
def test_a_run_is_read(code: int, output: str, failed: tuple[str, ...], problem: str) -> None:
    assert (_outcome(code, output).failed, _outcome(code, output).problem) == (failed, problem)


def test_the_total_counts_what_was_killed() -> None:
    result = {"id": "a", "area": "masks", "status": "killed", "stage": "targeted", "test": "t", "seconds": 1.5}
    lines = table([result, result | {"id": "b", "status": "survived"}]).splitlines()
    assert lines[2] == "| a | masks | killed | targeted | t | 1.5 |"
    assert lines[-1] == "1 of 2 killed in 3 s."
