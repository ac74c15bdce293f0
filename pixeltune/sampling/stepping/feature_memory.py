"""Where features are stored: one row of every image as the rows of one matrix, so that a window of columns is a view.

Legend of shapes: B batch, F features, W width.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass

from torch import Tensor

from pixeltune.sampling.stepping.graph import Node, Slice
from pixeltune.sampling.stepping.schedule import Bundle, Schedule


@dataclass(frozen=True)
class Grid:
    """Rows (rows, F) of the B images in turn, each followed, and the first preceded, by `margin` rows of zeros.

    A window that leaves the image at either side so meets zeros. step: of the nodes that are stored here.
    """

    step: int
    batch: int
    width: int
    margin: int

    @property
    def rows(self) -> int:
        """Return the number of rows of a matrix that holds one row of every image."""
        return self.margin + self.batch * self.pitch

    @property
    def pitch(self) -> int:
        """Return the number of rows from one image to the next."""
        return self.width + self.margin

    def inside(self, flat: Tensor, first: int = 0, every: int = 1) -> Tensor:
        """Return the images (B, W, F) of a matrix, or every so many columns from another first one."""
        row, feature = flat.stride()
        size, stride = (self.batch, self.width // every, flat.shape[1]), (self.pitch * row, every * row, feature)
        return flat.as_strided(size, stride, flat.storage_offset() + (self.margin + first) * row)

    def window(self, flat: Tensor, first: int, count: int) -> Tensor:
        """Return the features (B, count·F) of so many columns of a matrix, contiguous if it is not one."""
        row, feature = flat.stride()
        size, stride = (self.batch, count * flat.shape[1]), (self.pitch * row, feature)
        return flat.as_strided(size, stride, flat.storage_offset() + (self.margin + first) * row)

    def columns(self, flat: Tensor, first: int, windows: int, width: int, every: int) -> Tensor:
        """Return the images (B, F, 1, columns), channels last, that so many windows of a width pass, every so many."""
        row, feature = flat.stride()
        count = (windows - 1) * every + width
        size, stride = (self.batch, flat.shape[1], 1, count), (self.pitch * row, feature, count * row, row)
        return flat.as_strided(size, stride, flat.storage_offset() + (self.margin + first) * row)


@dataclass(frozen=True)
class Place:
    """Features in memory: a row of them, (rows, F) on a grid, or without one those of the current pixel, (B, F)."""

    features: Tensor
    grid: Grid | None

    def part(self, start: int, stop: int) -> Place:
        """Return some of the features."""
        return Place(self.features[:, start:stop], self.grid)

    def row(self) -> Tensor:
        """Return (B, W, F)."""
        assert self.grid is not None, "features of one pixel have no row"
        return self.grid.inside(self.features)

    def at(self, col: int) -> Tensor:
        """Return (B, F) at a column of the image."""
        if self.grid is None:
            return self.features
        return self.grid.window(self.features, col // self.grid.step, 1)

    def is_same(self, other: Place) -> bool:
        """Return whether these are the same numbers."""
        return self.features.data_ptr() == other.features.data_ptr()


class Memory:
    """The places of all features, allocated once. Everything is zero at first, as is what is above the image.

    bundles: of the latest row, then, where a window reaches so far, of the rows before it.
    held: where the bundles hold features of a node.
    sums: of what the row-wise features of a sum come to.
    nodes: of the features themselves; of a row-wise sum, the same.
    """

    def __init__(self, plan: Schedule, x_BCHW: Tensor) -> None:
        self.plan = plan
        self._x_BCHW = x_BCHW
        self.grids = {step: self._grid(step) for step in sorted({node.step for node in plan.nodes} | {1})}
        self.bundles = {
            bundle: [self._place(bundle.channels, bundle.step, in_rows=bundle.is_kept or not bundle.is_pixelwise)]
            for bundle in plan.bundles.values()
            if not bundle.is_alias
        }
        for bundle, places in self.bundles.items():
            places += [self._place(bundle.channels, bundle.step) for _ in range(bundle.rows_above - 1)]
        self.sums = {node: self._place(node.channels, node.step) for node in plan.sums if plan.has_row(node)}
        self.held = defaultdict[Node, list[tuple[Slice, Place]]](list)
        for bundle, (place, *_) in self.bundles.items():
            ends = itertools.accumulate(part.channels for part in bundle.slices)
            for part, end in zip(bundle.slices, ends, strict=True):
                self.held[part.node].append((part, place.part(end - part.channels, end)))
        self.nodes = dict[Node, Place]()
        self._copies = dict[Node, list[tuple[Place, Place]]]()
        self._place_nodes()

    @property
    def nbytes(self) -> int:
        """Return the bytes of all of them; the weights are not here."""
        places = itertools.chain(self.nodes.values(), self.sums.values(), *self.bundles.values())
        storages = [place.features.untyped_storage() for place in places]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def of(self, part: Slice) -> Place:
        """Return some features of a node."""
        return self.nodes[part.node].part(part.start, part.stop)

    def copies(self, node: Node) -> list[tuple[Place, Place]]:
        """Return from where to where features of a node are copied because a bundle holds them elsewhere."""
        if node not in self._copies:
            pairs = [(self.of(part), place) for part, place in self.held[node]]
            self._copies[node] = [(own, place) for own, place in pairs if not own.is_same(place)]
        return self._copies[node]

    def bundle(self, bundle: Bundle) -> Place:
        """Return its latest row, or pixel."""
        return self.of(bundle.slices[0]) if bundle.is_alias else self.bundles[bundle][0]

    def _grid(self, step: int) -> Grid:
        """Build a grid whose margin is what the widest window leaves the image by."""
        terms = [term for sum_ in self.plan.sums.values() for term in sum_.terms if term.bundle.step == step]
        reach = [max(-w.col, w.last_col) for term in terms for w in term.windows.values()]
        batch, _, _, width = self._x_BCHW.shape
        return Grid(step, batch, width // step, margin=max(reach, default=0))

    def _place(self, channels: int, step: int, *, in_rows: bool = True) -> Place:
        grid = self.grids[step] if in_rows else None
        return Place(self._x_BCHW.new_zeros(grid.rows if grid else len(self._x_BCHW), channels), grid)

    def _place_nodes(self) -> None:
        """Place each node in a bundle that holds all of it, or where a node has been that is read no more."""
        free, borrowed, dying = defaultdict[tuple[int, int, bool], list[Place]](list), set[Node](), self._dying()
        for index, node in enumerate(self.plan.nodes):
            in_rows = node not in self.plan.pixelwise
            homes = [place for part, place in self.held[node] if part.is_whole]
            if in_rows and node in self.sums:
                self.nodes[node] = self.sums[node]
            elif homes:
                self.nodes[node] = homes[0]
            else:
                known = free[_kind(node, in_rows)]
                self.nodes[node] = known.pop() if known else self._place(node.channels, node.step, in_rows=in_rows)
                borrowed.add(node)
            for dead in dying[index]:
                if dead in borrowed:
                    free[_kind(dead, dead not in self.plan.pixelwise)].append(self.nodes[dead])

    def _dying(self) -> dict[int, list[Node]]:
        """Return, by index among the nodes, whose last reader it is. What a pixel reads of row-wise features stays."""
        last = dict[Node, int]()
        for index, node in enumerate(self.plan.nodes):
            reads_at_pixel = node in self.plan.pixelwise and node not in self.plan.sums
            for part in self.plan.reads(node):
                stays = reads_at_pixel and part.node not in self.plan.pixelwise
                last[part.node] = max(len(self.plan.nodes) if stays else index, last.get(part.node, 0))
        last |= {part.node: len(self.plan.nodes) for part in self.plan.outputs}
        dying = defaultdict[int, list[Node]](list)
        for node, index in last.items():
            dying[index].append(node)
        return dying


def _kind(node: Node, in_rows: bool) -> tuple[int, int, bool]:
    return node.channels, node.step if in_rows else 0, in_rows
