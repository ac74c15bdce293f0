"""What Ray asks of AWS for `cluster/gpu.yaml`: its own provider starts a head and a worker of each type, on moto."""

from __future__ import annotations

import copy
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pixeltune.cluster.ssh_tunnel import find_head
from pixeltune.errors import SearchError
from tests.support.cluster_files import ADDRESS, FOLDER, write
from tests.support.loopback_cloud import Cloud, NotLoopbackError, client, new_cloud, prepared

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Started:
    """account: the file's content. config: what Ray made of it. instances: as AWS shows them, by type: the head and one
    worker of each."""

    account: dict[str, Any]
    config: dict[str, Any]
    instances: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with new_cloud() as made:
        yield made


@pytest.fixture(scope="module")
def started(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Started:
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler.tags import TAG_RAY_LAUNCH_CONFIG, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

    account = prepared(tmp_path_factory.mktemp("account"))
    config = _bootstrap_config(copy.deepcopy(account.config), no_config_cache=True)
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    for name, kind in config["available_node_types"].items():
        role = "head" if name == config["head_node_type"] else "worker"
        node = (config["head_node"] | kind["node_config"]) if role == "head" else kind["node_config"]
        tags = {TAG_RAY_NODE_KIND: role, TAG_RAY_LAUNCH_CONFIG: "x", TAG_RAY_USER_NODE_TYPE: name}
        provider.create_node(node, tags, 1)
    found: dict[str, list[dict[str, Any]]] = {}
    for reservation in client("ec2").describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
            found.setdefault(tags[TAG_RAY_USER_NODE_TYPE], []).append(instance)
    return Started(account.config, config, found)


def test_the_head_is_on_demand_and_workers_are_spot(started: Started) -> None:
    instances = started.instances
    assert {name: len(each) for name, each in instances.items()} == dict.fromkeys(
        ("head", "gpu_t4", "gpu_a10g", "gpu_l4"), 1
    )
    for name, (instance,) in instances.items():
        assert instance.get("InstanceLifecycle") == (None if name == "head" else "spot"), name
    assert {each["InstanceType"] for (each,) in instances.values()} == {
        "m7i.xlarge",
        "g4dn.xlarge",
        "g5.xlarge",
        "g6.xlarge",
    }


def test_every_instance_has_imdsv2_encrypted_disks_its_key_and_its_role(
    started: Started,
) -> None:
    ec2 = client("ec2")
    for name, (instance,) in started.instances.items():
        assert instance["MetadataOptions"]["HttpTokens"] == "required"
        assert instance["KeyName"] == "pixeltune"
        role = "pixeltune-head" if name == "head" else "pixeltune-worker"
        assert instance["IamInstanceProfile"]["Arn"].endswith(f"/{role}"), name
        disks = [disk["Ebs"]["VolumeId"] for disk in instance["BlockDeviceMappings"]]
        volumes = ec2.describe_volumes(VolumeIds=disks)["Volumes"]
        assert volumes
        assert all(volume["Encrypted"] for volume in volumes), name


def test_only_the_users_address_and_the_cluster_itself_are_let_in(
    started: Started,
) -> None:
    groups = {group["GroupId"] for (each,) in started.instances.values() for group in each["SecurityGroups"]}
    assert len(groups) == 1
    (group,) = client("ec2").describe_security_groups(GroupIds=list(groups))["SecurityGroups"]
    let_in = [
        (rule.get("FromPort"), rule.get("ToPort"), source.get("CidrIp") or source.get("GroupId"))
        for rule in group["IpPermissions"]
        for source in (*rule["IpRanges"], *rule.get("Ipv6Ranges", ()), *rule["UserIdGroupPairs"])
    ]
    assert {source for _, _, source in let_in} == {ADDRESS, group["GroupId"]}
    assert [(first, last) for first, last, source in let_in if source == ADDRESS] == [(22, 22)]


def test_ray_makes_no_group_and_no_role_of_its_own(started: Started) -> None:
    names = {group["GroupName"] for group in client("ec2").describe_security_groups()["SecurityGroups"]}
    assert names == {"default", "pixeltune-cluster"}
    roles = {
        role["RoleName"] for role in client("iam").list_roles()["Roles"] if "/aws-service-role/" not in role["Path"]
    }
    assert roles == {"pixeltune-head", "pixeltune-worker"}


def test_workers_can_start_in_several_zones(started: Started) -> None:
    subnets = started.config["available_node_types"]["gpu_t4"]["node_config"]["SubnetIds"]
    zones = {each["AvailabilityZone"] for each in client("ec2").describe_subnets(SubnetIds=subnets)["Subnets"]}
    assert zones == {f"us-east-1{letter}" for letter in "abcd"}


def test_the_head_is_found_once_it_is_up(started: Started, tmp_path: Path) -> None:
    """Its address is asked for, and left alone."""
    from ray.autoscaler._private.providers import _clear_provider_cache
    from ray.autoscaler.tags import TAG_RAY_NODE_STATUS

    path = write(tmp_path, started.account)
    with pytest.raises(SearchError, match=r"must be up, but Ray finds no head \(.*not found.*\); ray up "):
        find_head(started.account, path)
    (head,) = started.instances["head"]
    client("ec2").create_tags(
        Resources=[head["InstanceId"]], Tags=[{"Key": TAG_RAY_NODE_STATUS, "Value": "up-to-date"}]
    )
    _clear_provider_cache()  # as in a command of its own
    assert find_head(started.account, path) == head["PublicIpAddress"]


def test_the_head_keeps_none_of_its_processors_for_trials(
    started: Started,
) -> None:
    types = started.config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert all(types[name]["resources"]["GPU"] == 1 for name in types if name != "head")


def test_nothing_but_loopback_is_ever_reached(started: Started, cloud: Cloud) -> None:
    made_up = {each.get("PublicIpAddress") for (each,) in started.instances.values()} - {None}
    assert made_up, "the danger is gone: say so in loopback_cloud.py"
    assert cloud.connected_to == {"127.0.0.1"}
    with pytest.raises(NotLoopbackError):
        socket.create_connection((made_up.pop(), 22), timeout=1)


def test_a_file_that_is_not_filled_in_starts_no_machine(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    """Where someone gives it to `ray up` all the same, Ray ends before it has made anything."""
    from ray.autoscaler._private.commands import _bootstrap_config

    config = yaml.safe_load((FOLDER / "gpu.yaml").read_text())
    before = _counts()
    with pytest.raises(AssertionError):
        _bootstrap_config(config, no_config_cache=True)
    assert "security group" in capsys.readouterr().err
    assert _counts() == before


def _counts() -> tuple[int, int]:
    """Machines and security groups."""
    ec2 = client("ec2")
    return len(ec2.describe_instances()["Reservations"]), len(ec2.describe_security_groups()["SecurityGroups"])
