"""`pixeltune cluster`: check a cluster file, prepare an AWS account for it, list, follow and stop its jobs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, EXIT_REFUTED, say
from pixeltune.cli.submit import follow_job
from pixeltune.packages import require_packages

if TYPE_CHECKING:
    from pixeltune.cluster.jobs import ClusterNode, Job


def add_verb(verbs: Any) -> None:
    """Add `pixeltune cluster`, with its steps in the order in which they are needed."""
    parser = verbs.add_parser(
        "cluster",
        has_verbs=True,
        help="check a cluster file; jobs on its cluster: status, logs, stop",
        examples=("pixeltune cluster check cluster/gpu.yaml", "pixeltune cluster logs cluster/gpu.yaml"),
    )
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True)
    for name, verb, words in (
        ("check", check, "print what must be changed, a line each; exit code 1 if there is anything"),
        ("prepare", prepare, "make the roles, the key pair and the closed security group that an AWS file names"),
        ("status", status, "the nodes of the cluster that `ray up FILE` started, and its searches"),
        ("logs", logs, "what a search prints, from its begin until it ends; Ctrl-C leaves it running"),
        ("stop", stop, "stop a search as Ctrl-C would; the same command resumes it"),
    ):
        step = steps.add_parser(name, help=words, description=words)
        step.add_argument("file", metavar="FILE", help="such as cluster/gpu.yaml")
        if verb in (logs, stop):
            step.add_argument(
                "job", metavar="JOB", nargs="?", help="a job or the name of its search [the one that runs]"
            )
        step.set_defaults(verb=verb)
    words = "run next to Ray on a spot machine: drain its node before it is taken away (cluster files start it)"
    step = steps.add_parser("watch-spot", help=words, description=words)
    step.add_argument("cloud", choices=("aws", "gcp"), help="whose metadata service is asked")
    step.add_argument("--node", metavar="ID", help="Ray's id of the node, where several run here [the only one]")
    step.set_defaults(verb=watch_spot)


def check(options: argparse.Namespace) -> int:
    """Print the findings; return 1 if there are any."""
    require_packages("a cluster", "ray")
    from pixeltune.cluster.checks_file import check_cluster_file

    findings = check_cluster_file(options.file)
    for finding in findings:
        say(str(finding))
    if not findings:
        say(f"{options.file} is as it must be.")
    return EXIT_REFUTED if findings else EXIT_OK


def prepare(options: argparse.Namespace) -> int:
    """Create what does not exist yet; running it again has no effect."""
    from pixeltune.cluster.aws_setup import prepare_aws

    for line in prepare_aws(options.file):
        say(line)
    return EXIT_OK


def watch_spot(options: argparse.Namespace) -> int:
    """Start the agent, which outlives this command and ends with Ray."""
    from pixeltune.cluster.spot_agent import start_in_background

    node = start_in_background(options.cloud, options.node)
    say(f"Spot notices are watched for while node {node.node[:8]} runs; see {node.logs}/pixeltune-spot.log.")
    return EXIT_OK


def status(options: argparse.Namespace) -> int:
    """Print the nodes, the jobs and the cost of the cluster."""
    require_packages("a cluster", "ray")
    from pixeltune.cluster.capacity import cost_notice
    from pixeltune.cluster.cluster_file import read_cluster_file
    from pixeltune.cluster.jobs import jobs_of
    from pixeltune.cluster.ssh_tunnel import reach

    with jobs_of(reach(options.file)) as cluster:
        nodes, jobs = cluster.nodes(), cluster.all()
    for line in (*_node_lines(nodes), *_job_lines(jobs), *cost_notice(read_cluster_file(options.file), options.file)):
        say(line)
    return EXIT_OK


def logs(options: argparse.Namespace) -> int:
    """Follow a job again; return its exit code when it ends."""
    require_packages("a cluster", "ray")
    from pixeltune.cluster.cluster_file import read_cluster_file
    from pixeltune.cluster.jobs import jobs_of
    from pixeltune.cluster.ssh_tunnel import reach

    way = reach(options.file)
    with jobs_of(way) as jobs:
        job = jobs.find(options.job)
    return follow_job(way, options.file, read_cluster_file(options.file), job.id)


def stop(options: argparse.Namespace) -> int:
    """Stop a job and wait until it has ended."""
    require_packages("a cluster", "ray")
    from pixeltune.cluster.jobs import jobs_of
    from pixeltune.cluster.ssh_tunnel import reach

    with jobs_of(reach(options.file)) as jobs:
        job = jobs.find(options.job, only_running=True)
        say(f"Stopping {job.id}: running trials keep their last checkpoint.")
        ended = jobs.stop(job)
    say(f"The job {ended.id} has ended ({ended.status.lower()}); the same command resumes the search.")
    return EXIT_OK


def _node_lines(nodes: list[ClusterNode]) -> Iterator[str]:
    for node in nodes:
        has = ", ".join(f"{amount:g} {kind}" for kind, amount in node.has.items() if amount) or "runs no trials"
        yield f"{'head' if node.is_head else 'worker'}  {node.address}  {has}"


def _job_lines(jobs: list[Job]) -> Iterator[str]:
    from pixeltune.format import duration

    for job in jobs:
        where = f"  {job.name} in {job.storage}" if job.name else ""
        yield f"{job.status.lower():<9}  {job.id}  {duration(job.seconds)}{where}"
    if not jobs:
        yield "No search was submitted to it."
