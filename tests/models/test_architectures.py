"""The published structure of each family, in numbers: fields, blind spots, parameter counts, the masked convolution."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pixeltune.models import DensityModel
from pixeltune.models.layers import Mask, MaskedConv2d, ShiftedConv2d, rows_above, this_row
from tests.support.tiny_models import tiny_model


def pixels_that_matter(model: DensityModel, row: int, col: int) -> torch.Tensor:
    """(H, W): where a change of any colour moves the last colour's θ at (row, col)."""
    x = torch.rand(1, *model.form.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = model.parameters_of(x.requires_grad_())
    (gradient,) = torch.autograd.grad(theta[..., row, col].sum(), x)
    return (gradient[0] != 0).any(0)


def past(H: int, W: int, row: int, col: int) -> torch.Tensor:
    return (torch.arange(H * W) < row * W + col).reshape(H, W)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("C", [1, 3])
def test_gated_sees_a_full_rectangle(kernel_size: int, layers: int, C: int) -> None:
    reach, row, col = kernel_size // 2 * layers, 13, 9
    model = tiny_model(shape=(C, 15, 19), colour_order="likelihood", kernel_size=kernel_size, layers=layers)
    expected = past(15, 19, row, col)
    expected[: max(0, row - reach - 1)] = False
    expected[:, : max(0, col - reach)] = False
    expected[:, col + reach + 1 :] = False
    assert torch.equal(pixels_that_matter(model, row, col), expected)


def test_pixelcnn_has_the_papers_blind_spot() -> None:
    """Each masked layer moves one row up for at most its reach to the right: beyond that diagonal nothing is seen."""
    row, col, first_reach = 12, 4, 3
    model = tiny_model("pixelcnn", shape=(1, 15, 19), layers=6, channels=24)
    seen = pixels_that_matter(model, row, col)
    for up in range(1, 10):
        rightmost = col + min(first_reach + max(0, up - 1), first_reach + 6)
        assert not seen[row - up, rightmost + 1 :].any()
    assert seen[row - 1, col + first_reach]
    assert seen[row, :col].all()


def test_simple_variant_has_as_many_masked_convolutions_as_layers() -> None:
    model = tiny_model("pixelcnn", variant="simple", layers=5, batch_norm=True)
    assert sum(isinstance(module, MaskedConv2d) for module in model.modules()) == 5
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == 5


def bare(in_channels: int, out_channels: int, window: int) -> int:
    return in_channels * out_channels * window


def test_parameter_count_of_gated() -> None:
    """F = 8, 3×3, two layers, three colours, categorical of 4 levels, head of 10: counted by hand."""
    first = bare(3, 16, 2 * 3) + 16 + bare(16, 16, 1) + bare(3, 16, 1 + 1) + 16
    second = bare(8, 16, 2 * 3) + 16 + bare(16, 16, 1) + bare(8, 16, 1 + 1) + 16 + bare(8, 8, 1) + 8
    head = bare(8, 10, 1) + 10 + bare(10, 12, 1) + 12
    model = tiny_model(shape=(3, 8, 8), levels=4, channels=8, head_channels=10)
    assert model.num_parameters() == first + second + head == 2278


def test_parameter_count_of_pixelcnn() -> None:
    """h = 4, one block, one grey colour of 2 levels, single 1×1 head: counted by hand."""
    first = bare(1, 8, 3 * 7 + 3) + 8
    block = bare(8, 4, 1) + 4 + bare(4, 4, 3 + 2) + 4 + bare(4, 8, 1) + 8
    head = bare(8, 1, 1) + 1
    model = tiny_model("pixelcnn", "bernoulli", shape=(1, 8, 8), channels=4, layers=1, head_channels=0)
    assert model.num_parameters() == first + block + head == 369


@pytest.mark.parametrize(("mask", "colours", "k"), list(itertools.product(Mask, (1, 3), (3, 7))))
def test_masked_convolution_is_the_papers(mask: Mask, colours: int, k: int) -> None:
    """One k×k kernel under the mask of 1601.06759, figure 2, put together from the two cropped kernels."""
    layer = MaskedConv2d(6, 9, kernel_size=k, mask=mask, colours=colours)
    reach = k // 2
    kernel = torch.zeros(9, 6, k, k)
    kernel[:, :, :reach] = layer.above.weight.detach()
    row = layer.row.weight.detach()[:, :, 0]
    kernel[:, :, reach, : row.shape[-1]] = row
    for out, inp in itertools.product(range(9), range(6)):
        out_colour, in_colour = out * colours // 9, inp * colours // 6
        if not (in_colour < out_colour or (mask is Mask.B and in_colour == out_colour)):
            kernel[out, inp, reach, reach] = 0
    x = torch.randn(2, 6, 8, 9, generator=torch.Generator().manual_seed(0))
    expected = F.conv2d(x, kernel, layer.row.bias, padding=reach)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def window_of(layer: ShiftedConv2d) -> torch.Tensor:
    """(9, 9): inputs that reach the output at (4, 4)."""
    x = torch.rand(1, layer.in_channels, 9, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[..., 4, 4].sum(), x)
    return gradient[0].abs().sum(0) > 0


@pytest.mark.parametrize(
    ("layer", "rows", "cols"),
    [
        (rows_above(1, 1, rows=2, width=5), (2, 4), (2, 7)),
        (rows_above(1, 1, rows=2, width=5, own_row=True), (3, 5), (2, 7)),
        (this_row(1, 1, reach=3, mask=Mask.A, colours=1), (4, 5), (1, 4)),
        (this_row(1, 1, reach=3, mask=Mask.B, colours=1), (4, 5), (1, 5)),
        (this_row(3, 6, reach=3, mask=Mask.A, colours=3, gates=2), (4, 5), (1, 5)),
    ],
)
def test_windows(layer: ShiftedConv2d, rows: tuple[int, int], cols: tuple[int, int]) -> None:
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[slice(*rows), slice(*cols)] = True
    assert torch.equal(window_of(layer), expected)


@pytest.mark.parametrize("options", [{}, {"mask": Mask.B, "reach": 0, "colours": 1}])
def test_one_colour_group_needs_no_mask(options: dict[str, Any]) -> None:
    assert this_row(4, 4, **({"reach": 2, "mask": Mask.A, "colours": 1} | options)).mask_OIkk is None
