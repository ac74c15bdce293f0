"""Compress, decompress and verify the bits of one tiny trial."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixeltune.packages import install_command
from tests.support.commands import command, done, refused, write_tiny
from tests.support.optional import require
from tests.support.tiny_models import leaking

require("constriction")

from pixeltune.cli import trial_ref
from pixeltune.config import ImageSpec, TrialConfig
from pixeltune.data import load_data
from pixeltune.models import build_model
from pixeltune.training.weights import Trained, load_with_config, save_weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of a trial."""
    folder = tmp_path_factory.mktemp("trained")
    storage = str(folder / "results")
    done("train", "--config", write_tiny(folder / "tiny.toml"), "--storage", storage)
    return str(folder / "results/tiny/checkpoints/00000/weights.safetensors")


def images_of(weights: str, split: str) -> np.ndarray:
    pixels: np.ndarray = getattr(load_data(load_with_config(weights).config.data), split).pixels_NCHW
    return pixels


def verdict(said: str) -> dict[str, str]:
    match = re.search(
        r"(?P<split>\w+): (?P<count>\d+) images, identical after decoding: (?P<identical>\w+); "
        r"coded (?P<coded>[\d.]+) bits/dim compared with -log2 p (?P<claimed>[\d.]+), (?P<difference>[-+][\d.]+)% "
        r"\(allowed ±(?P<allowed>[\d.]+)%: 0.1% and 64 bits for each of (?P<streams>\d+) streams?\); "
        r"header [\d.]+ bits/dim\n",
        said,
    )
    assert match, said
    return match.groupdict()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_claimed_bits_are_the_bits_of_a_code(trained: str, dtype: str) -> None:
    said = done("verify-bits", trained, "--batch-size", "60", "--dtype", dtype)
    assert re.match(r"100 images, 256 network calls, about \d+ s\n", said)
    found = verdict(said)
    assert (found["split"], found["count"], found["identical"], found["streams"]) == ("test", "100", "yes", "2")
    evaluated = done("evaluate", trained, "--split", "test")
    assert float(found["claimed"]) == pytest.approx(float(evaluated.split()[1]), rel=0.1)
    assert abs(float(found["difference"])) <= float(found["allowed"]) < 1
    assert float(found["coded"]) == pytest.approx(float(found["claimed"]), rel=0.01)


def test_the_first_images_of_another_split_at_a_greater_number(trained: str) -> None:
    assert "at most the 64 of valid, but got 100" in refused("verify-bits", trained, "--split", "valid")
    said = refused("verify-bits", trained, "--images", "99")
    assert "must be at least 100, but got 99" in said


def test_a_leaking_model_is_refuted(trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that adds each pixel's own value to its logit claims almost no bits."""
    settings = {"data.binarise": "static", "likelihood.name": "bernoulli"}
    config = load_with_config(trained).config.override(settings)
    model = build_model(config, load_data(config.data).form).eval()
    monkeypatch.setattr(trial_ref, "load_on_best_device", lambda _weights: Trained(model, config, None))
    honest = command("verify-bits", "it.safetensors")
    leaking(model)
    leaks = command("verify-bits", "it.safetensors")
    for said, code in ((honest, 0), (leaks, 1)):
        found = verdict(said.out)
        assert said.code == code
        assert found["identical"] == "yes"
        assert (abs(float(found["difference"])) <= float(found["allowed"])) is (code == 0)
    assert "Refuted" not in honest.out
    assert "Refuted: the code is longer than -log2 p." in leaks.out
    assert "it looks ahead" in leaks.out
    assert float(verdict(leaks.out)["claimed"]) < 0.2 * float(verdict(honest.out)["claimed"])


def test_images_come_back(trained: str) -> None:
    said = done("compress", trained, "--images", "7", "--batch-size", "4", "--out", "there/images.ptc")
    assert re.match(
        r"7 images, 128 network calls, about \d+ s\nWrote there/images.ptc: 7 images in [\d,]+ bytes, ", said
    )
    said = done("decompress", "there/images.ptc", "--trial", trained, "--out", "back/images.npy")
    assert "Wrote back/images.npy: 7 images, checksum " in said
    back = np.load("back/images.npy")
    assert back.dtype == np.uint8
    assert np.array_equal(back, images_of(trained, "test")[:7])


def test_a_whole_split_without_a_number(trained: str) -> None:
    done("compress", trained, "--split", "valid", "--out", "images.ptc")
    done("decompress", "images.ptc", "--trial", trained, "--out", "images.npy")
    assert np.array_equal(np.load("images.npy"), images_of(trained, "valid"))


def test_images_of_ones_own_in_float64(trained: str) -> None:
    images = np.random.default_rng(0).integers(0, 17, (5, 1, 8, 8), dtype=np.uint8)
    np.save("own.npy", images.astype(">i4"))  # as another machine may have written it
    done("compress", trained, "--input", "own.npy", "--dtype", "float64", "--out", "own.ptc")
    done("decompress", "own.ptc", "--trial", trained, "--out", "back.npy")
    assert np.array_equal(np.load("back.npy"), images)


@pytest.mark.slow
def test_another_process_with_other_threads_decodes(trained: str) -> None:
    done("compress", trained, "--images", "5", "--out", "images.ptc")
    words = ["-m", "pixeltune", "decompress", "images.ptc", "--trial", trained, "--out", "images.npy"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads() + 1)}
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert np.array_equal(np.load("images.npy"), images_of(trained, "test")[:5])


def test_labels_travel_with_the_images(trained: str) -> None:
    config = load_with_config(trained).config.override({"model.conditioning": "bias"})
    data = load_data(config.data)
    save_weights(build_model(config, data.form), config, "labelled.safetensors", data_checksum=data.identity.checksum)
    said = done("compress", "labelled.safetensors", "--images", "5", "--out", "images.ptc")
    assert "the labels, which images are coded given, are in the rest" in said
    done("decompress", "images.ptc", "--trial", "labelled.safetensors", "--out", "images.npy")
    assert np.array_equal(np.load("images.npy"), images_of(trained, "test")[:5])
    assert verdict(done("verify-bits", "labelled.safetensors"))["identical"] == "yes"


def test_what_is_not_decoded_writes_nothing(trained: str) -> None:
    done("compress", trained, "--images", "5", "--out", "images.ptc")
    whole = Path("images.ptc").read_bytes()
    config = TrialConfig.build(load_with_config(trained).config.model_dump() | {"seed": 4})
    save_weights(build_model(config, ImageSpec(1, 8, 8, 17)), config, "other.safetensors")

    def refusal(content: bytes, trial: str = trained) -> str:
        Path("file.ptc").write_bytes(content)
        return refused("decompress", "file.ptc", "--trial", trial, "--out", "images.npy")

    assert "cut short" in refusal(whole[:-1])
    assert "damaged" in refusal(whole[:-1] + b"\0" if whole[-1] else whole[:-1] + b"\1")
    assert "this is none" in refusal(Path(trained).read_bytes())
    assert "must be read with the model that wrote it" in refusal(whole, "other.safetensors")
    said = command("decompress", "file.ptc", "--trial", "other.safetensors", "--out", "images.npy")
    assert said.out == "", "it begins before it knows the model"
    assert not Path("images.npy").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("compress WEIGHTS --out x.ptc --images 361", "--images must be at most the 360 of test, but got 361"),
        ("compress WEIGHTS --out x.ptc --input none.npy", "there is none at none.npy"),
        ("compress WEIGHTS --out x.ptc --input text.npy", "must be a .npy file of images, but text.npy is not"),
        (
            "compress WEIGHTS --out x.ptc --input small.npy",
            "integer levels 0 to 16 of shape (B, 1, 8, 8), but got shape (",
        ),
        ("compress WEIGHTS --out x.ptc --input text.npy --split test", "not allowed with argument"),
        ("compress WEIGHTS --out text.npy/x.ptc --images 1", "must be writable, but text.npy/x.ptc is not"),
        ("compress WEIGHTS --out x.ptc --set model.layers=3", "--set may only be data.path"),
        ("compress WEIGHTS", "--out"),
        ("decompress none.ptc --trial WEIGHTS --out x.npy", "there is none at none.ptc"),
        ("decompress . --trial WEIGHTS --out x.npy", "must be readable, but . is not"),
        ("decompress text.npy --trial WEIGHTS --out x.png", "--out must be a .npy file, but got 'x.png'"),
    ],
)
def test_what_cannot_be_done_is_one_line(trained: str, words: str, says: str) -> None:
    Path("text.npy").write_text("text", encoding="utf-8")
    np.save("small.npy", np.zeros((2, 1, 4, 4), dtype=np.uint8))
    assert says in refused(*(trained if word == "WEIGHTS" else word for word in words.split()))
    assert not Path("x.ptc").exists()


def test_a_bound_and_a_missing_package_are_named_at_once(trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bound: Any = {"model.family": "pixelvae", "model.latent_dim": 2, "model.encoder_channels": 4}
    config = load_with_config(trained).config.override(bound)
    save_weights(build_model(config, ImageSpec(1, 8, 8, 17)), config, "bound.safetensors")
    assert "only an exact likelihood can be coded" in refused("verify-bits", "bound.safetensors")
    assert "only an exact likelihood can be coded" in refused("compress", "bound.safetensors", "--out", "x.ptc")
    monkeypatch.setitem(sys.modules, "constriction", None)
    assert install_command(["constriction"]) in refused("verify-bits", trained)
