"""What is recorded of commands, files and numbers, so that a change of the code's layout shows there."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.distributions import FloatDistribution, IntDistribution

import pixeltune as pt
from pixeltune.cli import command_line
from pixeltune.results.schema import CURVE_SCHEMA, IMAGE_SCHEMA, TRIAL_SCHEMA
from pixeltune.space import Asha, SearchSpace
from tests.support.commands import command
from tests.support.toy_search import toy_config, toy_space

HERE = Path(__file__).parent
RESULTS = HERE / "results"
COMMANDS = {
    "list": ("--list",),
    "status": ("status", "toy"),
    "status-of-a-final": ("status", "toy-final"),
    "status-json": ("status", "toy", "--json"),
    "show-a-search": ("show", "toy"),
    "show-a-trial": ("show", "toy/00000"),
    "show-a-final": ("show", "toy-final"),
    "compare": ("compare", "toy"),
    "compare-a-final": ("compare", "toy-final"),
    "dry-run": ("--search", "digits_quick", "--dry-run"),
    "leaderboard-of-a-final": ("leaderboard", "toy-final"),
    "columns": ("columns",),
    "config": ("config",),
}
"""Commands on a copy of the results folder, which is its default storage."""


def searched_space() -> SearchSpace:
    """Return the space of the search in the results folder."""
    vary = {"model.layers": IntDistribution(2, 3), "optim.lr": FloatDistribution(1e-3, 1e-1, log=True)}
    return toy_space(base=toy_config(), vary=vary, scheduler=Asha((100, 200)))


@contextlib.contextmanager
def results_copy() -> Iterator[Path]:
    """Work in a folder with a copy of the results as its storage, on a terminal of 100 columns."""
    before, environment = Path.cwd(), dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(RESULTS, Path(folder) / "results")
        os.chdir(folder)
        os.environ |= {"COLUMNS": "100", "HOME": folder, "PIXELTUNE_CACHE": str(Path(folder) / "cache")}
        for name in ("PIXELTUNE_STORAGE", "PIXELTUNE_DATA"):
            os.environ.pop(name, None)
        try:
            yield Path(folder) / "results"
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ |= environment


def texts() -> dict[str, str]:
    """Return what the commands print, by name, and every help text."""
    found = {f"help-{'-'.join(verb) or 'pixeltune'}": command(*verb, "--help").out for verb in _verbs()}
    found["help-launch"] = command("--help").out
    with results_copy() as folder:
        for name, words in COMMANDS.items():
            said = command(*words)
            found[name] = f"{said.out}{said.err}exit code {said.code}\n"
    return {name: _without_the_moment(text, folder) for name, text in found.items()}


def numbers() -> dict[str, Any]:
    """Return the schema of each table, the manifest's keys, and the numbers that Python users and reports see."""
    schemas = {"trials": TRIAL_SCHEMA, "curves": CURVE_SCHEMA, "images": IMAGE_SCHEMA}
    with results_copy() as folder:
        frame = pt.read_results(str(folder / "toy")).sort_values("number")
        final = pt.read_final(str(folder / "toy-final"))
        study = pt.study(str(folder / "toy"))
        manifest = json.loads((folder / "toy" / "search.json").read_text(encoding="utf-8"))
        known = ("trial", "status", "reason", "valid_bits_per_dim", "valid_nats", "images_seen", "num_parameters")
        found = {
            "schemas": {name: [f"{field.name}: {field.type}" for field in schema] for name, schema in schemas.items()},
            "manifest": manifest,
            "rows": json.loads(frame[list(known)].to_json(orient="records")),
            "curves": json.loads(pt.read_curves(str(folder))[["trial", "images_seen", "valid_nats"]].to_json()),
            "final": json.loads(final.to_json(orient="records", date_format="iso")),
            "study": [[trial.state.name, trial.params, trial.values, trial.number] for trial in study.trials],
            "comparison": json.loads(pt.compare(pt.read_results(str(folder / "toy"))).to_json(orient="records")),
        }
    return json.loads(json.dumps(found))


def _verbs() -> list[tuple[str, ...]]:
    """Return the words of every verb, those with verbs of their own included."""

    def below(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    yield from below(child, (*words, name))

    return list(below(command_line(), ()))


def _without_the_moment(text: str, folder: Path) -> str:
    """Return the text without folders and without what depends on the time and the machine."""
    text = re.sub(r"(?m)^(Cost|Devices here): .*", r"\1: …", text.replace(str(folder.parent), "FOLDER"))
    text = re.sub(r" +(\d+ d )?\d+:\d\d(:\d\d)?\b", " TIME", text, flags=re.MULTILINE)
    text = re.sub(r" +since *$", "  since", text, flags=re.MULTILINE)  # as wide as the times below it
    text = re.sub(r'"(running_seconds|silent_seconds)": [^,}]*', r'"\1": …', text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
