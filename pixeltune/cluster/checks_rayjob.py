"""Checks of a RayJob of KubeRay. Its schema is in the Kubernetes cluster; these are a search's requirements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pixeltune.cluster.cluster_file import Config, Finding, at, part, rows


def rayjob(config: Config) -> Iterator[Finding]:
    """Check the job's end, its pods, and the access to them."""
    spec = part(config, "spec")
    if config.get("apiVersion") != "ray.io/v1":
        yield Finding("apiVersion", f"must be ray.io/v1, but is {config.get('apiVersion')}")
    if "--address auto" not in str(spec.get("entrypoint")):
        yield Finding("spec.entrypoint", "must have --address auto, or the search runs in the head's pod alone")
    if spec.get("shutdownAfterJobFinishes") is not True:
        yield Finding("spec.shutdownAfterJobFinishes", "must be true, or the GPUs stay taken when the search has ended")
    for key in ("ttlSecondsAfterFinished", "activeDeadlineSeconds"):
        if not isinstance(spec.get(key), int):
            yield Finding(f"spec.{key}", "must be a number of seconds, so that the cluster is deleted")
    cluster = part(spec, "rayClusterSpec")
    if at(cluster, "authOptions", "mode") != "token":
        yield Finding("spec.rayClusterSpec.authOptions.mode", "must be token, or any pod may run code on the cluster")
    yield from _head(part(cluster, "headGroupSpec"))
    groups = rows(cluster, "workerGroupSpecs")
    if not groups:
        yield Finding(
            "spec.rayClusterSpec.workerGroupSpecs", "must have a group of workers, because the head runs no trials"
        )
    for group in groups:
        name = str(group.get("groupName"))
        if not group.get("replicas"):
            yield Finding(
                f"{name}.replicas", "must be 1 or more, because a search begins with the workers that are there"
            )
        yield from _pod(name, group, gpu=True)


def _head(head: Mapping[str, Any]) -> Iterator[Finding]:
    if at(head, "rayStartParams", "num-cpus") != "0":
        yield Finding("headGroupSpec.rayStartParams", 'num-cpus must be "0", so that no trial runs on the head')
    if head.get("serviceType", "ClusterIP") != "ClusterIP":
        yield Finding("headGroupSpec.serviceType", f"must be ClusterIP, but {head['serviceType']} opens the dashboard")
    scheduling = part(head, "template", "spec")
    if "spot" in f"{scheduling.get('nodeSelector')} {scheduling.get('tolerations')}".lower():
        yield Finding(
            "headGroupSpec.template.spec", "the head must not run on spot nodes: with it the whole search is lost"
        )
    yield from _pod("headGroupSpec", head, gpu=False)


def _pod(place: str, group: Mapping[str, Any], *, gpu: bool) -> Iterator[Finding]:
    spec = part(group, "template", "spec")
    containers = rows(spec, "containers")
    if not containers:
        yield Finding(f"{place}.template.spec.containers", "must have a container")
    if not spec.get("serviceAccountName"):
        yield Finding(
            f"{place}.template.spec.serviceAccountName",
            "must be set, because without it the pods have no right to the storage",
        )
    memory = {volume.get("name") for volume in rows(spec, "volumes") if at(volume, "emptyDir", "medium") == "Memory"}
    for container in containers:
        where = f"{place}.{container.get('name')}"
        wanted = ("cpu", "memory", *(("nvidia.com/gpu",) if gpu else ()))
        for bound in ("requests", "limits"):
            missing = [kind for kind in wanted if not at(container, "resources", bound, kind)]
            if missing:
                yield Finding(
                    f"{where}.resources.{bound}", f"must have {', '.join(missing)}, which tell Ray what a node has"
                )
        mounted = {
            mount.get("name") for mount in rows(container, "volumeMounts") if mount.get("mountPath") == "/dev/shm"
        }
        if not mounted & memory:
            yield Finding(
                f"{where}.volumeMounts", "must mount an emptyDir of medium Memory at /dev/shm, because a pod has 64 MB"
            )
        modes = [entry.get("value") for entry in rows(container, "env") if entry.get("name") == "RAY_AUTH_MODE"]
        if modes != ["token"]:
            yield Finding(f"{where}.env", "RAY_AUTH_MODE must be token, or the container speaks to Ray without one")
        if str(container.get("image", ":latest")).endswith(":latest"):
            yield Finding(f"{where}.image", "must be pinned by a tag that is not latest")
