"""`cluster/onprem.yaml` on two hosts of a network made for it: started, searched, cut, and ended.

The hosts are namespaces (hosts.py). Beside them stand the user's machine, which is no part of the cluster, and a
stranger's. The tests follow each other on one cluster, in the order of the file.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pixeltune.results.store import SearchStore
from tests.support.harm import Before, Harm, count_harm
from tests.support.hosts import Host, network, why_not
from tests.support.launching import store_in, write_search
from tests.support.noop import Orders, instruct, noop_space
from tests.support.own_machines import FILE, KEPT, OwnMachines, wait_until
from tests.support.strangers import DASHBOARD, WRONG, ask_dashboard, ask_gcs, ask_ports, connect, listeners

pytestmark = [pytest.mark.slow, pytest.mark.ray]

TRIALS, IMAGES = 8, 1600
NOOP = """
from dataclasses import replace
from tests.support.noop import noop_space

search = replace(noop_space(trials={trials}, images={images}, every=100, stop=False), sampler="random", keep=0)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnMachines]:
    """Started as its page says; its hosts are gone afterwards."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "shared").mkdir()
    names = ("desk", "alpha", "beta", "stranger")
    with network(folder, names, keep=[*KEPT, folder / "shared"]) as net:
        desk, alpha, beta, _ = net.hosts.values()
        own = OwnMachines(net, folder / "shared/results", desk=desk, head=alpha, worker=beta)
        own.prepare()
        (own.folder / "noops.py").write_text(NOOP.format(trials=TRIALS, images=IMAGES))
        write_search(own.folder, images=1000, every=100, trials=1)
        checked = own.do("pixeltune", "cluster", "check", FILE)
        assert checked.strip() == f"{FILE} is as it must be."
        own.go_offline()
        start = time.monotonic()
        own.do("ray", "up", "--yes", FILE, seconds=300)
        _say(f"ray up: {time.monotonic() - start:.1f} s")
        _say(f"the second host has joined after {wait_until(lambda: _both_alive(own), 180, 'two nodes'):.1f} s more")
        wait_until(lambda: "2 local.cluster.node" in own.execute("ray status"), 60, "two nodes in ray status")
        yield own


def _say(words: str) -> None:
    print(words, flush=True)


def test_doctor_sees_both_hosts(cluster: OwnMachines) -> None:
    doctor = "COLUMNS=250 pixeltune doctor --search tiny.py --set resources.workers=2 --address auto"
    told = cluster.execute(doctor, seconds=300)
    _say(told)
    assert "2 nodes" in told
    for host in (cluster.head, cluster.worker):
        lines = [line for line in told.splitlines() if line.count(host.address) == 2]
        assert lines, "in the node's name, and where its own name leads"


def test_a_trial_of_two_workers_spans_the_hosts(cluster: OwnMachines) -> None:
    start, log = time.monotonic(), cluster.storage.parent / "tiny.log"
    given = ("python", "launch.py", "--search", "tiny.py", "--set", "resources.workers=2", "--cluster", FILE)
    run = cluster.begin(*given, log=log)

    def has_workers() -> bool:
        assert run.poll() is None, log.read_text()
        hosts = (cluster.head, cluster.worker)
        return all(any("RayTrainWorker" in words for words in host.processes().values()) for host in hosts)

    wait_until(has_workers, 240, "a worker on each host")
    assert run.wait(240) == 0, log.read_text()
    _say(f"a trial of two workers: {time.monotonic() - start:.1f} s\n{log.read_text()}")
    (row,) = store_in(cluster.storage).attempts()
    assert (row["status"], row["images_seen"]) == ("finished", 1000)
    told = cluster.do("pixeltune", "status", "tiny", "--storage", str(cluster.storage))
    assert "Trials: 1 finished" in told


def test_nothing_listens_beyond_the_cluster_but_rays_own_calls(cluster: OwnMachines) -> None:
    for host in (cluster.head, cluster.worker):
        found = listeners(host)
        _say("".join(f"{host.name} {one}\n" for one in found))
        everywhere = {one.process for one in found if one.where == "everywhere"}
        assert {name for name in everywhere if not name.startswith("ray::")} <= {"gcs_server", "raylet"}
        assert {one.where for one in found if one.port == DASHBOARD} <= {"loopback"}
    assert DASHBOARD in {one.port for one in listeners(cluster.head)}


def test_no_port_answers_a_stranger(cluster: OwnMachines) -> None:
    stranger = cluster.network.hosts["stranger"]
    for host in (cluster.head, cluster.worker):
        places = [f"{host.address}:{one.port}" for one in listeners(host) if one.where != "loopback"]
        answers = ask_ports(stranger, places)
        assert set(answers) == set(places)
        still = {f"{host.address}:{one.port}" for one in listeners(host)}  # idle workers end meanwhile
        refused = {place: "UNAUTHENTICATED" in told.values() or told["http"] == 401 for place, told in answers.items()}
        assert any(refused.values())
        assert all(is_so for place, is_so in refused.items() if place in still), {
            place: answers[place] for place, is_so in refused.items() if not is_so
        }
        assert "OK" not in {answer for told in answers.values() for answer in told.values()}
        assert f"{host.address}:{DASHBOARD}" not in places


def test_the_dashboard_wants_the_token(cluster: OwnMachines) -> None:
    token = (cluster.desk.home / ".ray/auth_token").read_text().strip()
    mischief = '{"entrypoint": "touch /tmp/mischief"}'
    writes = [("POST", "/api/jobs/", mischief), ("PUT", "/api/packages/gcs/mischief.zip", "x")]
    found = re.search(r"tiny-\d+-\d+", cluster.do("pixeltune", "cluster", "status", FILE))
    assert found, "the job of the search"
    reads = [
        ("GET", path, "")
        for path in (
            "/api/jobs/",
            f"/api/jobs/{found[0]}",
            f"/api/jobs/{found[0]}/logs",
            "/api/v0/actors",
            "/api/v0/nodes",
            "/api/cluster_status",
            "/nodes?view=summary",
        )
    ]
    for wrong, status in (("", 401), (WRONG, 403)):
        answers = ask_dashboard(cluster.head, wrong, [*writes, *reads])
        assert len(answers) == len(writes) + len(reads)
        assert set(answers.values()) == {status}, answers
    assert set(ask_dashboard(cluster.head, token, reads).values()) == {200}, "with it, all of these can be read"
    assert not (cluster.head.folder / "tmp/mischief").exists()


def test_ray_itself_wants_the_token(cluster: OwnMachines) -> None:
    asking = (cluster.network.hosts["stranger"], cluster.head)
    wrong = ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": WRONG})
    for each in wrong:
        for host in asking:
            told = ask_gcs(host, cluster.head, HOME="/var/empty", **each)
            assert [line.split()[:2] for line in told] == [["kv", "refused"], ["state", "refused"]]
    with ThreadPoolExecutor() as pool:  # Ray tries for 20 s
        tried = list(pool.map(lambda each: connect(cluster.head, HOME="/var/empty", **each), wrong))
    assert all(told.startswith("refused") for told in tried)
    told = ask_gcs(cluster.head, cluster.head, RAY_AUTH_MODE="token")
    assert [line.split()[:2] for line in told] == [["kv", "got"], ["state", "got"]], "with it, both can be read"
    assert _both_alive(cluster)


def test_a_search_goes_on_when_a_host_is_cut_off(cluster: OwnMachines) -> None:
    store, harm = SearchStore(str(cluster.storage), "noops"), Harm()
    instruct(cluster.storage, Orders(seconds=0.5))
    log = cluster.storage / "noops.log"
    run = cluster.begin_there("python tests/support/noop.py --search noops.py --address auto", log)

    def hosts_that_ended() -> set[str]:
        return {row["hostname"] for row in store.attempts() if row["status"] == "finished"} if store.exists() else set()

    def is_early_in_a_trial_on_beta() -> bool:
        """Between two trials, there is nothing on the host that could go on elsewhere."""
        running = [row for row in store.attempts() if (row["hostname"], row["status"]) == ("beta", "running")]
        return any(0 < len(store.curve(row["trial"])) <= IMAGES // 200 for row in running)

    try:
        wait_until(lambda: hosts_that_ended() == {"alpha", "beta"}, 240, "trials that end on both hosts")
        wait_until(is_early_in_a_trial_on_beta, 60, "a trial that has begun on the host to be cut off")
        before = Before.of(store)
        cluster.network.cut("beta", off=True)
        start = time.monotonic()
        wait_until(lambda: run.poll() is not None, 300, "the search's end")
    finally:
        run.kill()
        cluster.network.cut("beta", off=False)
    _say(f"from the cut to the search's end: {time.monotonic() - start:.1f} s")
    assert run.returncode == 0, log.read_text()
    space = noop_space(trials=TRIALS, images=IMAGES, every=100, stop=False)
    count_harm(harm, store, space, before=before)
    assert harm.words == []
    tried = [(row["trial"], row["hostname"]) for row in store.attempts()]
    (cut,) = {trial for trial, _ in tried if [name for name, _ in tried].count(trial) > 1}
    assert [host for trial, host in tried if trial == cut] == ["beta", "alpha"], "it went on elsewhere"
    _say(f"the host is back after {wait_until(lambda: _both_alive(cluster), 300, 'two nodes'):.1f} s")


def _both_alive(cluster: OwnMachines) -> bool:
    return connect(cluster.head, RAY_AUTH_MODE="token") == "connected 2"


def test_the_token_is_the_users_alone_and_nowhere_written(cluster: OwnMachines) -> None:
    token = (cluster.desk.home / ".ray/auth_token").read_bytes().strip()
    assert re.fullmatch(rb"[0-9a-f]{64}", token)
    for host in (cluster.desk, cluster.head, cluster.worker):
        path = host.home / ".ray/auth_token"
        assert path.read_bytes().strip() == token
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, host.name
        assert not [words for words in host.processes().values() if token.decode() in words]
        written = {each: content for each, content in _contents(host.folder) if each != path}
        assert any(each.name == "gcs_server.out" for each in written) == (host is cluster.head), "Ray's own logs too"
        assert not [each for each, content in written.items() if token in content]
    kept = [path for path in cluster.storage.parent.rglob("*") if path.is_file()]
    assert len(kept) > TRIALS
    assert not [path for path in kept if token in path.read_bytes()]


def _contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Of all files below a folder in which Ray writes, replaces and removes some meanwhile."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    yield path, path.read_bytes()


def test_ray_down_leaves_nothing(cluster: OwnMachines) -> None:
    start = time.monotonic()
    cluster.do("ray", "down", "--yes", FILE, seconds=300)
    _say(f"ray down: {time.monotonic() - start:.1f} s")
    wait_until(lambda: cluster.head.processes() == {}, 30, "an end of the head's processes, which were killed")
    _say(f"the worker's processes are gone after {_seconds_until_empty(cluster.worker):.1f} s more")


def _seconds_until_empty(host: Host) -> float:
    start = time.monotonic()
    while left := host.processes():
        assert time.monotonic() - start < 150, f"still there: {left}"
        time.sleep(1)
    return time.monotonic() - start
