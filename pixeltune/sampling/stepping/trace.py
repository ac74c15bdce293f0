"""A network's graph, read off one run of its own `forward`.

The network runs once on signals, which represent a batch of no images and so have no memory, and each function that it
calls on them is written down. Weights, their norms and colour masks are plain tensors and are computed on the way, once
for all pixels. So all that is made of the functions in `_RULES` can be stepped through, with no second description of
any model; anything else that mixes pixels is refused.

Legend of shapes: B batch, F features, I input and O output features, H×W pixels, kh×kw window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pixeltune.sampling.stepping.graph import Add, Image, Known, Map, Node, Slice, Slices, narrow, whole
from pixeltune.sampling.stepping.receptive_windows import conv2d, conv_transpose2d, pad, settled
from pixeltune.sampling.stepping.symbolic import Call, Record, Signal

ELEMENTWISE = ("add", "sub", "mul", "neg", "relu", "elu", "sigmoid", "tanh", "addcmul")
"""Functions that a Map may name."""


def trace(network: nn.Module, x_BCHW: Tensor, s: Tensor | None = None) -> Slices:
    """Trace the features of θ. x: only its shape, dtype and device count. s: features of the label.

    Raises ConfigError where the network calls a function that cannot be taken pixel by pixel.
    """
    record = Record(x_BCHW.device, len(x_BCHW), _understood)
    image = Signal.of(x_BCHW, whole(Image(x_BCHW.shape[1], step=1)), record)
    label = None
    if s is not None:
        known = Known(s.shape[1], step=1, value=s, is_everywhere=s.shape[-2:] == (1, 1))
        label = Signal.of(s, whole(known), record)
    return settled(network(image, label))


def _understood(call: Call) -> Any:
    """Return what a call makes of its signals."""
    if call.name not in _RULES:
        raise call.refused()
    known = _evaluated(call)
    return known if known is not None else _RULES[call.name](call, *call.args, **call.kwargs)


# --- What is known beforehand -----------------------------------------------------------------------------------------


def _evaluated(call: Call) -> Signal | None:
    """Return the result itself, if it is of known nodes and either the same everywhere or of another resolution."""
    nodes = [part.node for signal in call.signals for part in signal.slices]
    if not all(isinstance(node, Known) for node in nodes) or not isinstance(call.shaped, Tensor):
        return None
    is_everywhere, x = all(node.is_everywhere for node in nodes if isinstance(node, Known)), call.signals[0]
    if not is_everywhere and call.name != "adaptive_avg_pool2d":
        return None

    def build() -> Node:
        value = call.on(lambda value: _value(value) if isinstance(value, Signal) else value)
        step = nodes[0].step if is_everywhere else nodes[0].step * (x.shape[-1] // value.shape[-1])
        return Known(value.shape[1], step, value=value, is_everywhere=is_everywhere)

    key = ("pooled", x.slices, call.shaped.shape)
    return call.made(whole(build() if is_everywhere else call.record.once(key, build)))


def _value(signal: Signal) -> Tensor:
    parts = [part.node.value[:, part.start : part.stop] for part in signal.slices if isinstance(part.node, Known)]
    return torch.cat(parts, dim=1)


def _ones_like(call: Call, x: Signal) -> Signal:
    return call.made(whole(call.record.ones(x, x.slices[0].node.step)) * x.shape[1])


# --- Functions of the features of one pixel ---------------------------------------------------------------------------


def _select(call: Call, x: Signal, *_args: Any, **_kwargs: Any) -> Any:
    """Select by chunk, split, x[:, a:b]: the same, done to numbers in place of the values, shows which are meant."""
    shape = (min(call.record.batch, 2), *x.shape[1:])  # two images are enough to distinguish one from another
    numbers = torch.arange(math.prod(shape)).view(shape)
    chosen = call.on(lambda value: numbers if isinstance(value, Signal) else value)
    if isinstance(chosen, Tensor):
        return _selected(call, x, numbers, chosen, call.shaped)
    return [_selected(call, x, numbers, part, like) for part, like in zip(chosen, call.shaped, strict=True)]


def _selected(call: Call, x: Signal, numbers: Tensor, chosen: Tensor, like: Tensor) -> Signal:
    if chosen.dim() != 4 or not chosen.numel():
        raise call.refused()
    start = int(chosen.flatten()[0]) // math.prod(x.shape[2:])
    stop = start + chosen.shape[1]
    if not torch.equal(chosen, numbers[:, start:stop]):
        raise call.refused()
    return call.made(narrow(settled(x), start, stop), like)


def _cat(call: Call, tensors: Sequence[Any], dim: int = 0) -> Signal:
    if dim != 1 or not all(isinstance(x, Signal) for x in tensors):
        raise call.refused()
    return call.made(tuple(part for x in tensors for part in settled(x)))


def _map(call: Call, *args: Any, inplace: bool = False, **kwargs: Any) -> Signal:
    """Map an elementwise function over signals and numbers, its keywords in the function's own order."""
    if inplace or any(isinstance(arg, Tensor) and not isinstance(arg, Signal) for arg in (*args, *kwargs.values())):
        raise call.refused()
    return _by_stretch(call, lambda stretch: _map_node(call, call.name, stretch), (*args, *kwargs.values()))


def _map_node(call: Call, name: str, args: tuple[Any, ...]) -> Node:
    slices = [arg for arg in args if isinstance(arg, Slice)]
    steps = {part.node.step for part in slices}
    if len(steps) > 1:  # what is the same everywhere is laid out at step 1
        raise call.refused()
    return call.record.once((name, args), lambda: Map(slices[0].channels, steps.pop(), name=name, args=args))


def _add(call: Call, x: Any, y: Any) -> Signal:
    if not (isinstance(x, Signal) and isinstance(y, Signal)):
        return _map(call, x, y)
    return _by_stretch(call, _add_node, (x, y))


def _add_node(operands: Slices) -> Node:
    return Add(operands[0].channels, max(part.node.step for part in operands), operands=operands)


def _batch_norm(
    call: Call, x: Signal, mean_F: Tensor, variance_F: Tensor, *, weight: Tensor, bias: Tensor, eps: float, **rest: Any
) -> Signal:
    if rest["training"]:
        raise call.refused()
    scale_F = weight * torch.rsqrt(variance_F + eps)
    args = (bias - mean_F * scale_F, x, scale_F)
    return _by_stretch(call, lambda stretch: _map_node(call, "addcmul", stretch), args)


def _by_stretch(call: Call, build: Callable[[tuple[Any, ...]], Node], args: tuple[Any, ...]) -> Signal:
    """Build a node of each stretch of features in which no argument passes from one node to another."""
    operands = [settled(arg) if isinstance(arg, Signal) else arg for arg in args]
    concatenations = [arg for arg in operands if isinstance(arg, tuple)]
    ends = [list(itertools.accumulate(part.channels for part in slices)) for slices in concatenations]
    if any(end[-1] != call.shaped.shape[1] for end in ends):
        raise call.refused()

    def stretch(arg: Any, start: int, stop: int) -> Any:
        if isinstance(arg, tuple):
            return narrow(arg, start, stop)[0]
        return arg[start:stop] if isinstance(arg, Tensor) else arg

    bounds = itertools.pairwise([0, *sorted(set(itertools.chain(*ends)))])
    nodes = [build(tuple(stretch(arg, start, stop) for arg in operands)) for start, stop in bounds]
    return call.made(tuple(part for node in nodes for part in whole(node)))


def _dropout(call: Call, x: Signal, p: float, training: bool, inplace: bool) -> Signal:  # noqa: ARG001
    if training:
        raise call.refused()
    return x


def _only_known(call: Call, *_args: Any, **_kwargs: Any) -> Signal:
    raise call.refused()


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(ELEMENTWISE, _map),
    "adaptive_avg_pool2d": _only_known,
    "add": _add,
    "batch_norm": _batch_norm,
    "cat": _cat,
    "chunk": _select,
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "dropout": _dropout,
    "getitem": _select,
    "ones_like": _ones_like,
    "pad": pad,
    "split": _select,
}
"""By name of the function: what it makes of a call and its arguments."""
