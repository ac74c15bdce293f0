"""What a trial may take of a cluster, and addresses where nobody answers. No Ray is started."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pixeltune
from pixeltune import own_code
from pixeltune.errors import SearchError
from pixeltune.space import Resources
from pixeltune.tune.ray_session import connect, limit_to_capacity, require_answer, stage_code

TWO_CPUS = {"CPU": 2.0, "memory": 1e9}
GPU_NODE = {"CPU": 8.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("nodes", "wanted", "concurrent"),
    [
        ([TWO_CPUS], Resources(), 2),
        ([TWO_CPUS], Resources(cpus=2), 1),
        ([TWO_CPUS], Resources(workers=2), 1),
        ([TWO_CPUS, TWO_CPUS], Resources(workers=2), 2),
        ([TWO_CPUS, TWO_CPUS], Resources(workers=4), 1),
        ([{"CPU": 3.0}, {"CPU": 3.0}], Resources(cpus=2), 2),  # not 3: a worker lies on one node
        ([GPU_NODE], Resources(gpus=1.0), 1),
        ([GPU_NODE], Resources(gpus=0.25), 4),
        ([{"CPU": 64.0, "GPU": 1.0}], Resources(gpus=0.1), 10),
        ([{"CPU": 64.0, "GPU": 0.9}], Resources(gpus=0.3), 3),
        ([TWO_CPUS, GPU_NODE, GPU_NODE], Resources(workers=2, gpus=1.0), 1),
        ([{"CPU": 2.0, "GPU": 8.0}], Resources(gpus=0.5), 2),
    ],
)
def test_how_many_trials_fit(nodes: list[dict[str, float]], wanted: Resources, concurrent: int) -> None:
    assert limit_to_capacity(nodes, wanted, pytest.fail) == (wanted, concurrent)


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ([TWO_CPUS], Resources(workers=64)),
        ([TWO_CPUS], Resources(cpus=3)),
        ([TWO_CPUS, TWO_CPUS], Resources(cpus=3)),
        ([GPU_NODE], Resources(workers=2, gpus=1.0)),
        ([{"CPU": 0.0}], Resources()),
        ([], Resources()),
    ],
)
def test_what_never_fits_is_refused(nodes: list[dict[str, float]], wanted: Resources) -> None:
    with pytest.raises(SearchError, match=rf"needs {wanted.workers} workers of {wanted.cpus} CPUs.*with --set"):
        limit_to_capacity(nodes, wanted, lambda _text: None)


def test_without_a_gpu_trials_train_on_the_cpu_and_say_so() -> None:
    said: list[str] = []
    resources, concurrent = limit_to_capacity([TWO_CPUS], Resources(cpus=1, gpus=0.5), said.append)
    assert (resources, concurrent) == (Resources(cpus=1, gpus=0.0), 2)
    assert said == ["No GPU in this cluster: the trials train on the CPU."]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere", "host:port", ":6379", "a:99999999"])
def test_an_address_where_nobody_answers(address: str) -> None:
    with pytest.raises(SearchError, match=r"a Ray cluster must answer at .*ray start --head"):
        require_answer(address)


def test_a_listening_port_will_do_for_now() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        require_answer(f"127.0.0.1:{server.getsockname()[1]}")
    require_answer("auto")


def test_no_ray_is_imported_for_an_address_that_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # an import would fail
    with pytest.raises(SearchError, match="must answer"), connect("127.0.0.1:1"):
        pass


def test_a_ray_that_does_not_start_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is very busy Ray raises an Exception of the plainest kind."""
    import ray

    def too_slow(**_options: Any) -> None:
        raise Exception("The current node timed out during startup.\nOr so.")

    monkeypatch.setattr(ray, "init", too_slow)
    words = r"answer at this machine, but: .* timed out during startup\. Or"
    with pytest.raises(SearchError, match=words), connect(None):
        pass


def test_names_of_ray_settings_are_set_before_ray_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, Any] = {}
    monkeypatch.setattr("os.environ", environment)
    with pytest.raises(SearchError), connect("127.0.0.1:1"):
        pass
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert environment["RAY_AUTH_MODE"] == "token"


def test_nodes_get_the_code_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the folders are called: the package has a `data` and a `results` of its own."""
    here = tmp_path / "here"
    for name in ("mine.py", "data/own.py", "data/images.npy", "results/x/trials/0.parquet", ".venv/a.py", "venv/b.py"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("mine = 1")
    (here / "venv" / "pyvenv.cfg").touch()
    monkeypatch.chdir(here)
    monkeypatch.setattr(own_code, "_given", {})
    stage_code(tmp_path / "job")
    staged = {str(path.relative_to(tmp_path / "job")) for path in (tmp_path / "job").rglob("*") if path.is_file()}
    assert {name for name in staged if not name.startswith("pixeltune/")} == {"mine.py", "data/own.py"}
    package = Path(pixeltune.__file__).parent
    code = {str(path.relative_to(package.parent)) for path in package.rglob("*") if path.suffix in (".py", ".csv")}
    assert code <= staged
    code = "import pixeltune.published.comparability, pixeltune.data, mine; print(pixeltune.__file__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "job", capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == str(tmp_path / "job" / "pixeltune" / "__init__.py")


def test_nodes_get_the_modules_next_to_a_search_file_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules and packages, and none of the other folders there, which may be anything."""
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    for name in ("family.py", "package/__init__.py", "package/deep/net.py", "package/big.npy", "photos/a.py", "b.npy"):
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_text("mine = 1")
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(own_code, "_given", {})
    own_code.search_in(elsewhere)
    stage_code(tmp_path / "job")
    place = tmp_path / "job" / own_code.staged_name(0)
    assert own_code.folders_for_workers() == (str(elsewhere), place.name)
    staged = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert staged == {"family.py", "package/__init__.py", "package/deep/net.py"}
    monkeypatch.chdir(tmp_path / "job")
    monkeypatch.setattr(sys, "path", [*sys.path])
    own_code.search_in(Path(place.name))
    assert str(place) in sys.path
