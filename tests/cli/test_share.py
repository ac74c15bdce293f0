"""`pixeltune show`, `export` and `rerun`: one trial looked at, taken along, and trained once more."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import pixeltune as pt
from pixeltune.config import TrialConfig
from pixeltune.data.load import forget_loaded
from pixeltune.results.store import SearchStore
from tests.support.commands import command, done, refused, write_tiny


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Results with one trained trial, `tiny`."""
    folder = tmp_path_factory.mktemp("trained")
    done("train", "--config", write_tiny(folder / "tiny.toml"), "--storage", str(folder / "results"))
    return str(folder / "results")


def test_show_tells_numbers_configuration_curve_and_artefacts(storage: str) -> None:
    said = done("show", "tiny", "--storage", storage)
    (row,) = SearchStore(storage, "tiny").trials()
    assert said.startswith("tiny/00000: finished\n")
    assert f"validation: {row['valid_bits_per_dim']:.5f} bits/dim, {row['valid_nats']:.4f} nats" in said
    assert f"parameters: {row['num_parameters']:,}" in said
    assert "    model.dropout = 0.25\n" in said
    assert "train.checkpoint_activations" not in said, "what is as by default is not repeated"
    for point in SearchStore(storage, "tiny").curve("00000"):
        assert re.search(rf"{point['images_seen']:,}  {point['valid_bits_per_dim']:.4f}", said)
    assert f"weights  {storage}/tiny/checkpoints/00000/weights.safetensors" in said
    assert f"pixeltune export tiny/00000 --storage {storage}" in said


@pytest.mark.parametrize("name", ["tiny", "tiny/0", "tiny/00000", "tiny/000"])
def test_the_configuration_alone_is_a_file_for_train(name: str, storage: str) -> None:
    Path("again.toml").write_text(done("show", name, "--storage", storage, "--toml"))
    assert TrialConfig.from_toml("again.toml") == TrialConfig.from_toml(write_tiny())


def test_show_of_a_trial_that_has_just_begun(storage: str) -> None:
    store = SearchStore("results", "tiny")
    earlier = SearchStore(storage, "tiny")
    store.open(earlier.manifest())
    begun = {name: earlier.trials()[0][name] for name in ("trial", "attempt", "number", "started_at", "config_key")}
    store.write_trial(TrialConfig.from_toml(write_tiny()).flat() | begun | {"status": "running"})
    said = done("show", "tiny/0")
    assert said.startswith("tiny/00000: running\n")
    assert "weights  not kept" in said
    assert "None" not in said


def test_a_configuration_that_the_results_no_longer_tell_is_said_beside_the_rest(storage: str) -> None:
    earlier = SearchStore(storage, "tiny")
    store = SearchStore("results", "tiny")
    store.open(earlier.manifest())
    store.write_trial(earlier.trials()[0] | {"config_key": "0123456789ab"})
    said = done("show", "tiny")
    assert "must be 0123456789ab as it was trained" in said
    assert "bits/dim" in said
    assert "must be 0123456789ab" in refused("export", "tiny", "--storage", "results") + refused("rerun", "tiny")


def test_an_export_is_loaded_in_three_lines_and_measures_the_same(storage: str) -> None:
    said = done("export", "tiny", "--storage", storage)
    folder = Path("tiny-00000")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.toml", "model.safetensors"]
    assert 'pt.load_model("tiny-00000/model.safetensors")' in said
    model = pt.load_model(str(folder / "model.safetensors"))
    kept = pt.load_model(SearchStore(storage, "tiny").checkpoint("00000") + "/weights.safetensors")
    assert all(torch.equal(kept.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    (row,) = SearchStore(storage, "tiny").trials()
    assert f"valid: {row['valid_bits_per_dim']:.5f} bits/dim" in done("evaluate", "tiny-00000/model.safetensors")
    assert TrialConfig.from_toml(folder / "config.toml") == TrialConfig.from_toml(write_tiny())


def test_the_card_tells_the_numbers_of_the_row_and_what_they_are_worth(storage: str) -> None:
    done("export", "tiny", "--storage", storage)
    card = Path("tiny-00000/README.md").read_text()
    (row,) = SearchStore(storage, "tiny").trials()
    assert f"| validation | {row['valid_bits_per_dim']:.5f} | {row['valid_nats']:.4f} | 256 |" in card
    [result] = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"]
    assert result["metrics"][0] == {"type": "bits_per_dim", "value": row["valid_bits_per_dim"]}
    assert result["dataset"]["revision"] == row["data_checksum"]
    assert "no test set was read" in card
    assert "| test |" not in card
    assert str(row["data_checksum"]) in card
    assert TrialConfig.from_toml(write_tiny()).to_toml() in card
    assert "None" not in card


def test_an_export_overwrites_nothing_and_needs_weights(storage: str) -> None:
    Path("here").mkdir()
    assert "must be a new folder, but here exists" in refused("export", "tiny", "--storage", storage, "--out", "here")
    Path("file").touch()
    said = refused("export", "tiny", "--storage", storage, "--out", "file/deep")
    assert "a file must be writable, but file/deep/model.safetensors is not" in said
    store = SearchStore("results", "tiny")
    store.open(SearchStore(storage, "tiny").manifest())
    store.write_trial(SearchStore(storage, "tiny").trials()[0])
    said = refused("export", "tiny")
    assert "tiny/00000 has none; pixeltune rerun tiny/00000 trains it again" in said


def test_an_export_that_was_killed_goes_on_and_another_does_not(storage: str) -> None:
    done("export", "tiny", "--storage", storage)
    Path("tiny-00000/README.md").unlink()
    Path("tiny-00000/config.toml").unlink()
    assert "README.md" in done("export", "tiny", "--storage", storage)
    assert "must be a new folder" in refused("export", "tiny", "--storage", storage)
    Path("tiny-00000/README.md").unlink()
    Path("tiny-00000/model.safetensors").write_bytes(b"another")
    assert "must be a new folder" in refused("export", "tiny", "--storage", storage)
    assert Path("tiny-00000/model.safetensors").read_bytes() == b"another"


def test_a_rerun_comes_to_the_same_number(storage: str) -> None:
    said = done("rerun", "tiny", "--storage", storage)
    first, second = (SearchStore(storage, name).trials()[0] for name in ("tiny", "tiny-00000-rerun"))
    assert second["valid_bits_per_dim"] == first["valid_bits_per_dim"]
    assert second["config_key"] == first["config_key"]
    value = f"{first['valid_bits_per_dim']:.5f}"
    assert f"tiny/00000: {value} bits/dim; tiny-00000-rerun: {value} (+0.00000)" in said


def test_a_rerun_with_a_change_says_it_and_does_not_pass_for_another(storage: str) -> None:
    said = done("rerun", "tiny/0", "--storage", storage, "--set", "optim.lr=0.001", "--name", "slower")
    (row,) = SearchStore(storage, "slower").trials()
    assert row["optim.lr"] == 0.001
    assert f"; slower with optim.lr=0.001: {row['valid_bits_per_dim']:.5f} (" in said
    again = refused("rerun", "tiny/0", "--storage", storage, "--set", "optim.lr=0.002", "--name", "slower")
    assert "optim.lr: 0.002 here, 0.001 in the results" in again


def test_a_rerun_is_never_the_trial_itself(storage: str) -> None:
    said = refused("rerun", "tiny", "--storage", storage, "--name", "tiny")
    assert "must have results of its own, but --name tiny is the search of tiny/00000" in said


def test_a_rerun_on_other_images_or_of_a_stopped_trial_shows_no_difference(storage: str) -> None:
    said = done("rerun", "tiny", "--storage", storage, "--set", "data.num_valid=60", "--name", "fewer")
    assert said.rstrip().endswith("(of other images, which do not compare)")
    store = SearchStore("results", "stopped")
    store.open(replace(SearchStore(storage, "tiny").manifest(), search="stopped"))
    row = SearchStore(storage, "tiny").trials()[0]
    store.write_trial(row | {"search": "stopped", "status": "pruned", "images_seen": 128})
    assert done("rerun", "stopped").rstrip().endswith("(the first was pruned after 128 images)")


@pytest.mark.parametrize("verb", ["show", "export", "rerun"])
def test_a_trial_that_is_not_there(verb: str, storage: str) -> None:
    assert "there are 00000" in refused(verb, "tiny/7", "--storage", storage)
    assert "a search must have been begun to be read" in refused(verb, "other", "--storage", storage)
    assert "a search name must be letters" in refused(verb, "../tiny", "--storage", storage)
    assert command(verb, "--storage", storage).code == 2


def test_a_number_never_means_the_weights_of_another_trial(storage: str) -> None:
    """Of trials 0 and 7 only the second was kept: its name begins as the first's number does."""
    store = SearchStore("results", "tiny")
    store.open(SearchStore(storage, "tiny").manifest())
    row = SearchStore(storage, "tiny").trials()[0]
    for number in (0, 7):
        store.write_trial(row | {"trial": f"{number:05d}", "number": number})
    weights = Path(store.checkpoint("00007"), "weights.safetensors")
    weights.parent.mkdir(parents=True)
    weights.write_bytes(Path(SearchStore(storage, "tiny").checkpoint("00000"), "weights.safetensors").read_bytes())
    assert "valid: " in done("evaluate", "tiny/7")
    assert "tiny/00000 must have kept weights, but has none; weights are kept of 00007" in refused("evaluate", "tiny/0")
    assert "'tiny/²' fits none" in refused("evaluate", "tiny/²")


@pytest.mark.parametrize("verb", ["evaluate", "sample", "complete", "export", "verify-bits"])
def test_what_trains_a_trial_without_weights_again_is_named(verb: str, storage: str) -> None:
    """Of a search that kept some, of one that kept none, and of a final, whose runs are those of its search."""
    store = SearchStore("results", "tiny")
    store.open(SearchStore(storage, "tiny").manifest())
    row = SearchStore(storage, "tiny").trials()[0]
    for number in (0, 7):
        store.write_trial(row | {"trial": f"{number:05d}", "number": number, "valid_bits_per_dim": 3.0 + number})
    assert "pixeltune rerun tiny/00007 trains it again" in refused(verb, "tiny/7")
    assert "pixeltune rerun tiny/00000 trains it again" in refused(verb, "tiny")
    Path("here").symlink_to("results")
    assert "pixeltune rerun tiny/00007 --storage here trains" in refused(verb, "tiny/7", "--storage", "here")
    weights = Path(store.checkpoint("00007"), "weights.safetensors")
    weights.parent.mkdir(parents=True)
    weights.write_bytes(Path(SearchStore(storage, "tiny").checkpoint("00000"), "weights.safetensors").read_bytes())
    assert "pixeltune rerun tiny/00000 trains it again" in refused(verb, "tiny/0")
    final = SearchStore("results", "tiny-again")
    final.open(replace(store.manifest(), search="tiny-again"))
    final.write_trial(row | {"search": "tiny-again", "from_search": "tiny", "from_trial": "00007"})
    assert "pixeltune rerun tiny/00007 trains it again" in refused(verb, "tiny-again")


@pytest.mark.parametrize("told", [True, False], ids=["by option", "by environment"])
def test_commands_to_copy_mean_the_same_storage(storage: str, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("results").symlink_to(storage)
    monkeypatch.setenv("PIXELTUNE_STORAGE", "elsewhere" if told else storage)
    said = done("show", "tiny", *(["--storage", "results"] if told else []))
    assert f"Again: pixeltune rerun tiny/00000{' --storage results' if told else ''}\n" in said


def test_commands_to_copy_out_of_a_jobs_log_name_its_storage(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELTUNE_STORAGE", storage)
    monkeypatch.setenv("PIXELTUNE_COMMAND", "python launch.py --search tiny --cluster cluster/gpu.yaml")
    assert f"Again: pixeltune rerun tiny/00000 --storage {storage}\n" in done("show", "tiny")


def test_a_rerun_does_not_train_on_images_that_were_replaced() -> None:
    def write(seed: int) -> None:
        np.savez("images.npz", train=np.random.default_rng(seed).integers(0, 9, (400, 4, 4), dtype=np.uint8), levels=9)

    settings = ("--set", "data.name=array", "--set", "data.path=images.npz")
    write(0)
    done("train", "--config", write_tiny(), *settings)
    write(1)
    forget_loaded()
    said = refused("rerun", "tiny")
    assert "a rerun must be on the images of tiny/00000 (checksum " in said
    assert not Path("results/tiny-00000-rerun").exists()
    assert "of other images, which do not compare" in done("rerun", "tiny", "--set", "data.fraction=0.5")
