"""The table of what each node of a cluster has and lacks: one row per node, one column per item, and what to do.

It is made of plain facts, so that it can be tested without a cluster; the table of `pixeltune doctor` and the one-line
error of a search that refuses to start come from the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from pixeltune.errors import SearchError
from pixeltune.preflight.checks import DOWNLOAD_ADVICE, CheckResult, NodeFacts

_SKEW_SECONDS = 2.0
_WORST_SKEW_SECONDS = 60.0
"""A lease on object storage lasts two minutes."""
_MUST_BE_EQUAL = ("python", "ray", "torch")

COLUMNS = ("versions", "GPU", "storage", "data", "clock", "address", "compiler")


@dataclass(frozen=True)
class NodeCell:
    """One item of one node. found: as text. advice: what to do, "" for nothing."""

    found: str
    verdict: CheckResult = CheckResult.OK
    advice: str = ""


@dataclass(frozen=True)
class NodeRow:
    """One node. cells: by COLUMNS."""

    name: str
    cells: Mapping[str, NodeCell]

    def at(self, verdict: CheckResult) -> list[tuple[str, NodeCell]]:
        """Return the items with this result."""
        return [(column, cell) for column, cell in self.cells.items() if cell.verdict is verdict]


@dataclass(frozen=True)
class Wanted:
    """The requirements on nodes. versions: the launcher's. seen: names of nodes whose file it found.

    storage: where that file was, "" if none was written. data: name of the images, "" if no search is given.
    checksum: the launcher's, None if it has no images. gpus: of a worker. meet: whether workers of one trial may have
    to connect across machines by gloo, which those with GPUs do not need. compiles: whether trials are compiled.
    """

    versions: Mapping[str, str | None]
    storage: str = ""
    seen: frozenset[str] = frozenset()
    data: str = ""
    checksum: str | None = None
    gpus: float = 0.0
    meet: bool = False
    compiles: bool = False


def node_rows(facts: Sequence[NodeFacts], wanted: Wanted) -> list[NodeRow]:
    """Return a row for each node, in their order."""
    return [
        NodeRow(
            fact.name,
            dict(
                zip(
                    COLUMNS,
                    (
                        _versions(fact, wanted),
                        _gpu(fact, wanted),
                        _storage(fact, wanted),
                        _data(fact, wanted),
                        _clock(fact),
                        _address(fact, wanted),
                        _compiler(fact, wanted),
                    ),
                    strict=True,
                )
            ),
        )
        for fact in facts
    ]


def require_fit(rows: Iterable[NodeRow]) -> list[str]:
    """Raise SearchError with one line that names each node and what it lacks; else say a line for each warning."""
    rows = list(rows)
    lacking = [row for row in rows if row.at(CheckResult.FAIL)]
    if lacking:
        advice = dict.fromkeys(cell.advice for row in lacking for _, cell in row.at(CheckResult.FAIL))
        raise SearchError(
            f"every node must be fit for the search, but {'; '.join(_lack(row, CheckResult.FAIL) for row in lacking)}; "
            f"{', '.join(advice)}"
        )
    return [
        f"{_lack(row, CheckResult.WARN)}; {', '.join(dict.fromkeys(cell.advice for _, cell in warned))}."
        for row in rows
        if (warned := row.at(CheckResult.WARN))
    ]


def to_do(rows: Iterable[NodeRow]) -> list[str]:
    """Return each piece of advice once, with the nodes that it is for."""
    nodes: dict[str, list[str]] = {}
    for row in rows:
        for advice in dict.fromkeys(cell.advice for cell in row.cells.values() if cell.advice):
            nodes.setdefault(advice, []).append(row.name)
    return [f"{', '.join(names)}: {advice}." for advice, names in nodes.items()]


def _lack(row: NodeRow, verdict: CheckResult) -> str:
    return f"{row.name} has {', '.join(f'{column}: {cell.found}' for column, cell in row.at(verdict))}"


def _versions(fact: NodeFacts, wanted: Wanted) -> NodeCell:
    """Compare the versions, except pixeltune's own, which is sent with the search."""
    others = {
        name: f"{name} {fact.versions.get(name) or 'missing'} (here {version})"
        for name, version in wanted.versions.items()
        if name != "pixeltune" and fact.versions.get(name) != version
    }
    if not others:
        return NodeCell("as here")
    is_serious = any(name in _MUST_BE_EQUAL for name in others)
    verdict = CheckResult.FAIL if is_serious else CheckResult.WARN
    return NodeCell(", ".join(others.values()), verdict, "install the same versions on all nodes")


def _gpu(fact: NodeFacts, wanted: Wanted) -> NodeCell:
    if not wanted.gpus:
        return NodeCell("not asked for", CheckResult.SKIPPED)
    if fact.gpus:
        return NodeCell(", ".join(dict.fromkeys(fact.gpus)))
    if fact.ray_gpus:
        advice = "install a torch that is built for CUDA, and the driver that it needs"
        return NodeCell(f"{fact.ray_gpus:g} for Ray, none for torch", CheckResult.FAIL, advice)
    return NodeCell("none")


def _storage(fact: NodeFacts, wanted: Wanted) -> NodeCell:
    if not wanted.storage:
        return NodeCell("one machine", CheckResult.SKIPPED)
    advice = "take an object storage (s3://…), or a folder that is mounted at the same path on every node"
    if fact.storage_error:
        return NodeCell(f"not writable ({fact.storage_error})", CheckResult.FAIL, advice)
    if fact.name not in wanted.seen:
        return NodeCell("of its own: what it writes is not seen here", CheckResult.FAIL, advice)
    return NodeCell("shared")


def _data(fact: NodeFacts, wanted: Wanted) -> NodeCell:
    if not wanted.data:
        return NodeCell("not asked for", CheckResult.SKIPPED)
    if fact.data_error:
        return NodeCell(f"{wanted.data} missing ({fact.data_error})", CheckResult.FAIL, fact.data_advice)
    if fact.data_download:
        return NodeCell(f"{wanted.data} {fact.data_download}", CheckResult.WARN, DOWNLOAD_ADVICE)
    if wanted.checksum is not None and fact.data != wanted.checksum:
        return NodeCell(f"{wanted.data}, other images than here", CheckResult.FAIL, "copy the same files there")
    return NodeCell(f"{wanted.data} {fact.data}")


def _clock(fact: NodeFacts) -> NodeCell:
    skew = abs(fact.ahead)
    found = f"{skew:.1f} s {'ahead' if fact.ahead > 0 else 'behind'}"
    if skew <= _SKEW_SECONDS:
        return NodeCell(f"{fact.ahead:+.1f} s")
    advice = "let NTP set the clocks; times in the rows, and leases on object storage, follow them"
    return NodeCell(found, CheckResult.FAIL if skew > _WORST_SKEW_SECONDS else CheckResult.WARN, advice)


def _address(fact: NodeFacts, wanted: Wanted) -> NodeCell:
    if not wanted.meet:
        return NodeCell("not needed", CheckResult.SKIPPED)
    if fact.host_address and not ip_address(fact.host_address).is_loopback:
        return NodeCell(fact.host_address)
    advice = (
        "let each machine's hostname resolve to its address in the network (/etc/hosts), "
        "else trials of several workers fail where their workers are on different machines"
    )
    found = f"hostname resolves to {fact.host_address}" if fact.host_address else "hostname does not resolve"
    return NodeCell(found, CheckResult.WARN, advice)


def _compiler(fact: NodeFacts, wanted: Wanted) -> NodeCell:
    if not wanted.compiles:
        return NodeCell("not needed", CheckResult.SKIPPED)
    if fact.compiler_error:
        return NodeCell(fact.compiler_error, CheckResult.FAIL, fact.compiler_advice)
    return NodeCell("installed")
