"""Rules for all tests: one thread a process, all cores, a home of their own, and skips where something is missing.

The home is set before anything is imported, so that Ray, torch and processes that tests start read it. It holds the
token of a user who has used Ray before; the tests never read or write the home of who runs them.
"""

from __future__ import annotations

import atexit
import gc
import os
import secrets
import shutil
import signal
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
HOME = Path(tempfile.mkdtemp(prefix="pixeltune-home-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ["HOME"] = os.environ["USERPROFILE"] = str(HOME)
(HOME / ".ray").mkdir(mode=0o700)
TOKEN = HOME / ".ray" / "auth_token"
TOKEN.touch(mode=0o600)
TOKEN.write_text(secrets.token_hex(32), encoding="ascii")

import hypothesis
import pytest

from pixeltune import own_code
from tests.support.inbox import inbox as inbox
from tests.support.optional import require
from tests.support.own_code import code_folder as code_folder


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one process a core; none for a file or two, which end before it has started, and for tests with Ray.

    A machine takes one Ray cluster at a time.
    """
    marks = config.getoption("markexpr")
    if "not slow" not in marks and "not ray" not in marks:
        return 0
    named = [argument for argument in config.args if ".py" in argument]
    if named and len(named) == len(config.args) <= 2:
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that is marked with what this machine lacks."""
    for marker in item.iter_markers("needs"):
        require(*marker.args)


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide any Ray that runs on this machine, such as that of another test."""
    monkeypatch.setattr("pixeltune.tune.ray_address.raylets_of_this_user", set)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C arrive, and make warnings errors in fast runs, but for deprecations of other packages.

    In slow runs, Ray and browsers leave sockets and files to the garbage collector. Hypothesis measures no time. What
    tests put in the place of pixeltune's functions is no code of a user's own; modules that they write are.
    """
    hypothesis.settings.register_profile("pixeltune", deadline=None)
    hypothesis.settings.load_profile("pixeltune")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background: tests send themselves Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    own_code._LIBRARIES = (*own_code._LIBRARIES, str(Path(__file__).parent))
    if "not slow" in config.getoption("markexpr"):
        config.addinivalue_line("filterwarnings", "error")
        config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning:(?!pixeltune|tests|benchmarks|__main__)")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take what is imported out of every later garbage collection: each trial starts with a full one."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let Python free at its end what it would have freed."""
    gc.unfreeze()
