"""What a search says at its end."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from pixeltune.cli.search_summary import remove_galleries, show_outcome
from pixeltune.config import TrialConfig
from pixeltune.results.store import SearchStore
from pixeltune.sampling import save_grid
from pixeltune.search.state import SearchState
from pixeltune.search.trial import weights_file
from pixeltune.space import SearchSpace
from tests.support.commands import done, write_tiny
from tests.support.results import make_row, make_space, make_store


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


def test_the_end_of_a_search_removes_the_galleries_that_it_drew_of_trials_that_are_no_longer_kept() -> None:
    space = make_space(keep=2)
    store = make_store("results", "toy", space)
    for trial in range(9):
        store.write_trial(make_row(trial, valid_bits_per_dim=2.0 - trial / 10, bits_verified=True))
    drawn = "toy/{trial}, validation images, seed 0: 72 samples"
    captions = {
        "00000.png": drawn,  # no longer among the best two
        "00001.png": drawn.replace("toy", "its old name"),
        "00002.png": "toy/{trial}, valid images, seed 0: 72 samples",  # of `pixeltune sample`
        "00003.png": "a plot of mine",
        "00005-3200-images.png": drawn,  # of --galleries
        "00008.png": drawn,  # the best
        "00077.png": drawn,  # of no trial that ended
        "notes.png": drawn,
    }
    for name, caption in captions.items():
        about = caption.format(trial=name[:5])
        save_grid(torch.zeros(1, 1, 4, 4), Path(store.samples_folder, name), 17, caption=about)
    Path(store.samples_folder, "00004.png").write_bytes(b"no picture")
    Path(store.samples_folder, "00006.png").mkdir()
    out = Console(record=True, width=160)
    show_outcome(out, space, store, SearchState(space, store), storage="results")
    left = sorted(path.name for path in Path(store.samples_folder).iterdir())
    assert left == sorted({*captions, "00004.png", "00006.png"} - {"00000.png", "00001.png"})
    assert "00008.png" in out.export_text()


def test_a_search_without_pictures_ends_as_before() -> None:
    store = make_store("results", "toy")
    remove_galleries(store, ["00000"])
    assert not Path(store.samples_folder).exists()
