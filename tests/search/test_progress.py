"""What the user reads while a search runs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from optuna.distributions import IntDistribution
from rich.console import Console

from pixeltune.config import ImageSpec
from pixeltune.search import progress
from pixeltune.search.progress import Progress
from pixeltune.space import Budget, Resources
from tests.support.toy_search import BEGUN, FACTS, FINISHED, ended, play, reported, toy_config, toy_space, toy_state

FORM = ImageSpec(1, 8, 8, 17)


def shown(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_line_for_every_trial(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    state = toy_state(tmp_path, toy_space(budget=Budget(trials=6)))
    play(state, state.plan({}), BEGUN, reported(100, 2.5), reported(400, 2.5), FINISHED)
    callback = Progress(console)
    callback.begin(state, Resources(), 2, FORM)
    play(state, state.plan({"optim.lr": 0.0125}), BEGUN, reported(100, 2.6), reported(200, 2.0), FINISHED)
    callback.change()
    callback.change()
    play(state, state.plan({}), ended("diverged", "the norm is inf"))
    state.start(state.plan({}), state.space.resources)
    callback.change()
    callback.end()
    first, *lines = shown(console)
    assert first == "2 trials at a time, each 1 CPU; 1 trial done before"
    assert [line.split()[:2] for line in lines] == [["00001", "pruned"], ["00002", "diverged"]]
    assert "lr=0.0125" in lines[0]
    assert "2/6" in lines[0]
    assert "(the norm is inf)" in lines[1]
    assert "3/6" in lines[1]


def test_a_line_about_a_trial_fits_100_columns_and_marks_a_new_best(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    state = toy_state(tmp_path, toy_space(budget=Budget(trials=6)))
    callback = Progress(console)
    callback.begin(state, Resources(), 2, FORM)
    suggestion = {"likelihood.name": "logistic_mixture", "likelihood.mixtures": 4, "model.layers": 3, "optim.lr": 0.01}
    for bits in (2.5, 2.75, 2.25):
        play(state, state.plan(suggestion), BEGUN, reported(400, bits), FINISHED)
        callback.change()
    play(state, state.plan(suggestion), ended("failed", "a long reason, " * 20))
    callback.change()
    lines = shown(console)[1:]
    assert [line.endswith("  best so far") for line in lines] == [True, False, True, False]
    assert max(map(len, lines)) <= 100
    assert lines[1].startswith("00001 finished   2.7500       400 images")
    assert lines[3].endswith("…")


CIFAR10_FORM = {"image_channels": 3, "image_height": 32, "image_width": 32, "levels": 256}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "; published 2.77 bits/dim (-0.270; validation, not test)"),
        ({"levels": 16}, None),
        ({"image_channels": 1}, None),
    ],
)
def test_a_published_number_stands_there_only_for_the_same_task_and_says_what_differs(
    tmp_path: Path, facts: dict[str, int], words: str | None
) -> None:
    console = Console(file=io.StringIO(), width=80)
    state = toy_state(tmp_path, toy_space(base=toy_config().override({"data.name": "cifar10"})))
    callback = Progress(console)
    form = CIFAR10_FORM | facts
    callback.begin(state, Resources(), 2, ImageSpec(*form.values()))
    begun = {"facts": FACTS | {"data_version": "original"} | form, "resumed": []}
    play(state, state.plan({}), begun, reported(400, 2.5), FINISHED)
    line = callback._best()
    assert words in line if words else "published" not in line


def test_a_log_is_not_silent_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=80)
    state = toy_state(tmp_path)
    callback = Progress(console)
    callback.begin(state, Resources(), 2, FORM)
    plan = state.plan({})
    state.start(plan, state.space.resources)
    callback.change()
    assert len(shown(console)) == 1
    monkeypatch.setattr(progress, "_LONGEST_SILENCE", 0.0)
    state.receive(plan.trial, {"progress": {"images_seen": 50, "images_per_second": 10.0, "train_bits_per_dim": 3.25}})
    callback.change()
    state.receive(plan.trial, reported(100, 2.6))
    callback.change()
    first, second = shown(console)[1:]
    assert first.startswith("Running: 00000 50 / 400 images train 3.2500 10 images/s 0:35 to its end  | 0/20 done")
    assert "about " in first, "the time left is known from the speed of the first images"
    assert second.startswith(
        "Running: 00000 100 / 400 images rung 100 2.6000 100 images/s 0:03 to its end  | 0/20 done, 1 running"
    )


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_panel_of_a_terminal(tmp_path: Path, width: int) -> None:
    """Settings are what a narrow terminal cuts, never a number."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    state = toy_state(tmp_path)
    callback = Progress(console)
    callback.begin(state, Resources(workers=2, gpus=1.0), 1, FORM)
    play(state, state.plan({"model.layers": 5, "optim.lr": 0.05}), BEGUN, reported(400, 2.75), FINISHED)
    state.start(state.plan({"model.layers": 3, "optim.lr": 0.01}), state.space.resources)
    for bits, images in ((2.7, 100), (2.6, 200)):
        state.receive("00001", reported(images, bits))
    state.receive("00001", {"progress": {"images_seen": 250, "images_per_second": 10.0, "train_bits_per_dim": 2.5}})
    plain = Console(file=io.StringIO(), width=width)
    plain.print(callback._panel())
    callback.end()
    assert "each 2 workers of 1 CPU, 1 GPU" in shown(console)[0]
    lines = shown(plain)
    text = "\n".join(lines)
    for part in (
        "250 / 400",
        "1/20 done, 1 running",
        "2.6000",
        "10 images/s",
        "2.7500",
    ):
        assert part in text, part
    assert "█▁" in text, "the curve falls"
    running = next(number for number, line in enumerate(lines) if "250 / 400" in line)
    assert "2.7500" in lines[running + 1], "trials that ended are below those that run"
    assert max(map(len, lines)) <= width
    assert ("layers=3" in text) == (width > 80)


def test_trials_are_counted_up_to_the_configurations_that_there_are(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    space = toy_space(vary={"model.layers": IntDistribution(2, 4)}, budget=Budget(trials=6))
    state = toy_state(tmp_path, space)
    callback = Progress(console)
    callback.begin(state, Resources(), 2, FORM)
    play(state, state.plan({"model.layers": 2}), BEGUN, reported(400, 2.5), FINISHED)
    callback.change()
    callback.end()
    assert "1/3" in shown(console)[-1]
