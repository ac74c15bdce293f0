"""`pixeltune.load_model` by the name of a trial."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pixeltune as pt
from pixeltune.config import ImageSpec
from pixeltune.errors import CheckpointError, StoreError
from pixeltune.search.state import SearchState
from pixeltune.search.trial import weights_file
from pixeltune.training.weights import save_weights
from tests.support.toy_search import BEGUN, play, reported, toy_space, toy_state

FORM = ImageSpec(channels=1, height=8, width=8, levels=17)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchState:
    """Three trials in `results`, the best of which has no weights; each of the others has its own seed."""
    monkeypatch.chdir(tmp_path)
    state = toy_state(Path("results"), toy_space(scheduler=None, keep=2))
    for bits in (3.0, 2.0, 1.0):
        plan = state.plan(state.space.base_suggestion())
        play(state, plan, BEGUN, reported(400, bits), {"end": "finished", "reason": None})
    for seed in (0, 1):
        config = state.space.base.override({"seed": seed})
        save_weights(pt.build_model(config, FORM), config, weights_file(state.store.checkpoint(f"{seed:05d}")))
    return state


def seed_of(reference: str | Path, **options: str | Path) -> int:
    model = pt.load_model(reference, **options)
    assert not model.training
    return model.config.seed


def test_a_trial_is_named_as_on_the_command_line(state: SearchState, monkeypatch: pytest.MonkeyPatch) -> None:
    search = state.store.search
    for trial in ("0", "00000"):
        assert seed_of(f"{search}/{trial}") == 0
    assert seed_of(f"{search}/1") == 1
    assert seed_of(search) == 1, "the best with weights"
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert seed_of(search, storage="../results") == seed_of(search, storage=Path("../results").resolve()) == 1


def test_a_file_loads_under_any_name(state: SearchState) -> None:
    path = Path(weights_file(state.store.checkpoint("00000")))
    other = path.rename("weights")
    for name in (other, "weights", str(other.resolve())):
        assert torch.equal(next(pt.load_model(name).parameters()), next(pt.load_model(other).parameters()))


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (
            "SEARCH/2",
            "00002 must have kept weights, but has none; weights are kept of 00000, 00001; pixeltune rerun",
        ),
        ("SEARCH/7", "a trial must be named by a unique beginning, but 'SEARCH/7' fits none"),
        ("SEARCH/x", "a trial must be named by a unique beginning, but 'SEARCH/x' fits none"),
        ("nothing", "nothing"),
        ("results/SEARCH/1", "results"),
        ("", ""),
    ],
)
def test_a_wrong_name_is_one_line(state: SearchState, reference: str, words: str) -> None:
    name = state.store.search
    with pytest.raises(StoreError) as caught:
        pt.load_model(reference.replace("SEARCH", name))
    assert words.replace("SEARCH", name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(state: SearchState) -> None:
    for path in ("gone.safetensors", Path("gone")):
        with pytest.raises(CheckpointError, match="gone"):
            pt.load_model(path)
