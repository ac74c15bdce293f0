"""The cluster files: as they must be once filled in, and each check against a file wrong in that one respect."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pixeltune.cluster.checks_common import MARK
from pixeltune.cluster.checks_file import check_cluster_file, installed_versions
from pixeltune.errors import SearchError
from tests.support.cluster_files import FOLDER, filled_in, write

NAMES = ("gpu", "gcp", "onprem", "rayjob")


@pytest.fixture(scope="module")
def installed() -> dict[str, str | None]:
    """The versions that the files are for; the Python is that of the images."""
    return installed_versions() | {"python": "3.11.7"}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_filled_in_is_as_it_must_be(name: str, tmp_path: Path, installed: dict[str, str | None]) -> None:
    assert check_cluster_file(write(tmp_path, filled_in(name)), installed) == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_to_be_filled_in_is_named_once_each(name: str, installed: dict[str, str | None]) -> None:
    path = FOLDER / f"{name}.yaml"
    found = [str(finding) for finding in check_cluster_file(path, installed)]
    assert all("must be filled in" in line for line in found), found
    assert len(found) == len(set(re.findall(r"<FILL IN: [^>]*>", re.sub(r"^#.*$", "", path.read_text(), flags=re.M))))


def test_the_image_of_kubernetes_has_the_versions_that_its_tag_says(installed: dict[str, str | None]) -> None:
    text = (FOLDER / "Dockerfile").read_text()
    torch = str(installed["torch"]).partition("+")[0]
    assert f"FROM rayproject/ray:{installed['ray']}-py311" in text
    assert f'"ray[default,train,tune]=={installed["ray"]}" torch=={torch}' in text
    assert f"pixeltune:ray{installed['ray']}-py311-torch{torch}" in text


def _node(config: dict[str, Any], name: str) -> dict[str, Any]:
    node: dict[str, Any] = config["available_node_types"][name]["node_config"]
    return node


def _set(*keys: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        place: Any = config
        for key in keys[:-1]:
            place = place[key]
        if to is None:
            del place[keys[-1]]
        else:
            place[keys[-1]] = to

    return change


def _replace(old: str, new: str, *keys: str) -> Callable[[dict[str, Any]], None]:
    """In the commands or options that stand there."""

    def change(config: dict[str, Any]) -> None:
        place: Any = config
        for key in keys[:-1]:
            place = place[key]
        assert any(old in line for line in place[keys[-1]]), (old, place[keys[-1]])
        place[keys[-1]] = [line.replace(old, new) for line in place[keys[-1]]]

    return change


_HEAD, _WORKER, _GPU = "head_start_ray_commands", "worker_start_ray_commands", "available_node_types"
_CLUSTER = ("spec", "rayClusterSpec")
_HEAD_POD = (*_CLUSTER, "headGroupSpec", "template", "spec")
_WORKER_POD = (*_CLUSTER, "workerGroupSpecs", 0, "template", "spec")
_RAY_UP = ("gpu", "gcp", "onprem")
_CLOUDS = ("gpu", "gcp")

BREAKS: list[tuple[tuple[str, ...], str, Callable[[dict[str, Any]], None]]] = [
    (_RAY_UP, "Ray's schema", _set("max_wokers", to=3)),
    (_RAY_UP, "Ray's schema: 'twenty'", _set("idle_timeout_minutes", to="twenty")),
    (_RAY_UP, "--dashboard-host must be 127.0.0.1", _replace("127.0.0.1", "0.0.0.0", _HEAD)),
    (_RAY_UP, "but it is not set", _replace("--dashboard-host=127.0.0.1", "", _HEAD)),
    (_RAY_UP, f"{_HEAD}: `ray start` must have RAY_AUTH_MODE=token", _replace("RAY_AUTH_MODE=token ", "", _HEAD)),
    (_RAY_UP, f"{_WORKER}: `ray start` must have RAY_AUTH_MODE=token", _replace("RAY_AUTH_MODE=token ", "", _WORKER)),
    (_RAY_UP, f"{_HEAD}: must have a `ray start`", _set(_HEAD, to=None)),
    (_RAY_UP, f"{_WORKER}: must have a `ray start`", _set(_WORKER, to=None)),
    (_RAY_UP, "must bring ~/.ray/auth_token", _set("file_mounts", "~/.ray/auth_token", to=None)),
    (_RAY_UP, "must raise the limit of open files", _replace("ulimit -n 65536; ", "", _WORKER)),
    (_RAY_UP, "ray must be", _replace("==2.60.0", "==2.59.1", "setup_commands")),
    (_RAY_UP, "torch must be", _replace("torch==2.15.0", "torch==2.14.0", "setup_commands")),
    (_RAY_UP, "torch: its version must be pinned", _replace("torch==2.15.0", "torch", "setup_commands")),
    (("onprem",), "python must be", _replace("python3.11", "python3.12", "setup_commands")),
    (("onprem",), "full path that all nodes mount", _replace("=/shared/results", "=results", "setup_commands")),
    (("onprem",), "must name a storage", _replace("PIXELTUNE_STORAGE", "STORAGE", "setup_commands")),
    (("onprem",), "RAY_enable_autoscaler_v2=0", _replace("RAY_enable_autoscaler_v2=0 ", "", _HEAD)),
    (_CLOUDS, "python must be", _set("docker", "head_image", to="rayproject/ray:2.60.0-py312")),
    (_CLOUDS, "ray must be", _set("docker", "worker_image", to="rayproject/ray:2.59.0-py311-gpu")),
    (_CLOUDS, "must set --shm-size", _replace("--shm-size=6g", "", "docker", "run_options")),
    (_CLOUDS, "must set nofile", _replace("--ulimit nofile=65536:65536", "", "docker", "run_options")),
    (("gpu",), "must begin with s3://", _replace("s3://a-bucket/", "/home/ray/", "docker", "run_options")),
    (("gcp",), "must begin with gs://", _replace("gs://a-bucket/", "/home/ray/", "docker", "run_options")),
    (_CLOUDS, "must name a storage", _replace("PIXELTUNE_STORAGE", "STORAGE", "docker", "run_options")),
    (_CLOUDS, "idle_timeout_minutes: must be at least", _set("idle_timeout_minutes", to=5)),
    (_CLOUDS, "idle_timeout_minutes: must be at least", _set("idle_timeout_minutes", to=None)),
    (_CLOUDS, "head.resources.CPU: must be 0", _set(_GPU, "head", "resources", to={"CPU": 4, "GPU": 0})),
    (_CLOUDS, "head.resources.GPU: must be 0", _set(_GPU, "head", "resources", to={"CPU": 0, "GPU": 1})),
    (_CLOUDS, "must have --num-cpus=0", _replace("--num-cpus=0 ", "", _HEAD)),
    (_CLOUDS, f"{_WORKER}: must have `pixeltune cluster watch-spot", _replace("watch-spot", "watch", _WORKER)),
    (("gpu",), "must have `pixeltune cluster watch-spot aws`", _replace("watch-spot aws", "watch-spot gcp", _WORKER)),
    (
        _CLOUDS,
        "`watch-spot` must have RAY_AUTH_MODE=token",
        _replace("RAY_AUTH_MODE=token pixeltune", "pixeltune", _WORKER),
    ),
    (_CLOUDS, "gpu_l4.min_workers: must be 0", _set(_GPU, "gpu_l4", "min_workers", to=1)),
    (
        _CLOUDS,
        "two or more types",
        lambda config: [config[_GPU].pop(n) for n in ("gpu_t4", "gpu_a10g") if n in config[_GPU]],
    ),
    (_CLOUDS, "max_workers: must be 1 or more", _set("max_workers", to=0)),
    (
        _CLOUDS,
        "must be your own address, such as 203.0.113.7/32, but is 10.0.0.0/8",
        _set("metadata", "address", to="10.0.0.0/8"),
    ),
    (_CLOUDS, "metadata.address: must be filled in, but is empty", _set("metadata", "address", to="")),
    (_CLOUDS, "but is empty", _set("metadata", "address", to=None)),
    (_CLOUDS, "0.0.0.0/0 is all of them", _set("metadata", "address", to="0.0.0.0/0")),
    (
        ("gpu",),
        "head.node_config.InstanceMarketOptions: the head must be on demand",
        _set(_GPU, "head", "node_config", "InstanceMarketOptions", to={"MarketType": "spot"}),
    ),
    (
        ("gpu",),
        "gpu_l4.node_config.InstanceMarketOptions: workers must be spot",
        _set(_GPU, "gpu_l4", "node_config", "InstanceMarketOptions", to=None),
    ),
    (("gpu",), "head.node_config.MetadataOptions", _set(_GPU, "head", "node_config", "MetadataOptions", to=None)),
    (
        ("gpu",),
        "gpu_t4.node_config.MetadataOptions",
        _set(_GPU, "gpu_t4", "node_config", "MetadataOptions", to={"HttpTokens": "optional"}),
    ),
    (
        ("gpu",),
        "gpu_t4.node_config.BlockDeviceMappings",
        _set(_GPU, "gpu_t4", "node_config", "BlockDeviceMappings", to=None),
    ),
    (
        ("gpu",),
        "head.node_config.BlockDeviceMappings",
        _set(_GPU, "head", "node_config", "BlockDeviceMappings", 0, "Ebs", "Encrypted", to=False),
    ),
    (("gpu",), "gpu_t4.node_config.SecurityGroupIds", _set(_GPU, "gpu_t4", "node_config", "SecurityGroupIds", to=None)),
    (("gpu",), "gpu_t4.node_config.ImageId", _set(_GPU, "gpu_t4", "node_config", "ImageId", to=None)),
    (("gpu",), "head.node_config.KeyName", _set(_GPU, "head", "node_config", "KeyName", to=None)),
    (("gpu",), "Ray's own may do anything with EC2", _set(_GPU, "head", "node_config", "IamInstanceProfile", to=None)),
    (
        ("gpu",),
        "workers have no right to the storage",
        _set(_GPU, "gpu_t4", "node_config", "IamInstanceProfile", to=None),
    ),
    (
        ("gpu",),
        "must not be the head's (pixeltune-head)",
        _set(_GPU, "gpu_t4", "node_config", "IamInstanceProfile", to={"Name": "pixeltune-head"}),
    ),
    (("gpu",), "must name several zones", _set("provider", "availability_zone", to="us-east-1a")),
    (("gpu",), "cache_stopped_nodes: must be false", _set("provider", "cache_stopped_nodes", to=None)),
    (("gpu",), "adds port 22 for all addresses", _set("provider", "security_group", to={"GroupName": "mine"})),
    (
        ("gcp",),
        "the head must be on demand",
        _set(_GPU, "head", "node_config", "scheduling", to={"provisioningModel": "SPOT"}),
    ),
    (
        ("gcp",),
        "the head must be on demand",
        _set(_GPU, "head", "node_config", "scheduling", to=[{"preemptible": True}]),
    ),
    (("gcp",), "workers must be spot", _set(_GPU, "gpu_t4", "node_config", "scheduling", to=None)),
    (
        ("gcp",),
        "which may do anything, and workers none",
        _set(_GPU, "gpu_t4", "node_config", "serviceAccounts", to=None),
    ),
    (
        ("gcp",),
        "must not be the head's, which may start machines",
        lambda config: _node(config, "gpu_t4").update(serviceAccounts=_node(config, "head")["serviceAccounts"]),
    ),
    (("gcp",), "must name a subnetwork", _set(_GPU, "gpu_t4", "node_config", "networkInterfaces", to=None)),
    (
        ("gcp",),
        "pinned by its name",
        _set(
            _GPU,
            "head",
            "node_config",
            "disks",
            0,
            "initializeParams",
            "sourceImage",
            to="projects/x/global/images/family/cu",
        ),
    ),
    (("rayjob",), "apiVersion: must be ray.io/v1", _set("apiVersion", to="v1")),
    (("rayjob",), "must have --address auto", _set("spec", "entrypoint", to="python launch.py --search cifar_gated")),
    (("rayjob",), "shutdownAfterJobFinishes: must be true", _set("spec", "shutdownAfterJobFinishes", to=None)),
    (("rayjob",), "ttlSecondsAfterFinished: must be a number", _set("spec", "ttlSecondsAfterFinished", to=None)),
    (("rayjob",), "activeDeadlineSeconds: must be a number", _set("spec", "activeDeadlineSeconds", to=None)),
    (("rayjob",), "authOptions.mode: must be token", _set(*_CLUSTER, "authOptions", to=None)),
    (("rayjob",), "ray must be", _set(*_CLUSTER, "rayVersion", to="2.59.0")),
    (("rayjob",), 'num-cpus must be "0"', _set(*_CLUSTER, "headGroupSpec", "rayStartParams", to={})),
    (
        ("rayjob",),
        "LoadBalancer opens the dashboard",
        _set(*_CLUSTER, "headGroupSpec", "serviceType", to="LoadBalancer"),
    ),
    (
        ("rayjob",),
        "the head must not run on spot nodes",
        _set(*_HEAD_POD, "nodeSelector", to={"cloud.google.com/gke-spot": "true"}),
    ),
    (("rayjob",), "must have a group of workers", _set(*_CLUSTER, "workerGroupSpecs", to=[])),
    (("rayjob",), "gpu.replicas: must be 1 or more", _set(*_CLUSTER, "workerGroupSpecs", 0, "replicas", to=0)),
    (
        ("rayjob",),
        "limits: must have memory",
        _set(*_HEAD_POD, "containers", 0, "resources", "limits", to={"cpu": "4"}),
    ),
    (
        ("rayjob",),
        "requests: must have nvidia.com/gpu",
        _set(*_WORKER_POD, "containers", 0, "resources", "requests", to={"cpu": "4", "memory": "16Gi"}),
    ),
    (
        ("rayjob",),
        "gpu.ray-worker.volumeMounts: must mount",
        _set(*_WORKER_POD, "containers", 0, "volumeMounts", to=None),
    ),
    (
        ("rayjob",),
        "headGroupSpec.ray-head.volumeMounts: must mount",
        _set(*_HEAD_POD, "volumes", to=[{"name": "shm", "emptyDir": {}}]),
    ),
    (("rayjob",), "gpu.ray-worker.env: RAY_AUTH_MODE must be token", _set(*_WORKER_POD, "containers", 0, "env", to=[])),
    (("rayjob",), "must be pinned by a tag", _set(*_WORKER_POD, "containers", 0, "image", to="mine/pixeltune:latest")),
    (("rayjob",), "serviceAccountName: must be set", _set(*_WORKER_POD, "serviceAccountName", to=None)),
    (("rayjob",), "must begin with s3://", _set(*_HEAD_POD, "containers", 0, "env", 0, "value", to="/tmp/results")),
]


@pytest.mark.parametrize(
    ("name", "message", "break_it"),
    [(name, message, change) for names, message, change in BREAKS for name in names],
    ids=[f"{name}: {message[:60]}" for names, message, _ in BREAKS for name in names],
)
def test_each_fault_is_found(
    name: str,
    message: str,
    break_it: Callable[[dict[str, Any]], object],
    tmp_path: Path,
    installed: dict[str, str | None],
) -> None:
    config = copy.deepcopy(filled_in(name))
    break_it(config)
    found = [str(finding) for finding in check_cluster_file(write(tmp_path, config), installed)]
    assert any(message in line for line in found), found


@pytest.mark.parametrize(
    "line",
    [
        "# AKIAABCDEFGHIJKLMNOP",
        "# aws_secret_access_key: abcdefghij",
        "# -----BEGIN OPENSSH PRIVATE KEY-----",
        "# export RAY_AUTH_TOKEN=0123456789abcdef",
        f"# hf_{'a' * 30}",
        "# ghp_" + "b" * 36,
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_secrets_are_found_and_not_shown(
    name: str, line: str, tmp_path: Path, installed: dict[str, str | None]
) -> None:
    path = write(tmp_path, filled_in(name))
    path.write_text(f"{path.read_text()}\n{line}\n")
    (finding,) = check_cluster_file(path, installed)
    assert "no secrets" in str(finding)
    assert line.split()[-1] not in str(finding)


def test_credentials_of_a_provider_are_found(tmp_path: Path, installed: dict[str, str | None]) -> None:
    config = copy.deepcopy(filled_in("gpu"))
    config["provider"]["aws_credentials"] = {"aws_access_key_id": "x"}
    found = [str(finding) for finding in check_cluster_file(write(tmp_path, config), installed)]
    assert any("credentials of a cloud" in line for line in found), found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "readable YAML"),
        ("- 1", "keys and values"),
        ("", "keys and values"),
        ("provider: {type: azure}", "among aws, gcp, local, RayJob"),
        ("cluster_name: x", "has None"),
        ("!!python/object/apply:os.system ['touch HERE']", "readable YAML"),
    ],
)
def test_what_is_no_cluster_file_says_so(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text.replace("HERE", str(tmp_path / "run")))
    with pytest.raises(SearchError, match=message):
        check_cluster_file(path)
    assert not (tmp_path / "run").exists()


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="readable YAML"):
        check_cluster_file(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["gpu", "gcp", "rayjob"])
@pytest.mark.parametrize("value", ["x", 3, [], {}, None])
def test_a_part_of_another_form_is_a_finding_and_no_crash(
    name: str, value: object, tmp_path: Path, installed: dict[str, str | None]
) -> None:
    for key in [key for key in filled_in(name) if key not in ("kind", "provider")]:
        config = copy.deepcopy(filled_in(name)) | {key: value}
        check_cluster_file(write(tmp_path, config), installed)


def test_no_secret_and_no_foreign_mark_in_what_is_shipped() -> None:
    for path in FOLDER.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not re.search(r"AKIA[0-9A-Z]{16}|PRIVATE KEY", text), path
            assert MARK not in text or path.suffix in (".yaml", ".md"), path
    for name in NAMES:
        assert yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
