"""Checks of the machines of AWS and Google Cloud, whose `node_config` Ray's schema leaves free-form."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from pixeltune.cluster.checks_common import MARK
from pixeltune.cluster.cluster_file import Config, Finding, at, node_types

_WIDEST = {4: 24, 6: 56}
"""Shortest prefix of a network that counts as the user's own, by IP version."""

NodeConfigs = list[tuple[str, Mapping[str, Any]]]


def head_and_workers(config: Config) -> Iterator[Finding]:
    """Check for a head that runs no trials, and workers of several types that start and stop on demand."""
    name, head, workers = node_types(config)
    for resource in ("CPU", "GPU"):
        if at(head, "resources", resource) != 0:
            yield Finding(
                f"{name}.resources.{resource}", "must be 0: a trial on the head could take the search down with it"
            )
    starts = " ".join(line for line in config.get("head_start_ray_commands") or [] if "ray start" in line)
    if "--num-cpus=0" not in starts.replace("--num-cpus 0", "--num-cpus=0").split():
        yield Finding(
            "head_start_ray_commands", "`ray start` must have --num-cpus=0, so that no trial runs on the head"
        )
    if len(workers) < 2:
        yield Finding(
            "available_node_types",
            f"must have two or more types of workers, so that one is available, but has {len(workers)}",
        )
    for worker, kind in workers.items():
        if kind.get("min_workers", 0) != 0:
            yield Finding(
                f"{worker}.min_workers",
                f"must be 0, or machines are paid for without a search, but is {kind['min_workers']}",
            )
    if not config.get("max_workers"):
        yield Finding("max_workers", "must be 1 or more; it bounds what a search can cost")


def spot_agent(config: Config) -> Iterator[Finding]:
    """Check that the agent which drains a worker before its machine is taken away is that of the right cloud."""
    lines = [line for line in config.get("worker_start_ray_commands") or [] if "watch-spot" in line]
    wanted = f"pixeltune cluster watch-spot {at(config, 'provider', 'type')}"
    if not any(wanted in line for line in lines):
        yield Finding(
            "worker_start_ray_commands",
            f"must have `{wanted}`, or trials lose what they learned since their last report",
        )
    elif not all("RAY_AUTH_MODE=token" in line for line in lines):
        yield Finding("worker_start_ray_commands", "`watch-spot` must have RAY_AUTH_MODE=token, or Ray refuses it")


def check_operator_cidr(config: Config) -> Iterator[Finding]:
    """Check `metadata.address`, the only address that the firewall lets in."""
    text = str(at(config, "metadata", "address") or "")
    if MARK in text:
        return
    try:
        network = ipaddress.ip_network(text)
        narrow = network.prefixlen >= _WIDEST[network.version]
    except ValueError:
        narrow = False
    if not narrow:
        yield Finding("metadata.address", f"must be your own address, such as 203.0.113.7/32, but is {text or 'empty'}")


def aws(config: Config) -> Iterator[Finding]:
    """Check the configuration that each instance of AWS starts with."""
    name, head, workers = node_types(config)
    nodes = [(each, at(kind, "node_config") or {}) for each, kind in {name: head, **workers}.items()]
    for each, node in nodes:
        place = f"{each}.node_config"
        yield from _instance(place, node)
        spot = at(node, "InstanceMarketOptions", "MarketType") == "spot"
        if each == name and spot:
            yield Finding(
                f"{place}.InstanceMarketOptions",
                "the head must be on demand: with a spot head the whole search is lost",
            )
        elif each != name and not spot:
            yield Finding(
                f"{place}.InstanceMarketOptions",
                "workers must be spot (MarketType: spot); a cut trial goes on elsewhere",
            )
    yield from _profiles(nodes, name)
    zones = str(at(config, "provider", "availability_zone") or "").split(",")
    if len(zones) < 2:
        yield Finding(
            "provider.availability_zone", "must name several zones, because spot machines that one lacks another has"
        )
    if at(config, "provider", "cache_stopped_nodes") is not False:
        yield Finding(
            "provider.cache_stopped_nodes", "must be false, or workers that were ended go on costing their disks"
        )
    if at(config, "provider", "security_group"):
        yield Finding(
            "provider.security_group",
            "must not be set: Ray adds port 22 for all addresses to a group that it makes from this",
        )


def _instance(place: str, node: Mapping[str, Any]) -> Iterator[Finding]:
    if at(node, "MetadataOptions", "HttpTokens") != "required":
        yield Finding(
            f"{place}.MetadataOptions",
            "HttpTokens must be required (IMDSv2), or any request made here reads the role's keys",
        )
    disks = node.get("BlockDeviceMappings") or []
    if not disks or any(at(disk, "Ebs", "Encrypted") is not True for disk in disks):
        yield Finding(f"{place}.BlockDeviceMappings", "every disk must have Ebs.Encrypted: true")
    if not node.get("SecurityGroupIds"):
        yield Finding(
            f"{place}.SecurityGroupIds", "must be set, because Ray's own group opens port 22 to all addresses"
        )
    if not node.get("ImageId"):
        yield Finding(f"{place}.ImageId", "must be pinned, because Ray's default is of 2018")
    if not node.get("KeyName"):
        yield Finding(f"{place}.KeyName", "must be the name of your own key pair")


def _profiles(nodes: NodeConfigs, head: str) -> Iterator[Finding]:
    profiles = {
        each: at(node, "IamInstanceProfile", "Name") or at(node, "IamInstanceProfile", "Arn") for each, node in nodes
    }
    for each, profile in profiles.items():
        place = f"{each}.node_config.IamInstanceProfile"
        if not profile:
            lacks = (
                "Ray's own may do anything with EC2 and S3" if each == head else "workers have no right to the storage"
            )
            yield Finding(place, f"must be set, because without it {lacks}")
        elif each != head and profile == profiles[head]:
            yield Finding(place, f"must not be the head's ({profile}), which may start machines")


def gcp(config: Config) -> Iterator[Finding]:
    """Check the configuration that each instance of Google Cloud starts with."""
    name, head, workers = node_types(config)
    nodes = [(each, at(kind, "node_config") or {}) for each, kind in {name: head, **workers}.items()]
    emails = {each: at(node, "serviceAccounts", 0, "email") for each, node in nodes}
    for each, node in nodes:
        place = f"{each}.node_config"
        scheduling = node.get("scheduling")
        spot = at(scheduling, "provisioningModel") == "SPOT" or "preemptible" in str(scheduling)
        if each == name and spot:
            yield Finding(
                f"{place}.scheduling", "the head must be on demand: with a spot head the whole search is lost"
            )
        elif each != name and not spot:
            yield Finding(
                f"{place}.scheduling", "workers must be spot (provisioningModel: SPOT); a cut trial goes on elsewhere"
            )
        if not emails[each]:
            yield Finding(
                f"{place}.serviceAccounts",
                "must be set: without it the head gets Ray's, which may do anything, and workers none",
            )
        elif each != name and emails[each] == emails[name]:
            yield Finding(f"{place}.serviceAccounts", "must not be the head's, which may start machines")
        if not at(node, "networkInterfaces", 0, "subnetwork"):
            yield Finding(
                f"{place}.networkInterfaces",
                "must name a subnetwork of your own, because the default network lets SSH in from everywhere",
            )
        if "/family/" in str(at(node, "disks", 0, "initializeParams", "sourceImage") or "/family/"):
            yield Finding(
                f"{place}.disks", "the source image must be pinned by its name; a family means its newest image"
            )
