"""What files of others, names and settings cannot do: run code, leave their folders, or carry secrets away.

Each attack is first shown to work where nothing stands in its way.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from optuna.distributions import CategoricalDistribution, distribution_to_json

import pixeltune as pt
from pixeltune.cluster.cluster_file import read_cluster_file
from pixeltune.config import KEYS_NOT_HASHED, DataConfig, TrialConfig, stored
from pixeltune.data.readers import downloads, torchvision_sets
from pixeltune.errors import CheckpointError, DataError, SearchError, StoreError
from pixeltune.published_sets import CIFAR10, MNIST
from pixeltune.results.own_keys import has_key
from pixeltune.results.parquet_io import encode
from pixeltune.results.schema import TRIAL_SCHEMA
from pixeltune.results.store import SearchStore
from pixeltune.results.table_folder import StoreWarning
from pixeltune.search.checkpoint_retention import CheckpointRetention
from pixeltune.search.messages import TrialTask
from pixeltune.search.state import SearchState
from pixeltune.search.trial import run_trial
from pixeltune.training.checkpoint import TrainState
from pixeltune.training.weights import with_config
from tests.support.launching import launches, store_in, write_search
from tests.support.optional import why_not

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
[data]
name = "digits"
fraction = 0.25
num_valid = 64
[model]
family = "gated"
layers = 2
channels = 8
kernel_size = 3
[likelihood]
name = "categorical"
[train]
images = 128
batch_size = 32
report_every = 64
precision = "float32"
"""
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "Jd8sKq2ZpVx7Rt5YwN1mBc3LfHg6TuEa0QiOvXyz",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEPz-session-token-of-mine",
    "RAY_AUTH_TOKEN": "ray-token-0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "HF_TOKEN": "hf_AbCdEfGhIjKlMnOpQrStUvWx",
    "PASSWORD_OF_MINE": "correct-horse-battery",
}


class _Payload:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = str(mark)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (self._mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What an attack makes where it succeeds."""
    return tmp_path / "attacked"


@pytest.fixture
def payloads(mark: Path) -> list[bytes]:
    """The same attack as a plain pickle, and in torch's own two formats; all of which work on those who let them."""
    made = [pickle.dumps(_Payload(mark), protocol=2)]
    for is_zip in (True, False):
        stream = io.BytesIO()
        torch.save({"format": 1, "model": _Payload(mark)}, stream, _use_new_zipfile_serialization=is_zip)
        made.append(stream.getvalue())
    pickle.loads(made[0])
    mark.rmdir()
    for content in made[1:]:
        torch.load(io.BytesIO(content), weights_only=False)
        mark.rmdir()
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, str]]:
    """A storage with a training made by a user with secrets, what the command said, and the environment."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(CONFIG, encoding="utf-8")
    own = {"PIXELTUNE_CACHE": str(folder / "cache"), "PIXELTUNE_STORAGE": str(folder / "r"), "OMP_NUM_THREADS": "1"}
    environment = os.environ | own | SECRETS
    said = _run(["train", "--config", str(folder / "tiny.toml")], folder, environment)
    assert said.returncode == 0, said.stderr
    return folder / "r", said.stdout + said.stderr, environment


@pytest.fixture
def results(trained: tuple[Path, str, dict[str, str]], tmp_path: Path) -> Path:
    """A copy of that storage, for the test to spoil."""
    shutil.copytree(trained[0], tmp_path / "r")
    return tmp_path / "r"


Refused = Callable[..., str]


@pytest.fixture
def refused(
    no_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """The one line with which a command refuses, given in the test's own folder."""
    from pixeltune.cli import main

    def refuse(*words: str) -> str:
        monkeypatch.chdir(tmp_path)
        assert main([*words]) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1, said
        return said.out + said.err

    return refuse


def _run(words: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pixeltune", *words]
    path = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, env=environment | path)


PLACES = (
    "tiny/checkpoints/00000/state.pt",
    "tiny/checkpoints/00000/weights.safetensors",
    "tiny/trials/00000-1.parquet",
    "tiny/curves/00000-1.parquet",
    "tiny/search.json",
    "tiny/launch.json",
    "tiny/warm_start.parquet",
    "tiny/images/00000.parquet",
    "tiny/samples/00000.png",
    "tiny/tuner.pkl",
)
VERBS = (
    ("evaluate", "tiny"),
    ("sample", "tiny", "-n", "1", "--out", "drawn.png"),
    ("show", "tiny"),
    ("export", "tiny", "--out", "exported"),
    ("rerun", "tiny", "--name", "again"),
    ("report", "tiny"),
    ("status", "tiny"),
    ("compare", "tiny"),
    ("compact", "tiny"),
)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_no_verb_unpickles_what_lies_in_a_results_folder(
    verb: tuple[str, ...], results: Path, payloads: list[bytes], mark: Path, tmp_path: Path
) -> None:
    """Everything is spoilt in its turn, then all at once. A verb may refuse, in one line; it runs nothing."""
    from pixeltune.cli import main

    whole = tmp_path / "whole"
    shutil.copytree(results, whole)
    for number, chosen in enumerate([[], *([place] for place in PLACES), PLACES]):
        for folder in (results, tmp_path / "exported"):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, results)
        for place in chosen:
            (results / place).parent.mkdir(parents=True, exist_ok=True)
            (results / place).write_bytes(payloads[number % len(payloads)])
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            patch.chdir(tmp_path)
            code = main([*verb, "--storage", str(results)])
        assert code in ((0, 2) if chosen else (0,)), (verb, chosen)
        assert not mark.exists(), chosen


@pytest.mark.parametrize("number", range(3))
def test_a_state_of_others_is_not_unpickled_and_the_trial_begins_anew(
    number: int, payloads: list[bytes], mark: Path, tmp_path: Path
) -> None:
    """As a resumed search and a resumed training read it."""
    state = tmp_path / "00000" / "state.pt"
    state.parent.mkdir()
    state.write_bytes(payloads[number])
    with pytest.raises(CheckpointError, match="must be whole"):
        TrainState.load(str(state))
    config = pt.TrialConfig.from_toml(_toml(tmp_path))
    first, *_ = run_trial(TrialTask(trial="00000", config=config.model_dump(), checkpoint=str(state.parent)))
    assert first["resumed"] == []
    assert state.with_name("state.pt.corrupt").exists()
    assert not mark.exists()


def test_weights_of_others_are_not_unpickled(payloads: list[bytes], mark: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    for content in payloads:
        weights.write_bytes(content)
        with pytest.raises(CheckpointError, match="safetensors"):
            pt.load_model(str(weights))
    assert not mark.exists()


def test_results_of_others_are_read_without_unpickling(results: Path, payloads: list[bytes], mark: Path) -> None:
    """pandas, curves, a study, and a warm start."""
    for place in ("tiny/trials/00001-1.parquet", "tiny/curves/00000-1.parquet"):
        (results / place).write_bytes(payloads[0])
    with pytest.warns(StoreWarning, match="left out"):
        assert len(pt.read_results(str(results))) == 1
    with pytest.warns(StoreWarning, match="left out"):
        assert len(pt.read_curves(str(results))) == 0
    assert not mark.exists()


def test_published_sets_are_checked_before_they_are_unpickled(
    payloads: list[bytes], mark: Path, tmp_path: Path
) -> None:
    """CIFAR-10 is published as pickles: torchvision reads those with the published sums, and no others."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for (name,) in CIFAR10.archives[0].files:
        (tmp_path / name).write_bytes(payloads[0])
    with pytest.raises(DataError, match="must hold the published files"):
        torchvision_sets.read_cifar10(CIFAR10, DataConfig(name="cifar10", path=str(tmp_path)))
    assert not mark.exists()


def test_arrays_of_others_are_not_unpickled(mark: Path, tmp_path: Path) -> None:
    from pixeltune.data.readers import arrays

    hostile = np.empty(1, dtype=object)
    hostile[0] = _Payload(mark)
    np.save(tmp_path / "a.npy", hostile, allow_pickle=True)
    np.savez(tmp_path / "a.npz", train=hostile)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError):
            arrays.read(DataConfig(name="array", path=str(tmp_path / name)))
    np.load(tmp_path / "a.npy", allow_pickle=True)
    assert mark.exists(), "it works on those who let it"


def test_nothing_in_the_package_can_unpickle() -> None:
    """torch.load with weights_only alone; no pickle but the name of its exception; YAML read safely."""
    allowed = {"except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:"}
    for path in [*(ROOT / "pixeltune").rglob("*.py"), ROOT / "launch.py"]:
        for line in map(str.strip, path.read_text(encoding="utf-8").splitlines()):
            where = f"{path}: {line}"
            assert "torch.load(" not in line or "weights_only=True" in line, where
            assert "np.load(" not in line or "allow_pickle=True" not in line, where
            assert not ("pickle." in line and line not in allowed), where
            for word in (
                "yaml.load",
                "unsafe_load",
                "full_load",
                "read_pickle",
                "joblib",
                "extractall",
                "unpack_archive",
            ):
                assert word not in line, where


@pytest.mark.parametrize("content", ["!!python/object/apply:os.mkdir [{}]", "metadata: !!python/name:os.system ''"])
def test_a_cluster_file_is_read_safely(content: str, mark: Path, tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text(content.format(mark), encoding="utf-8")
    yaml.unsafe_load(path.read_text(encoding="utf-8"))  # works, and has worked here:
    if "mkdir" in content:
        mark.rmdir()
    with pytest.raises(SearchError, match="must be readable YAML"):
        read_cluster_file(path)
    refused("cluster", "check", str(path))
    assert not mark.exists()


NAMES = ("../x", "..", "/tmp/x", "a/../../x", "a/b", ".x", "", "a\x00b", "a b", "~", "x\n")


@pytest.mark.parametrize("name", NAMES)
def test_names_of_searches_stay_in_their_storage(name: str, tmp_path: Path, refused: Refused) -> None:
    with pytest.raises(StoreError, match="a search name must be"):
        SearchStore(str(tmp_path / "r"), name)
    _toml(tmp_path)
    if name:  # without one a training is called as its file
        assert "a search name must be" in refused("train", "--config", "tiny.toml", f"--name={name}", "--storage", "r")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.toml"]


@pytest.mark.parametrize(
    "reference", ["../x", "tiny/../x", "tiny/../../tiny", "tiny//etc", "/etc/passwd", "tiny/%2e%2e"]
)
@pytest.mark.parametrize("verb", ["show", "evaluate", "export", "rerun"])
def test_references_to_trials_stay_in_their_search(verb: str, reference: str, results: Path, refused: Refused) -> None:
    before = sorted(map(str, results.parent.rglob("*")))
    refused(verb, reference, "--storage", "r")
    assert sorted(map(str, results.parent.rglob("*"))) == before


@pytest.mark.parametrize(
    "setting",
    [
        "data.name=../../x",
        "model.family=../x",
        "../x=1",
        "data.name=os:../x",
        "likelihood.name=/etc/passwd",
        "x/../y=1",
    ],
)
def test_settings_name_no_files_of_their_own(setting: str, tmp_path: Path, refused: Refused) -> None:
    _toml(tmp_path)
    refused("train", "--config", "tiny.toml", "--storage", "r", "--set", setting)
    assert {path.name for path in tmp_path.iterdir()} <= {"tiny.toml", "r"}


@pytest.mark.parametrize("trial", ["../../../victim", "..", "", "a/b", "/victim", "a\x00", "00000\n"])
@pytest.mark.parametrize("is_compacted", [False, True])
def test_rows_of_others_name_no_folder_elsewhere(
    trial: str, results: Path, tmp_path: Path, *, is_compacted: bool
) -> None:
    """What a search keeps of trials that ended is removed by their names: with this row, another's folder was."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "state.pt").touch()
    store = SearchStore(str(results), "tiny")
    manifest = store.manifest()
    (row,) = store.attempts()
    hostile = row | {"trial": trial, "number": 7, "status": "pruned", "valid_bits_per_dim": 99.0}
    name = "compacted-00001" if is_compacted else "00007-1"
    Path(store.trials_folder, f"{name}.parquet").write_bytes(encode([hostile], TRIAL_SCHEMA))
    assert pq.read_table(Path(store.trials_folder, f"{name}.parquet"))["trial"].to_pylist() == [trial]
    with pytest.warns(StoreWarning, match="names trials otherwise"):
        rows = store.trials()
    assert [each["trial"] for each in rows] == ["00000"]
    from pixeltune.search.final import space_of

    space = space_of(manifest)
    search_state = SearchState(space, store)
    CheckpointRetention(search_state).tidy_all()
    assert (victim / "state.pt").exists()


READERS = (
    ("show", "tiny"),
    ("show", "tiny", "--toml"),
    ("export", "tiny", "--out", "exported"),
    ("report", "tiny"),
    ("status", "tiny"),
    ("compare", "tiny"),
    ("compact", "tiny"),
)


def _naming(results: Path, family: str, keys: dict[str, Any]) -> None:
    """Make each row, search.json and the weights of `tiny` name a family."""
    store = SearchStore(str(results), "tiny")
    (row,) = store.attempts()
    with stored():
        config = TrialConfig.from_flat({key: row[key] for key in row if has_column(key) and has_key(row, key)})
        config = config.override({"model.family": family, **keys})
    own = json.dumps({key: value for key, value in config.flat().items() if key.startswith("model.")})
    changed = row | {key: value for key, value in config.flat().items() if key in row}
    changed |= {"own_keys": own, "own_code": "0" * 16, "config_key": config.key()}
    Path(store.trials_folder, "00000-1.parquet").write_bytes(encode([changed], TRIAL_SCHEMA))
    base = {key: value for key, value in config.flat().items() if key not in KEYS_NOT_HASHED}
    choices = distribution_to_json(CategoricalDistribution(("gated", family)))
    manifest = replace(store.manifest(), base=base, overrides={"model.family": family}, vary={"model.family": choices})
    Path(store.folder, "search.json").write_text(manifest.to_json(), encoding="utf-8")
    weights = Path(store.checkpoint("00000"), "weights.safetensors")
    weights.write_bytes(with_config(weights.read_bytes(), lambda _config: config))


def has_column(key: str) -> bool:
    return key.partition(".")[0] in TrialConfig.model_fields


def test_reading_results_imports_nothing_that_they_name(
    results: Path, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where Python would find it: in the working directory, into which results of others were unpacked."""
    from pixeltune.cli import main

    (tmp_path / "evil_family.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.chdir(tmp_path)
    _naming(results, "evil_family:Evil", {})
    for words in READERS:
        if words[0] == "report" and why_not("plotly", "jinja2"):
            continue
        assert main([*words, "--storage", str(results)]) == 0, (words, capsys.readouterr())
        assert not mark.exists(), words
    frame = pt.read_results(results)
    assert frame["model.family"].tolist() == ["evil_family:Evil"]
    pt.study(results / "tiny")
    pt.compare(frame)
    assert not mark.exists()
    for words in (("evaluate", "tiny"), ("rerun", "tiny", "--name", "again")):  # those that were asked to run it
        assert main([*words, "--storage", str(results)]) == 2
        assert mark.exists(), words
        mark.rmdir()
        sys.modules.pop("evil_family", None)


@pytest.mark.parametrize(
    "text",
    [
        '{"status": "finished"}',
        '{"trial": "../../x"}',
        '{"model.x": {"a": 1}}',
        '{"model.x": [1]}',
        '{"data.path": "/etc"}',
        '{"model./x": 1}',
        "[1]",
        "{",
    ],
)
def test_own_keys_of_others_are_keys_of_a_model_alone(text: str, results: Path) -> None:
    store = SearchStore(str(results), "tiny")
    place = Path(store.trials_folder, "00000-1.parquet")
    table = pq.read_table(place)
    column = table.schema.get_field_index("own_keys")
    table = table.set_column(column, table.schema.field("own_keys"), [pa.array([text])])
    metadata = pq.ParquetFile(place).metadata.metadata or {}
    known = {key: value for key, value in metadata.items() if key != b"sha256"}
    with pq.ParquetWriter(place, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(known)
    with pytest.warns(StoreWarning, match=r"left out .*(`own_keys` must hold values|Expecting property name)"):
        assert store.trials() == []


def test_own_keys_of_others_replace_no_column(results: Path) -> None:
    store = SearchStore(str(results), "tiny")
    (row,) = store.attempts()
    hostile = row | {"own_keys": json.dumps({"model.channels": 10**6, "model.mine": 3})}
    Path(store.trials_folder, "00000-1.parquet").write_bytes(encode([hostile], TRIAL_SCHEMA))
    (read,) = store.trials()
    assert (read["model.channels"], read["model.mine"]) == (8, 3)
    assert pt.read_results(results)["model.channels"].tolist() == [8]


def _toml(folder: Path) -> str:
    (folder / "tiny.toml").write_text(CONFIG, encoding="utf-8")
    return str(folder / "tiny.toml")


class _Archives:
    """An archive of published data as its publisher never made it: a member that leaves the folder."""

    @staticmethod
    def members(kind: str, victim: Path) -> list[tarfile.TarInfo]:
        entry = tarfile.TarInfo({"dots": "../victim", "absolute": str(victim)}.get(kind, "inside"))
        if kind in ("symlink", "hard link"):
            entry.type = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE
            entry.linkname = "../victim"
        if kind == "device":
            entry.type, entry.devmajor, entry.devminor = tarfile.CHRTYPE, 1, 3
        return [entry]


@pytest.mark.parametrize("kind", ["dots", "absolute", "symlink", "hard link", "device"])
def test_archives_of_data_sets_are_those_of_their_publisher_or_not_unpacked(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive that is put into the data folder is unpacked only with the published sum."""
    victim, root = tmp_path / "victim", tmp_path / "data"
    root.mkdir()
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        for member in _Archives.members(kind, victim):
            archive.addfile(member, io.BytesIO())
    monkeypatch.setattr("socket.getaddrinfo", _no_network)
    with pytest.raises(DataError, match="must be the published file, but is not: its MD5 sum"):
        downloads.require_paths(CIFAR10, DataConfig(name="cifar10", path=str(root), download=True))
    assert not victim.exists()
    assert not list(root.glob("inside*"))


def _no_network(*_words: object, **_options: object) -> None:
    raise OSError("no network here")


def test_a_packed_file_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits of 60,000 images have 47 MB; this one of 1 MB would have a gigabyte."""
    monkeypatch.setattr(torchvision_sets, "LARGEST_IDX_BYTES", 10_000_000)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte.gz").write_bytes(gzip.compress(bytes(20_000_000)))
    with pytest.raises(DataError, match=r"must have at most 10,000,000 bytes unpacked"):
        torchvision_sets.read_idx(MNIST, DataConfig(name="mnist", path=str(tmp_path)))


def _bytes_below(*folders: Path) -> dict[str, bytes]:
    found = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                found[str(path)] = gzip.decompress(content) if path.suffix == ".gz" else content
    return found


@pytest.mark.needs("plotly", "jinja2")
def test_no_secret_stands_in_results_logs_or_reports(trained: tuple[Path, str, dict[str, str]], tmp_path: Path) -> None:
    storage, said, environment = trained
    for words in (["show", "tiny"], ["report", "tiny"], ["export", "tiny", "--out", "exported"], ["status", "tiny"]):
        done = _run(words, tmp_path, environment)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    written = _bytes_below(storage, tmp_path)
    assert any(name.endswith(".html") for name in written)
    assert any(b"00000" in content for content in written.values()), "what is looked at is not empty"
    for frame in (pt.read_results(str(storage)), pt.read_curves(str(storage))):
        said += frame.to_csv()
    for name, secret in SECRETS.items():
        assert secret not in said, name
        assert not [path for path, content in written.items() if secret.encode() in content], name


FAILING = """
import os, sys
from pathlib import Path

from pixeltune.data.readers import digits


def images(config):
    if "default_worker" in sys.argv[0]:
        assert os.environ["PASSWORD_OF_MINE"], "the trial's process has it too"
        try:
            os.close(os.open(Path(__file__).with_name("failed"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return digits.read(config)
        raise ValueError("no images this time")
    return digits.read(config)
"""


@pytest.mark.slow
@pytest.mark.ray
def test_no_secret_stands_in_the_results_of_a_search(tmp_path: Path) -> None:
    """Nor of a trial that fails: tracebacks, and whatever processes of Ray print."""
    (tmp_path / "mymod.py").write_text(FAILING, encoding="utf-8")
    search = write_search(tmp_path, trials=2)
    search.write_text(search.read_text().replace('"name": "digits"', '"name": "mymod:images"'))
    with launches(tmp_path / "r") as launch:
        run = launch(search, **SECRETS)
        assert run.wait(400) == 0, run.err
        said = run.out + run.err
    rows = store_in(tmp_path / "r").attempts()
    assert sorted(row["status"] for row in rows) == ["failed", "finished", "finished"]
    said += "".join(str(row) for row in rows)
    written = _bytes_below(tmp_path / "r")
    for name, secret in SECRETS.items():
        assert secret not in said, name
        assert not [path for path, content in written.items() if secret.encode() in content], name


@pytest.mark.parametrize(
    "storage",
    [
        "s3://AKIAIOSFODNN7EXAMPLE:abcdefgh@bucket/r",
        "s3://bucket/r?secret_key=abcdefgh",
        "s3://bucket/r?Token=abcdefgh",
    ],
)
@pytest.mark.parametrize(
    "verb", [("train", "--config", "tiny.toml"), ("status", "tiny"), ("report", "tiny"), ("doctor",)]
)
def test_a_location_with_credentials_is_refused_and_not_repeated(
    storage: str, verb: tuple[str, ...], tmp_path: Path, refused: Refused
) -> None:
    _toml(tmp_path)
    said = refused(*verb, "--storage", storage)
    assert "abcdefgh" not in said
    assert "without secrets" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.toml"]


def test_what_others_know_of_a_launch_names_no_environment(trained: tuple[Path, str, dict[str, str]]) -> None:
    for path in trained[0].rglob("*.json"):
        text = json.dumps(json.loads(path.read_text(encoding="utf-8")))
        assert not [name for name in SECRETS if name in text], path
