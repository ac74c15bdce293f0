"""One decoded copy of a data set a node: a folder of .npy files that processes map.

A folder appears whole, by one rename; a lock saves two processes from decoding the same set, and is not needed for
correctness. A folder that is damaged counts as absent and is made again. The whole cache may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pixeltune.config import DataConfig, ImageSpec
from pixeltune.data.dataset import DataIdentity, DataSet, DynamicDraw, ImageSet
from pixeltune.data.file_lock import node_lock, remove_leftovers
from pixeltune.data.prepare import Prepared, SplitPlan
from pixeltune.errors import DataError
from pixeltune.files import expand_home

_FORMAT = 2
"""Raised whenever a change of code changes what a cached folder would hold."""

_META = "meta.json"
_BLOCK_BYTES = 1 << 22
_CHECKED_WHOLE_BYTES = 1 << 30
"""A set of at most this size is checked whole when it is opened, at about 2 GB a second."""
_CHECKED_BLOCKS = 64
"""Blocks of a file of a larger set that are checked, others in each process."""
_SAMPLED_FILES = 256
_SAMPLED_BLOCKS, _SAMPLE_BYTES = 16, 1 << 14
_log = logging.getLogger(__name__)


def cache_root() -> Path:
    """Return the folder of decoded sets: PIXELTUNE_CACHE, else ~/.cache/pixeltune."""
    return expand_home(os.environ.get("PIXELTUNE_CACHE") or "~/.cache/pixeltune")


def entry_folder(root: Path, config: DataConfig, files: Sequence[Path]) -> Path:
    """Return the folder for these options on these files, whichever way a file is replaced.

    A file is recognised by name, size, times, inode and, for a few hundred of them, by sampled blocks of its content.
    Flips are drawn in training: the same folder serves with and without.
    """
    options = config.model_dump(exclude={"download", "path", "follow_links", "flip"})
    if not config.test_fraction:  # an option of later: folders without it stay where they are
        del options["test_fraction"]
    every = max(1, len(files) // _SAMPLED_FILES)
    stats = [_fingerprint(file, sampled=index % every == 0 or file.suffix == ".py") for index, file in enumerate(files)]
    key = hashlib.sha256(json.dumps([_FORMAT, options, stats], sort_keys=True).encode()).hexdigest()[:16]
    return root / "prepared" / f"{config.name.replace(':', '-')}-{key}"


def node_cached(folder: Path, build: Callable[[], Prepared]) -> DataSet:
    """Open the data set in `folder`, built and published there first if need be; in memory if it cannot be written."""
    found = open_entry(folder)
    if found is not None:
        return found
    prepared = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with node_lock(folder.with_name(f".lock-{folder.name}"), f"decodes {folder.name}"):
            found = open_entry(folder)
            if found is not None:
                return found
            prepared = build()
            _publish(prepared, folder)
        found = open_entry(folder)
        if found is not None:
            return found
        reason = "what was written cannot be read"
    except OSError as error:
        reason = error.strerror or str(error)
    _log.warning(
        "the data cache must be writable, but %s is not (%s): %s is kept in memory; set PIXELTUNE_CACHE",
        folder.parent, reason, folder.name,
    )  # fmt: skip
    return in_memory(prepared if prepared is not None else build())


def in_memory(prepared: Prepared) -> DataSet:
    """Build the data set with all its pixels formed now."""
    digest = _digest(prepared)
    splits = {}
    for name, part in prepared.parts.items():
        pixels, start = np.empty(part.shape, dtype=np.uint8), 0
        for chunk in _hashed(name, part, digest):
            pixels[start : start + len(chunk)] = chunk
            start += len(chunk)
        splits[name] = ImageSet(pixels, part.labels_N)
    identity = DataIdentity(prepared.name, prepared.version, digest.hexdigest()[:16])
    return _data_set(identity, prepared.form, splits, prepared.dynamic, prepared.findings)


def open_entry(folder: Path) -> DataSet | None:
    """Return the data set that `folder` holds, its pixels mapped; None where it is absent or not as it was written."""
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        if any((folder / name).stat().st_size != size for name, size in meta["bytes"].items()):
            return None
        damaged = _damaged_file(folder, meta["digests"])
        if damaged:
            _log.warning("%s must be as it was written, but is not: it is made again", folder / damaged)
            return None
        splits = {name: _open_split(folder, name) for name in meta["splits"]}
        dynamic = DynamicDraw(**meta["dynamic"]) if meta["dynamic"] else None
        return _data_set(
            DataIdentity(**meta["identity"]), ImageSpec(**meta["form"]), splits, dynamic, tuple(meta["findings"])
        )
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        return None


def _fingerprint(file: Path, *, sampled: bool) -> tuple[str | int, ...]:
    try:
        stat = file.stat()
        content = _sampled_digest(file, stat.st_size) if sampled else ""
    except OSError as error:
        raise DataError(f"every file of a data set must be readable, but {file} is not: {error.strerror}") from error
    return str(file.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, content


def _sampled_digest(file: Path, size: int) -> str:
    """Return a digest of blocks spread over a file, the first and the last among them; of all of a small file."""
    digest = hashlib.blake2b(digest_size=16)
    count = _SAMPLED_BLOCKS if size > _SAMPLED_BLOCKS * _SAMPLE_BYTES else 1
    length = _SAMPLE_BYTES if count > 1 else size
    with file.open("rb") as stream:
        for number in range(count):
            stream.seek((size - length) * number // max(1, count - 1))
            digest.update(stream.read(length))
    return digest.hexdigest()


def _block_digests(file: Path, numbers: Iterable[int]) -> list[str]:
    """Return the digests of the blocks of these numbers."""
    digests = []
    with file.open("rb") as stream:
        for number in numbers:
            stream.seek(number * _BLOCK_BYTES)
            digests.append(hashlib.sha256(stream.read(_BLOCK_BYTES)).hexdigest()[:16])
    return digests


def _damaged_file(folder: Path, digests: dict[str, list[str]]) -> str:
    """Return the name of a file whose content is not what was written, or ""."""
    whole = sum(len(blocks) for blocks in digests.values()) * _BLOCK_BYTES <= _CHECKED_WHOLE_BYTES
    for name, blocks in digests.items():
        step = 1 if whole else max(1, len(blocks) // _CHECKED_BLOCKS)
        numbers = range(secrets.randbelow(step), len(blocks), step)
        if _block_digests(folder / name, numbers) != [blocks[number] for number in numbers]:
            return name
    return ""


def _publish(prepared: Prepared, folder: Path) -> None:
    remove_leftovers(folder.parent, folder.name)
    temporary = folder.with_name(f".part-{folder.name}-{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        _write_entry(prepared, temporary)
        _swap_in(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap_in(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if open_entry(folder) is not None:
            return  # another process was first, and what it wrote is the same
        damaged = folder.with_name(f".part-{folder.name}-{uuid.uuid4().hex}")
        folder.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
        temporary.rename(folder)


def _write_entry(prepared: Prepared, folder: Path) -> None:
    digest = _digest(prepared)
    for name, part in prepared.parts.items():
        _write_pixels(folder / f"{name}.npy", part, _hashed(name, part, digest))
        if part.labels_N is not None:
            np.save(folder / f"{name}_labels.npy", part.labels_N)
    meta = {
        "identity": asdict(DataIdentity(prepared.name, prepared.version, digest.hexdigest()[:16])),
        "form": asdict(prepared.form),
        "dynamic": asdict(prepared.dynamic) if prepared.dynamic else None,
        "splits": list(prepared.parts),
        "findings": list(prepared.findings),
        "bytes": {file.name: file.stat().st_size for file in folder.iterdir()},
        "digests": {file.name: _block_digests(file, range(_num_blocks(file))) for file in folder.iterdir()},
    }
    (folder / _META).write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _num_blocks(file: Path) -> int:
    return -(-file.stat().st_size // _BLOCK_BYTES)


def _write_pixels(path: Path, part: SplitPlan, chunks: Iterator[np.ndarray]) -> None:
    # Written, not mapped: a full disk is then an OSError and not a SIGBUS.
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": part.shape})
        for chunk in chunks:
            stream.write(chunk.data)
        stream.flush()
        os.fsync(stream.fileno())


def _open_split(folder: Path, name: str) -> ImageSet:
    labels = folder / f"{name}_labels.npy"
    return ImageSet(np.load(folder / f"{name}.npy", mmap_mode="r"), np.load(labels) if labels.exists() else None)


def _digest(prepared: Prepared) -> hashlib._Hash:
    form, dynamic = prepared.form, prepared.dynamic
    words = [*form.shape, form.levels, form.num_classes, *((dynamic.seed, dynamic.levels) if dynamic else ())]
    return hashlib.sha256(json.dumps(words).encode())


def _hashed(name: str, part: SplitPlan, digest: hashlib._Hash) -> Iterator[np.ndarray]:
    digest.update(json.dumps([name, *part.shape]).encode())
    for chunk in part.chunks():
        digest.update(chunk.data)
        yield chunk
    if part.labels_N is not None:
        digest.update(part.labels_N.astype("<i8").data)


def _data_set(
    identity: DataIdentity,
    form: ImageSpec,
    splits: dict[str, ImageSet],
    dynamic: DynamicDraw | None,
    notes: tuple[str, ...],
) -> DataSet:
    return DataSet(identity, form, splits["train"], splits.get("valid"), splits.get("test"), dynamic, notes)
