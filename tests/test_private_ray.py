"""Every private name of Ray that we use is on one list, and Ray still has it.

Ray changes such names between minors without notice, so pyproject.toml bounds Ray by the minor that passes this test.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.support import optional

ROOT = Path(__file__).resolve().parents[1]
CODE = ("pixeltune", "search_spaces", "tests", "benchmarks")
_PRIVATE = re.compile(r"\bray\.(?:_\w+|core\.generated|autoscaler\._private)\b[\w.]*")


@dataclass(frozen=True)
class Private:
    """A private name of Ray. user: the file that uses it. purpose: completes "used by `user` to …"."""

    module: str
    name: str
    user: str
    purpose: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


SCHEMA = "check a cluster file against Ray's schema"
DRAIN = "drain the node of a spot machine"
AWS = "make a cluster's AWS parts against moto"
DIED = "have the text of an actor's death"
MASK = "hide secrets in the command of a driver"
ASK = "ask running trials to end"
READ_AGAIN = "read the environment again where a search file imported Ray"
NAMES = (
    Private(
        "ray._private.state", "available_resources_per_node", "pixeltune/tune/hang_recovery.py", "find room for a trial"
    ),
    Private("ray._private.worker", "global_worker", "pixeltune/tune/preemption.py", "ask for draining nodes"),
    Private("ray._private.worker", "print_to_stdstream", "pixeltune/tune/ray_session.py", "silence deaths of workers"),
    Private("ray._private.utils", "get_entrypoint_name", "pixeltune/tune/ray_session.py", MASK),
    Private("ray._private.utils", "get_entrypoint_name", "tests/cli/test_notify.py", MASK),
    Private("ray._raylet", "Config", "pixeltune/tune/ray_session.py", READ_AGAIN),
    Private("ray._private.ray_constants", "RAY_ENABLE_UV_RUN_RUNTIME_ENV", "pixeltune/tune/ray_session.py", READ_AGAIN),
    Private(
        "ray._raylet", "InnerGcsClient.get_draining_nodes", "pixeltune/tune/preemption.py", "ask for draining nodes"
    ),
    Private("ray._raylet", "InnerGcsClient.internal_kv_put", "pixeltune/tune/preemption.py", ASK),
    Private("ray._raylet", "InnerGcsClient.internal_kv_exists", "pixeltune/tune/preemption.py", ASK),
    Private("ray._raylet", "InnerGcsClient.internal_kv_del", "pixeltune/tune/preemption.py", ASK),
    Private(
        "ray.train.v2._internal.constants",
        "ENV_VARS_TO_PROPAGATE",
        "pixeltune/tune/trainables.py",
        "name the cluster to the processes of Train",
    ),
    Private("ray._raylet", "InnerGcsClient.drain_node", "pixeltune/cluster/spot_agent.py", DRAIN),
    Private("ray._raylet", "GcsClient", "pixeltune/cluster/spot_agent.py", DRAIN),
    Private("ray._raylet", "GcsClient", "tests/support/strangers.py", "knock at a cluster as a stranger"),
    Private("ray._raylet", "PlacementGroupID", "pixeltune/tune/hang_recovery.py", "free what a killed trial reserved"),
    Private("ray.core.generated.autoscaler_pb2", "DrainNodeReason", "pixeltune/cluster/spot_agent.py", DRAIN),
    Private(
        "ray.core.generated.autoscaler_pb2",
        "DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION",
        "pixeltune/cluster/spot_agent.py",
        DRAIN,
    ),
    Private("ray.core.generated.common_pb2", "ActorDiedErrorContext", "tests/tune/test_preemption.py", DIED),
    Private("ray.core.generated.common_pb2", "ActorDiedErrorContext.NODE_DIED", "tests/tune/test_preemption.py", DIED),
    Private("ray.autoscaler._private.util", "prepare_config", "pixeltune/cluster/checks_file.py", SCHEMA),
    Private("ray.autoscaler._private.util", "validate_config", "pixeltune/cluster/checks_file.py", SCHEMA),
    Private("ray.autoscaler._private.commands", "get_head_node_ip", "pixeltune/cluster/ssh_tunnel.py", "find a head"),
    Private(
        "ray.job_submission",
        "JobSubmissionClient._do_request",
        "pixeltune/cluster/dashboard_client.py",
        "bound the wait for a dashboard",
    ),
    Private(
        "ray._private.authentication.authentication_utils",
        "is_token_auth_enabled",
        "tests/cluster/test_check_first.py",
        "see that a check leaves tokens on",
    ),
    Private("ray._private.services", "get_node_ip_address", "tests/cluster/test_from_zero.py", "start a cluster"),
    Private(
        "ray._raylet",
        "InnerGcsClient.internal_kv_keys",
        "tests/support/strangers.py",
        "knock at a cluster as a stranger",
    ),
    Private("ray.autoscaler._private.aws.utils", "client_cache", "tests/support/loopback_cloud.py", AWS),
    Private("ray.autoscaler._private.aws.utils", "resource_cache", "tests/support/loopback_cloud.py", AWS),
    Private("ray.autoscaler._private.commands", "_bootstrap_config", "tests/cluster/test_aws.py", AWS),
    Private("ray.autoscaler._private.commands", "get_head_node_ip", "tests/cluster/test_ssh_tunnel.py", "replace it"),
    Private(
        "ray.autoscaler._private.fake_multi_node.node_provider",
        "FakeMultiNodeProvider",
        "tests/cluster/test_from_zero.py",
        "start a cluster whose workers are processes",
    ),
    Private("ray.autoscaler._private.providers", "_clear_provider_cache", "tests/cluster/test_aws.py", AWS),
    Private("ray.autoscaler._private.providers", "_get_node_provider", "tests/cluster/test_aws.py", AWS),
    Private("ray.autoscaler._private.updater", "NodeUpdater.__init__", "tests/support/loopback_cloud.py", AWS),
)
IN_SOURCE = (
    (
        Private("ray._private.worker", "connect", "pixeltune/tune/preemption.py", "ask for draining nodes"),
        ".gcs_client =",
    ),
    (Private("ray", "init", "pixeltune/tune/ray_session.py", "give each Ray its own folder"), '"_temp_dir"'),
)
"""An attribute that Ray sets and a parameter that it pops: only Ray's source shows them."""
LOGGERS = {"ray.autoscaler._private.util": "pixeltune/cluster/checks_file.py"}
"""Loggers that we set; a logger that is gone harms nothing."""


@pytest.mark.parametrize("private", NAMES, ids=lambda private: f"{private}-{Path(private.user).stem}")
def test_ray_has_every_private_name_that_we_use(private: Private) -> None:
    if ".aws." in private.module:  # which imports boto3
        optional.require("boto3")
    require(private)


def require(private: Private) -> None:
    with contextlib.suppress(ImportError, AttributeError):
        value: Any = importlib.import_module(private.module)
        for part in private.name.split("."):
            value = getattr(value, part)
        return
    pytest.fail(_gone(str(private), private), pytrace=False)


def _gone(what: str, private: Private) -> str:
    return (
        f"ray {ray.__version__} no longer has {what}, used by {private.user} to {private.purpose}; "
        "update that file, this list and the upper bound of ray in pyproject.toml"
    )


@pytest.mark.parametrize(("function", "text"), IN_SOURCE)
def test_ray_has_what_only_its_source_shows(function: Private, text: str) -> None:
    require(function)
    source = inspect.getsource(getattr(importlib.import_module(function.module), function.name))
    if text not in source:
        pytest.fail(_gone(f"{text} in {function}", function), pytrace=False)


def test_the_upper_bound_of_ray_is_the_minor_that_is_installed() -> None:
    dependencies = tomllib.loads(_read(ROOT / "pyproject.toml"))["project"]["dependencies"]
    (requirement,) = (text for text in dependencies if text.startswith("ray["))
    major, minor = map(int, ray.__version__.split(".")[:2])
    assert requirement.endswith(f">={major}.{minor},<{major}.{minor + 1}")


def test_a_name_that_is_gone_is_reported_with_its_user() -> None:
    gone = Private("ray._private.state", "gone", "pixeltune/tune/hang_recovery.py", "find room for a trial")
    with pytest.raises(pytest.fail.Exception) as failure:
        require(gone)
    assert str(failure.value) == (
        f"ray {ray.__version__} no longer has ray._private.state.gone, used by pixeltune/tune/hang_recovery.py to find "
        "room for a trial; update that file, this list and the upper bound of ray in pyproject.toml"
    )


def test_every_private_name_is_on_the_list() -> None:
    modules = {(private.user, private.module) for private in NAMES} | {(user, name) for name, user in LOGGERS.items()}
    names = {(private.user, str(private)) for private in NAMES}
    used = {(path.relative_to(ROOT).as_posix(), name) for path in _files() for name in private_names(_read(path))}
    missing = {(user, name) for user, name in used - modules if not any((user, part) in names for part in _parts(name))}
    assert not missing, f"add to NAMES: {sorted(missing)}"
    assert used


@pytest.mark.parametrize("private", NAMES, ids=lambda private: f"{private}-{Path(private.user).stem}")
def test_the_list_names_nothing_that_we_do_not_use(private: Private) -> None:
    text = _read(ROOT / private.user)
    assert re.search(rf"\b{private.name.rpartition('.')[2]}\b", text), f"{private.user} no longer uses {private}"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import ray._private.state", "ray._private.state"),
        ("import ray._private.state as state\nstate.nodes()", "ray._private.state.nodes"),
        ("from ray._private import worker\nworker.global_worker.core.x()", "ray._private.worker.global_worker.core.x"),
        ("from ray import _raylet", "ray._raylet"),
        ("from ray._raylet import GcsClient as Client\nClient.new()", "ray._raylet.GcsClient.new"),
        ("import ray\nray._private.state.nodes()", "ray._private.state.nodes"),
        ("import importlib\nimportlib.import_module('ray.core.generated.x_pb2')", "ray.core.generated.x_pb2"),
        ("patch('ray.autoscaler._private.util.check')", "ray.autoscaler._private.util.check"),
        ("CODE = '''\nfrom ray._raylet import GcsClient\n'''", "ray._raylet.GcsClient"),
    ],
)
def test_uses_of_every_form_are_found(code: str, name: str) -> None:
    assert name in set(private_names(code))


def private_names(code: str) -> Iterator[str]:
    """Yield each private name of Ray that the code imports, reaches by attributes, or has in a string."""
    tree = ast.parse(code)
    names = {"ray": "ray"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _PRIVATE.findall(alias.name)
                if alias.asname and alias.name.startswith("ray."):
                    names[alias.asname] = alias.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ray":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield from _PRIVATE.findall(whole)
                names[alias.asname or alias.name] = whole
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _in_string(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            yield from _PRIVATE.findall(names.get(first, "") + dot + rest)


def _in_string(text: str) -> Iterator[str]:
    """Code in a string is searched as code; names in one that is no code are taken as they are."""
    if _PRIVATE.search(text) and "import " in text:
        try:
            yield from private_names(text)
        except SyntaxError:
            pass
        else:
            return
    yield from _PRIVATE.findall(text)


def _parts(name: str) -> Iterator[str]:
    """Yield a.b.c, a.b and a of a.b.c."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _files() -> Iterator[Path]:
    for folder in CODE:
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")) if path != Path(__file__).resolve())
    yield ROOT / "launch.py"
