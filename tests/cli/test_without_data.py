"""`--list`, `--dry-run` and `doctor` on a machine without images and without a network."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixeltune.data.load import forget_loaded
from pixeltune.format import size_text
from pixeltune.published_sets import PUBLISHED_SETS, data_root
from tests.support.commands import command, done, refused

SMALL = """
from optuna.distributions import IntDistribution
from pixeltune import Budget, SearchSpace, TrialConfig

search = SearchSpace(
    title="small",
    base=TrialConfig.build({
        "data": {"name": "mnist", "download": True},
        "model": {"family": "gated", "layers": 2, "channels": 12, "kernel_size": 3, "colour_order": "likelihood"},
        "likelihood": {"name": "logistic_mixture", "mixtures": 2},
        "train": {"images": 64, "batch_size": 8, "report_every": 32},
    }),
    vary={"model.layers": IntDistribution(1, 2)},
    budget=Budget(trials=2),
)
"""
BY_HAND = {"imagenet32": "get train_", "imagenet64": "get train_", "celeba64": "get img_align_celeba.zip"}
TO_DOWNLOAD = [name for name in PUBLISHED_SETS if name != "digits" and name not in BY_HAND]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No name resolves. The hosts that were asked for."""
    forget_loaded()
    resolve, asked = socket.getaddrinfo, []

    def fail(host: Any, *words: Any, **options: Any) -> Any:
        if host == socket.gethostname():  # `doctor` looks at the machine's own name
            return resolve(host, *words, **options)
        asked.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return asked


@pytest.fixture(autouse=True)
def small(own_folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search file, and a data folder that does not exist."""
    Path("small.py").write_text(SMALL)
    monkeypatch.setenv("PIXELTUNE_DATA", str(tmp_path_factory.mktemp("data") / "downloads"))


def line(text: str, beginning: str) -> str:
    """The one line that begins so."""
    (found,) = [each for each in text.splitlines() if each.startswith(beginning)]
    return found


@pytest.mark.parametrize("name", PUBLISHED_SETS)
def test_a_dry_run_needs_no_images(name: str, no_network: list[str]) -> None:
    said = done("--search", "small.py", "--dry-run", "--set", f"data.name={name}")
    published = PUBLISHED_SETS[name]
    channels, height, width = published.shape
    data, files = line(said, "Data: "), line(said, f"Files: {name} ")
    assert f"{name} ({published.version}), {channels}×{height}×{width}, {published.levels} levels, " in data
    assert "Corners: 2, all of them can be built" in said
    assert "Configurations: 2\n" in said
    assert "images/s here" in said
    if name == "digits":
        assert data.endswith("1,077 train, 360 validation, 360 test; order-0 baseline 2.4314 bits/dim")
        assert files == "Files: digits comes with scikit-learn; nothing to download"
    else:
        size = size_text(sum(archive.num_bytes for archive in published.archives))
        if name == "omniglot":  # no source states the size of its file
            size = "chardata.mat"
        assert data.endswith("order-0 baseline not computed without the images")
        assert f"is not in {data_root()}" in files
        assert size in files
        assert ("a search will download" in files) == (name in TO_DOWNLOAD)
    assert no_network == []
    assert [path.name for path in Path().iterdir() if path.name != "__pycache__"] == ["small.py"]
    assert not data_root().exists()


def test_a_dry_run_says_where_the_files_are_looked_for() -> None:
    said = done("--search", "small.py", "--dry-run", "--set", "data.path=elsewhere", "--set", "data.download=false")
    assert line(said, "Files: ") == (
        "Files: mnist is not in elsewhere; set `data.download=true` to download 11.6 MB from "
        "https://ossci-datasets.s3.amazonaws.com/mnist/, or set `data.path` to the folder that holds the files"
    )


def test_a_dry_run_follows_the_options_of_the_data() -> None:
    settings = ("data.name=cifar10", "data.grey=true", "data.levels=16", "data.num_valid=9", "data.fraction=0.5")
    words = [word for each in settings for word in ("--set", each)]
    said = done("--search", "small.py", "--dry-run", "--trials", "5", *words)
    assert line(said, "Configurations: ") == (
        "Configurations: 2, fewer than the 5 trials: the search ends when all are tried"
    )
    assert "1×32×32, 16 levels, 10 classes; 24,996 train, 9 validation, 10,000 test" in line(said, "Data: ")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("data.levels=300", "data.levels"),
        ("data.resize=14", "`data.resize` needs one of the sources"),
        ("data.num_valid=60000", "`data.num_valid` must be less than the 60000 training images of mnist"),
        ("data.grey=true", "`data.grey` needs 3 colours"),
        ("likelihood.name=bernoulli", "2 levels"),
        ("data.path=small.py", "`data.path` must be a folder, but small.py is a file"),
        ("data.name=folder", "`data.path` must be given"),
    ],
)
def test_a_dry_run_refuses_what_the_search_would_refuse(setting: str, says: str) -> None:
    assert says in refused("--search", "small.py", "--dry-run", "--set", setting)


def test_a_warm_start_is_not_checked_without_the_images(own_folder: Path) -> None:
    said = done("--search", "small.py", "--dry-run", "--warm-start", "elsewhere")
    assert "Warm start: not checked without the images" in said


def test_a_search_without_a_network_says_which_file_to_put_where(no_network: list[str]) -> None:
    said = refused("--search", "small.py")
    assert "mnist must be downloaded, but train-images-idx3-ubyte.gz could not be (" in said
    for mirror in PUBLISHED_SETS["mnist"].mirrors:
        assert f"{mirror}train-images-idx3-ubyte.gz: the name {mirror.split('/')[2]} does not resolve (" in said
    assert "put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, " in said
    assert f"t10k-labels-idx1-ubyte.gz into {data_root() / 'MNIST' / 'raw'}, or set `data.path`" in said
    assert len(no_network) == 2
    assert not Path("results/small/trials").exists()


@pytest.mark.parametrize("name", PUBLISHED_SETS)
def test_the_doctor_needs_no_images(name: str, no_network: list[str]) -> None:
    said = command("doctor", "--search", "small.py", "--address", "local", "--set", f"data.name={name}")
    text = " ".join(said.out.split())
    if name == "digits":
        assert said.code == 0
        assert "digits de3c63a264769de2" in text
    elif name in TO_DOWNLOAD:
        assert said.code == 0
        assert "warn: " in text
        assert "a search will download" in text
        assert "see that it has a network when the search starts" in text
    else:
        assert said.code == 1
        assert f"fail: {name} missing (not in " in text
        assert BY_HAND[name] in text
    assert no_network == []
    assert not data_root().exists()


def test_the_doctor_fails_where_a_search_may_not_download() -> None:
    said = command("doctor", "--search", "small.py", "--address", "local", "--set", "data.download=false")
    text = " ".join(said.out.split())
    assert said.code == 1
    assert "fail: mnist missing (not in " in text
    assert "set `data.download=true` to download 11.6 MB" in text


def test_the_list_ends_with_the_data_sets(no_network: list[str]) -> None:
    searches, _, sets = done("--list").partition("\n\n")
    assert "cifar_gated" in searches
    assert [each.split()[0] for each in sets.splitlines()] == ["digits", "mnist", "cifar10", "imagenet64"]
    assert line(sets, "cifar10 ") == (
        f"cifar10 is not in {data_root()}; a search will download 170.5 MB from https://www.cs.toronto.edu/~kriz/"
    )
    assert no_network == []


def test_a_dry_run_says_what_a_set_is_and_what_is_not_read_of_ones_own(own_folder: Path) -> None:
    said = done("--search", "small.py", "--dry-run", "--set", "data.name=mnist_static")
    assert line(said, "Set: ").startswith("Set: MNIST binarised once by Larochelle")
    pixels = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), (20, 1, 1))
    np.savez("own.npz", train=pixels, test=pixels[:1])
    said = done("--search", "small.py", "--dry-run", "--set", "data.name=array", "--set", "data.path=own.npz")
    assert (
        line(said, "Data note: ") == "Data note: 20 of the 20 training images are also in the test set, pixel by pixel"
    )
    assert "Set: " not in said
