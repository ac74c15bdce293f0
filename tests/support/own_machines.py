"""`cluster/onprem.yaml` on hosts made for a test: filled in, started, given orders and ended as its page says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.hosts import HOME, USER, Host, Network

ROOT = Path(__file__).resolve().parents[2]
KEPT = (Path(sys.prefix), Path(sys.base_prefix))
"""What every host must see of this machine: the test run's environment and its interpreter."""
FILE = "cluster/onprem.yaml"
HEAD_PORT = 6379
_FOLDERS = ("cluster", "pixeltune", "search_spaces", "tests/support")
_FILES = ("launch.py", "pyproject.toml", "README.md", "tests/__init__.py")

_BINARIES = Path(sys.prefix) / "bin"
_BASE_PYTHON = Path(sys.base_prefix) / f"bin/python3.{sys.version_info.minor}"
_DESK = {
    "PATH": f"{_BINARIES}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONPATH": str(HOME / "pixeltune"),  # pixeltune is installed there
    "RAY_USAGE_STATS_ENABLED": "0",
}


def _taken_along(program: str, path: str) -> str:
    """What stands for `pip install` where there is no network: the folder of its packages, and its program."""
    script = f"~/pixeltune-venv/bin/{program}"
    return (
        f"echo {path} > $(echo ~/pixeltune-venv/lib/python*/site-packages)/{program}.pth && "
        f'sed "1s|.*|#!$HOME/pixeltune-venv/bin/python|" {_BINARIES}/{program} > {script} && chmod +x {script}'
    )


_OFFLINE = {
    r"python3\S+ -m venv ~/pixeltune-venv": f"{_BASE_PYTHON} -m venv --without-pip ~/pixeltune-venv",
    r"~/pixeltune-venv/bin/pip install \S+ .*torch==.*": _taken_along("ray", sysconfig.get_path("purelib")),
    r"~/pixeltune-venv/bin/pip install \S+ -e ~/pixeltune": _taken_along("pixeltune", "~/pixeltune"),
}
"""Setup commands that need the internet, and what is given in their place; `true` passes over their words."""


@dataclass(frozen=True)
class OwnMachines:
    """A cluster as its user sees it, from a machine that is no part of it. storage: a folder that all machines mount.

    The user's folder of pixeltune holds `FILE` filled in, and what tests put there before the start.
    """

    network: Network
    storage: Path
    desk: Host
    head: Host
    worker: Host

    @property
    def folder(self) -> Path:
        """The user's folder of pixeltune, as this machine sees it."""
        return self.desk.home / "pixeltune"

    def prepare(self) -> None:
        """What the page says is to be done once: pixeltune's folder, the token, the file filled in."""
        self.folder.mkdir()
        self._copy_project()
        self.do("ray", "get-auth-token", "--generate")
        self.do("chmod", "600", str(HOME / ".ray/auth_token"))
        text = fill_in(
            (ROOT / FILE).read_text(encoding="utf-8"),
            {
                "the head's address": self.head.address,
                "the other machines' addresses": self.worker.address,
                "a user of all": USER,
                "a folder that all machines mount": str(self.storage),
            },
        )
        (self.folder / FILE).write_text(text, encoding="utf-8")

    def go_offline(self) -> None:
        """Replace what asks the internet, and share this machine's processors: one for each host."""
        text = (self.folder / FILE).read_text(encoding="utf-8")
        for words, instead in _OFFLINE.items():
            text, count = re.subn(f"({words})", rf"true \1; {instead}", text)
            assert count == 1, f"{FILE} has {count} times {words}"
        text, count = re.subn(r"\bray start --", "ray start --num-cpus=1 --", text)
        assert count == 2, f"{FILE} has {count} times `ray start`"
        (self.folder / FILE).write_text(text, encoding="utf-8")

    def _copy_project(self) -> None:
        for name in _FOLDERS:
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in _FILES:
            shutil.copy2(ROOT / name, self.folder / name)

    def run(self, *words: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A command given by the user, in the folder of pixeltune."""
        return self.desk.run(*words, seconds=seconds, cwd=HOME / "pixeltune", **_DESK)

    def do(self, *words: str, seconds: float = 120.0) -> str:
        """The output of a command that must succeed."""
        done = self.run(*words, seconds=seconds)
        assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout[-6000:]}"
        return done.stdout

    def execute(self, command: str, seconds: float = 120.0) -> str:
        """By `ray exec` on the head, in the folder of pixeltune there."""
        return self.do("ray", "exec", FILE, f"cd pixeltune && {command}", seconds=seconds)

    def begin_there(self, command: str, log: Path) -> subprocess.Popen[bytes]:
        """The same, without waiting for its end."""
        return self.begin("ray", "exec", FILE, f"cd pixeltune && {command}", log=log)

    def begin(self, *words: str, log: Path) -> subprocess.Popen[bytes]:
        """A command given by the user that goes on meanwhile."""
        given = self.desk.command(*words, cwd=HOME / "pixeltune", **_DESK)
        with log.open("wb") as stream:
            return subprocess.Popen(given, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)


def python_on(host: Host, code: str, *words: str, seconds: float = 120.0, **environment: str) -> str:
    """The output of Python code that runs on a host, with the packages of this test run."""
    return host.run(str(_BINARIES / "python"), "-c", code, *words, seconds=seconds, **environment).stdout


def fill_in(text: str, answers: Mapping[str, str]) -> str:
    """A cluster file with an answer at each of its marks; answers: by how a mark's words begin."""

    def answer(mark: re.Match[str]) -> str:
        return next(value for start, value in answers.items() if mark[1].startswith(start))

    lines = text.splitlines(keepends=True)
    return "".join(line if line.startswith("#") else re.sub(r"<FILL IN: ([^>]*)>", answer, line) for line in lines)


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Seconds until it holds; AssertionError where it does not in time."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"never happened: {what}"
        time.sleep(0.2)
    return time.monotonic() - start
