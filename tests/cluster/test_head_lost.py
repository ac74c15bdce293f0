"""The head is lost in the middle of a submitted search: a new one and the same command go on, and no harm is done."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.support.commands import command
from tests.support.harm import Before, Harm, count_harm
from tests.support.launching import ROOT, marked, store_in
from tests.support.noop import Orders, instruct, noop_space
from tests.support.standing_head import standing_head

pytestmark = [pytest.mark.slow, pytest.mark.ray]

SEARCH = """
from dataclasses import replace

from pixeltune.tune import trainables
from tests.support import noop

trainables.train_here = noop.train_here
search = replace(noop.noop_space(trials=6, images=800, every=100, stop=False), sampler="random", keep=0)
"""


def test_a_new_head_and_the_same_command_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "laptop").mkdir()
    monkeypatch.chdir(tmp_path / "laptop")
    (tmp_path / "tiny.py").write_text(SEARCH)
    storage = tmp_path / "results"
    instruct(storage, Orders(seconds=0.8))
    store, harm = store_in(storage), Harm()
    given = ("--search", str(tmp_path / "tiny.py"), "--cluster", str(tmp_path / "own.yaml"))

    with standing_head(tmp_path) as head, monkeypatch.context() as impatient:
        impatient.setattr("pixeltune.cluster.jobs._RETRY_SECONDS", 10.0)
        impatient.setattr("pixeltune.cluster.ssh_tunnel.reach", lambda _path: head.way)

        def lose() -> None:
            end = time.monotonic() + 300
            while not (store.exists() and store.curve_files.read().num_rows >= 18) and time.monotonic() < end:
                time.sleep(0.1)
            for pid in marked(head.mark):
                with contextlib.suppress(ProcessLookupError):  # it has ended with another one
                    os.kill(pid, signal.SIGKILL)

        loss = threading.Thread(target=lose, daemon=True)
        loss.start()
        lost = command(*given)
        loss.join()
    assert lost.code == 2, lost
    assert "Ray's dashboard must answer on the head, but does not" in lost.err
    assert lost.err.count("\n") == 1
    before = Before.of(store)
    assert before.reports
    assert len(store.trials()) < 6 or any(row["status"] == "running" for row in store.attempts())

    with standing_head(tmp_path) as head:
        monkeypatch.setattr("pixeltune.cluster.ssh_tunnel.reach", lambda _path: head.way)
        again = command(*given)
    assert again.code == 0, again
    space = noop_space(trials=6, images=800, every=100, stop=False)
    count_harm(harm, store, space, before=before)
    assert harm.words == []
