"""What a search says at its end."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from pixeltune.cli.search_summary import show_outcome
from pixeltune.config import TrialConfig
from pixeltune.results.store import SearchStore
from pixeltune.search.state import SearchState
from pixeltune.search.trial import weights_file
from pixeltune.space import SearchSpace
from tests.support.commands import done, write_tiny


def test_weights_that_cannot_be_read_cost_a_picture_and_not_the_end() -> None:
    done("train", "--config", write_tiny())
    store = SearchStore("results", "tiny")
    space = SearchSpace(base=TrialConfig.from_toml("tiny.toml"))
    Path(weights_file(store.checkpoint("00000"))).write_bytes(b"cut")
    out = Console(record=True, width=160)
    show_outcome(out, space, store, SearchState(space, store), storage="results")
    said = out.export_text()
    assert "00000  finished" in said
    assert "No samples of trial 00000: weights must be a whole safetensors file" in said
