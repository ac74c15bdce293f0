"""What each node of a cluster has and lacks: a row a node, a column a thing, and what to do about it.

Made of plain facts, so that no cluster is needed to see what it says; the table of `pixeltune doctor`, and the one line
with which a search refuses to start, come of the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from pixeltune.errors import SearchError
from pixeltune.preflight.checks import DOWNLOAD_ADVICE, NodeFacts, Verdict

_SKEW_SECONDS = 2.0
_WORST_SKEW_SECONDS = 60.0
"""A lease on object storage lasts two minutes."""
_MUST_BE_EQUAL = ("python", "ray", "torch")

COLUMNS = ("versions", "GPU", "storage", "data", "clock", "address", "compiler")


@dataclass(frozen=True)
class Cell:
    """One thing of one node. found: in words. advice: what to do, "" where nothing."""

    found: str
    verdict: Verdict = Verdict.OK
    advice: str = ""


@dataclass(frozen=True)
class NodeRow:
    """One node. cells: by COLUMNS."""

    name: str
    cells: Mapping[str, Cell]

    def at(self, verdict: Verdict) -> list[tuple[str, Cell]]:
        """The things of this verdict."""
        return [(column, cell) for column, cell in self.cells.items() if cell.verdict is verdict]


@dataclass(frozen=True)
class Wanted:
    """What the nodes are held against. versions: the launcher's. seen: names of nodes whose file it found.

    storage: where that lay, "" where none was written. data: name of the images, "" where no search is asked for.
    checksum: the launcher's, None where it has none itself. gpus: of a worker. meet: whether workers of one trial may
    have to find each other between machines, by gloo, which those with GPUs do not need. compiles: whether trials are.
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
    """A row for each node, in their order."""
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
    """SearchError in one line that names each node with what it lacks; else a line for each warning."""
    rows = list(rows)
    lacking = [row for row in rows if row.at(Verdict.FAIL)]
    if lacking:
        advice = dict.fromkeys(cell.advice for row in lacking for _, cell in row.at(Verdict.FAIL))
        raise SearchError(
            f"every node must be fit for the search, but {'; '.join(_lack(row, Verdict.FAIL) for row in lacking)}; "
            f"{', '.join(advice)}"
        )
    return [
        f"{_lack(row, Verdict.WARN)}; {', '.join(dict.fromkeys(cell.advice for _, cell in row.at(Verdict.WARN)))}."
        for row in rows
        if row.at(Verdict.WARN)
    ]


def to_do(rows: Iterable[NodeRow]) -> list[str]:
    """Each piece of advice once, with the nodes that it is for."""
    nodes: dict[str, list[str]] = {}
    for row in rows:
        for advice in dict.fromkeys(cell.advice for cell in row.cells.values() if cell.advice):
            nodes.setdefault(advice, []).append(row.name)
    return [f"{', '.join(names)}: {advice}." for advice, names in nodes.items()]


def _lack(row: NodeRow, verdict: Verdict) -> str:
    return f"{row.name} has {', '.join(f'{column}: {cell.found}' for column, cell in row.at(verdict))}"


def _versions(fact: NodeFacts, wanted: Wanted) -> Cell:
    """pixeltune itself travels with the search."""
    others = {
        name: f"{name} {fact.versions.get(name) or 'missing'} (here {version})"
        for name, version in wanted.versions.items()
        if name != "pixeltune" and fact.versions.get(name) != version
    }
    if not others:
        return Cell("as here")
    is_serious = any(name in _MUST_BE_EQUAL for name in others)
    verdict = Verdict.FAIL if is_serious else Verdict.WARN
    return Cell(", ".join(others.values()), verdict, "install the same versions on all nodes")


def _gpu(fact: NodeFacts, wanted: Wanted) -> Cell:
    if not wanted.gpus:
        return Cell("not asked for", Verdict.SKIPPED)
    if fact.gpus:
        return Cell(", ".join(dict.fromkeys(fact.gpus)))
    if fact.ray_gpus:
        advice = "install a torch that is built for CUDA, and the driver that it needs"
        return Cell(f"{fact.ray_gpus:g} for Ray, none for torch", Verdict.FAIL, advice)
    return Cell("none")


def _storage(fact: NodeFacts, wanted: Wanted) -> Cell:
    if not wanted.storage:
        return Cell("one machine", Verdict.SKIPPED)
    advice = "take an object storage (s3://…), or a folder that is mounted at the same path on every node"
    if fact.storage_error:
        return Cell(f"not writable ({fact.storage_error})", Verdict.FAIL, advice)
    if fact.name not in wanted.seen:
        return Cell("of its own: what it writes is not seen here", Verdict.FAIL, advice)
    return Cell("shared")


def _data(fact: NodeFacts, wanted: Wanted) -> Cell:
    if not wanted.data:
        return Cell("not asked for", Verdict.SKIPPED)
    if fact.data_error:
        return Cell(f"{wanted.data} missing ({fact.data_error})", Verdict.FAIL, fact.data_advice)
    if fact.data_download:
        return Cell(f"{wanted.data} {fact.data_download}", Verdict.WARN, DOWNLOAD_ADVICE)
    if wanted.checksum is not None and fact.data != wanted.checksum:
        return Cell(f"{wanted.data}, other images than here", Verdict.FAIL, "copy the same files there")
    return Cell(f"{wanted.data} {fact.data}")


def _clock(fact: NodeFacts) -> Cell:
    skew = abs(fact.ahead)
    found = f"{skew:.1f} s {'ahead' if fact.ahead > 0 else 'behind'}"
    if skew <= _SKEW_SECONDS:
        return Cell(f"{fact.ahead:+.1f} s")
    advice = "let NTP set the clocks; times in the rows, and leases on object storage, follow them"
    return Cell(found, Verdict.FAIL if skew > _WORST_SKEW_SECONDS else Verdict.WARN, advice)


def _address(fact: NodeFacts, wanted: Wanted) -> Cell:
    if not wanted.meet:
        return Cell("not needed", Verdict.SKIPPED)
    if fact.own_address and not ip_address(fact.own_address).is_loopback:
        return Cell(fact.own_address)
    advice = (
        "let each machine's own name lead to its address in the network (/etc/hosts), "
        "else trials of several workers fail where their workers are on different machines"
    )
    return Cell(f"its name leads to {fact.own_address or 'nowhere'}", Verdict.WARN, advice)


def _compiler(fact: NodeFacts, wanted: Wanted) -> Cell:
    if not wanted.compiles:
        return Cell("not needed", Verdict.SKIPPED)
    if fact.compiler_error:
        return Cell(fact.compiler_error, Verdict.FAIL, fact.compiler_advice)
    return Cell("installed")
