"""The audit passes every healthy model and rejects every way to cheat, in a class or in one instance."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixeltune.audit import audit
from pixeltune.config import Causality
from pixeltune.errors import AuditError
from pixeltune.likelihoods import Categorical, LogisticMixture
from pixeltune.models import NETWORKS, DensityModel
from pixeltune.models.gated import GatedPixelCNN
from pixeltune.models.layers import Mask, MaskedConv2d, rows_above, this_row
from pixeltune.models.pixelcnn import PixelCNN
from pixeltune.models.pixelcnnpp import PixelCNNPP
from tests.support.model_kinds import NETWORK_KINDS, every_kind_and, every_network
from tests.support.tiny_models import tiny_model

PAIR = r"θ at \(row \d+, col \d+(, colour \d)?\), drawn in call \d+, must not depend on \(row \d+, col \d+, colour \d\)"


@pytest.fixture(autouse=True)
def _no_earlier_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["pixeltune.audit"], "_passed", {})
    monkeypatch.setattr(sys.modules["pixeltune.audit"], "_passed_narrow", set())


def audited_model(family: str = "gated", likelihood: str = "categorical", **changes: Any) -> DensityModel:
    plain = {"shape": (3, 7, 6), "levels": 4, "num_classes": 4, "seed": 0, "channels": 12, "head_channels": 12}
    return tiny_model(family, likelihood, **(plain | changes)).float()


@every_kind_and(C=[1, 3])
def test_healthy_models_pass(family: str, colour_order: str, likelihood: str, C: int) -> None:
    levels = 2 if likelihood == "bernoulli" else 17
    report = audit(audited_model(family, likelihood, shape=(C, 7, 6), levels=levels, colour_order=colour_order))
    assert report.max_change <= 1e-11
    assert report.max_mass_error <= 1e-12
    assert not report.cached


@every_network
@pytest.mark.parametrize("conditioning", ["bias", "map"])
def test_healthy_conditional_models_pass(family: str, colour_order: str, conditioning: str) -> None:
    report = audit(audited_model(family, colour_order=colour_order, conditioning=conditioning))
    assert report.max_change <= 1e-11


@every_kind_and(**{"split,C": [(2, 1), (2, 3), (3, 2)]})
def test_healthy_split_models_pass(family: str, colour_order: str, likelihood: str, split: int, C: int) -> None:
    levels = 2 if likelihood == "bernoulli" else 17
    shape = (C, 4 * split, 3 * split)
    report = audit(
        audited_model(family, likelihood, shape=shape, levels=levels, colour_order=colour_order, split=split)
    )
    assert report.max_change <= 1e-11
    assert report.max_mass_error <= 1e-12


@every_network
def test_tiles_of_one_pixel_pass_for_there_is_no_earlier_one(family: str, colour_order: str) -> None:
    """All are drawn in the first call, which nothing comes before."""
    report = audit(audited_model(family, shape=(1, 4, 4), colour_order=colour_order, split=4))
    assert (report.receptive_rows, report.receptive_cols, report.blind_spot) == (1, 1, 0)


def test_receptive_field_of_a_split_gated_is_that_of_a_tile() -> None:
    report = audit(audited_model(shape=(1, 24, 26), layers=4, head_channels=0, split=2))
    assert (report.receptive_rows, report.receptive_cols, report.blind_spot) == (1 + 1 + 4, 4 + 1 + 4, 0)


def test_simple_variant_with_batch_norm_passes_from_train_mode() -> None:
    model = audited_model("pixelcnn", variant="simple", batch_norm=True, layers=3)
    audit(model.train())
    assert model.training


def test_receptive_field_of_gated() -> None:
    """Own row, the row above, and one more a layer; a reach of one a layer to both sides."""
    report = audit(audited_model(shape=(1, 12, 13), layers=4, head_channels=0))
    assert (report.receptive_rows, report.receptive_cols, report.blind_spot) == (1 + 1 + 4, 4 + 1 + 4, 0)


def test_blind_spot_of_pixelcnn() -> None:
    """First 3×3, then one 3×3 block: r = 2 rows up, 2 columns to both sides; row −1 is seen one column short."""
    report = audit(audited_model("pixelcnn", shape=(1, 12, 13), layers=1, first_kernel_size=3, channels=40))
    assert (report.receptive_rows, report.receptive_cols, report.blind_spot) == (3, 5, 1)


def test_model_is_left_as_it_was() -> None:
    model = audited_model()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    audit(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_same_structure_is_examined_once() -> None:
    first, second = audited_model(shape=(3, 6, 7)), audited_model(shape=(3, 6, 7))
    assert not audit(first).cached
    assert audit(second).cached
    assert not audit(audited_model(shape=(3, 6, 8))).cached


# --- Leaks ------------------------------------------------------------------------------------------------------------


def first_layer_with_mask_b(network: Any, colours: int) -> None:
    if isinstance(network, PixelCNN):
        width = network.body[0].row.out_channels
        network.body[0] = MaskedConv2d(3, width, kernel_size=7, mask=Mask.B, colours=colours)
    elif isinstance(network, PixelCNNPP):
        network.ul_first_left.conv.pad = (-1, 1, 1, 0)  # the pixel itself, after the shift to the right
    else:
        layer = network.layers[0]
        layer.horizontal = this_row(3, layer.horizontal.out_channels, reach=1, mask=Mask.B, colours=colours, gates=2)


def layer_with_the_next_row(network: Any, colours: int) -> None:
    if isinstance(network, PixelCNN):
        layer = [module for module in network.modules() if isinstance(module, MaskedConv2d)][-1].above
    elif isinstance(network, PixelCNNPP):
        layer = [*network.up_pass, *network.down_pass][-1].u.conv_out.conv
    else:
        layer = network.layers[-1].vertical
    left, right, top, bottom = layer.pad
    layer.pad = (left, right, top - 1, bottom + 1)


def vertical_stack_with_the_own_row(network: Any, colours: int) -> None:
    old = network.layers[0].vertical
    network.layers[0].vertical = rows_above(3, old.out_channels, rows=2, width=3, own_row=True)


def colour_mask_off_by_one(network: Any, colours: int) -> None:
    mask_OIkk = network.head[-1].mask_OIkk
    out, inp = (torch.arange(size) * colours // size for size in mask_OIkk.shape[:2])
    mask_OIkk[..., 0, 0] = inp <= out[:, None] + 1


def batch_norm_in_train_mode(network: Any, colours: int) -> None:
    if isinstance(network, PixelCNNPP):
        norm = nn.BatchNorm2d(network.nin_out.conv.in_channels, track_running_stats=False)
        network.nin_out = nn.Sequential(norm, network.nin_out)
    else:
        norm = nn.BatchNorm2d(network.head[1].in_channels, track_running_stats=False)
        network.head = nn.Sequential(norm, *network.head)


def hook_that_peeks(network: Any, colours: int) -> None:
    network.register_forward_hook(lambda _, inputs, theta: theta + 1e-3 * inputs[0].roll(-1, dims=-1)[:, :1])


LEAKS: list[tuple[str, str, Callable[[Any, int], None]]] = [
    *((*kind, first_layer_with_mask_b) for kind in NETWORK_KINDS),
    *((*kind, layer_with_the_next_row) for kind in NETWORK_KINDS),
    *((*kind, batch_norm_in_train_mode) for kind in NETWORK_KINDS),
    *((*kind, hook_that_peeks) for kind in NETWORK_KINDS),
    *((*kind, colour_mask_off_by_one) for kind in NETWORK_KINDS if kind[1] == "mask"),
    *itertools.product(("gated",), ("mask", "likelihood"), (vertical_stack_with_the_own_row,)),
]
every_leak = pytest.mark.parametrize(("family", "colour_order", "sabotage"), LEAKS)


@every_leak
def test_a_leak_in_one_instance_is_rejected(
    family: str, colour_order: str, sabotage: Callable[[Any, int], None]
) -> None:
    audit(audited_model(family, colour_order=colour_order))
    model = audited_model(family, colour_order=colour_order)
    sabotage(model.network, 3 if colour_order == "mask" else 1)
    with pytest.raises(AuditError, match=PAIR):
        audit(model)


@every_leak
def test_a_leak_in_a_class_is_rejected_by_the_narrow_network(
    family: str, colour_order: str, sabotage: Callable[[Any, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = audited_model(family, colour_order=colour_order)
    kind = NETWORKS[healthy.config.model.family]

    class Leaky(kind):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            sabotage(self, 3 if colour_order == "mask" else 1)

    network = Leaky(healthy.config.model, in_channels=3, num_params=healthy.likelihood.num_params)
    model = DensityModel(network, healthy.likelihood, config=healthy.config, form=healthy.form)
    monkeypatch.setattr(sys.modules["pixeltune.audit"], "check_cuts", lambda _: 0.0)
    with pytest.raises(AuditError, match=PAIR):
        audit(model)


def test_the_named_pair_is_the_leak() -> None:
    """θ of (row 2, col 3, colour 1) reads (row 2, col 4, colour 0), through no gradient at all."""
    model = audited_model(head_channels=0)

    def leak(_: nn.Module, inputs: tuple[Tensor], theta: Tensor) -> Tensor:
        theta = theta.clone()
        theta[:, 4:8, 2, 3] += inputs[0][:, 0, 2, 4].detach()[:, None]
        return theta

    model.network.register_forward_hook(leak)
    with pytest.raises(AuditError) as caught:
        audit(model)
    assert str(caught.value) == (
        "θ at (row 2, col 3, colour 1), drawn in call 46, must not depend on "
        "(row 2, col 4, colour 0), drawn in call 48, but it does; the model is rejected"
    )


def tiles_that_peek(model: DensityModel) -> None:
    """θ of tile 0 reads tile 1 at its own offset: the two are drawn in the same call."""
    num_params = model.likelihood.num_params

    def leak(_: nn.Module, inputs: tuple[Tensor, ...], theta: Tensor) -> Tensor:
        theta = theta.clone()
        tile_1 = 1 if model.causality is Causality.SUBPIXEL else model.form.channels
        theta[:, :num_params] += 1e-3 * inputs[0][:, tile_1, None]
        return theta

    model.network.register_forward_hook(leak)


@every_network
def test_a_leak_between_tiles_is_rejected(family: str, colour_order: str) -> None:
    model = audited_model(family, shape=(3, 6, 8), colour_order=colour_order, split=2)
    tiles_that_peek(model)
    with pytest.raises(AuditError, match=PAIR):
        audit(model)


# --- Other ways to be wrong -------------------------------------------------------------------------------------------


class Blind(GatedPixelCNN):
    """Leaves the own row out of every vertical layer, as popular ports do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for layer in self.layers:
            layer.vertical.pad = self.layers[0].vertical.pad


class Constant(GatedPixelCNN):
    def forward(self, x_BCHW: Tensor, s: Tensor | None = None) -> Tensor:
        return super().forward(torch.zeros_like(x_BCHW), s)


@pytest.mark.parametrize("colour_order", ["mask", "likelihood"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [(Blind, "must depend on every earlier sub-pixel"), (Constant, "must depend on some earlier sub-pixel")],
)
def test_a_network_that_misses_the_past_is_rejected(kind: type[GatedPixelCNN], message: str, colour_order: str) -> None:
    healthy = audited_model(colour_order=colour_order)
    network = kind(healthy.config.model, in_channels=3, num_params=healthy.likelihood.num_params)
    model = DensityModel(network, healthy.likelihood, config=healthy.config, form=healthy.form)
    with pytest.raises(AuditError, match=message):
        audit(model)


def test_an_instance_that_ignores_its_input_is_rejected() -> None:
    model = audited_model()
    model.network.register_forward_pre_hook(lambda _, inputs: (torch.zeros_like(inputs[0]),))
    with pytest.raises(AuditError, match="must depend on earlier sub-pixels"):
        audit(model)


class NoEdges(LogisticMixture):
    """Forgets that the outer bins reach to infinity."""

    def _log_mass(self, x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        return super()._log_mass(x.clamp(1, self.levels - 2), mean, log_scale)


class Generous(Categorical):
    """Its table is right, its nats are not."""

    def log_prob(self, theta: Tensor, x_BCHW: Tensor) -> Tensor:
        return super().log_prob(theta, x_BCHW) + 1e-6


class Clairvoyant(Categorical):
    """Scores a colour with logits that have seen the next one."""

    def log_prob(self, theta: Tensor, x_BCHW: Tensor) -> Tensor:
        return super().log_prob(theta, x_BCHW.flip(1))


@pytest.mark.parametrize("causality", Causality)
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoEdges, r"the probabilities of the 4 levels of colour 0 must sum to one, but sum to \d"),
        (Generous, "log_prob of a pixel of levels .* must be the sum of the logs"),
        (Clairvoyant, "log_prob of a pixel of levels .* must be the sum of the logs"),
    ],
)
def test_a_likelihood_that_does_not_sum_to_one_is_rejected(kind: type, message: str, causality: Causality) -> None:
    colour_order = "mask" if causality is Causality.SUBPIXEL else "likelihood"
    name = "logistic_mixture" if issubclass(kind, LogisticMixture) else "categorical"
    model = audited_model(likelihood=name, colour_order=colour_order)
    model.likelihood = kind(channels=3, levels=4, causality=causality)
    with pytest.raises(AuditError, match=message):
        audit(model)
