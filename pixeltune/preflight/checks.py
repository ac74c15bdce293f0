"""Checks before trials run, made on plain facts, each with its result and what to do.

The facts of a node are gathered on that node (`node_facts`); the checks only compare them, so that they can be tested
without a cluster.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pixeltune import files
from pixeltune.errors import PixeltuneError, SearchError, StoreError
from pixeltune.format import size, size_text
from pixeltune.machine import free_memory, usable_cpus
from pixeltune.own_code import search_in
from pixeltune.packages import install_command
from pixeltune.results.table_folder import storage_reason
from pixeltune.search.trial_metadata import versions
from pixeltune.space import Resources, SearchSpace
from pixeltune.training.compiler import compiler_advice, missing_compiler
from pixeltune.tune.ray_session import HEAD, MEMORY_OF_A_DRIVER, NodeResources, drivers_that_fit, limit_to_capacity

if TYPE_CHECKING:
    from pixeltune.results.store import SearchStore

_SLOW_WRITE_SECONDS = 1.0
_NEEDED = ("python", "ray", "torch", "optuna")
DOWNLOAD_ADVICE = "see that it has a network when the search starts, or put the files there before"
_DASHBOARD = ("aiohttp", "aiohttp_cors", "opencensus", "opentelemetry", "prometheus_client")
"""Packages that Ray's dashboard, which serves the State API, imports; `ray[default]` installs them."""


class CheckResult(StrEnum):
    """The result of one check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One line of the table. name: what was checked. found: what is there. advice: what to do, "" for nothing."""

    name: str
    found: str
    verdict: CheckResult = CheckResult.OK
    advice: str = ""


@dataclass(frozen=True)
class NodeFacts:
    """The facts of one machine.

    ahead: seconds by which its clock is ahead of the launcher's. versions: of python and packages, None if missing.
    free_memory: bytes. gpus: names of those that torch sees. ray_gpus: how many Ray counts. data: checksum of the
    images as this node resolves them; data_error: why it cannot, and data_advice: what to do; data_download: as text,
    the download by which a search gets them first. storage_error: why it cannot write its file there.
    host_address: the address of its hostname, "" if it does not resolve. compiler_error: why trials cannot be compiled
    there, and compiler_advice: what to do.
    """

    name: str
    versions: Mapping[str, str | None]
    ahead: float = 0.0
    free_memory: int | None = None
    gpus: tuple[str, ...] = ()
    ray_gpus: float = 0.0
    data: str | None = None
    data_error: str = ""
    data_advice: str = "put the files there, set data.path, or data.download=true"
    data_download: str = ""
    storage_error: str = ""
    host_address: str = ""
    compiler_error: str = ""
    compiler_advice: str = ""


def node_facts(
    *,
    data: Mapping[str, object] | None = None,
    gpus: bool = False,
    mark: str = "",
    compiles_for: str = "",
    code: Sequence[str] = (),
) -> NodeFacts:
    """Return the facts of this machine. data: a nested configuration whose images it should have, which may take long.

    gpus: ask torch, which takes seconds. mark: a file to write, which shows the driver that both see one storage.
    compiles_for: `cpu` or `cuda` if trials are compiled, else "". code: folders with code that `data` may name.
    """
    for folder in code:
        search_in(Path(folder))
    facts = NodeFacts(
        name=socket.gethostname(),
        versions=own_versions(),
        free_memory=free_memory(),
        gpus=_gpu_names() if gpus else (),
        storage_error=_write_mark(mark) if mark else "",
        host_address=host_address(),
        compiler_error=missing_compiler(compiles_for) if compiles_for else "",
        compiler_advice=compiler_advice(compiles_for) if compiles_for else "",
    )
    return _with_data(facts, data) if data else facts


def compiles_for(space: SearchSpace | None) -> str:
    """Return `cpu` or `cuda` if some trials are compiled, else ""."""
    if space is None or not (space.base.train.compile or "train.compile" in space.vary):
        return ""
    return "cuda" if space.resources.gpus else "cpu"


def own_versions() -> dict[str, str | None]:
    """Return the versions of python and packages in this process, None for a missing one."""
    return {name.removesuffix("_version"): version for name, version in versions().items()}


def host_address() -> str:
    """Return the address of this machine's hostname, by which gloo workers connect; "" if it does not resolve."""
    try:
        return str(socket.getaddrinfo(socket.gethostname(), None)[0][4][0])
    except OSError:
        return ""


def check_room(nodes: Sequence[NodeResources], wanted: Resources) -> Check:
    """Check that a trial fits, and how many run at once."""
    said: list[str] = []
    try:
        resources, concurrent = limit_to_capacity(nodes, wanted, said.append)
    except SearchError as error:
        condition, _, advice = str(error).partition("; ")
        return Check("room for a trial", condition, CheckResult.FAIL, advice)
    each = f"{resources.workers} × ({resources.cpus} CPUs, {resources.gpus:g} GPUs)"
    found = f"{concurrent} trials at a time, each {each}; {len(nodes)} nodes"
    if wanted.gpus and not resources.gpus:
        return Check(
            "room for a trial",
            f"{found}; no GPU, though {wanted.gpus:g} a worker are asked for",
            CheckResult.WARN,
            "start nodes with GPUs, or set resources.gpus=0",
        )
    return Check("room for a trial", found)


def check_drivers(nodes: Sequence[NodeResources], resources: Resources) -> Check:
    """Check that the head has memory for the driver processes of trials of several workers."""
    if resources.workers == 1:
        return Check("memory of drivers", "trials of one worker have none", CheckResult.SKIPPED)
    fitting = drivers_that_fit(nodes)
    if fitting is None:
        return Check("memory of drivers", "the head does not tell its memory", CheckResult.SKIPPED)
    each = f"{size(MEMORY_OF_A_DRIVER)} each"
    if fitting < 1:
        return Check(
            "memory of drivers",
            f"the head has memory for none, {each}",
            CheckResult.FAIL if fitting < 0.5 else CheckResult.WARN,
            "take a head with more memory, or resources.workers=1",
        )
    return Check("memory of drivers", f"the head has memory for {int(fitting)} trials at a time, {each}")


def check_state_api(resources: Resources, answer: str | None) -> Check:
    """Check the State API. answer: its error, "" if it answered, None if it was not asked."""
    if resources.workers == 1:
        return Check("Ray's State API", "only trials of several workers need it", CheckResult.SKIPPED)
    missing = [name for name in _DASHBOARD if importlib.util.find_spec(name) is None]
    advice = "install ray[default] on all nodes, and leave the dashboard on: it frees what stopped trials had reserved"
    if missing:
        return Check("Ray's State API", f"its packages are missing: {', '.join(missing)}", CheckResult.FAIL, advice)
    if answer is None:
        return Check("Ray's State API", "its packages are there; not asked without a cluster")
    if answer:
        return Check("Ray's State API", f"it does not answer ({answer})", CheckResult.FAIL, advice)
    return Check("Ray's State API", "it answers")


def check_storage(storage: str) -> Check:
    """Check that whole files can be written there, replaced and read again, as every row is."""
    try:
        probe = files.join(storage, f".doctor-{uuid.uuid4().hex}")
        start = time.monotonic()
        for content in (b"first", b"second"):
            files.write_whole(probe, content)
        seconds = (time.monotonic() - start) / 2
        read = files.read_whole(probe)
        files.remove(probe)
    except StoreError as error:  # it names no storage
        condition, _, advice = str(error).partition("; ")
        return Check("storage", condition, CheckResult.FAIL, advice or "take another")
    except (OSError, ValueError) as error:  # ValueError: a URI that Arrow does not know
        reason = storage_reason(error)
        return Check(
            "storage", f"{storage} is not writable ({reason})", CheckResult.FAIL, "mount or free it, or take another"
        )
    if read != b"second":
        return Check(
            "storage",
            f"{storage} gives back an older file than was written",
            CheckResult.FAIL,
            "take a storage that is consistent, such as a local disk, NFS without caching, or S3",
        )
    found = f"{storage}: written, replaced and read, {seconds:.3f} s a file"
    if seconds > _SLOW_WRITE_SECONDS:
        return Check("storage", found, CheckResult.WARN, "a nearer storage; each report writes two files")
    return Check("storage", found)


def check_results(store: SearchStore) -> Check:
    """Check that each file of a search's rows and curves so far is as it was written."""
    from pixeltune.results.table_folder import Health

    if not store.exists():
        return Check("results so far", "none", CheckResult.SKIPPED)
    tables = (store.trial_files, store.curve_files, store.image_files)
    found = sum((table.health() for table in tables), Health())
    known = f"{found.files:,} files, none damaged"
    if bad := found.damaged + found.quarantined:
        return Check(
            "results so far",
            f"{bad:,} files are damaged ({found.quarantined:,} in {store.folder}/_corrupt)",
            CheckResult.FAIL if any(table.lost() for table in tables) else CheckResult.WARN,
            "put copies of them back, or remove them to train what they held again",
        )
    if found.without_digest:
        known += (
            f", but {found.without_digest:,} have no digest by which damage would show; pixeltune compact "
            f"{store.search} gives one to trials that ended"
        )
    return Check("results so far", known)


_GIGABYTES_FROM = 1e8
"""A disk's bytes in GB: tenths of one are what a user frees."""


def check_disk(storage: str, needed: int, free: int | None) -> Check:
    """Check the free bytes against the most that checkpoints will take."""
    if free is None:
        return Check("free disk", f"{storage} does not tell", CheckResult.SKIPPED)
    found = (
        f"{size_text(free, gigabytes_from=_GIGABYTES_FROM)} free, "
        f"checkpoints take at most {size_text(needed, gigabytes_from=_GIGABYTES_FROM)}"
    )
    if free < needed:
        return Check("free disk", found, CheckResult.FAIL, "free some, take another --storage, or keep fewer weights")
    if free < 2 * needed:
        return Check("free disk", found, CheckResult.WARN, "free some: other things grow too")
    return Check("free disk", found)


def check_here(here: Mapping[str, str | None]) -> Check:
    """Check that this machine, which launches, has what a search needs."""
    missing = [name for name in _NEEDED if here.get(name) is None]
    if missing:
        return Check("versions here", f"{', '.join(missing)} missing", CheckResult.FAIL, install_command(missing))
    return Check("versions here", ", ".join(f"{name} {version}" for name, version in here.items() if version))


def require_passed(checks: Iterable[Check]) -> list[str]:
    """Raise SearchError at the first check that failed; else say a line for each warning."""
    checks = list(checks)
    for check in checks:
        if check.verdict is CheckResult.FAIL:
            raise SearchError(f"{check.name}: {check.found}; {check.advice}")
    return [f"{check.name}: {check.found}; {check.advice}." for check in checks if check.verdict is CheckResult.WARN]


def check_own_data(name: str, here: NodeFacts) -> Check:
    """Check that this machine, which launches, has the images too: a search reads their shape."""
    if here.data_error:
        return Check("data here", f"{name} missing ({here.data_error})", CheckResult.FAIL, here.data_advice)
    if here.data_download:
        return Check("data here", f"{name} {here.data_download}", CheckResult.WARN, DOWNLOAD_ADVICE)
    return Check("data here", f"{name} ({here.data})")


def free_disk(storage: str) -> int | None:
    """Return the free bytes; None on object storage."""
    if files.is_uri(storage):
        return None
    folder = files.local_path(storage).resolve()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def most_at_once(nodes: Sequence[NodeResources], resources: Resources) -> int:
    """Return the most trials that run at once; 1 if none fits."""
    try:
        return limit_to_capacity(nodes, resources, lambda _line: None)[1]
    except SearchError:
        return 1


def local_node() -> NodeResources:
    """Return this machine's resources as Ray would count them, without Ray."""
    memory = free_memory()
    known = {} if memory is None else {"memory": float(memory)}
    return {"CPU": float(usable_cpus()), "GPU": float(_num_gpus()), HEAD: 1.0, **known}


def _num_gpus() -> int:
    """Return the number of GPUs as Ray counts them: those of the driver, or those that the environment allows."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([word for word in visible.split(",") if word.strip() not in ("", "-1")])
    if sys.platform == "linux":
        return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    import torch

    return torch.cuda.device_count()


def _gpu_names() -> tuple[str, ...]:
    import torch

    return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _with_data(facts: NodeFacts, config: Mapping[str, object]) -> NodeFacts:
    """Add the facts about a configuration's images on a node. Nothing is downloaded."""
    from pixeltune.config import TrialConfig
    from pixeltune.data import resolve_outline

    try:
        trial = TrialConfig.build(dict(config))
        found = resolve_outline(trial).data
    except (PixeltuneError, OSError) as error:
        return replace(facts, data_error=" ".join(str(error).split())[:200])
    if found.data is not None:
        return replace(facts, data=found.data.identity.checksum)
    if found.can_be_downloaded and trial.data.download:
        return replace(facts, data_download=str(found.files))
    assert found.files is not None, "only a published data set has an outline without images"
    return replace(facts, data_error=found.files.where.removeprefix("is "), data_advice=found.files.advice)


def _write_mark(location: str) -> str:
    try:
        files.write_whole(location, platform.node().encode())
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""
