"""Messages at the end of a launch: what they say, where their secrets do not appear, and that they change nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from pixeltune.cli import common, notify
from pixeltune.cli.common import command_again
from pixeltune.cli.notify import notified
from pixeltune.errors import DataError
from pixeltune.masking import masked_words
from pixeltune.search.run import Outcome, nothing_left
from pixeltune.space import Budget
from pixeltune.tune import ray_session
from tests.support.commands import command, refused, write_tiny
from tests.support.inbox import SECRET, Inbox
from tests.support.toy_search import BEGUN, FINISHED, play, reported, toy_space, toy_state


def outcome_of(folder: Path, *, interrupted: bool = False, **budget: Any) -> Outcome:
    space = toy_space(scheduler=None, budget=Budget(trials=4, **budget))
    state = toy_state(folder, space)
    play(state, state.plan({}), BEGUN, reported(400, 2.25), FINISHED)
    return Outcome(state, interrupted=interrupted, reason=nothing_left(space, state) or "interrupted")


@pytest.mark.needs("apprise")
@pytest.mark.parametrize(
    ("options", "title", "lines"),
    [
        ({}, "pixeltune: toy ended", ["Why: interrupted.", "Trials: 1 finished."]),
        ({"target": 2.5}, "pixeltune: toy reached its target", ["Why: trial 00000 reached the target, with"]),
        (
            {"interrupted": True},
            "pixeltune: toy was stopped",
            ["To go on: python launch.py --notify 'json://***' --search toy"],
        ),
    ],
)
def test_the_end_of_a_search_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inbox: Inbox, options: Any, title: str, lines: list[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/launch.py", "--notify", inbox.url, "--search", "toy"])
    with notified([inbox.url], "toy") as ending:
        ending.of_search(outcome_of(tmp_path, **options))
    found, text = inbox.only()
    assert found == title
    assert "Best: 2.2500 (valid_bits_per_dim), trial 00000." in text
    assert "Time of this launch: 0:0" in text
    assert all(line in text for line in lines), text
    assert ("To go on" in text) == ("interrupted" in options)
    assert SECRET not in text


@pytest.mark.needs("apprise")
@pytest.mark.parametrize(
    ("error", "title", "line"),
    [
        (DataError("images must be there\nmore"), "failed", "Why: images must be there"),
        (ZeroDivisionError("1 / 0"), "failed", "Why: 1 / 0"),
        (KeyboardInterrupt(), "was stopped", "To go on: "),
    ],
)
def test_an_exception_is_reported_and_goes_on(inbox: Inbox, error: BaseException, title: str, line: str) -> None:
    with pytest.raises(type(error)), notified([inbox.url], "toy"):
        raise error
    found, text = inbox.only()
    assert found == f"pixeltune: toy {title}"
    assert line in text
    assert "To go on: " in text


@pytest.mark.needs("apprise")
def test_a_training_sends_its_end_and_keeps_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inbox: Inbox
) -> None:
    """The address comes from the option and the environment, and is in no file and no output."""
    config, storage = write_tiny(tmp_path / "tiny.toml"), tmp_path / "results"
    words = ["train", config, "--storage", str(storage), "--notify", inbox.url]
    monkeypatch.setattr("sys.argv", ["pixeltune", *words])
    monkeypatch.setenv(notify.VARIABLE, inbox.url)
    said = command(*words, "--set", "train.images=128")
    assert said.code == 0, said
    title, text = inbox.only()
    assert title == "pixeltune: tiny ended"
    assert "Images: 128." in text
    assert "Best: " in text
    written = b"".join(path.read_bytes() for path in storage.rglob("*") if path.is_file())
    assert SECRET.encode() not in written
    assert SECRET not in said.out + said.err


@pytest.mark.needs("apprise")
def test_a_message_that_cannot_be_sent_is_one_line_and_changes_no_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inbox: Inbox
) -> None:
    inbox.server.shutdown()
    inbox.server.server_close()
    config = write_tiny(tmp_path / "tiny.toml")
    words = ["train", config, "--storage", str(tmp_path / "results"), "--set", "train.images=128"]
    said = command(*words, "--notify", inbox.url)
    assert said.code == 0
    assert said.err == "pixeltune: the message to json://*** could not be sent; results are kept\n"


@pytest.mark.needs("apprise")
def test_a_service_that_does_not_answer_is_left(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import apprise

    release = threading.Event()
    monkeypatch.setattr(notify, "_SEND_SECONDS", 0.05)
    monkeypatch.setattr(apprise.Apprise, "notify", lambda *_args, **_words: release.wait(60))
    with notified(["json://127.0.0.1:1/" + SECRET], "toy") as ending:
        ending.title = "ended"
    release.set()
    assert capsys.readouterr().err.count("could not be sent") == 1


BAD = [f"nosuch://{SECRET}", SECRET, f"json:/{SECRET}", f"tgram://{SECRET}", "json://***"]


@pytest.mark.needs("apprise")
@pytest.mark.parametrize("url", BAD)
@pytest.mark.parametrize("verb", ["train", "search"])
@pytest.mark.parametrize("given", ["option", "equals", "environment"])
def test_an_address_that_is_not_valid_is_refused_and_nothing_is_written(
    url: str, verb: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = tmp_path / "results"
    words = ["train", write_tiny(tmp_path / "tiny.toml")] if verb == "train" else ["--search", "digits_quick"]
    options = {"option": ["--notify", url], "equals": [f"--notify={url}"], "environment": []}[given]
    if given == "environment":
        monkeypatch.setenv(notify.VARIABLE, url)
    line = refused(*words, "--storage", str(storage), *options)
    assert line.startswith("pixeltune: --notify must ")
    assert SECRET not in line
    assert not storage.exists()


def test_without_apprise_a_message_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pixeltune.packages.has_package", lambda name: name != "apprise")
    config = write_tiny(tmp_path / "tiny.toml")
    line = refused("train", config, "--storage", str(tmp_path / "results"), "--notify", f"json://{SECRET}")
    assert line.startswith("pixeltune: --notify needs apprise, but apprise is not installed")
    assert "notify" in line.partition("not installed")[2]
    assert SECRET not in line
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("verb", [["--search", "digits_quick"], ["search", "--search", "digits_quick"]])
def test_an_address_in_the_command_of_a_job_is_refused(verb: list[str], tmp_path: Path) -> None:
    line = refused(*verb, "--cluster", str(tmp_path / "gpu.yaml"), "--notify", f"json://{SECRET}")
    assert "--notify must not be given with --cluster" in line
    assert SECRET not in line


def test_command_lines_are_shown_without_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"slack://{SECRET}"
    for words, shown in [
        (["--notify", url, "x"], ["--notify", "slack://***", "x"]),
        ([f"--notify={url}"], ["--notify=slack://***"]),
        (["--noti", url], ["--noti", "slack://***"]),
        (["--notify", SECRET], ["--notify", "***"]),
        (["--name", "--notify"], ["--name", "--notify"]),
        (["--set", "a=b://c"], ["--set", "a=b://c"]),
    ]:
        assert masked_words(words) == shown
    monkeypatch.delenv(common.COMMAND, raising=False)
    monkeypatch.setattr("sys.argv", ["launch.py", "--search", "x", "--notify", url])
    assert command_again() == "python launch.py --search x --notify 'slack://***'"
    assert SECRET not in refused("status", "x", "--notify", url)


def test_ray_records_the_driver_without_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray shows the command of each driver to all users of a cluster."""
    import psutil
    from ray._private import utils

    monkeypatch.setattr(utils, "get_entrypoint_name", utils.get_entrypoint_name)
    monkeypatch.setattr(
        psutil.Process, "cmdline", lambda _self: ["python", "launch.py", "--notify", f"json://{SECRET}"]
    )
    assert SECRET in utils.get_entrypoint_name()
    ray_session._mask_command_line()
    assert utils.get_entrypoint_name() == "python launch.py --notify 'json://***'"
