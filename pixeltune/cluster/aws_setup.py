"""The roles, key pair and security group of an AWS account that `ray up` needs; those that it makes are too open."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pixeltune.cluster.checks_cloud import check_operator_cidr
from pixeltune.cluster.checks_common import MARK
from pixeltune.cluster.cluster_file import Config, Kind, at, kind_of, node_types, read_cluster_file, storage_of
from pixeltune.errors import SearchError
from pixeltune.files import expand_home
from pixeltune.packages import require_packages

_SSH = 22


def prepare_aws(path: str | Path) -> Iterator[str]:
    """Create what is missing and say each; SearchError if the file or the account does not allow it."""
    config = read_cluster_file(path)
    if kind_of(config, path) is not Kind.AWS:
        raise SearchError(f"only files of `provider: aws` are prepared, but {path} is another; see cluster/README.md")
    address, bucket = _address(config), _bucket(config)
    require_packages("AWS", "boto3")
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    region = at(config, "provider", "region")
    try:
        yield from _roles(boto3.client("iam"), config, expand_home(path).parent / "policies", bucket)
        ec2 = boto3.client("ec2", region_name=region)
        yield from _key_pair(ec2, config)
        yield from _security_group(ec2, f"{config['cluster_name']}-cluster", address)
    except (BotoCoreError, ClientError) as error:
        raise SearchError(f"AWS must take what `prepare` asks for, but: {error}") from error


def _address(config: Config) -> str:
    address = str(at(config, "metadata", "address") or "")
    if MARK in address or any(check_operator_cidr(config)):
        shown = "is not filled in" if MARK in address or not address else f"is {address}"
        raise SearchError(
            f"metadata.address must be your own address, such as 203.0.113.7/32, but {shown}; "
            "https://checkip.amazonaws.com shows it"
        )
    return address


def _bucket(config: Config) -> str:
    storage = storage_of(config) or ""
    if MARK in storage or not storage.startswith("s3://"):
        raise SearchError(f"PIXELTUNE_STORAGE must be s3://BUCKET/…, but is {storage or 'not set'}; fill in the bucket")
    return urlsplit(storage).netloc


def _roles(iam: Any, config: Config, policies: Path, bucket: str) -> Iterator[str]:
    """Create a role and an instance profile for the head and for the workers; policies are always rewritten."""
    name, head, workers = node_types(config)
    names = {"head": _profile(name, head), "worker": _profile(*next(iter(workers.items())))}
    known = {"<BUCKET>": bucket, "<CLUSTER>": str(config["cluster_name"]), "<WORKER>": names["worker"]}
    for role, profile in names.items():
        with _there_already(iam):
            iam.create_role(RoleName=profile, AssumeRolePolicyDocument=_policy(policies / "trust.json", {}))
        iam.put_role_policy(
            RoleName=profile, PolicyName=profile, PolicyDocument=_policy(policies / f"{role}.json", known)
        )
        with _there_already(iam):
            iam.create_instance_profile(InstanceProfileName=profile)
        if not iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]:
            iam.add_role_to_instance_profile(InstanceProfileName=profile, RoleName=profile)
        yield f"role and instance profile {profile}: may do what {role}.json says, with {bucket}"
    with _there_already(iam), contextlib.suppress(iam.exceptions.InvalidInputException):  # AWS: "has been taken"
        iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")  # the head needs it and cannot create it


def _profile(name: str, kind: Config) -> str:
    profile = at(kind, "node_config", "IamInstanceProfile", "Name")
    if not profile:
        raise SearchError(f"{name}.node_config.IamInstanceProfile must have a Name, but has none")
    return str(profile)


def _policy(path: Path, known: dict[str, str]) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SearchError(f"the policies must be next to the cluster file, but {path} is not ({error})") from None
    for mark, value in known.items():
        text = text.replace(mark, value)
    return text


def _there_already(iam: Any) -> contextlib.suppress:
    return contextlib.suppress(iam.exceptions.EntityAlreadyExistsException)


def _key_pair(ec2: Any, config: Config) -> Iterator[str]:
    """Register the public half of the user's own key, under the name that the head's type has."""
    name = str(at(node_types(config)[1], "node_config", "KeyName"))
    public = expand_home(str(at(config, "auth", "ssh_private_key")) + ".pub")
    known = {pair["KeyName"] for pair in ec2.describe_key_pairs()["KeyPairs"]}
    if name not in known:
        try:
            ec2.import_key_pair(KeyName=name, PublicKeyMaterial=public.read_bytes())
        except OSError as error:
            raise SearchError(
                f"{public} must be there ({error.strerror}); ssh-keygen -t ed25519 -f {public.with_suffix('')}"
            ) from None
    yield f"key pair {name}: {public}" if name not in known else f"key pair {name}: was there"


def _security_group(ec2: Any, name: str, address: str) -> Iterator[str]:
    """Create a group in the default network: SSH from one address, all traffic among its own machines, nothing else."""
    networks = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not networks:
        raise SearchError("the region must have a default network (VPC), but has none; aws ec2 create-default-vpc")
    vpc = networks[0]["VpcId"]
    wanted = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
    groups = ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
    if groups:
        group = groups[0]["GroupId"]
        if groups[0]["IpPermissions"]:
            ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=groups[0]["IpPermissions"])
    else:
        made = ec2.create_security_group(GroupName=name, Description="pixeltune: SSH from one address", VpcId=vpc)
        group = made["GroupId"]
    source = {"Ipv6Ranges": [{"CidrIpv6": address}]} if ":" in address else {"IpRanges": [{"CidrIp": address}]}
    ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]},
            {"IpProtocol": "tcp", "FromPort": _SSH, "ToPort": _SSH, **source},
        ],
    )
    yield f"security group {group}: lets in {address} and its own machines; write it into SecurityGroupIds"
