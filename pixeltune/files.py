"""Whole files: made in memory and published by one rename (local) or one PUT (object storage).

A reader sees the old file or the new one, never half of either. Locations are paths or URIs
(`s3://bucket/results`); everything that pixeltune keeps goes through this module. A storage that refuses once is asked
again, a full or closed one is not.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from pixeltune.errors import ConfigError, MissingPackageError, StoreError

if TYPE_CHECKING:
    from pyarrow import fs as pafs

_P = ParamSpec("_P")
_R = TypeVar("_R")

TRIES = 4
"""How often a storage is asked before its refusal counts: over 3.5 seconds, in which a search waits."""

AT_ONCE = 16
"""Requests to object storage at a time, where there are many: each takes tens of milliseconds, nearly all waiting."""

_TEMPORARY = ".part-"
_FIRST_WAIT_SECONDS = 0.5
_CONNECT_SECONDS, _SILENT_SECONDS, _REQUESTS = 5.0, 10.0, 3
"""Limits of a request to S3: until it is connected, without a byte, and how often it is sent. Arrow has 3 s and 31
times, by which each of our tries took 100 s on a server that was silent."""

_REFUSALS = ("NO_SUCH_BUCKET", "ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")
"""What object storage says where asking again is of no use."""

Location = str | os.PathLike[str]
"""A path, or a URI as text: pathlib makes s3:/bucket of s3://bucket."""

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<slashes>[/\\]*)(?P<rest>.*)", re.DOTALL)
_SCHEMES = {
    "s3": ("//",),
    "gs": ("//",),
    "gcs": ("//",),
    "abfs": ("//",),
    "abfss": ("//",),
    "hdfs": ("//", "///"),
    "viewfs": ("//", "///"),
    "file": ("///",),
}
"""Storages that Arrow knows, with the slashes after the colon."""

_NO_COLON = re.compile(r"(?P<scheme>s3|gs|gcs|abfss?|hdfs|viewfs)(?P<rest>[^\w/:]?//)")

_SECRET = re.compile("secret|password|token|key|sig|credential", re.IGNORECASE)
_PLAIN_URI = re.compile(r"(?P<scheme>s3|gs)://(?P<bucket>[\w.-]+)(?P<path>(?:/[\w.~+=-]*)*)(?P<query>\?.*)?")
_IS_WINDOWS = os.name == "nt"
_IN_USE_ON_WINDOWS = (5, 32, 33)
"""Errors of Windows while another process has the file open. It neither replaces nor removes such a file."""
_PASSING = (errno.EAGAIN, errno.EBUSY, errno.ECONNRESET, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""What network disks answer while a server restarts. Object storage gives no number, and is asked again."""


def _patiently(operation: Callable[_P, _R]) -> Callable[_P, _R]:
    """Try the operation again where the storage may only be busy; it must do no harm when it is done twice."""

    @functools.wraps(operation)
    def tried(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for number in range(1, TRIES):
            try:
                return operation(*args, **kwargs)
            except OSError as error:
                if _is_final(error):
                    raise
                time.sleep(_FIRST_WAIT_SECONDS * 2 ** (number - 1))
        return operation(*args, **kwargs)

    return tried


def _is_final(error: OSError) -> bool:
    """Return whether asking again would be answered alike."""
    if getattr(error, "winerror", None) in _IN_USE_ON_WINDOWS:
        return False
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return True
    return any(word in str(error) for word in _REFUSALS) if error.errno is None else error.errno not in _PASSING


def join(location: Location, *parts: str) -> str:
    """Return `location/part/…`; the query of a URI stays at its end. StoreError as `require_location`."""
    text = require_location(location)
    head, mark, query = text.partition("?") if is_uri(text) else (text, "", "")
    return "/".join([head.rstrip("/"), *parts]) + mark + query


def is_uri(location: Location) -> bool:
    """Return whether `location` names object storage rather than a path of this machine."""
    text = os.fspath(location)
    return "://" in text and not text.startswith("file://")


def require_location(location: Location) -> str:
    """Return a location as text, refused where it names something else than it seems to.

    Args:
        location: A path, or a URI such as s3://bucket/results.

    Raises:
        StoreError: It is empty, a URI with the wrong slashes, of an unknown storage or with secrets in it, or a path of
            another operating system.
    """
    text = os.fspath(location)
    if not text.strip() or "\0" in text:
        raise StoreError(f"a location must be a path, or a URI such as s3://BUCKET/FOLDER, but got {text!r}")
    if mistyped := _NO_COLON.match(text):
        scheme = mistyped["scheme"]
        raise StoreError(f"a URI must have the form {scheme}://BUCKET/FOLDER, but got {mistyped[0]}…; see its colon")
    match = _SCHEME.match(text)
    if is_uri(text) and (match is None or any(map(str.isspace, text))):
        raise StoreError(
            "a URI must begin with s3:// or the like and have no blanks, but got one with other characters"
        )
    if match is not None:
        _require_scheme(match["scheme"], match["slashes"], match["rest"], is_text=isinstance(location, str))
    require_no_secrets(text)
    return text


def _require_scheme(scheme: str, slashes: str, rest: str, *, is_text: bool) -> None:
    """Refuse a scheme, or a drive of Windows, that names no storage. No message shows `rest`: it may have secrets."""
    if len(scheme) == 1:
        if slashes and not _IS_WINDOWS:
            raise StoreError(
                f"a path must be of this machine, but got {scheme}:{slashes}…, a drive of Windows; give a path of here"
            )
    elif scheme.lower() not in _SCHEMES:
        if slashes:
            known = ", ".join(f"{each}://" for each in _SCHEMES)
            raise StoreError(
                f"a URI must begin with one of {known}, but got {scheme}:{slashes}…; write ./{scheme}:… for a folder"
            )
    elif scheme not in _SCHEMES or slashes not in _SCHEMES[scheme] or not rest:
        right = f"{scheme.lower()}:{_SCHEMES[scheme.lower()][0]}"
        what = "FOLDER" if scheme.lower() == "file" else "BUCKET/FOLDER"
        advice = "see its slashes and its name" if is_text else "give it as text, since a pathlib.Path drops a slash"
        got = f"{scheme}:{slashes}{'…' if rest else ''}"
        raise StoreError(f"a URI must have the form {right}{what}, but got {got}; {advice}")


def local_path(location: Location) -> Path:
    """Return the path of a location that is not on object storage."""
    text = require_location(location)
    if not text.startswith("file://"):
        return expand_home(text)
    path = unquote(text.removeprefix("file://"))
    return Path(path.removeprefix("/") if _IS_WINDOWS else path)  # file:///C:/results


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Return a path with its ~ replaced by the home folder; ConfigError where this user has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"a path with ~ needs a home folder, but there is none for {os.fspath(path)}; "
            "set HOME to a folder of yours, or give a path without ~"
        ) from None


def absolute(location: Location) -> str:
    """Return the same location, named so that a process with another working directory finds it too."""
    return os.fspath(location) if is_uri(location) else local_path(location).resolve().as_posix()


@_patiently
def write_whole(location: Location, content: bytes) -> None:
    """Publish `content` at `location`: folders are made, an older file is replaced in one step.

    When this returns, the file is there after a power cut too.
    """
    if is_uri(location):
        # In a thread: Ctrl-C between opening and writing would publish an empty object in place of the older one.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(_put, *_remote(location), content).result()
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
    _settle(target.parent)


def _put(filesystem: pafs.FileSystem, path: str, content: bytes) -> None:
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)


def _settle(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut; some network disks cannot, and Windows opens no folder."""
    if _IS_WINDOWS:
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC):
            raise


@_patiently
def read_whole(location: Location) -> bytes:
    """Read the bytes at `location`; FileNotFoundError where there is no file."""
    if is_uri(location):
        filesystem, path = _remote(location)
        with filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())
    return local_path(location).read_bytes()


@_patiently
def exists(location: Location) -> bool:
    """Return whether a file or folder is at `location`."""
    if is_uri(location):
        from pyarrow import fs as pafs

        filesystem, path = _remote(location)
        return bool(filesystem.get_file_info(path).type != pafs.FileType.NotFound)
    return local_path(location).exists()


@_patiently
def modified_at(location: Location) -> float | None:
    """Return when the file at `location` was published, in seconds by the storage's clock; None where there is none."""
    if is_uri(location):
        filesystem, path = _remote(location)
        nanoseconds = filesystem.get_file_info(path).mtime_ns
        return None if nanoseconds is None else nanoseconds / 1e9
    try:
        return local_path(location).stat().st_mtime
    except FileNotFoundError:
        return None


@_patiently
def list_names(folder: Location, suffix: str = "") -> list[str]:
    """Return the sorted names of the published files in `folder` that end with `suffix`; empty without a folder."""
    if is_uri(folder):
        from pyarrow import fs as pafs

        filesystem, path = _remote(folder)
        infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        names = [info.base_name for info in infos if info.is_file]
    else:
        path_here = local_path(folder)
        names = [entry.name for entry in path_here.iterdir() if entry.is_file()] if path_here.is_dir() else []
    return sorted(name for name in names if name.endswith(suffix) and not name.startswith(_TEMPORARY))


@_patiently
def stamps(folder: Location, suffix: str = "") -> dict[str, tuple[int, int]]:
    """Return size and time of each file that `list_names` lists: they differ once a file was published again."""
    if is_uri(folder):
        from pyarrow import fs as pafs

        filesystem, path = _remote(folder)
        infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        found = {info.base_name: (info.size or 0, info.mtime_ns or 0) for info in infos if info.is_file}
    else:
        found = _local_stamps(local_path(folder))
    return {name: found[name] for name in sorted(found) if name.endswith(suffix) and not name.startswith(_TEMPORARY)}


def _local_stamps(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                if entry.is_file():
                    stat = entry.stat()
                    found[entry.name] = (stat.st_size, stat.st_mtime_ns)
    return found


@_patiently
def list_folders(location: Location) -> list[str]:
    """Return the sorted names of the folders at `location`."""
    if not is_uri(location):
        return sorted(entry.name for entry in local_path(location).iterdir() if entry.is_dir())
    from pyarrow import fs as pafs

    filesystem, path = _remote(location)
    infos = filesystem.get_file_info(pafs.FileSelector(path))
    return sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)


def move(source: Location, target: Location) -> None:
    """Move one file."""
    if is_uri(source):
        filesystem, path = _remote(source)
        filesystem.move(path, _remote(target)[1])
        return
    local_path(target).parent.mkdir(parents=True, exist_ok=True)
    local_path(source).replace(local_path(target))


@_patiently
def remove(location: Location) -> None:
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
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            target.unlink()


def try_lock(descriptor: int) -> bool:
    """Take the operating system's exclusive lock on an open file; False at once where another process holds it.

    The lock ends when the descriptor is closed, at the latest with the process. OSError where the disk has no locks.
    """
    try:
        from filelock import lock_descriptor
    except ImportError:
        raise MissingPackageError(
            "a lock needs filelock 3.30 or newer, but it is missing or older; pip install 'filelock>=3.30'"
        ) from None
    return lock_descriptor(descriptor, blocking=False)


def remove_unfinished(folder: Location) -> None:
    """Remove what writers that were killed left unpublished in `folder`; no other process may be writing there."""
    if is_uri(folder) or not local_path(folder).is_dir():
        return
    for entry in local_path(folder).iterdir():
        if entry.name.startswith(_TEMPORARY):
            entry.unlink(missing_ok=True)


def require_no_secrets(location: Location) -> None:
    """Refuse a URI with keys or a password in it: it would appear in messages, in logs and on nodes."""
    text = os.fspath(location)
    parts = urlsplit(text) if is_uri(text) else urlsplit("")
    user, has_password, _ = (parts.netloc.rpartition("@")[0] or "").partition(":")
    is_key = bool(user) and parts.scheme == "s3"
    named = [name for name, _value in parse_qsl(parts.query, keep_blank_values=True) if _SECRET.search(name)]
    if has_password or is_key or named:
        where = f"the query has {named[0]}" if named else "keys are before its @"
        raise StoreError(
            f"a storage must be named without secrets, but in this {parts.scheme}:// location {where}; give them by "
            "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or by a file such as ~/.aws/credentials"
        )


def _remote(location: Location) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a URI, and the path in it. One is kept for each bucket, with its connections."""
    from pyarrow import fs as pafs

    text = require_location(location)
    match = _PLAIN_URI.fullmatch(text)
    if match is None:
        filesystem, path = pafs.FileSystem.from_uri(text)
        return filesystem, path
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith(("AWS_", "GOOGLE_"))))
    bucket = f"{match['scheme']}://{match['bucket']}{match['query'] or ''}"
    return _bucket(bucket, os.getpid(), settings), match["bucket"] + match["path"].rstrip("/")


@functools.lru_cache(maxsize=16)
def _bucket(uri: str, _pid: int, _settings: tuple[tuple[str, str], ...]) -> pafs.FileSystem:
    """Open a bucket for this process and environment: forks must not share connections, or accounts keys."""
    from pyarrow import fs as pafs

    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    if parts.scheme != "s3" or not options.keys() <= {"region", "scheme", "endpoint_override"}:
        return pafs.FileSystem.from_uri(uri)[0]
    endpoint = _first_set(options.get("endpoint_override"), "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    region = _first_set(options.get("region"), "AWS_REGION", "AWS_DEFAULT_REGION")
    if endpoint is None and region is None:
        region = pafs.resolve_s3_region(parts.netloc)
    return pafs.S3FileSystem(
        region=region,
        endpoint_override=endpoint,
        scheme=options.get("scheme"),
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_SILENT_SECONDS,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=_REQUESTS),
        allow_delayed_open=True,  # a small file is one PUT, not three requests
    )


def _first_set(value: str | None, *variables: str) -> str | None:
    return value or next((os.environ[name] for name in variables if os.environ.get(name)), None)
