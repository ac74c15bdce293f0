"""Connecting to an existing Ray cluster, or to a local Ray that ends with the search; the resources of a trial."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixeltune.errors import SearchError
from pixeltune.files import expand_home
from pixeltune.format import size
from pixeltune.machine import usable_cpus
from pixeltune.masking import masked_words
from pixeltune.own_code import folders_outside, staged_name
from pixeltune.space import Resources
from pixeltune.tune.other_launches import LOCAL_RAY
from pixeltune.tune.ray_address import job_environment

_FOR_WORKERS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # how often Train polls for reports; 2 s by default
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # the user's data functions may read files of the working directory
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # a stopped trial that frees a large model slowly must not cost the next
}
_ENVIRONMENT = _FOR_WORKERS | {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would require pyproject.toml in the working directory
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # How long a call waits for the cause of a death; after 1 s by default, a crash on a busy machine would be reported
    # as an actor that is unavailable, as if its node had died.
    "RAY_timeout_ms_task_wait_for_death_info": "10000",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_FOR_NODES = (".py", ".toml")
"""Files of the working directory that nodes get: search files, data functions, configurations; no data or results."""
_LONGEST_TEMPORARY = 40
"""Paths of Ray's sockets add 60 characters to its folder, and a socket's path has at most 107."""

HEAD = "node:__internal_head__"
"""The resource that marks the node on which the drivers of trials of several workers run."""
MEMORY_OF_A_DRIVER = 2e9
"""Bytes of the processes other than the workers, measured: driver, controller, cleaner. Ray does not count them."""

NodeResources = Mapping[str, float]
"""The resources of one machine of a cluster, by kind."""


@contextmanager
def connect(address: str | None) -> Iterator[list[NodeResources]]:
    """Start or join Ray; yield the resources of each node."""
    set_environment(address)
    if address is not None:
        require_answer(address)
    with ExitStack() as cleanup:
        options = _local(cleanup) if address is None else _remote(address, cleanup)
        warnings.filterwarnings("ignore", module=r"ray\..*")
        warnings.filterwarnings("ignore", category=FutureWarning)
        is_imported = "ray" in sys.modules
        import ray

        if is_imported:
            _reread_environment()
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # Errors are in the rows, or raised.
        _silence_deaths()
        _mask_command_line()
        cleanup.callback(ray.shutdown)
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
        except Exception as error:  # any kind of exception if a busy machine starts it too slowly
            reason = " ".join(str(error).split())[:300]
            raise SearchError(f"a Ray cluster must answer at {address or 'this machine'}, but: {reason}") from error
        if on_sigterm is signal.default_int_handler:  # a Ctrl-C; Ray would exit with the signal's number
            signal.signal(signal.SIGTERM, on_sigterm)
        _tighten_token()
        yield [node["Resources"] for node in ray.nodes() if node["Alive"]]


def set_environment(address: str | None) -> None:
    """Set what Ray reads when it is imported."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if address is None or token_file().is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _reread_environment() -> None:
    """Have Ray read the environment again; a search file that names Ray's callbacks has imported Ray too early."""
    from ray._private import ray_constants
    from ray._raylet import Config

    Config.initialize("")  # as Ray does when it turns the token on
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] not in ("0", "false")


def _mask_command_line() -> None:
    """Have Ray record the command of this driver without secrets: all users of a cluster can read it."""
    import psutil
    from ray._private import utils

    words = psutil.Process().cmdline()
    if (masked := masked_words(words)) != words:
        utils.get_entrypoint_name = lambda: shlex.join(masked)


def require_answer(address: str) -> None:
    """Check quickly that something listens, because Ray itself would retry for a long time."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if not host or not port.isdigit():
            raise OSError("it is not of the form HOST:PORT or ray://HOST:PORT")
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise SearchError(
            f"a Ray cluster must answer at {address}, but none does ({error}); "
            "start one with `ray start --head`, or give --address local to run on this machine"
        ) from None


def limit_to_capacity(
    nodes: Sequence[NodeResources], wanted: Resources, say: Callable[[str], None]
) -> tuple[Resources, int]:
    """Return a trial's resources on these nodes, and how many run at once; SearchError if none could ever run."""
    resources = wanted
    if wanted.gpus and not any(node.get("GPU") for node in nodes):
        say("No GPU in this cluster: the trials train on the CPU.")
        resources = replace(wanted, gpus=0.0)
    places = sum(places_on(node, resources) for node in nodes)
    if places < resources.workers:
        have = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
        each = f"{resources.cpus} CPUs" + (f" and {resources.gpus:g} GPUs" if resources.gpus else "")
        raise SearchError(
            f"a trial must fit the cluster, but it needs {resources.workers} workers of {each} each and there is room "
            f"for {places} ({len(nodes)} nodes, {have['CPU']:g} CPUs, {have['GPU']:g} GPUs in all); "
            "lower `resources.workers`, `resources.cpus` or `resources.gpus` with --set"
        )
    return resources, _within_memory(nodes, resources, places // resources.workers, say)


def _within_memory(
    nodes: Sequence[NodeResources], resources: Resources, concurrent: int, say: Callable[[str], None]
) -> int:
    """Limit the number of trials to those whose drivers fit into the head's memory."""
    fitting = drivers_that_fit(nodes)
    if resources.workers == 1 or fitting is None or concurrent <= max(1, int(fitting)):
        return concurrent
    most = max(1, int(fitting))
    say(
        f"The head has memory for {most} trials of several workers at a time, of about "
        f"{size(MEMORY_OF_A_DRIVER)} next to their workers: {most} in place of {concurrent}."
    )
    return most


def drivers_that_fit(nodes: Sequence[NodeResources]) -> float | None:
    """Return how many trials of several workers fit into the head's memory; None if its size is unknown."""
    memory = next((node.get("memory") for node in nodes if HEAD in node), None)
    return None if memory is None else memory / MEMORY_OF_A_DRIVER


def places_on(node: NodeResources, resources: Resources) -> int:
    """Return how many workers fit on a node, with a tolerance so that 0.1 GPUs fit ten times into one."""
    places = node.get("CPU", 0.0) / resources.cpus
    if resources.gpus:
        places = min(places, node.get("GPU", 0.0) / resources.gpus)
    return int(places + 1e-9)


def _local(cleanup: ExitStack) -> dict[str, Any]:
    """Start a Ray on this machine, with its own temporary folder that is removed afterwards."""
    folder = tempfile.mkdtemp(prefix=LOCAL_RAY)
    if len(folder) > _LONGEST_TEMPORARY and Path("/tmp").is_dir():
        Path(folder).rmdir()
        folder = tempfile.mkdtemp(prefix=LOCAL_RAY, dir="/tmp")
    cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
    return {"address": "local", "num_cpus": usable_cpus(), "_temp_dir": folder}


def _remote(address: str, cleanup: ExitStack) -> dict[str, Any]:
    """Join the cluster at `address`; its nodes get this code and the working directory's as the job's directory.

    Inside a job that was submitted with a working directory, the nodes have it already.
    """
    given = job_environment()
    variables = {key: value for key, value in _FOR_WORKERS.items() if key not in (given.get("env_vars") or {})}
    if given.get("working_dir"):
        return {"address": address, "runtime_env": {"env_vars": variables}}
    staged = Path(tempfile.mkdtemp(prefix="pixeltune-job-"))
    cleanup.callback(shutil.rmtree, staged, ignore_errors=True)
    stage_code(staged)
    return {"address": address, "runtime_env": {"working_dir": str(staged), "env_vars": variables}}


def stage_code(target: Path) -> None:
    """Copy the code that nodes need: the working directory's, that next to a search file elsewhere, and this package.

    Ray's own `excludes` match names at any depth, also inside a package, so the folder is made instead.
    """
    here, package = Path.cwd(), Path(__file__).resolve().parents[1]
    for folder, names, file_names in os.walk(here):
        names[:] = [name for name in names if not name.startswith((".", "_")) and not _is_environment(folder, name)]
        for name in file_names:
            if name.endswith(_FOR_NODES):
                place = target / Path(folder).relative_to(here)
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(Path(folder, name), place / name)
    for number, outside in enumerate(folders_outside()):
        copy_modules(outside, target / staged_name(number))
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, target / package.name, dirs_exist_ok=True, ignore=ignore)


def copy_modules(folder: Path, target: Path) -> None:
    """Copy the modules and packages of a folder; no other folder in it, which may be anybody's."""
    for entry in sorted(folder.iterdir()):
        if entry.suffix == ".py" and entry.is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(entry, target / entry.name)
        elif (entry / "__init__.py").is_file():
            shutil.copytree(entry, target / entry.name, dirs_exist_ok=True, ignore=_not_code)


def _not_code(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not Path(folder, name).is_dir() and not name.endswith(_FOR_NODES)]


def _is_environment(folder: str, name: str) -> bool:
    return Path(folder, name, "pyvenv.cfg").exists()


def _silence_deaths() -> None:
    """Silence Ray's messages about dead workers, printed on stdout despite `log_to_driver`; the rows have them."""
    from ray._private import worker

    worker.print_to_stdstream = lambda *_args, **_kwargs: None


def _tighten_token() -> None:
    """Make Ray's token file private, which Ray creates readable by all."""
    if token_file().is_file():
        token_file().chmod(0o600)


def token_file() -> Path:
    """Return the path of Ray's token, which closes local clusters and `ray start` to others."""
    return expand_home("~/.ray/auth_token")


def could_hold(resources: Resources) -> bool:
    """Return whether the present nodes that are not drained could hold a trial if they were free."""
    import ray

    from pixeltune.tune.preemption import draining_nodes

    leaving = draining_nodes()
    staying = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    return sum(places_on(node["Resources"], resources) for node in staying) >= resources.workers


def gcs_address() -> str:
    """Return the address of this launch's cluster; the State API needs it if several run on one machine."""
    import ray

    return str(ray.get_runtime_context().gcs_address)
