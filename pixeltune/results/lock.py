"""One launch at a time on one search.

On a local disk or NFS: the operating system's lock on `<folder>/.lock`, which it releases when the holder dies
(`filelock`: `flock` on Linux and macOS, `LockFileEx` of the first byte on Windows). The file also names its holder,
from the second byte on, because on Windows no other process can read the locked byte.
On object storage there are no locks, so a lease file `.lock` names its holder and is refreshed every 30 s; one that
was not refreshed for 2 minutes, by the storage's own clock, is taken over. Two launches that begin within the same
second are distinguished by reading the lease again after writing it; this narrows the gap and does not close it. A
holder that finds its lease taken over, after a sleep or a broken network, writes no more (`require_held`).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pixeltune import files
from pixeltune.errors import StoreError

LOCK_NAME = ".lock"
"""The file in a search's folder that its launch holds."""
REFRESH_SECONDS = 30.0
STALE_SECONDS = 120.0
SETTLE_SECONDS = 1.0
_WAITS = (0.05, 0.1, 0.0)
"""Seconds after each try: `holder_of` holds the lock for an instant too."""
_NAME_BYTES = 512
"""The holder's name is padded to this length: it overwrites any earlier one, and no locked byte is truncated."""
_LOST: set[str] = set()
"""Folders whose lease this process held until another launch took it over."""
_BINARY = getattr(os, "O_BINARY", 0)


@contextlib.contextmanager
def lock_folder(folder: str) -> Iterator[None]:
    """Hold `folder` for this process; StoreError names the holder where there is one."""
    with _lease(folder) if files.is_uri(folder) else _system_lock(files.local_path(folder)):
        yield


def require_held(folder: str) -> None:
    """Raise StoreError where another launch has taken over the lease on `folder` that this process held."""
    if folder in _LOST:
        raise StoreError(
            f"one launch must work on a search at a time, but another took over {folder} while this one could not "
            "refresh its lease; leave the search to it, and look with pixeltune status"
        )


def holder_of(folder: str) -> dict[str, Any] | None:
    """Return who holds `folder` now, with `pid` and `host` where the lock names them; None where no process does.

    Nothing is created, and a folder that can only be read is enough.
    """
    if files.is_uri(folder):
        refreshed_at = files.modified_at(files.join(folder, LOCK_NAME))
        is_held = refreshed_at is not None and time.time() - refreshed_at < STALE_SECONDS
        return _read_lease(files.join(folder, LOCK_NAME)) if is_held else None
    try:
        descriptor = os.open(files.local_path(folder) / LOCK_NAME, os.O_RDONLY | _BINARY)
    except FileNotFoundError:
        return None
    try:
        return _parsed(_content(descriptor)) if _is_held(descriptor) else None
    finally:
        os.close(descriptor)


def _is_held(descriptor: int) -> bool:
    """Return whether another process holds the lock, by taking it until the descriptor is closed."""
    try:
        import fcntl
    except ImportError:  # Windows: two processes that check at the same time block each other, so try again
        return not _try_again(descriptor)
    if sys.platform != "win32":
        # Shared, which filelock does not offer: processes that only check do not block each other, and NFS refuses an
        # exclusive lock on a file that is open for reading alone.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _try_again(descriptor: int) -> bool:
    for wait in _WAITS:
        if files.try_lock(descriptor):
            return True
        time.sleep(wait)
    return False


@contextlib.contextmanager
def _system_lock(folder: Path) -> Iterator[None]:
    """Hold a folder; one that is made for it and stays empty, because the launch is refused, is removed again."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | _BINARY, 0o644)
    except OSError as error:
        raise StoreError(f"a results folder must be writable, but {folder} is not ({error.strerror})") from error
    try:
        _take(descriptor, folder)
        yield
    finally:
        if is_new:
            _remove_if_empty(folder)
        os.close(descriptor)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # Windows does not remove a file that is open
        if [path.name for path in folder.iterdir()] == [LOCK_NAME]:
            (folder / LOCK_NAME).unlink()
            folder.rmdir()


def _take(descriptor: int, folder: Path) -> None:
    try:
        if not _try_again(descriptor):
            raise _held(str(folder), _parsed(_content(descriptor)))
    except OSError as error:
        raise StoreError(f"a results folder must allow locks, but {folder} does not ({error.strerror})") from error
    if not _is_still_there(descriptor, folder):
        raise StoreError(f"a results folder must stay, but {folder} was removed meanwhile; give the same command again")
    with contextlib.suppress(OSError):  # A full disk: the lock holds, only its holder's name is missing.
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, (b" " + _holder()).ljust(_NAME_BYTES))


def _is_still_there(descriptor: int, folder: Path) -> bool:
    """Return whether the locked file is the one that other launches lock: a refused launch removes its own."""
    try:
        return os.path.samestat(os.fstat(descriptor), (folder / LOCK_NAME).stat())
    except FileNotFoundError:
        return False


def _content(descriptor: int) -> bytes:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, _NAME_BYTES)
    except PermissionError:  # Windows, where the first byte is locked
        os.lseek(descriptor, 1, os.SEEK_SET)
        return os.read(descriptor, _NAME_BYTES)


@contextlib.contextmanager
def _lease(folder: str) -> Iterator[None]:
    location = files.join(folder, LOCK_NAME)
    token = uuid.uuid4().hex
    _claim(location, folder, token)
    _LOST.discard(folder)
    done = threading.Event()
    refresher = threading.Thread(target=_refresh, args=(folder, token, done), daemon=True, name="pixeltune-lease")
    refresher.start()
    try:
        yield
    finally:
        done.set()
        refresher.join()
        with contextlib.suppress(StoreError, OSError):  # If it remains, it is stale in two minutes.
            if _read_lease(location).get("token") == token:
                files.remove(location)


def _claim(location: str, folder: str, token: str) -> None:
    if _is_fresh(location):
        raise _held(folder, _read_lease(location))
    _write_lease(location, token)
    time.sleep(SETTLE_SECONDS)
    lease = _read_lease(location)
    if lease.get("token") != token:
        raise _held(folder, lease)


def _is_fresh(location: str) -> bool:
    """Return whether a lease was refreshed recently.

    The storage's clock dates both the lease and a file that is written now: clocks of machines differ by minutes, and
    by its own clock a launch would take over a lease that another still holds.
    """
    probe = f"{location}-clock-{uuid.uuid4().hex}"
    try:
        refreshed_at = files.modified_at(location)
        if refreshed_at is None:
            return False
        files.write_whole(probe, b"")
        now = files.modified_at(probe)
        files.remove(probe)
    except (OSError, ValueError) as error:  # ValueError: a URI that Arrow does not know.
        raise StoreError(f"the storage must be writable, but {location} is not ({error})") from error
    return now is not None and now - refreshed_at < STALE_SECONDS


def _refresh(folder: str, token: str, done: threading.Event) -> None:
    location = files.join(folder, LOCK_NAME)
    while not done.wait(REFRESH_SECONDS):
        with contextlib.suppress(StoreError):  # A failed refresh is tried again; the lease lasts four of them.
            if _read_lease(location).get("token", token) != token:
                _LOST.add(folder)
                return
            _write_lease(location, token)


def _write_lease(location: str, token: str) -> None:
    try:
        files.write_whole(location, _holder(token=token, refreshed_at=time.time()))
    except OSError as error:
        raise StoreError(f"the storage must be writable, but {location} is not ({error})") from error


def _read_lease(location: str) -> dict[str, Any]:
    try:
        return _parsed(files.read_whole(location))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # ValueError: a URI that Arrow does not know.
        raise StoreError(f"the storage must be readable, but {location} is not ({error})") from error


def _holder(**more: Any) -> bytes:
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), **more}).encode()


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(content)
    except ValueError:
        return {}
    return tree if isinstance(tree, dict) else {}


def _held(folder: str, holder: dict[str, Any]) -> StoreError:
    who = f"process {holder['pid']} on {holder.get('host', '?')}" if "pid" in holder else "another process"
    return StoreError(
        f"one launch must work on a search at a time, but {who} holds {folder}; "
        "wait for it, stop it, or take another name"
    )
