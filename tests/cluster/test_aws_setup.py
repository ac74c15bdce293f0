"""What `pixeltune cluster prepare` makes in an AWS account (moto on 127.0.0.1), and when it makes nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixeltune.cluster.aws_setup import prepare_aws
from pixeltune.cluster.checks_file import check_cluster_file, installed_versions
from pixeltune.errors import SearchError
from tests.support.cluster_files import FOLDER, filled_in, write
from tests.support.loopback_cloud import Account, Cloud, client, new_cloud, prepared

HEAD_ACTIONS = {
    "ec2:RunInstances",
    "ec2:CreateTags",
    "ec2:TerminateInstances",
    "iam:PassRole",
    "s3:ListBucket",
    "s3:GetBucketLocation",
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
}


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with new_cloud() as made:
        yield made


@pytest.fixture
def account(cloud: Cloud, tmp_path: Path) -> Account:
    return prepared(tmp_path)


def test_a_prepared_file_passes_the_checks(account: Account) -> None:
    assert check_cluster_file(account.path, installed_versions() | {"python": "3.11.7"}) == []


def test_roles_may_do_what_the_policies_say_and_no_more(account: Account) -> None:
    iam = client("iam")
    actions = {}
    for role in ("pixeltune-head", "pixeltune-worker"):
        policy = iam.get_role_policy(RoleName=role, PolicyName=role)["PolicyDocument"]
        text = json.dumps(policy)
        assert "<" not in text, "a mark that was not filled in"
        assert "a-bucket" in text
        actions[role] = {
            action
            for statement in policy["Statement"]
            for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
        }
        for statement in policy["Statement"]:
            lists = all(action.startswith("ec2:Describe") for action in statement["Action"])
            assert statement["Resource"] != "*" or (lists and isinstance(statement["Action"], list)), statement
        assert not any("*" in action for action in actions[role])
        assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
    assert {action for action in actions["pixeltune-head"] if not action.startswith("ec2:Describe")} == HEAD_ACTIONS
    assert all(action.startswith("s3:") for action in actions["pixeltune-worker"])


def test_preparing_again_changes_nothing_but_the_address(account: Account) -> None:
    path, config, said = account.path, account.config, account.said
    again = list(prepare_aws(path))
    assert [line for line in again if "key pair" not in line] == [line for line in said if "key pair" not in line]
    config["metadata"]["address"] = "198.51.100.9/32"
    list(prepare_aws(write(path.parent, config)))
    wanted = [{"Name": "group-name", "Values": ["pixeltune-cluster"]}]
    (group,) = client("ec2").describe_security_groups(Filters=wanted)["SecurityGroups"]
    sources = {source["CidrIp"] for rule in group["IpPermissions"] for source in rule["IpRanges"]}
    assert sources == {"198.51.100.9/32"}


@pytest.mark.parametrize("address", ["", None, "<FILL IN: your own address>", "0.0.0.0/0", "10.0.0.0/8", "mine"])
def test_without_an_own_address_nothing_is_made(address: str | None, cloud: Cloud, tmp_path: Path) -> None:
    config = copy.deepcopy(filled_in("gpu"))
    config["metadata"]["address"] = address
    cloud.server.requests.clear()
    with pytest.raises(SearchError, match=r"metadata\.address must be your own address"):
        list(prepare_aws(write(tmp_path, config)))
    assert cloud.server.requests == []


def test_without_a_bucket_nothing_is_made(cloud: Cloud, tmp_path: Path) -> None:
    config = copy.deepcopy(filled_in("gpu"))
    options = config["docker"]["run_options"]
    config["docker"]["run_options"] = [line.replace("a-bucket", "<FILL IN: your bucket>") for line in options]
    cloud.server.requests.clear()
    with pytest.raises(SearchError, match="fill in the bucket"):
        list(prepare_aws(write(tmp_path, config)))
    assert cloud.server.requests == []


def test_a_file_of_another_cloud_is_not_prepared() -> None:
    with pytest.raises(SearchError, match="only files of `provider: aws`"):
        list(prepare_aws(FOLDER / "gcp.yaml"))
