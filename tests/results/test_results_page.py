"""docs/results.md: its code runs on a real results folder, and its reference is what the schema says."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import numpy as np
import optuna
import pytest

from tests.support.optional import require
from tests.support.results import make_report, make_row, make_store

require("optuna_dashboard", "duckdb", "polars")
from optuna_dashboard import wsgi

from pixeltune.cli.columns import reference
from pixeltune.results.compaction import compact
from pixeltune.results.final_statistics import write_images
from pixeltune.results.schema import CURVE_SCHEMA, IMAGE_SCHEMA, TRIAL_SCHEMA

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "results.md").read_text()


@pytest.fixture(params=["single files", "compacted"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a search and a final run in results/."""
    store = make_store(tmp_path / "results", "digits_quick")
    for number in range(4):
        value = 2.0 + number / 8
        store.write_trial(make_row(number, valid_bits_per_dim=value, images_seen=3200) | {"model.layers": 3})
        store.write_curve(f"{number:05d}", 1, [make_report(1600, value + 1), make_report(3200, value)])
    run = {"is_bound": False, "search": "digits_quick", "trial": "00000", "attempt": 1}
    write_images(store.images("00000"), np.array([1.0, 3.0]), None, **run)
    if request.param == "compacted":
        assert compact(store).written == 2
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_code_of_the_page_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    known: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/results.md", "exec"), known)
    assert len(known["curves"]) == 8
    assert known["trials"].height == 4, "of polars, the last that is so called"
    said = capsys.readouterr().out
    assert "2.375" in said
    _require_served(f"sqlite:///{folder}/study.db")


def _require_served(storage: str) -> None:
    """Optuna's dashboard shows the study with its trials, values and curves."""
    server = make_server("127.0.0.1", 0, wsgi(storage), handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        assert "text/html" in _get(f"{base}/dashboard").headers["Content-Type"]
        [summary] = json.load(_get(f"{base}/api/studies"))["study_summaries"]
        assert summary["study_name"] == "digits_quick"
        detail = json.load(_get(f"{base}/api/studies/{summary['study_id']}"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert [trial["values"] for trial in detail["trials"]] == [[2.0], [2.125], [2.25], [2.375]]
    assert len(detail["trials"][0]["params"]) == 4
    assert optuna.load_study(study_name="digits_quick", storage=storage).best_value == 2.0


def _get(url: str) -> Any:
    return urllib.request.urlopen(url, timeout=10)


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_words: Any) -> None:
        """Nothing."""


def test_the_reference_is_what_the_schema_says() -> None:
    assert "\n".join(reference()) in PAGE, "put what `pixeltune columns` prints at the end of docs/results.md"


def test_the_reference_has_every_column_with_its_unit() -> None:
    lines = list(reference())
    assert sum(line.startswith("| `") for line in lines) == sum(map(len, (TRIAL_SCHEMA, CURVE_SCHEMA, IMAGE_SCHEMA)))
    assert "| `valid_nats` | float64 | double | nats/image | whole validation set, weights of record |" in lines
    assert "| `started_at` | datetime64[us, UTC] | timestamp[us, tz=UTC] | UTC | when the attempt began |" in lines
