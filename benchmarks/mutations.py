"""Seed faults into the code and count how many the fast tests find: `uv run benchmarks/mutations.py --out FILE.json`.

Each fault of `mutation_table.py` is put into a copy of a checkout, and pytest runs there until the first failure: first
the test files that the table names, then, with --whole, the whole fast suite. A fault that no test finds has survived.

    uv run benchmarks/mutations.py --out before.json                          # the targeted tests of every fault
    uv run benchmarks/mutations.py --out before.json --whole --processes 2    # then the whole suite for the survivors
    uv run benchmarks/mutations.py --only mask-over-both-gates --again --out before.json
    uv run benchmarks/mutations.py --checkout ../other --out after.json       # another checkout and its own tests

Results are stored in --out after each run, and the same command continues where it was stopped. Tests that fail without
any fault are found first, once for each test file, and left out. Every copy has its own data cache and temporary
folder; PYTHONPATH puts its `pixeltune` before the installed one. Prints a Markdown table and the total.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from benchmarks.mutation_table import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[1]
WHOLE = "tests"
"""The path of the whole fast suite."""
_OWN_TEST = "tests/benchmarks/test_mutations.py"
"""It compares the table with the code, and so fails with every fault."""
_FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
_SETTINGS = ("PIXELTUNE_", "PYTEST_", "RAY_")
"""Beginnings of environment variables that a run must not inherit."""

Result = dict[str, Any]
"""`id`, `area`, `status` (killed, survived, error), `stage` (targeted, whole), `test` and `seconds`."""


class StaleError(Exception):
    """A mutation that does not fit the code any more."""


def mutated(source: str, mutation: Mutation) -> str:
    """Return the source with the fault; StaleError if the table does not fit it."""
    count = source.count(mutation.old)
    if count != 1:
        raise StaleError(f"`old` must occur once in {mutation.file}, but occurs {count} times: {mutation.old!r}")
    return source.replace(mutation.old, mutation.new)


# --- Running tests in a copy ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The result of one run of pytest. failed: tests and files that failed. problem: why there is no result."""

    failed: tuple[str, ...]
    problem: str = ""


class Copy:
    """A copy of a checkout in which tests run, with its own cache and temporary files."""

    def __init__(self, checkout: Path, folder: Path, *, timeout: float) -> None:
        self.root = folder / "repo"
        self._own = [folder / "cache", folder / "tmp"]
        self._timeout = timeout
        listed = subprocess.run(["git", "-C", checkout, "ls-files", "-z"], capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (checkout / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(checkout / name, self.root / name)
        self._require_own_package()

    def environment(self) -> dict[str, str]:
        """The variables under which tests run."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
        cache, temporary = map(str, self._own)
        own = {"PYTHONPATH": str(self.root), "PIXELTUNE_CACHE": cache, "TMPDIR": temporary}
        return plain | own | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}

    @contextmanager
    def holding(self, mutation: Mutation) -> Iterator[None]:
        """Within, the copy has the fault; StaleError if it cannot."""
        path = self.root / mutation.file
        if not path.is_file():
            raise StaleError(f"{mutation.file} does not exist")
        source = path.read_text(encoding="utf-8")
        try:
            self._write(path, mutated(source, mutation))
            yield
        finally:
            self._write(path, source)

    def test(self, paths: Sequence[str], *options: str, timeout: float | None = None) -> Outcome:
        """Run the fast tests of these paths."""
        for folder in self._own:  # a faulty cache must not reach the next run
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        plain = [
            "-q",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            "-m",
            "not slow",
            "-rfE",
            "--tb=line",
            "--hypothesis-seed=0",
        ]
        plain.append(f"--ignore={_OWN_TEST}")
        command = [sys.executable, "-m", "pytest", *plain, *options, *paths]
        # A session of its own, so that a timeout ends what the tests have started too.
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout or self._timeout)
        except subprocess.TimeoutExpired:
            return Outcome(("timeout",))
        finally:
            _end(process)
        return _outcome(process.returncode, output)

    def _require_own_package(self) -> None:
        """Fail if another pixeltune than the copy's would be tested."""
        code = "import pixeltune; print(pixeltune.__file__)"
        found = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.root.parent,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        package = Path(found.stdout.strip())
        assert package.is_relative_to(self.root), f"tests must import the copy's pixeltune, but import {package}"

    @staticmethod
    def _write(path: Path, source: str) -> None:
        # Python compares compiled files by size and whole seconds, which two faults of a file may share.
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        path.write_text(source, encoding="utf-8")


def _outcome(code: int, output: str) -> Outcome:
    """Read pytest's exit code and summary."""
    failed = tuple(_FAILED.findall(output))
    if code == 0:
        return Outcome(())
    if code in (1, 2) and failed:  # 2: a file could not be imported
        return Outcome(failed)
    last = " ".join(output.strip().splitlines()[-3:])
    return Outcome((), f"pytest ended with {code}: {last[:500]}")


def _end(process: subprocess.Popen[str]) -> None:
    """End a run and all that is left of its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# --- The work on one fault --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A way to test one fault. known_failures: tests that fail without it. is_whole: run the whole suite too."""

    known_failures: Sequence[str]
    is_whole: bool
    processes: int

    def run(self, mutation: Mutation, copy: Copy, *, skip_targeted: bool) -> Result:
        """Test one fault, in stages until it is found."""
        start = time.monotonic()
        left_out = [f"--deselect={name}" for name in self.known_failures]
        stages = {} if skip_targeted else {"targeted": [path for path in mutation.tests if (copy.root / path).exists()]}
        stages |= {"whole": [WHOLE]} if self.is_whole else {}
        outcome, stage = Outcome((), "none of its test files exists"), "targeted"
        try:
            with copy.holding(mutation):
                for stage, paths in stages.items():
                    if paths:
                        many = ["-n", str(self.processes)] if stage == "whole" and self.processes > 1 else []
                        outcome = copy.test(paths, "-x", *many, *left_out)
                    if outcome.failed:
                        break
        except StaleError as error:
            outcome = Outcome((), str(error))
        status = "killed" if outcome.failed else "error" if outcome.problem else "survived"
        return {
            "id": mutation.id,
            "area": mutation.area,
            "status": status,
            "stage": stage,
            "test": outcome.failed[0] if outcome.failed else outcome.problem,
            "seconds": round(time.monotonic() - start, 1),
        }


def failures_without_fault(copy: Copy, paths: Sequence[str], *options: str) -> list[str]:
    """The tests that fail in an unchanged copy."""
    outcome = copy.test(paths, *options, timeout=24 * 3600)
    if outcome.problem:
        raise SystemExit(f"the tests must run without a fault, but {outcome.problem}")
    return list(outcome.failed)


# --- The command ------------------------------------------------------------------------------------------------------


class Record:
    """The results so far, in a file. failures: by test path, the tests that fail without a fault."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, threading.Lock()
        tree = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
        self.failures: dict[str, list[str]] = tree.get("failures", {})
        self.results: dict[str, Result] = {result["id"]: result for result in tree.get("results", [])}

    def add(self, result: Result) -> None:
        """Store one result; the seconds of an earlier stage are kept."""
        with self._lock:
            earlier = self.results.get(result["id"])
            if earlier and earlier["status"] == "survived" and result["stage"] == "whole":
                result = result | {"seconds": round(earlier["seconds"] + result["seconds"], 1)}
            self.results[result["id"]] = result
            self.save()

    def is_done(self, mutation: Mutation, *, is_whole: bool) -> bool:
        """Return whether a run of this extent has nothing to add."""
        status, stage = self.stage_of(mutation)
        return status == "killed" or (status == "survived" and (stage == "whole" or not is_whole))

    def stage_of(self, mutation: Mutation) -> tuple[str, str]:
        """The status and stage of a fault, empty before its first run."""
        result = self.results.get(mutation.id, {})
        return result.get("status", ""), result.get("stage", "")

    def save(self) -> None:
        """Write the file in one step."""
        if self._path:
            lines = ",\n  ".join(json.dumps(result) for result in self.results.values())
            whole = f'{{"failures": {json.dumps(self.failures)},\n "results": [\n  {lines}\n ]}}\n'
            temporary = self._path.with_suffix(".part")
            temporary.write_text(whole, encoding="utf-8")
            temporary.replace(self._path)


def main() -> None:
    """Run what is not done yet, and print."""
    options = _options()
    record = Record(options.out)
    chosen = [mutation for mutation in MUTATIONS if not options.only or mutation.id in options.only]
    if options.again:
        for mutation in chosen:
            record.results.pop(mutation.id, None)
    wanted = [mutation for mutation in chosen if not record.is_done(mutation, is_whole=options.whole)]
    if wanted:
        with tempfile.TemporaryDirectory(prefix="pt-mutants-") as folder:
            copies = SimpleQueue[Copy]()
            for number in range(options.jobs):
                copies.put(Copy(options.checkout, Path(folder) / str(number), timeout=options.timeout))
            _check_without_fault(copies, wanted, record, options)
            _run_all(copies, wanted, record, options)
    results = [record.results[mutation.id] for mutation in chosen if mutation.id in record.results]
    print(table(results))
    sys.exit(any(result["status"] == "error" for result in results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [mutation.id for mutation in MUTATIONS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="ID", help="these faults alone")
    parser.add_argument("--jobs", type=int, default=1, help="faults tested at once, each in a copy of its own")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the repository to test, by its own tests")
    parser.add_argument("--out", type=Path, help="JSON file of results, read first to continue")
    parser.add_argument("--again", action="store_true", help="test the chosen faults again")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--targeted", action="store_true", help="stop after the named tests (default)")
    extent.add_argument("--whole", action="store_true", help="run the whole fast suite for the survivors")
    parser.add_argument("--processes", type=int, default=1, help="pytest-xdist workers for the whole suite")
    parser.add_argument(
        "--timeout", type=float, default=900.0, help="seconds of one run; a longer one counts as killed"
    )
    return parser.parse_args()


def _check_without_fault(
    copies: SimpleQueue[Copy], wanted: Sequence[Mutation], record: Record, options: argparse.Namespace
) -> None:
    """Find what fails without a fault, for each test path that was not run so yet."""
    copy = copies.get()
    paths = list(dict.fromkeys(path for mutation in wanted for path in mutation.tests))
    new = [path for path in paths if path not in record.failures and (copy.root / path).exists()]
    whole = [WHOLE] if options.whole and WHOLE not in record.failures else []
    many = ["-n", str(options.processes)] if options.processes > 1 else []
    for group, flags in ((new, []), (whole, many)):
        if group:
            start = time.monotonic()
            failed = failures_without_fault(copy, group, *flags)
            record.failures |= {path: [name for name in failed if name.startswith(path)] for path in group}
            record.save()
            seconds = time.monotonic() - start
            tests = "the whole suite" if group == whole else f"{len(group)} test files"
            print(f"without a fault: {len(failed)} failures in {tests}, {seconds:.0f} s", flush=True)
    copies.put(copy)


def _run_all(
    copies: SimpleQueue[Copy], wanted: Sequence[Mutation], record: Record, options: argparse.Namespace
) -> None:
    """Test the faults, so many at once."""
    known = sorted({name for names in record.failures.values() for name in names})
    job = Job(known, options.whole, options.processes)

    def run(mutation: Mutation) -> None:
        copy = copies.get()
        try:
            result = job.run(mutation, copy, skip_targeted=record.stage_of(mutation)[0] == "survived")
        finally:
            copies.put(copy)
        record.add(result)
        print(f"{result['id']}: {result['status']} in {result['seconds']} s, {result['test']}", flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, wanted))


def table(results: Sequence[Result]) -> str:
    """Return the results as a Markdown table, and the total."""
    lines = ["| fault | area | status | stage | first failing test | seconds |", "|---|---|---|---|---|--:|"]
    for result in results:
        cells = [str(result[name]).replace("|", "\\|") for name in ("id", "area", "status", "stage", "test", "seconds")]
        lines.append(f"| {' | '.join(cells)} |")
    killed = sum(result["status"] == "killed" for result in results)
    seconds = sum(result["seconds"] for result in results)
    return "\n".join([*lines, "", f"{killed} of {len(results)} killed in {seconds:,.0f} s."])


if __name__ == "__main__":
    main()
