"""What faults do to a search: `uv run benchmarks/faults.py [--moments 20] [--only NAME …] [--out FILE]`.

Searches of trials that train nothing (tests/support/noop.py) meet with each fault at each of so many moments, spread
from their start to their end and the same in every run of this file. Afterwards every trial must have ended once, with
all its reports, each once, and the numbers that are its own; what had ended before the fault must stand as it stood; no
process may be left, and no launch may take longer than minutes. Faults of the store run without Ray
(`tests/support/store_faults.py`), the others under it, launched as a user does (`tests/support/ray_faults.py`); no
other Ray may run on the machine meanwhile. Prints a table for RESULTS.md.

What has been run stands in --out, and is not run again: the same command goes on. A run that failed is shown with the
command that repeats it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support import ray_faults, store_faults
from tests.support.fault_runner import Runner

OUT = Path(__file__).with_name("faults.json")
KINDS = (
    "rows_lost",
    "rows_doubled",
    "reports_lost",
    "reports_doubled",
    "wrong",
    "hangs",
    "left_behind",
    "other",
)
_AT_ONCE = 2
"""Moments that a standing Ray sees of its faults before the next kind of Ray is started."""

Run = dict[str, Any]
"""A Harm as a dictionary, with `fault`, `level` and `moment`."""


def spread(moments: int, most: int = store_faults.MOMENTS) -> list[int]:
    """So many moments of all, in an order whose every beginning is spread from start to end."""
    return [(7 * number + 5) % most for number in range(min(moments, most))]


def level_of(name: str) -> str:
    """Store or Ray."""
    return "store" if name in store_faults.FAULTS else "Ray"


def main() -> None:
    """Run what is not done yet, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = (*store_faults.FAULTS, *ray_faults.FAULTS)
    parser.add_argument("--moments", type=int, default=store_faults.MOMENTS, help=f"of {store_faults.MOMENTS}")
    parser.add_argument("--moment", type=int, help="this one alone, though it has been run")
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    runs = _read(options.out)
    if options.moment is not None:
        runs = [run for run in runs if (run["fault"] in options.only, run["moment"]) != (True, options.moment)]
    moments = spread(options.moments) if options.moment is None else [options.moment]
    done = {(run["fault"], run["moment"]) for run in runs}
    wanted = [(name, moment) for name, moment in in_order(options.only, moments) if (name, moment) not in done]
    end = time.monotonic() + 60 * options.minutes
    with Runner() as runner:
        for name, moment in wanted:
            if time.monotonic() > end:
                break
            harm = runner.harm_at(name, moment)
            runs.append({"fault": name, "level": level_of(name), "moment": moment} | harm.plain())
            _write(options.out, runs)
            print(
                f"{name}, moment {moment}: {harm.seconds:.1f} s\n{_indented(harm.plain()['words'])}", end="", flush=True
            )
    _print(runs)
    sys.exit(any(run[kind] for run in runs for kind in KINDS))


def in_order(names: Sequence[str], moments: Sequence[int]) -> list[tuple[str, int]]:
    """Store faults first, then a few moments of all on each kind of Ray."""
    store = [(name, moment) for name in names if level_of(name) == "store" for moment in moments]
    of_ray = [name for name in names if level_of(name) == "Ray"]
    places = {name: ray_faults.FAULTS[name].place for name in of_ray}
    under_ray = [
        (name, moment)
        for first in range(0, len(moments), _AT_ONCE)
        for place in sorted(set(places.values()))
        for moment in moments[first : first + _AT_ONCE]
        for name in of_ray
        if places[name] == place
    ]
    return store + under_ray


def _read(path: Path) -> list[Run]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def _write(path: Path, runs: list[Run]) -> None:
    lines = ",\n".join(json.dumps(run) for run in runs)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _print(runs: list[Run]) -> None:
    names = [name.replace("_", " ") for name in KINDS]
    print(f"\n| fault | level | moments | {' | '.join(names)} | seconds, median | seconds, most |")
    print(f"|---|---|--:|{'--:|' * len(KINDS)}--:|--:|")
    for fault in dict.fromkeys(run["fault"] for run in runs):
        mine = [run for run in runs if run["fault"] == fault]
        sums = " | ".join(str(sum(run[kind] for run in mine)) for kind in KINDS)
        seconds = [run["seconds"] for run in mine if run["seconds"] == run["seconds"]] or [float("nan")]
        print(
            f"| {fault} | {mine[0]['level']} | {len({run['moment'] for run in mine})} | {sums} | "
            f"{statistics.median(seconds):.1f} | {max(seconds):.1f} |"
        )
    for run in runs:
        if run["words"]:
            print(f"\n--only {json.dumps(run['fault'])} --moment {run['moment']}\n{_indented(run['words'])}", end="")


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


if __name__ == "__main__":
    main()
