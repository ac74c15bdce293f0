"""Download published archives with torchvision, and report which file could not be fetched from where.

A host whose name does not resolve is not waited for, and no server is waited for without an end.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import shutil
import socket
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pixeltune.config import DataConfig
from pixeltune.data.file_lock import node_lock, remove_leftovers
from pixeltune.data.readers.paths import in_one_line
from pixeltune.errors import DataError, MissingDataError
from pixeltune.format import is_or_are, listed, size_text
from pixeltune.published_sets import Archive, PublishedSet

_RESOLVE_SECONDS = 4.0
"""Limit for the names of the hosts to resolve: without a network, a resolver answers after five to twenty seconds."""

_SILENT_SECONDS = 60.0
"""Limit for a server that sends nothing."""

_FAILURES = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    http.client.HTTPException,
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
)
"""How a download fails, or the file that came is not the published one."""

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of this machine's disk: another mirror would meet the same."""


def require_files(published: PublishedSet, path: str | None, *, download: bool) -> Path:
    """Return the folder of a published set whose files are all there, downloaded first where that is allowed.

    One process of a node downloads, into a folder of its own, and each file appears whole, by a rename: a process that
    reads without the lock, or after a download that was killed, sees whole files or none.

    Args:
        published: The data set.
        path: `data.path`.
        download: `data.download`.

    Returns:
        The folder.

    Raises:
        MissingDataError: Files are missing, and may not be or cannot be downloaded.
        DataError: There is no room, or a file that is there is not the published one.
    """
    root = published.root(path)
    if root.exists() and not root.is_dir():
        raise DataError(
            f"`data.path` must be a folder, but {root} is a file; set it to the folder that holds the files"
        )
    missing = published.missing(root)
    if not missing:
        return root
    if not download or not published.mirrors:
        raise MissingDataError(
            f"{published.name} must be in {root}, but {listed(missing, most=12)} {is_or_are(len(missing))} not there; "
            f"{published.how_to_get(root, download=False)}"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with node_lock(root / f".lock-{published.name}", f"downloads {published.name}"):
            if published.missing(root):
                _download(published, root)
    except OSError as error:
        raise DataError(
            f"{published.name} must be downloaded into {root}, but writing there failed ({in_one_line(error)}); "
            "free some disk, make the folder writable, or set `data.path`"
        ) from error
    return root


def require_paths(published: PublishedSet, config: DataConfig) -> list[Path]:
    """Return the files of a published set in the order of its archives, downloaded first where that is allowed."""
    root = require_files(published, config.path, download=config.download)
    return [path for path in published.present(root) if path is not None]


def _download(published: PublishedSet, root: Path) -> None:
    remove_leftovers(root, published.name)
    _require_space(published, root)
    to_download = published.to_download(root)
    mirrors = _reachable(published, root, to_download) if to_download else []
    with tempfile.TemporaryDirectory(prefix=f".part-{published.name}-", dir=root) as folder:
        for archive in published.archives:
            if archive.missing(root):
                _fetch(archive, mirrors, published, root, Path(folder))
        for file in [path for path in Path(folder).rglob("*") if path.is_file()]:
            target = root / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)


def _fetch(archive: Archive, mirrors: Sequence[str], published: PublishedSet, root: Path, folder: Path) -> None:
    """Put the files of an archive below `folder`: of the one stored below `root`, or else of the first mirror."""
    utils = _torchvision().datasets.utils
    stored, unpacked = root / archive.path, folder / archive.folder
    if stored.is_file():
        try:
            _require_published(archive, stored)
            utils.extract_archive(str(stored), str(unpacked))
        except (ValueError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{stored} must be the published file, but is not: {in_one_line(error)}; remove it, or copy it again"
            ) from error
        return
    failures = []
    for mirror in mirrors:
        try:
            with _bounded_silence():
                utils.download_url(f"{mirror}{archive.name}", str(unpacked), filename=archive.name)
            _require_published(archive, unpacked / archive.name)
            if not archive.is_plain:
                utils.extract_archive(str(unpacked / archive.name), str(unpacked))
        except _FAILURES as error:
            if getattr(error, "errno", None) in _DISK_ERRORS:
                raise
            (unpacked / archive.name).unlink(missing_ok=True)
            failures.append(f"{mirror}{archive.name}: {in_one_line(error)}")
        else:
            return
    raise _failed(published, root, archive, failures)


def _require_published(archive: Archive, path: Path) -> None:
    fault = archive.fault(path)
    if fault:
        raise ValueError(fault)


def _failed(published: PublishedSet, root: Path, archive: Archive, failures: Sequence[str]) -> MissingDataError:
    to_put = ", ".join(each.name for each in published.to_download(root))
    return MissingDataError(
        f"{published.name} must be downloaded, but {archive.name} could not be ({'; '.join(failures)}); "
        f"without a network put {to_put} into {root / archive.folder}, "
        "or set `data.path` to the folder that holds the files"
        + ("; a copy from elsewhere is recognised by its digest" if archive.has_digest else "")
    )


def _reachable(published: PublishedSet, root: Path, archives: Sequence[Archive]) -> list[str]:
    """Return the mirrors whose host has an address; MissingDataError where none has."""
    faults = _unresolved(published.mirrors)
    mirrors = [mirror for mirror in published.mirrors if mirror not in faults]
    if not mirrors:
        raise _failed(
            published, root, archives[0], [f"{mirror}{archives[0].name}: {faults[mirror]}" for mirror in faults]
        )
    return mirrors


def _unresolved(urls: Sequence[str]) -> dict[str, str]:
    """Return for each URL whose host has no address why; all are asked at once. A proxy resolves names itself."""
    asked = {url: urlsplit(url) for url in urls}
    direct = {
        url: parts
        for url, parts in asked.items()
        if parts.hostname and (parts.scheme not in getproxies() or proxy_bypass(parts.hostname))
    }
    answers: dict[str, str] = {}

    def ask(url: str, host: str) -> None:
        try:
            socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answers[url] = ""
        except OSError as error:
            answers[url] = f"the name {host} does not resolve ({in_one_line(error)})"

    threads = [threading.Thread(target=ask, args=(url, parts.hostname), daemon=True) for url, parts in direct.items()]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _RESOLVE_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    for url, parts in direct.items():
        answers.setdefault(url, f"the name {parts.hostname} does not resolve (no answer in {_RESOLVE_SECONDS:g} s)")
    return {url: answers[url] for url in direct if answers[url]}


def _require_space(published: PublishedSet, root: Path) -> None:
    needed = published.unpacked_bytes + sum(archive.num_bytes for archive in published.to_download(root))
    free = shutil.disk_usage(root).free
    if free < needed:
        raise DataError(
            f"{published.name} must have {size_text(needed)} of free disk in {root} to be downloaded, "
            f"but {size_text(free)} are free; free some, or set `data.path`"
        )


@contextlib.contextmanager
def _bounded_silence() -> Iterator[None]:
    """Let no connection that is opened meanwhile wait for ever: torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _torchvision() -> Any:
    """Import it only to download: that takes seconds, and torch."""
    import torchvision

    return torchvision
