"""What convolutions make of signals: windows on earlier pixels.

Legend of shapes: F features, I input and O output features, kh×kw window.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from torch import Tensor

from pixeltune.errors import ConfigError
from pixeltune.sampling.stepping.graph import Add, Conv, Known, Node, Slices, Window, whole
from pixeltune.sampling.stepping.symbolic import Call, Signal


def pad(call: Call, x: Signal, pad: tuple[int, int, int, int], mode: str, value: float | None) -> Signal:
    """Pad by constant zeros, or crop: it moves the windows that follow."""
    if mode != "constant" or value or any(x.padding):
        raise call.refused()
    return Signal.of(call.shaped, x.slices, call.record, padding=pad)


def conv2d(
    call: Call,
    x: Signal,
    weight_OIkk: Tensor,
    bias_O: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Signal:
    """Make a window around each pixel, or around every `stride`-th."""
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


def conv_transpose2d(
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
    """Make a window on coarse pixels for each of the `stride`² phases of fine ones."""
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
    """Return the first coarse pixel that the output pixels at `phase` modulo `up` read, and each one's kernel index.

    Coarse pixel q adds its product with kernel index k to the output pixel q·up − padding + k.
    """
    indices = list(range((phase + padding) % up, kernel, up))[::-1]
    return (phase + padding - indices[0]) // up, indices


def _with_bias(conv: Conv, bias_O: Tensor | None) -> Node:
    if bias_O is None:
        return conv
    bias = Known(conv.channels, conv.step, value=bias_O[None, :, None, None], is_everywhere=True)
    return Add(conv.channels, conv.step, operands=(*whole(conv), *whole(bias)))


def settled(x: Signal) -> Slices:
    """Return the features of a signal; one that is padded must be a sum of convolutions moved down and to the right."""
    left, right, top, bottom = x.padding
    if not any(x.padding):
        return x.slices
    if (left, top) != (-right, -bottom) or min(left, top) < 0 or len(x.slices) > 1 or not x.slices[0].is_whole:
        raise ConfigError(f'cached sampling cannot step through padding by {x.padding}; sample with method="naive"')
    return whole(_moved(x, x.slices[0].node, top, left))


def _moved(x: Signal, node: Node, down: int, right: int) -> Node:
    """Return the node's features from so many rows above and columns to the left; outside the image they are zero.

    A window that ends at its own pixel then is in the zeros around the image, and so are ones in place of a bias.
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
