"""docs/results.ipynb runs from its top on any search, with and without a final."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.support.optional import require

require("nbclient", "matplotlib", "plotly", "jinja2")
import nbformat
from nbclient import NotebookClient

from tests.support.report_pages import made_up, make_final

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("with_final", [False, True])
def test_the_notebook_runs(with_final: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(tmp_path, trials=24, statuses=())
    if with_final:
        make_final(tmp_path, {"00003": 80.0, "00001": 81.0})
    monkeypatch.setenv("RESULTS", str(tmp_path / "toy"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    notebook = nbformat.read(ROOT / "docs" / "results.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()  # raises
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    figures = sum("image/png" in output.get("data", ()) for output in outputs)
    assert figures == (4 if with_final else 3)


def test_the_notebook_stands_with_its_outputs_and_without_places() -> None:
    notebook = nbformat.read(ROOT / "docs" / "results.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in code) >= len(code) - 1
    assert not any("/home" in str(cell) or "/tmp" in str(cell) for cell in code)
