"""Hosts to test clusters on: machines of their own on a network of their own, made of Linux namespaces.

A host has its own network, processes, host name, home, /tmp, /run and /dev/shm, and an SSH server that lets in whoever
has its key; the rest of the file system is this machine's. Folders that are `kept` are seen by all under their own
paths: the interpreter, and what the hosts share. The switch between the hosts lies in the first one's namespace, so
this machine has no interface, address or route of it, and from a host nothing else can be reached.

Namespaces have no names here: the first process of a host ends when this process does, in whatever way, and the kernel
then ends all processes of that host and removes its mounts and interfaces. Nothing can be left over, and any number of
these networks stand beside each other.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("ip", "mount", "nsenter", "rsync", "ssh", "ssh-keygen", "sshd", "unshare")
HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)
USER = pwd.getpwuid(os.getuid()).pw_name
_SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NETWORK = "10.77.0"
_START_SECONDS = 60.0


def why_not() -> str:
    """Why hosts cannot be made here, or ""."""
    if sys.platform != "linux":
        return f"namespaces are Linux's, and this is {sys.platform}"
    if os.geteuid() != 0:
        return "making hosts of namespaces needs root"
    from tests.support.optional import why_not as why_missing  # not where this file runs as the first process of a host

    if missing := why_missing(*NEEDED):
        return missing
    tries = "mount -t tmpfs tmpfs /mnt && ip link add name pt0 type bridge && ip link add pt1 type veth peer name pt2"
    tried = _unshared("sh", "-c", tries)
    made = subprocess.run(tried, capture_output=True, text=True, check=False)
    return f"making namespaces is not permitted: {made.stderr.strip()[:200]}" if made.returncode else ""


@dataclass(frozen=True)
class Host:
    """A machine of the network. pid: of its first process, here. folder: what is its own of the file system, here."""

    name: str
    address: str
    pid: int
    folder: Path

    @property
    def home(self) -> Path:
        """Of its user, as this machine sees it."""
        return self.folder / "home"

    def command(self, *words: str, cwd: str | Path = HOME, **environment: str) -> list[str]:
        """A command line which runs these words there, with no environment but this one."""
        spaces = ("--mount", "--net", "--pid", "--uts", "--ipc")
        plain = {"HOME": str(HOME), "USER": USER, "LOGNAME": USER, "LANG": "C.UTF-8", "PATH": _SYSTEM} | environment
        pairs = [f"{key}={value}" for key, value in plain.items()]
        return ["nsenter", f"--target={self.pid}", *spaces, "env", "-i", f"--chdir={cwd}", *pairs, *words]

    def run(
        self, *words: str, seconds: float = 120.0, cwd: str | Path = HOME, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Its output and exit code; both streams in one."""
        command = self.command(*words, cwd=cwd, **environment)
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False
        )

    def processes(self) -> dict[int, str]:
        """Command lines by process id, its first process and SSH server left out."""
        space = Path(f"/proc/{self.pid}/ns/pid").readlink()
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and (entry / "ns/pid").readlink() == space:
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ").strip()
            except OSError:
                continue
        found.pop(self.pid, None)
        return {pid: words for pid, words in found.items() if words and "sshd" not in words}


@dataclass(frozen=True)
class Network:
    """Hosts by name, in the order of their addresses; the first has the switch."""

    hosts: Mapping[str, Host]

    def cut(self, name: str, *, off: bool) -> None:
        """Pull a host's cable out of the switch, or put it in again. What runs there is told nothing."""
        switch = next(iter(self.hosts.values()))
        _run(*_in_network(switch.pid), "ip", "link", "set", f"to-{name}", "down" if off else "up")


@contextmanager
def network(folder: Path, names: Sequence[str], *, keep: Sequence[Path] = ()) -> Iterator[Network]:
    """Hosts of these names, the first of which may log in to all others.

    folder: for what is their own, such as homes and /tmp. keep: folders of this machine that all of them see.
    """
    folder = folder.resolve()
    kept = [str(path.absolute()) for path in keep]
    addresses = {name: f"{_NETWORK}.{number}" for number, name in enumerate(names, start=1)}
    _make_homes(folder, names, addresses)
    with ExitStack() as cleanup:
        hosts = {}
        for name in names:
            process = _start(folder, name, kept)
            cleanup.callback(_stop, process)
            assert process.stdout is not None
            first = json.loads(process.stdout.readline() or "{}")
            assert first, f"{name} did not start: {(folder / name / 'host.log').read_text()}"
            hosts[name] = Host(name, addresses[name], first["pid"], folder / name)
        _connect(list(hosts.values()))
        for host in hosts.values():
            _serve(host)
        yield Network(hosts)


def _make_homes(folder: Path, names: Sequence[str], addresses: Mapping[str, str]) -> None:
    """Homes as a new user has them, the hosts' names, and the first one's key, which all know."""
    for name in names:
        if Path("/etc/skel").is_dir():
            shutil.copytree("/etc/skel", folder / name / "home", symlinks=True)
        (folder / name / "home").mkdir(parents=True, exist_ok=True)
        (folder / name / "home").chmod(0o700)
        (folder / name / "tmp").mkdir()
        (folder / name / "tmp").chmod(0o1777)
        (folder / name / "home/.bashrc").touch()
        (folder / name / "home/.ssh").mkdir(mode=0o700)
        lines = ["127.0.0.1 localhost", *(f"{address} {other}" for other, address in addresses.items())]
        (folder / name / "hosts").write_text("".join(f"{line}\n" for line in lines))
        (folder / name / "resolv.conf").touch()
    key = folder / names[0] / "home/.ssh/pixeltune"
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    for name in names:
        shutil.copy(key.with_suffix(".pub"), folder / name / "home/.ssh/authorized_keys")


def _start(folder: Path, name: str, kept: Sequence[str]) -> subprocess.Popen[str]:
    """The first process of a host. It ends with its standard input, of which only this process has the other end."""
    own = folder / name
    command = _unshared(sys.executable, "-I", __file__, str(own), name, *kept)
    with (own / "host.log").open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)


def _stop(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait(timeout=_START_SECONDS)


def _connect(hosts: Sequence[Host]) -> None:
    """A switch, and a cable to each host. The default route ends there; without one Ray finds no address of its own."""
    inside = _in_network(hosts[0].pid)
    _run(*inside, "ip", "link", "add", "name", "switch", "type", "bridge")
    _run(*inside, "ip", "link", "set", "switch", "up")
    for host in hosts:
        ends = ("type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        _run(*inside, "ip", "link", "add", "name", f"to-{host.name}", *ends)
        _run(*inside, "ip", "link", "set", f"to-{host.name}", "master", "switch", "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{host.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "dev", "eth0"),
        ):
            _run(*_in_network(host.pid), "ip", *words)


def _serve(host: Host) -> None:
    """An SSH server with a key of its own, for those whose key its user knows."""
    settings = {
        "ListenAddress": host.address,
        "HostKey": HOME / ".ssh/host_key",
        "PidFile": "none",
        "PermitRootLogin": "prohibit-password",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        "Subsystem": "sftp internal-sftp",
    }
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host.home / ".ssh/host_key"))
    (host.home / ".ssh/sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    from tests.support.optional import find_program

    started = host.run(find_program("sshd") or "sshd", "-f", str(HOME / ".ssh/sshd_config"))
    assert started.returncode == 0, started.stdout


def _unshared(*words: str) -> list[str]:
    """A command line in namespaces of its own, ended by SIGKILL with the process that waits for it."""
    return ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", *words]


def _in_network(pid: int) -> list[str]:
    return ["nsenter", f"--target={pid}", "--net"]


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"


def _first_process(folder: Path, name: str, kept: Sequence[Path]) -> None:
    """Of a host, within its namespaces: make them its own, say so, and stay for as long as somebody is there."""
    pid = int(Path("/proc/self/stat").read_text().split()[0])  # of the /proc outside
    for file in ("hosts", "resolv.conf"):
        _run("mount", "--bind", str(folder / file), f"/etc/{file}")
    places = {HOME: folder / "home", Path("/tmp"): folder / "tmp"}  # the folder itself may lie in /tmp
    for place, own in places.items():
        for path in (path for path in kept if path.is_relative_to(place)):
            inner = own / path.relative_to(place)
            inner.mkdir(parents=True, exist_ok=True)
            _run("mount", "--rbind", str(path), str(inner))
        _run("mount", "--rbind", str(own), str(place))
    for place in ("/dev/shm", "/run"):
        _run("mount", "-t", "tmpfs", "-o", "mode=1777" if place == "/dev/shm" else "mode=755", "tmpfs", place)
    _run("mount", "-t", "proc", "proc", "/proc")
    Path("/run/sshd").mkdir()
    socket.sethostname(name)
    threading.Thread(target=_reap, daemon=True).start()
    print(json.dumps({"pid": pid}), flush=True)
    sys.stdin.read()
    os._exit(0)


def _reap() -> None:
    """Processes whose parents have ended come to the first one; unwaited for, they would look alive to `ray stop`."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            threading.Event().wait(0.1)


if __name__ == "__main__":
    _first_process(Path(sys.argv[1]), sys.argv[2], [Path(path) for path in sys.argv[3:]])
