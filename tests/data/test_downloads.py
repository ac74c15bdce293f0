"""Downloads that fail, and what the error says; every server is on loopback, and no name is really resolved."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import shutil
import socket
import tarfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pixeltune.config import DataConfig
from pixeltune.data import SOURCES, load_data
from pixeltune.data.load import forget_loaded
from pixeltune.data.readers import downloads
from pixeltune.errors import DataError, MissingDataError
from pixeltune.published_sets import (
    CELEBA64,
    CIFAR10,
    EMNIST,
    MNIST,
    MNIST_STATIC,
    PUBLISHED_SETS,
    SVHN,
    Archive,
    PublishedSet,
)
from tests.support import image_sets
from tests.support.image_sets import make_emnist, make_mnist, make_mnist_static, source_of_files, write_cifar10

NO_SUCH_HOST = "http://host.invalid/"


class Server(http.server.ThreadingHTTPServer):
    """Answers with `files`; answer: what it does instead of sending the whole file."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.answer = "whole"
        self.end = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        self.server.asked.append(name)
        if self.server.answer.isdecimal():
            self.send_error(int(self.server.answer))
            return
        content = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        sent = {"whole": content, "other": bytes(len(content))}.get(self.server.answer, content[: len(content) // 2])
        self.wfile.write(sent)
        if self.server.answer == "silent":
            self.wfile.flush()
            self.server.end.wait(30)

    def log_message(self, *_words: Any) -> None:
        pass


class Mirrored(NamedTuple):
    """A small data set on a server of this machine."""

    server: Server
    published: PublishedSet
    config: DataConfig

    def publish(self, patch: pytest.MonkeyPatch, **changes: Any) -> None:
        published = replace(self.published, **changes)
        patch.setitem(SOURCES, published.name, source_of_files(published))


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.end.set()
        running.shutdown()


def with_content(archive: Archive, content: bytes) -> Archive:
    return replace(archive, num_bytes=len(content), md5=hashlib.md5(content).hexdigest())


def mirrored_mnist(server: Server, folder: Path) -> PublishedSet:
    make_mnist(folder)
    for path in (folder / "MNIST" / "raw").iterdir():
        server.files[path.name] = path.read_bytes()
    archives = tuple(with_content(archive, server.files[archive.name]) for archive in MNIST.archives)
    return replace(MNIST, archives=archives, mirrors=(server.url,), unpacked_bytes=100_000)


def mirrored_cifar10(server: Server, folder: Path) -> PublishedSet:
    write_cifar10(folder)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")
    (published,) = CIFAR10.archives
    server.files[published.name] = stream.getvalue()
    archives = (with_content(published, stream.getvalue()),)
    return replace(CIFAR10, archives=archives, mirrors=(server.url,), unpacked_bytes=200_000)


def mirrored_mnist_static(server: Server, folder: Path) -> PublishedSet:
    """Plain files, recognised by their SHA-256."""
    make_mnist_static(folder)
    for path in folder.iterdir():
        server.files[path.name] = path.read_bytes()
    archives = tuple(
        replace(archive, num_bytes=1, sha256=hashlib.sha256(server.files[archive.name]).hexdigest())
        for archive in MNIST_STATIC.archives
    )
    return replace(MNIST_STATIC, archives=archives, mirrors=(server.url,), unpacked_bytes=100_000)


def mirrored_emnist(server: Server, folder: Path) -> PublishedSet:
    """One ZIP archive of packed files."""
    make_emnist(folder)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in (folder / "EMNIST" / "raw" / "gzip").iterdir():
            archive.write(path, f"gzip/{path.name}")
    (published,) = EMNIST.archives
    server.files[published.name] = stream.getvalue()
    digest = hashlib.sha256(stream.getvalue()).hexdigest()
    archives = (replace(published, num_bytes=len(stream.getvalue()), sha256=digest),)
    return replace(EMNIST, archives=archives, mirrors=(server.url,), unpacked_bytes=200_000)


MAKERS = {
    "mnist": mirrored_mnist,
    "cifar10": mirrored_cifar10,
    "mnist_static": mirrored_mnist_static,
    "emnist": mirrored_emnist,
}


@pytest.fixture(params=MAKERS)
def mirrored(
    request: pytest.FixtureRequest, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust_cifar10: None
) -> Mirrored:
    published = MAKERS[request.param](server, tmp_path / "published")
    config = DataConfig(name=request.param, path=str(tmp_path / "root"), download=True)
    if published.num_valid is None:
        config = config.model_copy(update={"num_valid": 5})
    each = Mirrored(server, published, config)
    each.publish(monkeypatch)
    return each


def refusal(config: DataConfig, kind: type[DataError] = MissingDataError) -> str:
    return image_sets.refusal(config, kind)


def assert_says_what_to_do(message: str, mirrored: Mirrored, url: str) -> None:
    """Which file, from where, and what to do without a network."""
    archive, root = mirrored.published.archives[0], Path(str(mirrored.config.path))
    assert message.startswith(f"{mirrored.config.name} must be downloaded, but {archive.name} could not be (")
    assert f"{url}{archive.name}: " in message
    names = ", ".join(each.name for each in mirrored.published.archives)
    assert f"without a network put {names} into {root / archive.folder}, or set `data.path`" in message


def test_the_table_is_that_of_torchvision() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    for name, kind in (("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")):
        published, theirs = PUBLISHED_SETS[name], getattr(datasets, kind)
        assert [(archive.name, archive.md5) for archive in published.archives] == theirs.resources
        assert list(published.mirrors) == theirs.mirrors
        assert {archive.folder for archive in published.archives} == {f"{kind}/raw"}
    assert [(each.name, each.md5) for each in SVHN.archives] == [
        tuple(datasets.SVHN.split_list[split][1:]) for split in ("train", "test")
    ]
    assert f"{SVHN.mirrors[0]}train_32x32.mat" == datasets.SVHN.split_list["train"][0]
    (zipped,) = EMNIST.archives
    assert (f"{EMNIST.mirrors[0]}{zipped.name}", zipped.md5) == (datasets.EMNIST.url, datasets.EMNIST.md5)
    listed = {name: md5 for _, md5, name in datasets.CelebA.file_list}
    assert all(listed[each.name] == each.md5 for each in CELEBA64.archives)
    (archive,) = CIFAR10.archives
    theirs = datasets.CIFAR10
    assert (f"{CIFAR10.mirrors[0]}{archive.name}", archive.name, archive.md5) == (
        theirs.url,
        theirs.filename,
        theirs.tgz_md5,
    )
    listed = [name for name, _ in theirs.train_list + theirs.test_list] + [theirs.meta["filename"]]
    assert [name for (name,) in archive.files] == [f"{theirs.base_folder}/{name}" for name in listed]


def test_a_download_is_whole_and_made_once(mirrored: Mirrored) -> None:
    data = load_data(mirrored.config)
    assert data.test is not None
    asked = len(mirrored.server.asked)
    forget_loaded()
    load_data(mirrored.config.model_copy(update={"split_seed": 1}))
    assert len(mirrored.server.asked) == asked
    root = Path(str(mirrored.config.path))
    assert not list(root.glob(".part-*"))
    assert mirrored.published.missing(root) == []


def test_only_what_is_missing_is_downloaded(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = mirrored_mnist(server, tmp_path / "published")
    config = DataConfig(name="mnist", path=str(tmp_path / "root"), download=True, num_valid=5)
    Mirrored(server, published, config).publish(monkeypatch)
    raw = tmp_path / "root" / "MNIST" / "raw"
    shutil.copytree(tmp_path / "published", tmp_path / "root")
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    train = raw / "train-images-idx3-ubyte.gz"
    (raw / "train-images-idx3-ubyte").write_bytes(gzip.decompress(train.read_bytes()))
    train.unlink()
    message = refusal(config.model_copy(update={"download": False}))
    assert "MNIST/raw/t10k-labels-idx1-ubyte is not there" in message
    load_data(config)
    assert set(server.asked) == {"t10k-labels-idx1-ubyte.gz"}


@pytest.mark.parametrize("answer", ["404", "500"])
def test_a_server_that_refuses_is_named(answer: str, mirrored: Mirrored) -> None:
    mirrored.server.answer = answer
    message = refusal(mirrored.config)
    assert_says_what_to_do(message, mirrored, mirrored.server.url)
    assert f"HTTP Error {answer}" in message


@pytest.mark.parametrize("answer", ["cut short", "other"])
def test_a_file_that_is_not_the_published_one_is_not_kept(answer: str, mirrored: Mirrored) -> None:
    mirrored.server.answer = answer
    assert_says_what_to_do(refusal(mirrored.config), mirrored, mirrored.server.url)
    root = Path(str(mirrored.config.path))
    assert [path.name for path in root.iterdir()] == [f".lock-{mirrored.config.name}"]
    mirrored.server.answer = "whole"
    load_data(mirrored.config)


def test_a_server_that_falls_silent_is_not_waited_for_for_ever(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_SILENT_SECONDS", 0.2)
    mirrored.server.answer = "silent"
    message = refusal(mirrored.config)
    assert_says_what_to_do(message, mirrored, mirrored.server.url)
    assert "timed out" in message
    assert socket.getdefaulttimeout() is None


def test_a_port_that_is_closed_is_named(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    mirrored.publish(monkeypatch, mirrors=(url,))
    message = refusal(mirrored.config)
    assert_says_what_to_do(message, mirrored, url)
    assert "refused" in message


def test_the_next_mirror_is_tried(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch, no_names: list[str]) -> None:
    with Server() as bad:
        bad.answer = "404"
        threading.Thread(target=bad.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        mirrored.publish(monkeypatch, mirrors=(NO_SUCH_HOST, bad.url, mirrored.server.url))
        load_data(mirrored.config)
        bad.shutdown()
    assert set(bad.asked) == set(mirrored.server.asked)
    assert no_names.count("host.invalid") == 1


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine without a network: no name resolves. The hosts that were asked for."""
    resolve, asked = socket.getaddrinfo, []

    def fail(host: Any, *words: Any, **options: Any) -> Any:
        asked.append(host)
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve(host, *words, **options)

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return asked


@pytest.mark.parametrize("name", ["mnist", "mnist_static", "fashion_mnist", "emnist", "omniglot", "cifar10", "svhn"])
def test_without_a_network_a_download_ends_before_it_begins(
    name: str, no_names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_torchvision", None)  # seconds, that are spared
    published = PUBLISHED_SETS[name]
    message = refusal(DataConfig(name=name, path=str(tmp_path), download=True))
    for mirror in published.mirrors:
        host = mirror.split("/")[2]
        assert f"{mirror}{published.archives[0].name}: the name {host} does not resolve (" in message
    names = ", ".join(archive.name for archive in published.archives)
    assert f"put {names} into {tmp_path / published.archives[0].folder}, " in message
    assert len(no_names) == len(published.mirrors)


def test_a_resolver_that_does_not_answer_is_not_waited_for(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch, no_names: list[str]
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_words, **_options: answered.wait(20))
    monkeypatch.setattr(downloads, "_RESOLVE_SECONDS", 0.1)
    mirrored.publish(monkeypatch, mirrors=(NO_SUCH_HOST, "http://other.invalid/"))
    began = time.monotonic()
    message = refusal(mirrored.config)
    answered.set()
    assert time.monotonic() - began < 5
    assert "the name host.invalid does not resolve (no answer in 0.1 s)" in message
    assert "the name other.invalid does not resolve (no answer in 0.1 s)" in message


def test_a_proxy_resolves_names_itself(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch, no_names: list[str]
) -> None:
    """The server takes the part of the proxy, which is asked for whole URLs."""
    monkeypatch.setenv("http_proxy", mirrored.server.url)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use
    mirrored.server.files = {NO_SUCH_HOST + name: content for name, content in mirrored.server.files.items()}
    mirrored.publish(monkeypatch, mirrors=(NO_SUCH_HOST,))
    load_data(mirrored.config)
    assert "host.invalid" not in no_names
    monkeypatch.setenv("no_proxy", "host.invalid")
    shutil.rmtree(str(mirrored.config.path))
    forget_loaded()
    assert "the name host.invalid does not resolve" in refusal(mirrored.config)


def test_an_archive_that_was_put_there_needs_no_network(
    mirrored: Mirrored, no_names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the error without a network says."""
    mirrored.publish(monkeypatch, mirrors=(NO_SUCH_HOST,))
    message = refusal(mirrored.config)
    root = Path(str(mirrored.config.path))
    for archive in mirrored.published.archives:
        target = root / archive.folder / archive.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(mirrored.server.files[archive.name])
        assert f" into {root / archive.folder}, " in message
    forget_loaded()
    assert load_data(mirrored.config).test is not None
    assert mirrored.server.asked == []


def test_an_archive_that_was_put_there_is_checked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = mirrored_cifar10(server, tmp_path / "published")
    config = DataConfig(name="cifar10", path=str(tmp_path / "root"), download=True)
    Mirrored(server, published, config).publish(monkeypatch)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "cifar-10-python.tar.gz").write_bytes(b"half of it")
    message = refusal(config, DataError)
    assert message.startswith(
        f"{tmp_path / 'root' / 'cifar-10-python.tar.gz'} must be the published file, but is not: "
    )
    assert "remove it, or copy it again" in message


def test_a_full_disk_is_noticed_before_the_download(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=50_000))
    message = refusal(mirrored.config, DataError)
    assert f"{mirrored.config.name} must have 0." in message
    assert "but 0.1 MB are free; free some" in message
    assert mirrored.server.asked == []


def test_a_disk_that_fills_up_is_not_taken_for_the_network(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    utils = downloads._torchvision().datasets.utils

    def fill(*_words: Any, **_options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(utils, "download_url", fill)
    message = refusal(mirrored.config, DataError)
    assert "No space left on device" in message
    assert "network" not in message


def test_a_path_that_is_a_file_is_refused(mirrored: Mirrored, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, says in ((tmp_path / "file", "must be a folder"), (tmp_path / "file" / "below", "writing there failed")):
        message = refusal(mirrored.config.model_copy(update={"path": str(path)}), DataError)
        assert says in message
        assert "`data.path`" in message
