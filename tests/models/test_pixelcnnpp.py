"""PixelCNN++ in the numbers and formulas of its reference code, openai/pixel-cnn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pixeltune.audit import audit
from pixeltune.config import ImageSpec, TrialConfig
from pixeltune.models import DensityModel, build_model
from pixeltune.models.pixelcnnpp import (
    AutoregressiveChannelBlock,
    PixelCNNPP,
    concat_elu,
    down_right_shifted_conv2d,
    down_right_shifted_deconv2d,
    down_shift,
    down_shifted_conv2d,
    down_shifted_deconv2d,
    nin,
    right_shift,
)
from pixeltune.models.weight_norm import WeightNormed
from tests.support.tiny_models import random_levels, tiny_config, tiny_model

CONVOLUTIONS = [
    down_shifted_conv2d,
    down_right_shifted_conv2d,
    down_shifted_deconv2d,
    down_right_shifted_deconv2d,
    nin,
]


def pp_model(shape: tuple[int, int, int] = (3, 8, 8), levels: int = 256, **model: Any) -> DensityModel:
    return tiny_model("pixelcnnpp", "logistic_mixture", shape=shape, levels=levels, **{"layers": 1} | model)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("channels", "parameters"), [(160, 53_659_080), (192, 77_244_104)])
def test_parameter_count_of_the_reference(channels: int, parameters: int) -> None:
    """The defaults are the code's network on CIFAR-10; with 192 channels it is the paper's."""
    config = TrialConfig.build(
        {"data": {"name": "cifar10"}, "model": {"family": "pixelcnnpp"}, "likelihood": {"name": "logistic_mixture"}}
    )
    with torch.device("meta"):
        model = build_model(config.override({"model.channels": channels}), ImageSpec(3, 32, 32, 256))
    assert model.num_parameters() == parameters
    assert config.model.dropout == 0.5


# --- Convolutions -----------------------------------------------------------------------------------------------------


def effective(layer: WeightNormed) -> torch.Tensor:
    """g·V/‖V‖ by hand, with output channels first, and the kernel as a convolution slides it."""
    conv: Any = layer.conv
    weights = conv.parametrizations.weight
    V, g = weights.original1, weights.original0.flatten()
    if isinstance(conv, torch.nn.ConvTranspose2d):
        V = V.transpose(0, 1)
    norm = V.square().sum((1, 2, 3), keepdim=True).sqrt()
    return g[:, None, None, None] * V / norm


@pytest.mark.parametrize("build", CONVOLUTIONS)
def test_weights_are_normed_per_output_channel(build: Any) -> None:
    layer = build(4, 6).double()
    with torch.no_grad():
        layer.g.mul_(torch.arange(1.0, 7.0).view_as(layer.g))
    weight = layer.conv.weight.transpose(0, 1) if "deconv" in build.__name__ else layer.conv.weight
    torch.testing.assert_close(weight, effective(layer))
    torch.testing.assert_close(weight.flatten(1).norm(dim=1), torch.arange(1.0, 7.0, dtype=torch.float64))
    assert 0.03 < layer.conv.parametrizations.weight.original1.std() < 0.07
    assert not layer.b.any()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [(2, 3), (1, 3)])
def test_down_shifted_convolution(kernel_size: tuple[int, int], stride: int) -> None:
    layer, x = down_shifted_conv2d(4, 6, kernel_size=kernel_size, stride=stride).double(), normal(2, 4, 8, 6)
    kh, kw = kernel_size
    padded = F.pad(x, ((kw - 1) // 2, (kw - 1) // 2, kh - 1, 0))
    torch.testing.assert_close(layer(x), F.conv2d(padded, effective(layer), layer.b, stride))
    assert layer(x).shape == (2, 6, 8 // stride, 6 // stride)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [(2, 2), (2, 1)])
def test_down_right_shifted_convolution(kernel_size: tuple[int, int], stride: int) -> None:
    layer, x = down_right_shifted_conv2d(4, 6, kernel_size=kernel_size, stride=stride).double(), normal(2, 4, 8, 6)
    kh, kw = kernel_size
    padded = F.pad(x, (kw - 1, 0, kh - 1, 0))
    torch.testing.assert_close(layer(x), F.conv2d(padded, effective(layer), layer.b, stride))
    assert layer(x).shape == (2, 6, 8 // stride, 6 // stride)


def whole_deconvolution(layer: WeightNormed, x: torch.Tensor) -> torch.Tensor:
    """What TensorFlow's VALID transposed convolution gives for (stride·H + kh − 1, stride·W + kw − 1)."""
    weight = effective(layer).transpose(0, 1)
    kh, kw = weight.shape[2:]
    H, W = x.shape[2:]
    y = x.new_zeros(len(x), weight.shape[1], 2 * H + kh - 1, 2 * W + kw - 1) + layer.b[:, None, None]
    for i in range(H):
        for j in range(W):
            y[:, :, 2 * i : 2 * i + kh, 2 * j : 2 * j + kw] += torch.einsum("bi,iokl->bokl", x[:, :, i, j], weight)
    return y


def test_transposed_convolutions_crop_as_the_reference() -> None:
    x = normal(2, 4, 3, 5)
    ds, drs = down_shifted_deconv2d(4, 6).double(), down_right_shifted_deconv2d(4, 6).double()
    H, W = 2 * 3 + 1, 2 * 5 + 2
    torch.testing.assert_close(ds(x), whole_deconvolution(ds, x)[:, :, : H - 1, 1 : W - 1])
    torch.testing.assert_close(drs(x), whole_deconvolution(drs, x)[:, :, :-1, :-1])


def test_shifts_move_by_one_and_leave_zeros() -> None:
    x = torch.arange(1.0, 7.0).reshape(1, 1, 2, 3)
    assert down_shift(x).flatten().tolist() == [0, 0, 0, 1, 2, 3]
    assert right_shift(x).flatten().tolist() == [0, 1, 2, 0, 4, 5]


def test_concat_elu_keeps_both_signs() -> None:
    x = normal(1, 2, 3, 3)
    torch.testing.assert_close(concat_elu(x), torch.cat([F.elu(x), F.elu(-x)], 1))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_concat_elu_in_training_is_the_same_and_so_is_its_gradient(
    dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    x = (5 * normal(2, 3, 8, 8)).to(dtype).contiguous(memory_format=memory_format)
    x[0, 0, 0, :3] = torch.tensor([0.0, -1e-4, 60.0])
    grad = normal(2, 6, 8, 8).to(dtype)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = concat_elu(ours)
    y.backward(grad)
    expected = torch.cat([F.elu(theirs), F.elu(-theirs)], 1)
    expected.backward(grad)
    assert y.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(y, expected)
    # Where elu is near −1, its slope, elu + 1, is as exact as a number near 1 is.
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=2 * eps, atol=4 * eps)


# --- What it sees -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "col"), [(12, 0), (12, 15), (13, 6), (15, 15), (0, 7)])
@pytest.mark.parametrize("stages", [2, 3])
def test_down_sampling_leaves_no_blind_spot(stages: int, row: int, col: int) -> None:
    model = pp_model((1, 16, 16), stages=stages, layers=2)
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.parameters_of(x)[..., row, col].sum(), x)
    past = (torch.arange(256) < row * 16 + col).reshape(16, 16)
    near = past & (torch.arange(16)[:, None] > row - 7) & ((torch.arange(16) - col).abs() < 7)
    seen = gradient[0, 0] != 0
    assert not (seen & ~past).any()
    assert (seen | ~near).all()


def test_one_stage_sees_as_far_as_its_convolutions_reach() -> None:
    """One pixel by the first layer and one more by each of the four convolutions of two blocks: 5 each way; u starts
    two rows up. One more up and to the left, where ul reads the u of its neighbours, which the own row lacks."""
    report = audit(pp_model((1, 24, 24), stages=1, layers=1, channels=8))
    assert (report.receptive_rows, report.receptive_cols, report.blind_spot) == (8, 12, 1)


SMALL_VARIANTS = ["plain", "nin", "autoregressive_channel"]


@pytest.mark.parametrize("variant", SMALL_VARIANTS)
@pytest.mark.parametrize(("layers", "above", "left"), [(2, (7, 12), 5), (3, (9, 16), 7), (4, (11, 20), 9)])
def test_small_variants_see_as_far_as_their_blocks(
    variant: str, layers: int, above: tuple[int, int], left: int
) -> None:
    """A full rectangle above, as wide as the paper's (11 and 15) but for the column that ul's skip adds, and a row to
    the left. 1×1 blocks add nothing to it."""
    rows, cols = above
    model = pp_model((1, 16, 32), variant=variant, layers=layers)
    x = torch.rand(1, 1, 16, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.parameters_of(x)[..., 15, 16].sum(), x)
    expected = torch.zeros(16, 32, dtype=torch.bool)
    expected[15 - rows : 15, 16 - cols // 2 : 16 + cols // 2] = True
    expected[15, 16 - left : 16] = True
    assert torch.equal(gradient[0, 0] != 0, expected)
    report = audit(pp_model((1, 16, 32), variant=variant, layers=layers))
    assert (report.receptive_rows, report.receptive_cols, report.blind_spot) == (rows + 1, cols, 1)


@pytest.mark.parametrize("variant", SMALL_VARIANTS)
@pytest.mark.parametrize("nonlinearity", ["concat_elu", "elu", "relu"])
def test_small_variants_of_every_nonlinearity_pass_the_audit(variant: str, nonlinearity: str) -> None:
    report = audit(pp_model((3, 8, 12), variant=variant, layers=2, nonlinearity=nonlinearity))
    assert report.max_change <= 1e-11


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("nonlinearity", ["concat_elu", "elu", "relu"])
def test_all_depths_and_nonlinearities_pass_the_audit(stages: int, nonlinearity: str) -> None:
    report = audit(pp_model((3, 8, 12), stages=stages, nonlinearity=nonlinearity))
    assert report.max_change <= 1e-11


def test_the_same_structure_is_audited_once() -> None:
    """torch makes a new class for each layer whose weight is normed."""
    audit(pp_model(channels=11))
    assert audit(pp_model(channels=11)).cached


# --- Initialisation by data -------------------------------------------------------------------------------------------


def initialised(
    dropout: float = 0.0, mode: bool = True, *, variant: str = "full", conditioning: str = "none"
) -> tuple[DensityModel, torch.Tensor]:
    shape = {"stages": 3, "layers": 1} if variant == "full" else {"stages": 1, "layers": 2}
    settings = {"variant": variant, "conditioning": conditioning, "dropout": dropout, **shape}
    model = pp_model(channels=12, **settings).train(mode)
    x = random_levels(model, 16)
    torch.manual_seed(5)
    model.initialise(x)
    return model, x


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("variant", ["full", *SMALL_VARIANTS])
def test_every_layer_comes_out_standardised(variant: str, dropout: float) -> None:
    """In the pass of the same dropout. Each layer's input is what the layers before it give after their own fit."""
    model, x = initialised(dropout, variant=variant)
    outputs: dict[str, tuple[float, torch.Tensor]] = {}

    def note(name: str) -> Any:
        return lambda layer, _inputs, y: outputs.update({name: (layer.init_scale, y)})

    for name, module in model.named_modules():
        if isinstance(module, WeightNormed):
            module.register_forward_hook(note(name))
    torch.manual_seed(5)
    model.parameters_of(model.scale(x))
    assert len(outputs) == sum(isinstance(module, WeightNormed) for module in model.modules())
    for name, (init_scale, y) in outputs.items():
        assert init_scale == (0.1 if name.endswith("conv_out") else 1.0)
        deviation = y.std((0, 2, 3), correction=0)
        torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros_like(deviation), rtol=0, atol=1e-6)
        torch.testing.assert_close(deviation, torch.full_like(deviation, init_scale), rtol=1e-4, atol=0)


def test_a_channel_without_variance_keeps_its_norm() -> None:
    """The coarsest stage of 4×4 images is one pixel, above which u has seen nothing."""
    model = pp_model((1, 4, 4), stages=3, channels=12).float().train()
    x = random_levels(model, 16)
    model.initialise(x)
    norms = torch.cat([module.g.flatten() for module in model.modules() if isinstance(module, WeightNormed)])
    assert norms.max() < 1e3
    model.loss(x).mean().backward()
    assert torch.nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None) < 1e4


def test_initialisation_is_fixed_by_config_batch_and_seed() -> None:
    (first, x), (second, _) = initialised(0.5), initialised(0.5)
    assert torch.equal(first.log_prob(x[:2]), first.eval().log_prob(x[:2])) is False
    assert torch.equal(first.eval().log_prob(x), second.eval().log_prob(x))
    other = pp_model(stages=3, channels=12, dropout=0.5).train()
    torch.manual_seed(5)
    other.initialise(random_levels(other, 16, seed=1))
    assert not torch.equal(other.eval().log_prob(x), first.log_prob(x))


def test_initialisation_leaves_no_trace_but_the_weights() -> None:
    model, x = initialised(mode=False)
    assert not model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.log_prob(x)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_other_families_have_nothing_to_initialise() -> None:
    model = tiny_model("gated")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.initialise(random_levels(model, 4))
    assert not model.is_initialised_by_data
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_every_block_takes_its_skips() -> None:
    """n blocks a stage down, n and then n + 1 back: both stacks end empty."""
    config = tiny_config("pixelcnnpp", layers=2, stages=3).model
    network = PixelCNNPP(config, in_channels=3, num_params=5)  # type: ignore[arg-type]
    kinds = [[type(layer).__name__ for layer in side] for side in (network.up_pass, network.down_pass)]
    assert kinds[0] == ["Block", "Block", "DownSampling"] * 2 + ["Block", "Block"]
    assert kinds[1] == ["Block", "Block", *["UpSampling", "Block", "Block", "Block"] * 2]


# --- The small variants -----------------------------------------------------------------------------------------------


def small_network(variant: str, layers: int, channels: int = 12) -> Any:
    return pp_model(variant=variant, layers=layers, channels=channels).network


@pytest.mark.parametrize(
    ("variant", "kinds"),
    [
        ("plain", "RRRRR"),
        ("nin", "RRnnnRRnnnR"),
        ("autoregressive_channel", "CCCCC"),
    ],
)
def test_small_variants_are_straight_stacks(variant: str, kinds: str) -> None:
    """R a regular block, n one of 1×1 convolutions, C a regular one with its sets; nothing down-samples or skips."""

    def kind(layer: Any) -> str:
        if isinstance(layer, AutoregressiveChannelBlock):
            return "C"
        return "n" if layer.u.conv_out.conv.kernel_size == layer.ul.conv_out.conv.kernel_size == (1, 1) else "R"

    network = small_network(variant, layers=5)
    assert "".join(kind(layer) for layer in network.up_pass) == kinds
    assert len(network.down_pass) == 0
    assert all(layer.u.nin_skip is None and layer.ul.nin_skip is not None for layer in network.up_pass)


@pytest.mark.parametrize(
    ("channels", "sizes"), [(12, [3, 3, 3, 3]), (9, [2, 2, 2, 3]), (4, [1] * 4), (3, [1] * 3), (1, [1])]
)
def test_channel_sets_are_as_equal_as_can_be(channels: int, sizes: list[int]) -> None:
    block = small_network("autoregressive_channel", 1, channels).up_pass[0]
    assert block.u_sets.sizes == block.ul_sets.sizes == sizes


def test_a_set_reads_itself_and_the_updated_sets_before_it() -> None:
    sets = small_network("autoregressive_channel", 1, channels=12).up_pass[0].u_sets
    x = normal(1, 12, 1, 1)
    depends = torch.autograd.functional.jacobian(lambda x: sets(x, None), x).reshape(12, 12) != 0
    set_n = torch.arange(12) // 3
    # Each feature of a set reads every one of its own and earlier sets.
    assert torch.equal(depends, set_n <= set_n[:, None])
    first = sets.blocks[0](x[:, :3])
    second = sets.blocks[1](x[:, 3:6], a=first)
    assert torch.equal(sets(x, None)[:, :6], torch.cat([first, second], dim=1))


@pytest.mark.parametrize("variant", SMALL_VARIANTS)
@pytest.mark.parametrize("conditioning", ["bias", "map"])
def test_small_variants_initialise_with_labels(variant: str, conditioning: str) -> None:
    model, x = initialised(variant=variant, conditioning=conditioning)
    assert model.is_initialised_by_data
    assert model.log_prob(x, torch.arange(len(x)) % 3).isfinite().all()


def test_the_small_variants_differ_by_their_one_by_one_blocks() -> None:
    """F = 8, concat_elu doubles what a convolution reads: counted by hand, g and b an output feature each."""

    def layer(in_features: int, out_features: int, window: int = 1) -> int:
        return 2 * in_features * out_features * window + 2 * out_features

    def block(features: int, window: int, skip_features: int) -> int:
        skip = layer(skip_features, features) if skip_features else 0
        return layer(features, features, window) + skip + layer(features, 2 * features, window)

    plain, nins, sets = (pp_model(variant=variant, layers=2, channels=8).num_parameters() for variant in SMALL_VARIANTS)
    assert nins - plain == 3 * (block(8, 1, 0) + block(8, 1, 8))
    assert sets - plain == 2 * 2 * sum(block(2, 1, skip_features) for skip_features in (0, 2, 4, 6))
