"""What a network computes: convolutions and sums of features, and elementwise functions of them.

Legend of shapes: B batch, F features, I input and O output features, H×W pixels, kh×kw window.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Node:
    """Features of each pixel of a grid. step: 1 where it is the network's own grid, 2 at half its resolution, …"""

    channels: int
    step: int
    index: int = field(default_factory=itertools.count().__next__, init=False)
    """Nodes read those of smaller index."""

    @property
    def reads(self) -> Sequence[Slice]:
        """Return what it is computed from."""
        return ()


@dataclass(frozen=True)
class Slice:
    """Features start…stop−1 of a node."""

    node: Node
    start: int
    stop: int

    @property
    def channels(self) -> int:
        """Return the number of features."""
        return self.stop - self.start

    @property
    def is_whole(self) -> bool:
        """Return whether it is all of the node."""
        return self.channels == self.node.channels


Slices = tuple[Slice, ...]
"""A concatenation."""


def whole(node: Node) -> Slices:
    """Return all features of a node."""
    return (Slice(node, 0, node.channels),)


def narrow(slices: Slices, start: int, stop: int) -> Slices:
    """Return features start…stop−1 of a concatenation."""
    ends = itertools.accumulate(part.channels for part in slices)
    cut = [
        Slice(part.node, part.start + max(0, start - end + part.channels), part.stop - max(0, end - stop))
        for part, end in zip(slices, ends, strict=True)
    ]
    return tuple(part for part in cut if part.start < part.stop)


@dataclass(frozen=True, eq=False)
class Image(Node):
    """The network's input."""


@dataclass(frozen=True, eq=False)
class Known(Node):
    """Features that no pixel changes. value: (B or 1, F, H, W), or (B or 1, F, 1, 1) if it is the same everywhere."""

    value: Tensor
    is_everywhere: bool


@dataclass(frozen=True, eq=False)
class Map(Node):
    """An elementwise function. args: slices of as many features, vectors (F,), and numbers."""

    name: str
    args: tuple[Any, ...]

    @property
    def reads(self) -> Sequence[Slice]:
        """Return the slices."""
        return [arg for arg in self.args if isinstance(arg, Slice)]


@dataclass(frozen=True)
class Window:
    """A kernel's weights (kh, kw, I, O), and its first row and column relative to the pixel that it belongs to."""

    row: int
    col: int
    weight: Tensor

    @property
    def last_row(self) -> int:
        """Return the last row relative to the pixel."""
        return self.row + self.weight.shape[0] - 1

    @property
    def last_col(self) -> int:
        """Return the last column relative to the pixel."""
        return self.col + self.weight.shape[1] - 1


@dataclass(frozen=True, eq=False)
class Conv(Node):
    """A convolution without bias, whose windows are on the source's grid.

    down: its stride. up: the stride of a transposed convolution, where the up×up output pixels of a coarse one have
        a window each, by (row, column) modulo `up`; otherwise (0, 0) is the only one.
    """

    source: Slices
    windows: dict[tuple[int, int], Window]
    down: int = 1
    up: int = 1

    @property
    def reads(self) -> Sequence[Slice]:
        """Return the source."""
        return self.source


@dataclass(frozen=True, eq=False)
class Add(Node):
    """A sum."""

    operands: Slices

    @property
    def reads(self) -> Sequence[Slice]:
        """Return the operands."""
        return self.operands


def reachable(outputs: Iterable[Slice]) -> list[Node]:
    """Return the nodes that the outputs depend on, each after those that it reads."""
    seen, waiting = set[Node](), [part.node for part in outputs]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [part.node for part in node.reads]
    return sorted(seen, key=lambda node: node.index)
