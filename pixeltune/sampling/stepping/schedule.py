"""When each part of a network can be computed, pixel after pixel in raster order.

What has seen the rows above a pixel alone is computed a row at a time, when the row begins; the rest a pixel at a time.
A convolution is cut accordingly: the rows of its window above the pixel's own, and of the own row the features that are
known for all of it, are row-wise even where the rest is not. So a pixel-wise 2×2 kernel costs 1×2 a pixel, and what a
vertical stack gives a horizontal one costs nothing there.

Convolutions, biases and label features that are added up become one `Sum`. Features that a convolution reads are side
by side in a `Bundle`, so that a window of columns is one row of a matrix.

Legend of shapes: F features, I input and O output features, kh×kw window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pixeltune.errors import ConfigError
from pixeltune.sampling.stepping.graph import Add, Conv, Image, Known, Node, Slice, Slices, Window, reachable, whole


@dataclass(eq=False)
class Bundle:
    """Features that convolutions read together; all of them row-wise, or all pixel-wise.

    rows_above: how many rows above its own a window reaches. is_kept: whether anything but the pixel's own features is
        read, by a window or at another resolution, so that a whole row of them is kept.
    """

    slices: Slices
    is_pixelwise: bool
    rows_above: int = 0
    is_kept: bool = False

    @property
    def step(self) -> int:
        """Return the step of its nodes."""
        return self.slices[0].node.step

    @property
    def channels(self) -> int:
        """Return F, the number of features."""
        return sum(part.channels for part in self.slices)

    @property
    def is_alias(self) -> bool:
        """Return whether it is read where its only node has it anyway."""
        return len(self.slices) == 1 and not self.is_kept

    @property
    def has_image(self) -> bool:
        """Return whether the network's input is among them."""
        return any(isinstance(part.node, Image) for part in self.slices)


@dataclass(frozen=True, eq=False)
class Term:
    """Addend of a sum that a convolution makes of one bundle; windows as in `Conv`, their weights the bundle's."""

    bundle: Bundle
    windows: dict[tuple[int, int], Window]
    down: int
    up: int

    @property
    def reads_above(self) -> bool:
        """Return whether a window has rows above the pixel's own."""
        return any(window.row < 0 for window in self.windows.values())


@dataclass(frozen=True, eq=False)
class Sum:
    """Convolutions, other features and constants, added up. constants: (B or 1, O)."""

    terms: Sequence[Term]
    addends: Slices
    constants: Sequence[Tensor]


@dataclass
class Schedule:
    """The nodes that are computed, in an order in which everything finds what it reads.

    outputs: the features of θ. pixelwise: the nodes whose features at a pixel depend on its own row; the others are
    row-wise. sums: of the nodes that are not functions or known.
    """

    outputs: Slices
    nodes: list[Node] = field(default_factory=list)
    pixelwise: set[Node] = field(default_factory=set)
    sums: dict[Node, Sum] = field(default_factory=dict)
    bundles: dict[Slices, Bundle] = field(default_factory=dict)

    def reads(self, node: Node) -> Slices:
        """Return what is read in its own place when the node is computed."""
        if node not in self.sums:
            return tuple(node.reads)
        aliases = (term.bundle.slices[0] for term in self.sums[node].terms if term.bundle.is_alias)
        return (*self.sums[node].addends, *aliases)

    def has_row(self, node: Node) -> bool:
        """Return whether a row of it is computed at once: the whole of it, or what row-wise features add to a sum."""
        if node not in self.pixelwise:
            return True
        if node not in self.sums:
            return False
        sum_ = self.sums[node]
        from_rows = (not term.bundle.is_pixelwise or term.reads_above for term in sum_.terms)
        return any(from_rows) or any(part.node not in self.pixelwise for part in sum_.addends)

    def up(self, node: Node) -> int:
        """Return after how many rows its convolutions have the same windows again."""
        return max((term.up for term in self.sums[node].terms), default=1) if node in self.sums else 1

    def bundled(self, source: Slices) -> Iterator[tuple[Bundle, Tensor]]:
        """Yield the row-wise and the pixel-wise slices of a source, and the indices of each one's features in it (F,).

        All convolutions of the same slices share a bundle.
        """
        places = torch.arange(sum(part.channels for part in source)).split([part.channels for part in source])
        for is_pixelwise in (False, True):
            chosen = [index for index, part in enumerate(source) if (part.node in self.pixelwise) is is_pixelwise]
            if chosen:
                slices = tuple(source[index] for index in chosen)
                bundle = self.bundles.setdefault(slices, Bundle(slices, is_pixelwise))
                yield bundle, torch.cat([places[index] for index in chosen])


def schedule(outputs: Slices, *, colours: int) -> Schedule:
    """Return the steps to the features of θ. colours: how many of a pixel the network orders; 1 where it sees none.

    Raises ConfigError where the network reads what is not drawn yet.
    """
    plan, nodes = Schedule(outputs), reachable(outputs)
    uses = Counter(part.node for node in nodes for part in node.reads) + Counter(part.node for part in outputs)
    absorbed = {part.node for node in nodes if isinstance(node, Add) for part in node.operands if _joins(part, uses)}
    for node in nodes:
        if _is_pixelwise(node, plan.pixelwise):
            plan.pixelwise.add(node)
        if node in absorbed or isinstance(node, Image):
            continue
        plan.nodes.append(node)
        if isinstance(node, Conv | Add):
            plan.sums[node] = _sum(plan, node, uses, colours)
    return plan


def _is_pixelwise(node: Node, pixelwise: set[Node]) -> bool:
    """Return whether its features at a pixel depend on the pixel's own row."""
    if isinstance(node, Conv) and all(window.last_row < 0 for window in node.windows.values()):
        return False
    return isinstance(node, Image) or any(part.node in pixelwise for part in node.reads)


def _joins(operand: Slice, uses: Counter[Node]) -> bool:
    """Return whether an operand is computed within the sum, because nothing else reads it."""
    node = operand.node
    if isinstance(node, Known):
        return node.is_everywhere
    return isinstance(node, Conv | Add) and operand.is_whole and uses[node] == 1


def _sum(plan: Schedule, node: Node, uses: Counter[Node], colours: int) -> Sum:
    terms, addends, constants = list[Term](), list[Slice](), list[Tensor]()
    waiting = [*whole(node)]
    while waiting:
        part = waiting.pop()
        if part.node is not node and not _joins(part, uses):
            addends.append(part)
        elif isinstance(part.node, Conv):
            terms += _terms(plan, part.node, colours)
        elif isinstance(part.node, Add):
            waiting += part.node.operands
        elif isinstance(part.node, Known):
            constants.append(part.node.value[:, part.start : part.stop, 0, 0])
    return Sum(terms, tuple(addends), constants)


def _terms(plan: Schedule, conv: Conv, colours: int) -> Iterator[Term]:
    """Yield a convolution, cut by the bundles that it reads."""
    for bundle, places in plan.bundled(conv.source):
        windows = {
            phase: Window(window.row, window.col, window.weight[:, :, places.to(window.weight.device)].contiguous())
            for phase, window in conv.windows.items()
        }
        for window in windows.values():
            _require_causal(bundle, window, conv, colours)
            bundle.rows_above = max(bundle.rows_above, -window.row)
            bundle.is_kept |= (window.row, window.col, *window.weight.shape[:2]) != (0, 0, 1, 1)
        bundle.is_kept |= (conv.down, conv.up) != (1, 1) or bundle.has_image
        yield Term(bundle, windows, conv.down, conv.up)


def _require_causal(bundle: Bundle, window: Window, conv: Conv, colours: int) -> None:
    last_col = -1 if bundle.has_image and colours == 1 else 0
    sees_future = bundle.is_pixelwise and window.last_row == 0 and window.last_col > last_col
    if window.last_row > 0 or sees_future or (conv.up > 1 and window.row < 0):
        raise ConfigError(
            f"cached sampling needs windows on earlier pixels, but one ends {window.last_row} rows below and "
            f'{window.last_col} columns right of its pixel; sample with method="naive"'
        )
