"""Whole files: made in memory and published by one rename (local) or one PUT (object storage).

A reader sees the old file or the new one, never half of either. Locations are paths or URIs
(`s3://bucket/results`); everything that pixeltune keeps goes through this module. A storage that refuses once is asked
again, a full or closed one is not.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from pyarrow import fs as pafs

_P = ParamSpec("_P")
_R = TypeVar("_R")

TRIES = 4
"""How often a storage is asked before its refusal counts: over 3.5 seconds, in which a search stands still."""

_TEMPORARY = ".part-"
_FIRST_WAIT_SECONDS = 0.5
_PASSING = (errno.EAGAIN, errno.EBUSY, errno.ECONNRESET, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""What network disks answer while a server restarts. Object storage gives no number, and is asked again."""


def _patiently(operation: Callable[_P, _R]) -> Callable[_P, _R]:
    """The operation, tried again where the storage may only be busy; it must do no harm when it is done twice."""

    @functools.wraps(operation)
    def tried(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for number in range(1, TRIES):
            try:
                return operation(*args, **kwargs)
            except OSError as error:
                if isinstance(error, (FileNotFoundError, PermissionError)) or error.errno not in (None, *_PASSING):
                    raise
                time.sleep(_FIRST_WAIT_SECONDS * 2 ** (number - 1))
        return operation(*args, **kwargs)

    return tried


def join(location: str, *parts: str) -> str:
    """`location/part/…`; the query of a URI stays at its end."""
    head, mark, query = location.partition("?") if is_uri(location) else (location, "", "")
    return "/".join([head.rstrip("/"), *parts]) + mark + query


def is_uri(location: str) -> bool:
    """Whether `location` names object storage rather than a path of this machine."""
    return "://" in location and not location.startswith("file://")


def local_path(location: str) -> Path:
    """The path of a location that is not on object storage."""
    return Path(location.removeprefix("file://")).expanduser()


def absolute(location: str) -> str:
    """The same place, named so that a process with another working directory finds it too."""
    return location if is_uri(location) else str(local_path(location).resolve())


@_patiently
def write_whole(location: str, content: bytes) -> None:
    """Publish `content` at `location`: folders are made, an older file is replaced in one step."""
    if is_uri(location):
        filesystem, path = _remote(location)
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        return
    target = local_path(location)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{target.name}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@_patiently
def read_whole(location: str) -> bytes:
    """The bytes at `location`; FileNotFoundError where there is no file."""
    if is_uri(location):
        filesystem, path = _remote(location)
        with filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())
    return local_path(location).read_bytes()


@_patiently
def exists(location: str) -> bool:
    """Whether a file or folder is at `location`."""
    if is_uri(location):
        from pyarrow import fs as pafs

        filesystem, path = _remote(location)
        return bool(filesystem.get_file_info(path).type != pafs.FileType.NotFound)
    return local_path(location).exists()


@_patiently
def list_names(folder: str, suffix: str = "") -> list[str]:
    """Sorted names of the published files in `folder` that end with `suffix`; empty where there is no folder."""
    if is_uri(folder):
        from pyarrow import fs as pafs

        filesystem, path = _remote(folder)
        infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        names = [info.base_name for info in infos if info.is_file]
    else:
        path_here = local_path(folder)
        names = [entry.name for entry in path_here.iterdir() if entry.is_file()] if path_here.is_dir() else []
    return sorted(name for name in names if name.endswith(suffix) and not name.startswith(_TEMPORARY))


def move(source: str, target: str) -> None:
    """Move one file."""
    if is_uri(source):
        filesystem, path = _remote(source)
        filesystem.move(path, _remote(target)[1])
        return
    local_path(target).parent.mkdir(parents=True, exist_ok=True)
    local_path(source).replace(local_path(target))


@_patiently
def remove(location: str) -> None:
    """Remove a file or a whole folder; nothing happens where there is none."""
    if is_uri(location):
        from pyarrow import fs as pafs

        filesystem, path = _remote(location)
        kind = filesystem.get_file_info(path).type
        if kind == pafs.FileType.Directory:
            filesystem.delete_dir(path)
        elif kind == pafs.FileType.File:
            filesystem.delete_file(path)
        return
    target = local_path(location)
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def sweep(folder: str) -> None:
    """Remove what writers that were killed left unpublished in `folder`; nobody else may be writing there."""
    if not is_uri(folder) and local_path(folder).is_dir():
        for left in local_path(folder).glob(f"{_TEMPORARY}*"):
            left.unlink(missing_ok=True)


def _remote(location: str) -> tuple[pafs.FileSystem, str]:
    from pyarrow import fs as pafs

    filesystem, path = pafs.FileSystem.from_uri(location)
    return filesystem, path
