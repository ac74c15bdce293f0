"""Tensors without memory, which write down what a network does to them.

Legend of shapes: B batch, F features, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pixeltune.errors import ConfigError
from pixeltune.sampling.stepping.graph import Known, Node, Slices


@dataclass(frozen=True)
class Record:
    """The record that the signals of one run share.

    batch: images that they represent. understand: what a call makes of them. memo: nodes by what they compute, so that
    nothing is computed twice.
    """

    device: torch.device
    batch: int
    understand: Callable[[Call], Any]
    memo: dict[Hashable, Node] = field(default_factory=dict)

    def once(self, key: Hashable, build: Callable[[], Node]) -> Node:
        """Return the node that computes what the key says."""
        if key not in self.memo:
            self.memo[key] = build()
        return self.memo[key]

    def ones(self, like: Tensor, step: int) -> Node:
        """Return a feature that is one at all pixels, and zero around them."""
        value = torch.ones(1, 1, *like.shape[-2:], dtype=like.dtype, device=self.device)
        return self.once(("ones", step), lambda: Known(1, step, value=value, is_everywhere=False))


class Signal(Tensor):
    """Represents a tensor (B, F, H, W), the features `slices` after `padding` (left, right, top, bottom).

    shaped: a plain tensor of its shape, but for no image. For such, torch gives shapes at once, while its meta device
        would import a compiler, seconds that a small model is sampled in.
    """

    slices: Slices
    shaped: Tensor
    padding: tuple[int, int, int, int]
    record: Record

    @classmethod
    def of(
        cls, like: Tensor, slices: Slices, record: Record, padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    ) -> Signal:
        """Return a signal of the shape and dtype of `like`."""
        shaped = torch.empty(0, *like.shape[1:], dtype=like.dtype, device="cpu")
        signal = Tensor._make_subclass(cls, shaped)
        signal.slices, signal.shaped, signal.record, signal.padding = slices, shaped, record, padding
        return signal

    @classmethod
    def __torch_function__(
        cls, func: Callable, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Write the call down; questions about shape and dtype are answered."""
        call = Call(func, args, kwargs or {})
        call = replace(call, shaped=call.on(_without_memory))
        if isinstance(call.shaped, torch.Size) or not isinstance(call.shaped, Tensor | tuple | list):
            return call.shaped
        if call.is_in_place:
            raise call.refused()
        return call.record.understand(call)


@dataclass(frozen=True)
class Call:
    """A function that the network calls on signals. shaped: its result for no image."""

    func: Callable
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shaped: Any = None

    @property
    def name(self) -> str:
        """Return the name of the function, whether it was called as one, as a method or by an operator."""
        return self.func.__name__.strip("_")

    @property
    def is_in_place(self) -> bool:
        """Return whether it changes its argument, `add_` or `+=`: others that hold the same tensor would not see it."""
        name = self.func.__name__
        return name.startswith("__i") if name.endswith("__") else name.endswith("_")

    @property
    def signals(self) -> list[Signal]:
        """Return those among the arguments."""
        found: list[Signal] = []
        _each(lambda value: found.append(value) if isinstance(value, Signal) else None, (self.args, self.kwargs))
        return found

    @property
    def record(self) -> Record:
        """Return the record of the signals."""
        return self.signals[0].record

    def on(self, change: Callable[[Any], Any]) -> Any:
        """Call the function of changed arguments."""
        return self.func(*_each(change, self.args), **_each(change, self.kwargs))

    def made(self, slices: Slices, like: Tensor | None = None) -> Signal:
        """Return a signal of the shape of the result, or of one of several results."""
        return Signal.of(self.shaped if like is None else like, slices, self.record)

    def refused(self) -> ConfigError:
        """Return the error to raise where this call cannot be stepped through."""
        return ConfigError(
            f'cached sampling cannot step through `{self.name}` as this network calls it; sample with method="naive"'
        )


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _each(change, item) for name, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_each(change, item) for item in value)
    return change(value)


def _without_memory(value: Any) -> Any:
    if isinstance(value, Signal):
        return value.shaped
    return torch.empty_like(value, device="cpu") if isinstance(value, Tensor) else value  # not read, so not in memory
