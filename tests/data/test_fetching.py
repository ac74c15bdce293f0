"""Many processes of one machine that want the same set, from a server on loopback that counts what it is asked for."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixeltune.config import DataConfig
from pixeltune.data import SOURCES, load_data
from pixeltune.data.readers import downloads
from pixeltune.published_sets import MNIST, PublishedSet
from tests.support.image_sets import make_mnist, source_of_files

pytestmark = pytest.mark.slow

ASKS = 2
"""How often torchvision asks for a file: whether it lies elsewhere, and for the file."""
SPAWN = multiprocessing.get_context("spawn")


class Mirror(http.server.ThreadingHTTPServer):
    """asked: how often for each file. stalls: the file of which it does not send the end."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files = files
        self.asked: Counter[str] = Counter()
        self.stalls = ""
        self.stalled = threading.Event()
        self.released = threading.Event()
        self.barrier: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        content = self.server.files[name]
        self.server.asked[name] += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            most = max(len(content) - 100, len(content) // 2)  # torchvision writes 32 KiB at a time
            self.wfile.write(content[:most])
            self.wfile.flush()
            if name == self.server.stalls and self.server.asked[name] == ASKS:
                self.server.stalled.set()
                self.server.released.wait(60)
                return
            time.sleep(0.1)
            self.wfile.write(content[most:])

    def log_message(self, *_words: Any) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    """Of a small MNIST, its four files packed."""
    make_mnist(tmp_path / "published")
    files = {}
    for path in (tmp_path / "published").rglob("*ubyte*"):
        content = path.read_bytes()
        packed = content if path.suffix == ".gz" else gzip.compress(content)
        files[f"{path.name.removesuffix('.gz')}.gz"] = packed
    with Mirror(files) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


def _load(published: PublishedSet, root: Path, barrier: Any, answers: Any) -> None:
    """In a process of its own. Only the process that downloads imports torchvision."""
    imported, import_torchvision = [], downloads._torchvision

    def import_and_count() -> Any:
        imported.append(True)
        return import_torchvision()

    downloads._torchvision = import_and_count
    SOURCES["mnist"] = source_of_files(published)
    barrier.wait()
    data = load_data(DataConfig(name="mnist", path=str(root), download=True, num_valid=5))
    answers.put((data.identity.checksum, bool(imported)))


def published_at(mirror: Mirror) -> PublishedSet:
    """MNIST as this mirror has it; the file that stalls comes last."""
    archives = [replace(each, md5=hashlib.md5(mirror.files[each.name]).hexdigest()) for each in MNIST.archives]
    archives.sort(key=lambda each: each.name == mirror.stalls)
    return replace(MNIST, archives=tuple(archives), mirrors=(mirror.url,))


def _start(mirror: Mirror, root: Path, processes: int, answers: Any) -> list[BaseProcess]:
    barrier = mirror.barrier = SPAWN.Barrier(processes)  # kept, or it is gone before they have begun
    words = (published_at(mirror), root, barrier, answers)
    started: list[BaseProcess] = [SPAWN.Process(target=_load, args=words) for _ in range(processes)]
    for process in started:
        process.start()
    return started


def test_of_many_processes_one_fetches(mirror: Mirror, tmp_path: Path) -> None:
    answers: Any = SPAWN.Queue()
    processes = _start(mirror, tmp_path / "root", 4, answers)
    got = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    assert len({checksum for checksum, _ in got}) == 1
    assert sorted(fetched for _, fetched in got) == [False, False, False, True]
    assert mirror.asked == dict.fromkeys(mirror.files, ASKS)


@pytest.mark.parametrize("what", ["images-idx3", "labels-idx1"])
def test_a_fetch_that_is_killed_leaves_nothing_that_the_next_one_trusts(
    what: str, mirror: Mirror, tmp_path: Path
) -> None:
    answers: Any = SPAWN.Queue()
    mirror.stalls = f"train-{what}-ubyte.gz"
    (killed,) = _start(mirror, tmp_path / "root", 1, answers)
    assert mirror.stalled.wait(120)
    time.sleep(0.5)  # what has arrived is written
    killed.kill()
    killed.join()
    left = list((tmp_path / "root").rglob("*ubyte*"))
    assert left
    assert all(".part-mnist-" in str(path) for path in left)
    mirror.stalls = ""
    mirror.asked.clear()
    (again,) = _start(mirror, tmp_path / "root", 1, answers)
    checksum, fetched = answers.get(timeout=120)
    again.join(60)
    assert fetched
    assert mirror.asked == dict.fromkeys(mirror.files, ASKS)
    whole = load_data(DataConfig(name="mnist", path=str(tmp_path / "published"), num_valid=5))
    assert checksum == whole.identity.checksum


def test_whoever_waits_says_for_what(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers: Any = SPAWN.Queue()
    mirror.stalls = sorted(mirror.files)[-1]
    (fetching,) = _start(mirror, tmp_path / "root", 1, answers)
    assert mirror.stalled.wait(120)
    monkeypatch.setattr("pixeltune.data.file_lock._SAID_AFTER_SECONDS", 0.1)
    timer = threading.Timer(1.0, fetching.kill)
    timer.start()

    mirror.stalls = ""
    monkeypatch.setitem(SOURCES, "mnist", source_of_files(published_at(mirror)))
    data = load_data(DataConfig(name="mnist", path=str(tmp_path / "root"), download=True, num_valid=5))
    fetching.join()
    assert isinstance(data.train.pixels_NCHW, np.ndarray)
    said = [record.message for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("waiting for another process of this machine, which downloads mnist (")
