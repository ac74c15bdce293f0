"""`pixeltune cluster`: check a cluster file before it costs anything, and prepare an AWS account for one."""

from __future__ import annotations

import argparse
from typing import Any

from pixeltune.cli.app import EXIT_OK, EXIT_REFUTED, say
from pixeltune.errors import require_packages


def add_verbs(verbs: Any) -> None:
    """`pixeltune cluster check` and `pixeltune cluster prepare`."""
    parser = verbs.add_parser("cluster", help="check a cluster file; prepare an AWS account for it")
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True)
    for name, verb, words in (
        ("check", check, "say what is not as it must be, a line each; exit code 1 where something is"),
        ("prepare", prepare, "make the roles, the key pair and the closed security group that an AWS file names"),
    ):
        step = steps.add_parser(name, help=words, description=words)
        step.add_argument("file", metavar="FILE", help="such as cluster/gpu.yaml")
        step.set_defaults(verb=verb)
    words = "on a spot machine beside Ray: drain its node when it is to be taken away (cluster files start it)"
    step = steps.add_parser("watch-spot", help=words, description=words)
    step.add_argument("cloud", choices=("aws", "gcp"), help="whose metadata service is asked")
    step.add_argument("--node", metavar="ID", help="Ray's id of the node, where several run here [the only one]")
    step.set_defaults(verb=watch_spot)


def check(options: argparse.Namespace) -> int:
    """Print the findings; 1 where there are any."""
    require_packages("a cluster", "ray")
    from pixeltune.search.cluster.check import check_cluster_file

    findings = check_cluster_file(options.file)
    for finding in findings:
        say(str(finding))
    if not findings:
        say(f"{options.file} is as it must be.")
    return EXIT_REFUTED if findings else EXIT_OK


def prepare(options: argparse.Namespace) -> int:
    """Make what is not there yet; again without effect."""
    require_packages("AWS", "boto3")
    from pixeltune.search.cluster.prepare import prepare_aws

    for line in prepare_aws(options.file):
        say(line)
    return EXIT_OK


def watch_spot(options: argparse.Namespace) -> int:
    """Start the agent, which outlives this command and ends with Ray."""
    from pixeltune.search.spot import start_in_background

    node = start_in_background(options.cloud, options.node)
    say(f"Spot notices are watched for while node {node.node[:8]} runs; see {node.logs}/pixeltune-spot.log.")
    return EXIT_OK
