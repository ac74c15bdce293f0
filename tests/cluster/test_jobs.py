"""What is submitted, what is refused before, and connections that break. No Ray is started."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pixeltune.cli.submit import _given
from pixeltune.cluster import checks_file, jobs
from pixeltune.cluster.jobs import Submission, follow, jobs_of, search_place
from pixeltune.cluster.ssh_tunnel import UnreachableError
from pixeltune.errors import SearchError
from pixeltune.tune import ray_session
from tests.support.cluster_files import FOLDER, filled_in, write
from tests.support.commands import command, refused
from tests.support.launching import write_search

Asked = list[tuple[str, str, Any]]


@pytest.fixture
def refusals() -> list[str]:
    """What the dashboard answers first to those who submit."""
    return []


@pytest.fixture
def faults() -> list[str]:
    """What it answers first to those who ask for jobs."""
    return []


@pytest.fixture
def dashboard(refusals: list[str], faults: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Asked]]:
    """The URL of a server that answers as a dashboard does where one search runs, and what it was asked."""
    asked: Asked = []
    running = {
        "type": "SUBMISSION",
        "submission_id": "tiny-20261122-120000",
        "status": "RUNNING",
        "entrypoint": "true",
        "start_time": 1_800_000_000_000,
        "metadata": {"pixeltune_name": "tiny", "pixeltune_storage": "/shared/results"},
    }

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(("GET", self.path, self.headers.get("Authorization")))
            if faults and "version" not in self.path:
                self._answer(faults.pop(), status=500)
                return
            self._answer({"ray_version": "2.60.0"} if "version" in self.path else [running])

        def do_PUT(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(("POST", self.path, content))
            if refusals:
                self._answer(refusals.pop(), status=500)
                return
            self._answer({"submission_id": content["submission_id"], "job_id": content["submission_id"]})

        def _answer(self, content: Any, status: int = 200) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_words: Any) -> None:
            pass

    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 32)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def _way(url: str) -> Any:
    @contextmanager
    def way() -> Iterator[str]:
        yield url

    return way


def _submission(**changes: Any) -> Submission:
    values: dict[str, Any] = {"name": "other", "storage": "/shared/results", "words": ["search"], "shown": "launch.py"}
    return Submission(**values | changes)


def test_a_submission_goes_to_the_cluster_that_was_named_whatever_the_environment_says(
    dashboard: tuple[str, Asked], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray's own client would go to RAY_ADDRESS, and with the token to a proxy."""
    url, asked = dashboard
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with jobs_of(_way(url)) as cluster:
        words = ["search", "--set", "model.layers=2 or 3", "--search", "searches/a b.py"]
        job = cluster.submit(_submission(words=words))
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:9"
    (posted,) = [content for method, _, content in asked if method == "POST"]
    assert posted["submission_id"] == job
    assert posted["entrypoint"] == (
        "exec python -m pixeltune search --set 'model.layers=2 or 3' --search 'searches/a b.py'"
    )
    assert posted["runtime_env"]["working_dir"].startswith("gcs://")
    assert posted["runtime_env"]["env_vars"]["PIXELTUNE_COMMAND"] == "launch.py"
    assert posted["metadata"] == {"pixeltune_name": "other", "pixeltune_storage": "/shared/results"}


def test_a_submission_waits_for_the_process_that_starts_jobs(
    dashboard: tuple[str, Asked], refusals: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The head's dashboard answers first, and that process may need a while more on a busy machine."""
    url, asked = dashboard
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "_PAUSE_SECONDS", 0.01)
    refusals += ["No available agent to submit job, please try again later."] * 2
    with jobs_of(_way(url)) as cluster:
        job = cluster.submit(_submission())
    posted = [content["submission_id"] for method, _, content in asked if method == "POST"]
    assert posted == [job] * 3


@pytest.mark.parametrize(("seconds", "refusal"), [(0.0, "No available agent to submit job"), (60.0, "no disk")])
def test_a_submission_that_stays_refused_is_one_line(
    seconds: float,
    refusal: str,
    dashboard: tuple[str, Asked],
    refusals: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    url, asked = dashboard
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "_AGENT_SECONDS", seconds)
    refusals += [refusal] * 2
    with pytest.raises(SearchError, match=rf"must do as asked, but: .*{refusal}"), jobs_of(_way(url)) as cluster:
        cluster.submit(_submission())
    assert [method for method, _, _ in asked].count("POST") == 1


def test_a_dashboard_that_fails_for_a_moment_is_asked_again(
    dashboard: tuple[str, Asked], faults: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's other processes may be busy, or end; the job itself continues."""
    url, _ = dashboard
    monkeypatch.setattr(jobs, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(jobs, "_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(jobs.Jobs, "log", lambda *_words: None)
    monkeypatch.setattr(jobs, "_ended", lambda cluster, name: cluster.find(name))
    said: list[str] = []
    faults += ["GCS is not available"] * 2
    job = follow(_way(url), "tiny-20261122-120000", pytest.fail, said.append)
    assert job.id == "tiny-20261122-120000"
    assert ["status code 500" in line and "trying again" in line for line in said] == [True]
    faults += ["GCS is not available"] * 1000
    with pytest.raises(SearchError, match="status code 500"):
        follow(_way(url), "tiny-20261122-120000", pytest.fail, said.append)


def test_a_search_that_runs_is_not_submitted_again(dashboard: tuple[str, Asked], tmp_path: Path) -> None:
    url, asked = dashboard
    with jobs_of(_way(url)) as cluster:
        with pytest.raises(SearchError, match=r"the job tiny-20261122-120000 runs tiny there; follow it"):
            cluster.submit(_submission(name="tiny"))
        assert not [path for method, path, _ in asked if method == "POST"]


def test_a_job_is_found_by_its_id_its_search_or_as_the_only_one(dashboard: tuple[str, Asked]) -> None:
    with jobs_of(_way(dashboard[0])) as cluster:
        for word in ("tiny-20261122-120000", "tiny", None):
            assert cluster.find(word, only_running=True).name == "tiny"
        with pytest.raises(SearchError, match=r"such a job on the cluster \(other\), but known are: tiny-2026"):
            cluster.find("other")


def test_a_head_without_ray_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 32)
    with (
        pytest.raises(UnreachableError, match=r"dashboard must answer on the head"),
        jobs_of(_way("http://127.0.0.1:9")),
    ):
        pass


def test_without_a_token_no_way_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SearchError, match=r"the cluster's token must be in .*auth_token"), jobs_of(pytest.fail):
        pass


def test_a_log_is_written_once_wherever_the_connection_breaks() -> None:
    log = "one\ntwo\nthree\n"
    for cut in range(len(log) + 1):
        written: list[str] = []
        reader = jobs._LogReader(written.append)
        first = reader.again()
        for start in range(0, cut, 3):
            first(log[start : min(start + 3, cut)])
        second = reader.again()
        for start in range(0, len(log), 5):
            second(log[start : start + 5])
        assert "".join(written) == log


def test_a_connection_that_does_not_come_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 32)
    monkeypatch.setattr(jobs, "_RETRY_SECONDS", 0.3)
    monkeypatch.setattr(jobs, "_PAUSE_SECONDS", 0.1)
    said: list[str] = []
    with pytest.raises(UnreachableError):
        follow(_way("http://127.0.0.1:9"), "tiny-1", pytest.fail, said.append)
    assert len(said) == 1
    assert said[0].endswith("The job needs no connection; trying again.")


def test_inside_of_a_job_nodes_have_its_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"working_dir": "gcs://_ray_pkg_1.zip", "env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "1"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": given}))
    with ExitStack() as cleanup:
        options = ray_session._remote("10.0.0.1:6379", cleanup)
    assert "working_dir" not in options["runtime_env"]
    assert "RAY_CHDIR_TO_TRIAL_DIR" not in options["runtime_env"]["env_vars"], "Ray refuses the same key twice"
    assert "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S" in options["runtime_env"]["env_vars"]


def test_a_search_of_elsewhere_is_taken_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here / "mine", elsewhere):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    (elsewhere / "family.py").write_text("mine = 1")
    files = write_search(here / "mine"), write_search(elsewhere)
    assert [search_place(path) for path in files] == ["mine/tiny.py", "searches/tiny.py"]
    for path in files:
        with jobs._staged(_submission(search_file=path)) as staged:
            assert (staged / search_place(path)).read_bytes() == path.read_bytes()
            assert (staged / "pixeltune" / "cli" / "search.py").is_file()
            assert (staged / "searches" / "family.py").exists() == (path.parent == elsewhere)
        assert not staged.exists()


def test_the_rest_of_the_command_goes_as_it_was_given() -> None:
    words = (
        "search --trials 3 --cluster x.yaml --set a=1 --set b=[1,2] --storage s3://b/r --warm-start s3://b/a s3://b/c"
    )
    found = _given(words.split())
    assert found.storage == "s3://b/r"
    assert found.rest == [
        "search",
        "--trials",
        "3",
        "--set",
        "a=1",
        "--set",
        "b=[1,2]",
        "--warm-start",
        "s3://b/a",
        "s3://b/c",
    ]
    assert _given(["final", "cifar", "--seeds=4", "--cluster=x.yaml"]).rest == ["final", "cifar", "--seeds=4"]
    assert _given(["search", "--search", "digits_quick"]).rest == ["search"]


def test_what_a_cluster_cannot_do_is_refused_before_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixeltune.cluster.ssh_tunnel._tunnel", lambda *_words: pytest.fail("a way was opened"))
    own = checks_file.installed_versions() | {"python": "3.11.7"}  # those of the cluster files
    monkeypatch.setattr(checks_file, "installed_versions", lambda: own)
    path = str(write(tmp_path, filled_in("onprem")))
    given = ("--search", "digits_quick", "--cluster", path)
    assert "must be a URI or a full path that its nodes mount, but here is a folder" in refused(
        *given, "--storage", "here"
    )
    assert "--warm-start on a cluster must be" in refused(*given, "--warm-start", "results/a")
    assert "a search name must be letters" in refused(*given, "--name", "../../x")
    assert "PASSWORD" not in refused(*given, "--storage", "s3://KEY:PASSWORD@bucket/results")
    line = refused(*given[:3], str(FOLDER / "gpu.yaml"))
    assert "must be filled in: your own address" in line
    assert "and 3 more); pixeltune cluster check" in line
    assert "is a RayJob; kubectl create -f" in refused(*given[:3], str(FOLDER / "rayjob.yaml"))
    assert "must be readable YAML" in refused(*given[:3], str(tmp_path / "none.yaml"))
    assert "no search is called" in refused("--search", "digits_quik", "--cluster", path)
    both = command(*given, "--address", "auto")
    assert both.code == 2
    assert "not allowed with argument" in both.err
