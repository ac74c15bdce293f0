"""A network's graph, read off one run of its own `forward`.

The network runs once on signals, which stand for a batch of no images and so have no memory, and each function that it
calls on them is written down. Weights, their norms and colour masks are plain tensors and are computed on the way, once
for all pixels. So whatever is made of the functions in `_RULES` can be stepped through, with no second description of
any model; whatever else mixes pixels is refused.

Legend of shapes: B batch, F features, I input and O output features, H×W pixels, kh×kw window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from pixeltune.errors import ConfigError
from pixeltune.sampling.stepping.graph import Add, Conv, Image, Known, Map, Node, Slice, Slices, Window, narrow, whole

ELEMENTWISE = ("add", "sub", "mul", "neg", "relu", "elu", "sigmoid", "tanh", "addcmul")
"""Functions that a Map may name."""


def trace(network: nn.Module, x_BCHW: Tensor, s: Tensor | None = None) -> Slices:
    """The features of θ. x: an image batch of which only shape, dtype and device count. s: features of the label.

    Raises ConfigError where the network calls a function that cannot be taken pixel by pixel.
    """
    record = Record(x_BCHW.device, len(x_BCHW))
    image = Signal.of(x_BCHW, whole(Image(x_BCHW.shape[1], step=1)), record)
    label = None
    if s is not None:
        known = Known(s.shape[1], step=1, value=s, is_everywhere=s.shape[-2:] == (1, 1))
        label = Signal.of(s, whole(known), record)
    return _settled(network(image, label))


@dataclass(frozen=True)
class Record:
    """What the signals of one run share.

    batch: images that they stand for. memo: nodes by what they compute, so that nothing is computed twice.
    """

    device: torch.device
    batch: int
    memo: dict[Hashable, Node] = field(default_factory=dict)

    def once(self, key: Hashable, build: Callable[[], Node]) -> Node:
        """The node that computes what the key says."""
        if key not in self.memo:
            self.memo[key] = build()
        return self.memo[key]

    def ones(self, like: Tensor, step: int) -> Node:
        """A feature that is one at all pixels, and zero around them."""
        value = torch.ones(1, 1, *like.shape[-2:], dtype=like.dtype, device=self.device)
        return self.once(("ones", step), lambda: Known(1, step, value=value, is_everywhere=False))


class Signal(Tensor):
    """Stands for a tensor (B, F, H, W), the features `slices` after `padding` (left, right, top, bottom).

    shaped: a plain tensor of its shape, but for no image. Of such, torch tells shapes at once, while its meta device
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
        """A signal of the shape and dtype of `like`."""
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
        if call.name not in _RULES or call.is_in_place:
            raise call.refused()
        known = _evaluated(call)
        return known if known is not None else _RULES[call.name](call, *args, **call.kwargs)


@dataclass(frozen=True)
class Call:
    """A function that the network calls on signals. shaped: its result for no image."""

    func: Callable
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shaped: Any = None

    @property
    def name(self) -> str:
        """Of the function, whether it was called as one, as a method or by an operator."""
        return self.func.__name__.strip("_")

    @property
    def is_in_place(self) -> bool:
        """Whether it changes its argument, `add_` or `+=`: others that hold the same tensor would not see it."""
        name = self.func.__name__
        return name.startswith("__i") if name.endswith("__") else name.endswith("_")

    @property
    def signals(self) -> list[Signal]:
        """Those among the arguments."""
        found: list[Signal] = []
        _each(lambda value: found.append(value) if isinstance(value, Signal) else None, (self.args, self.kwargs))
        return found

    @property
    def record(self) -> Record:
        """Of the signals."""
        return self.signals[0].record

    def on(self, change: Callable[[Any], Any]) -> Any:
        """The function of changed arguments."""
        return self.func(*_each(change, self.args), **_each(change, self.kwargs))

    def made(self, slices: Slices, like: Tensor | None = None) -> Signal:
        """A signal of the shape of the result, or of one of several results."""
        return Signal.of(self.shaped if like is None else like, slices, self.record)

    def refused(self) -> ConfigError:
        """The error to raise where this call cannot be stepped through."""
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


# --- What is known beforehand -----------------------------------------------------------------------------------------


def _evaluated(call: Call) -> Signal | None:
    """The result itself, if it is of known nodes and either the same everywhere or of another resolution."""
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
    """chunk, split, x[:, a:b]: the same, done to numbers in place of the values, tells which are meant."""
    shape = (min(call.record.batch, 2), *x.shape[1:])  # two images are enough to tell one from another
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
    return call.made(narrow(_settled(x), start, stop), like)


def _cat(call: Call, tensors: Sequence[Any], dim: int = 0) -> Signal:
    if dim != 1 or not all(isinstance(x, Signal) for x in tensors):
        raise call.refused()
    return call.made(tuple(part for x in tensors for part in _settled(x)))


def _map(call: Call, *args: Any, inplace: bool = False, **kwargs: Any) -> Signal:
    """An elementwise function of signals and numbers, its keywords in the function's own order."""
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
    """A node of each stretch of features in which no argument passes from one node to another."""
    settled = [_settled(arg) if isinstance(arg, Signal) else arg for arg in args]
    concatenations = [arg for arg in settled if isinstance(arg, tuple)]
    ends = [list(itertools.accumulate(part.channels for part in slices)) for slices in concatenations]
    if any(end[-1] != call.shaped.shape[1] for end in ends):
        raise call.refused()

    def stretch(arg: Any, start: int, stop: int) -> Any:
        if isinstance(arg, tuple):
            return narrow(arg, start, stop)[0]
        return arg[start:stop] if isinstance(arg, Tensor) else arg

    bounds = itertools.pairwise([0, *sorted(set(itertools.chain(*ends)))])
    nodes = [build(tuple(stretch(arg, start, stop) for arg in settled)) for start, stop in bounds]
    return call.made(tuple(part for node in nodes for part in whole(node)))


def _dropout(call: Call, x: Signal, p: float, training: bool, inplace: bool) -> Signal:  # noqa: ARG001
    if training:
        raise call.refused()
    return x


# --- Windows ----------------------------------------------------------------------------------------------------------


def _pad(call: Call, x: Signal, pad: tuple[int, int, int, int], mode: str, value: float | None) -> Signal:
    if mode != "constant" or value or any(x.padding):
        raise call.refused()
    return Signal.of(call.shaped, x.slices, call.record, padding=pad)


def _conv2d(
    call: Call,
    x: Signal,
    weight_OIkk: Tensor,
    bias_O: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Signal:
    (down, down_cols), (rows, cols) = _pair(stride), _pair(padding)
    if down != down_cols or _pair(dilation) != (1, 1) or groups != 1:
        raise call.refused()
    left, right, top, bottom = x.padding
    height, width = x.shape[-2] - top - bottom, x.shape[-1] - left - right
    if tuple(size * down for size in call.shaped.shape[-2:]) != (height, width):
        raise call.refused()
    window = Window(-top - rows, -left - cols, weight_OIkk.permute(2, 3, 1, 0))
    step = x.slices[0].node.step * down
    conv = Conv(weight_OIkk.shape[0], step, source=x.slices, windows={(0, 0): window}, down=down)
    return call.made(whole(_with_bias(conv, bias_O)))


def _conv_transpose2d(
    call: Call,
    x: Signal,
    weight_IOkk: Tensor,
    bias_O: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,  # noqa: ARG001
    groups: int = 1,
    dilation: Any = 1,
) -> Signal:
    (up, up_cols), (rows, cols), (kh, kw) = _pair(stride), _pair(padding), weight_IOkk.shape[2:]
    if up != up_cols or _pair(dilation) != (1, 1) or groups != 1 or any(x.padding):
        raise call.refused()
    if tuple(size * up for size in x.shape[-2:]) != call.shaped.shape[-2:]:
        raise call.refused()
    weight = weight_IOkk.permute(2, 3, 0, 1)
    windows = {}
    for a, b in itertools.product(range(up), repeat=2):
        (row, from_rows), (col, from_cols) = _taps(a, rows, up, kh), _taps(b, cols, up, kw)
        windows[a, b] = Window(row, col, weight[from_rows][:, from_cols])
    step = x.slices[0].node.step // up
    conv = Conv(weight_IOkk.shape[1], step, source=x.slices, windows=windows, up=up)
    return call.made(whole(_with_bias(conv, bias_O)))


def _taps(phase: int, padding: int, up: int, kernel: int) -> tuple[int, list[int]]:
    """Of the output pixels at `phase` modulo `up`: the first coarse pixel that they read, and each one's kernel index.

    Coarse pixel q adds its product with kernel index k to the output pixel q·up − padding + k.
    """
    indices = list(range((phase + padding) % up, kernel, up))[::-1]
    return (phase + padding - indices[0]) // up, indices


def _with_bias(conv: Conv, bias_O: Tensor | None) -> Node:
    if bias_O is None:
        return conv
    bias = Known(conv.channels, conv.step, value=bias_O[None, :, None, None], is_everywhere=True)
    return Add(conv.channels, conv.step, operands=(*whole(conv), *whole(bias)))


def _settled(x: Signal) -> Slices:
    """The features of a signal; one that is padded must be a sum of convolutions moved down and to the right."""
    left, right, top, bottom = x.padding
    if not any(x.padding):
        return x.slices
    if (left, top) != (-right, -bottom) or min(left, top) < 0 or len(x.slices) > 1 or not x.slices[0].is_whole:
        raise ConfigError(f'cached sampling cannot step through padding by {x.padding}; sample with method="naive"')
    return whole(_moved(x, x.slices[0].node, top, left))


def _moved(x: Signal, node: Node, down: int, right: int) -> Node:
    """The node's features from so many rows above and columns to the left; outside the image they are zero.

    A window that ends at its own pixel then lies in the zeros around the image, and so do ones in place of a bias.
    """
    if isinstance(node, Add):
        moved = tuple(part for operand in node.operands for part in whole(_moved(x, operand.node, down, right)))
        if all(operand.is_whole for operand in node.operands):
            return Add(node.channels, node.step, operands=moved)
    if isinstance(node, Conv) and node.up == 1:
        window = node.windows[0, 0]
        if (not down or window.last_row <= 0) and (not right or window.last_col <= 0):
            at = Window(window.row - down * node.down, window.col - right * node.down, window.weight)
            return replace(node, windows={(0, 0): at})
    if isinstance(node, Known) and node.is_everywhere and len(node.value) == 1:
        ones = x.record.ones(x, node.step)
        at = Window(-down, -right, node.value.view(1, 1, 1, -1))
        return Conv(node.channels, node.step, source=whole(ones), windows={(0, 0): at})
    raise ConfigError('cached sampling cannot step through what this network shifts; sample with method="naive"')


def _pair(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def _only_known(call: Call, *_args: Any, **_kwargs: Any) -> Signal:
    raise call.refused()


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(ELEMENTWISE, _map),
    "adaptive_avg_pool2d": _only_known,
    "add": _add,
    "batch_norm": _batch_norm,
    "cat": _cat,
    "chunk": _select,
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "dropout": _dropout,
    "getitem": _select,
    "ones_like": _ones_like,
    "pad": _pad,
    "split": _select,
}
"""By name of the function: what it makes of a call and its arguments."""
