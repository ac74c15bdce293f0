"""What is saved comes back whole, or says that it does not."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import random
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as safetensors_load
from safetensors.torch import save

from pixeltune import digest
from pixeltune.config import FAMILIES, ImageSpec
from pixeltune.errors import CheckpointError, PixeltuneError
from pixeltune.models import DensityModel, build_model
from pixeltune.training import weights
from pixeltune.training.checkpoint import TrainState
from pixeltune.training.loop import fit
from pixeltune.training.weights import load_model, load_with_config, save_weights
from tests.support.damage import checkpoint_targets, cuts, flips
from tests.support.tiny_trainings import tiny

FORM = ImageSpec(channels=1, height=8, width=8, levels=17, num_classes=10)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("saved")
    training = fit(tiny(optim__ema=0.9))
    next(training)
    training.state.save(folder / "state.pt")
    save_weights(training.model_of_record, training.config, folder / "weights.safetensors")
    return (folder / "state.pt").read_bytes(), (folder / "weights.safetensors").read_bytes()


def test_state_comes_back(state_path: str) -> None:
    training = fit(tiny(optim__ema=0.9))
    next(training)
    state = training.state
    state.save(state_path)
    loaded = TrainState.load(state_path)
    assert loaded.reports == state.reports
    assert (loaded.step, loaded.images_seen) == (3, 96)
    assert (loaded.precision, loaded.layout) == (state.precision, state.layout)
    for name, tensor in state.model.items():
        assert torch.equal(loaded.model[name], tensor)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 0.999))
def test_a_cut_checkpoint_is_refused_in_one_line(saved: tuple[bytes, bytes], tmp_path: Path, share: float) -> None:
    for content, load in zip(saved, (TrainState.load, load_model), strict=True):
        path = tmp_path / "cut"
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(CheckpointError) as caught:
            load(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("which", [0, 1], ids=["state", "weights"])
def test_a_flipped_bit_is_refused_in_one_line(saved: tuple[bytes, bytes], tmp_path: Path, which: int) -> None:
    content, load = saved[which], (TrainState.load, load_model)[which]
    path, chance = tmp_path / "flipped", random.Random(which)
    mark = content.rfind(digest.PLACEHOLDER.encode()[:17])
    around = range(8 * (mark - 12), min(8 * (mark + 90), 8 * len(content)))
    places = [*chance.sample(range(8 * len(content)), 300), *chance.sample(around, 100)]
    for damaged in flips(content, places):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"must (be|have)") as caught:
            load(str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1], ids=["state", "weights"])
def test_every_flipped_bit_is_refused(tmp_path: Path, which: int) -> None:
    target = checkpoint_targets(tmp_path)[which]
    whole = target.path.read_bytes()
    for contents in (flips(whole, range(8 * len(whole))), cuts(whole, range(len(whole)))):
        assert set(target.count(contents)) == {"detected"}


def test_a_state_without_a_digest_goes_on(saved: tuple[bytes, bytes], state_path: str) -> None:
    """As earlier versions wrote it; what damage does to it ends in one line or not at all."""
    content = torch.load(io.BytesIO(saved[0]), weights_only=True) | {"format": 1}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    Path(state_path).write_bytes(buffer.getvalue())
    state = TrainState.load(state_path)
    assert (state.step, state.images_seen) == (3, 96)
    chance = random.Random(0)
    for damaged in flips(buffer.getvalue(), chance.sample(range(8 * len(buffer.getvalue())), 100)):
        Path(state_path).write_bytes(damaged)
        with contextlib.suppress(CheckpointError):
            TrainState.load(state_path)


def test_weights_without_a_digest_load(saved: tuple[bytes, bytes], tmp_path: Path) -> None:
    """As earlier versions wrote them; what damage does to them ends in one line or not at all."""
    about = {name: text for name, text in weights._metadata(saved[1]).items() if name != digest.KEY}
    content = save(safetensors_load(saved[1]), metadata=about)
    path = tmp_path / "old.safetensors"
    path.write_bytes(content)
    assert isinstance(load_model(str(path)), DensityModel)
    header = int.from_bytes(content[:8], "little")
    chance = random.Random(0)
    for damaged in flips(content, chance.sample(range(8 * (8 + header)), 100)):
        path.write_bytes(damaged)
        with contextlib.suppress(PixeltuneError):
            load_model(str(path))


def test_a_state_that_does_not_fit_is_a_checkpoint_error(state_path: str) -> None:
    """As damage to a file without a digest may leave it."""
    training = fit(tiny())
    next(training)
    state = training.state
    for changes in (
        {"model": {}},
        {"model": {**state.model, "more": torch.zeros(1)}},
        {"optimizer": {"state": {}}},
        {"optimizer": {**state.optimizer, "param_groups": []}},
    ):
        with pytest.raises(CheckpointError, match="must fit its configuration"):
            fit(tiny(), state=dataclasses.replace(state, **changes))


def test_missing_files_say_so(tmp_path: Path) -> None:
    for load in (TrainState.load, load_model):
        with pytest.raises(CheckpointError, match="exist"):
            load(tmp_path / "nothing")


def test_what_the_disk_does_not_give_is_one_line(tmp_path: Path) -> None:
    for load in (TrainState.load, load_model):
        with pytest.raises(CheckpointError, match=r"must be readable, but .* is not") as caught:
            load(str(tmp_path))
        assert "\n" not in str(caught.value)


def test_weights_know_the_images_they_were_trained_on(tmp_path: Path) -> None:
    config = tiny()
    for checksum in (None, "0123456789abcdef"):
        path = str(tmp_path / f"{checksum}.safetensors")
        save_weights(build_model(config, FORM), config, path, data_checksum=checksum)
        assert load_with_config(path).data_checksum == checksum
        assert isinstance(load_model(path), DensityModel)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="format"):
        TrainState.load(str(path))
    path.write_bytes(b"not at all")
    with pytest.raises(CheckpointError):
        load_model(str(path))


def test_a_failed_save_leaves_the_older_file(state_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training = fit(tiny())
    next(training)
    training.state.save(state_path)

    def full(_self: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    next(training)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        training.state.save(state_path)
    assert TrainState.load(state_path).images_seen == 96
    assert [path.name for path in Path(state_path).parent.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("split", [1, 2])
@pytest.mark.parametrize("conditioning", ["none", "bias", "map"])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_bring_their_model_along(tmp_path: Path, family: str, conditioning: str, split: int) -> None:
    changes = {"model__family": family, "model__conditioning": conditioning, "model__split": split}
    config = tiny(**changes, likelihood__name="logistic_mixture", likelihood__mixtures=3)
    model = build_model(config, FORM).eval()
    path = str(tmp_path / "weights.safetensors")
    save_weights(model, config, path)
    trained = load_with_config(path)
    loaded = trained.model
    x_BCHW = torch.randint(17, (4, 1, 8, 8))
    assert trained.config == config
    assert loaded.form == FORM
    assert not loaded.training
    with torch.no_grad():
        for label_B in (None, torch.tensor([0, 9, 3, 1])):
            assert torch.equal(loaded.log_prob(x_BCHW, label_B), model.log_prob(x_BCHW, label_B))
