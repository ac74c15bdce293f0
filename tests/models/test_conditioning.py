"""What every family promises of labels."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from pixeltune.config import ImageSpec
from pixeltune.models import NO_LABEL, DensityModel, build_model
from pixeltune.models.conditioning import LabelBias, LabelMap
from pixeltune.models.layers import AddCondition
from pixeltune.models.pixelcnnpp import CHANNEL_SETS, at_resolution_of
from tests.support.model_kinds import NETWORK_KINDS
from tests.support.tiny_models import all_images, exact_log_prob, random_levels, tiny_config, tiny_model

every_conditional = pytest.mark.parametrize(
    ("family", "colour_order", "conditioning"),
    [(*kind, conditioning) for kind, conditioning in itertools.product(NETWORK_KINDS, ("bias", "map"))],
)
CLASSES = 3
"""Of the tiny models."""


def thetas(model: DensityModel, *labels: int) -> torch.Tensor:
    """θ of one image under each label."""
    x = random_levels(model, 1).expand(len(labels), -1, -1, -1)
    return model.parameters_of(model.scale(x), torch.tensor(labels))


@every_conditional
def test_all_images_sum_to_one_given_any_label(family: str, colour_order: str, conditioning: str) -> None:
    model = tiny_model(family, shape=(2, 2, 2), colour_order=colour_order, conditioning=conditioning)
    x = all_images(model)
    for label in (NO_LABEL, *range(CLASSES)):
        total = exact_log_prob(model, x, torch.full((len(x),), label)).exp().sum().item()
        assert total == pytest.approx(1, abs=1e-12)


@every_conditional
def test_the_label_matters_to_every_parameter(family: str, colour_order: str, conditioning: str) -> None:
    """Wide enough that each colour has a ReLU that is alive."""
    model = tiny_model(family, colour_order=colour_order, conditioning=conditioning, channels=60, head_channels=0)
    theta = thetas(model, 0, 1, NO_LABEL)
    assert (theta[0] != theta[1]).all()
    assert (theta[0] != theta[2]).all()


@every_conditional
def test_a_label_that_is_not_given_is_none(family: str, colour_order: str, conditioning: str) -> None:
    model = tiny_model(family, colour_order=colour_order, conditioning=conditioning)
    x = random_levels(model, 2)
    assert torch.equal(model.log_prob(x), model.log_prob(x, torch.full((2,), NO_LABEL)))


def parameters_without_gradient(model: DensityModel) -> list[str]:
    model.train().loss(random_levels(model, CLASSES), torch.arange(CLASSES)).mean().backward()
    return [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]


@every_conditional
def test_every_parameter_gets_a_gradient(family: str, colour_order: str, conditioning: str) -> None:
    model = tiny_model(family, shape=(3, 8, 8), colour_order=colour_order, conditioning=conditioning)
    assert parameters_without_gradient(model) == []


@pytest.mark.parametrize("conditioning", ["bias", "map"])
def test_every_parameter_gets_a_gradient_at_several_resolutions(conditioning: str) -> None:
    model = tiny_model("pixelcnnpp", shape=(3, 8, 8), conditioning=conditioning, stages=3)
    assert parameters_without_gradient(model) == []


@pytest.mark.parametrize("variant", ["residual", "simple"])
def test_every_masked_convolution_of_pixelcnn_adds_the_label(variant: str) -> None:
    model = tiny_model("pixelcnn", variant=variant, layers=3, conditioning="bias")
    weights = [name for name, _ in model.named_parameters() if name.endswith("label.V.weight")]
    assert len(weights) == {"residual": 1 + 3, "simple": 3}[variant]


def test_both_stacks_of_gated_and_both_streams_of_pixelcnnpp_add_the_label() -> None:
    gated = tiny_model("gated", layers=3, conditioning="bias")
    assert sum(isinstance(module, AddCondition) for module in gated.modules()) == 2 * 3
    plusplus = tiny_model("pixelcnnpp", shape=(3, 8, 8), layers=2, stages=2, conditioning="bias")
    assert sum(isinstance(module, AddCondition) for module in plusplus.modules()) == 2 * (4 + 5)


@pytest.mark.parametrize(
    ("variant", "blocks"), [("plain", 3), ("nin", 3 + 3), ("autoregressive_channel", 3 * (1 + CHANNEL_SETS))]
)
def test_every_block_of_small_pixelcnnpp_adds_the_label(variant: str, blocks: int) -> None:
    model = tiny_model("pixelcnnpp", variant=variant, layers=3, conditioning="bias")
    weights = [name for name, _ in model.named_parameters() if name.endswith("label.V.weight")]
    assert len(weights) == 2 * blocks


def test_an_unconditional_model_has_no_label_weights_and_ignores_labels() -> None:
    model = tiny_model()
    x = random_levels(model, 2)
    assert torch.equal(model.log_prob(x), model.log_prob(x, torch.tensor([0, 1])))
    assert not any("label" in name or "conditioning" in name for name in model.state_dict())


def test_a_bias_is_one_pixel_wide_and_a_map_differs_between_pixels() -> None:
    like, label = torch.zeros(2, 3, 4, 5), torch.tensor([1, NO_LABEL])
    assert LabelBias(3)(label, like).flatten(1).tolist() == [[0, 1, 0], [0, 0, 0]]
    s = LabelMap(3, 7, 4, 5)(label, like)
    assert s.shape == (2, 7, 4, 5)
    assert s.std((2, 3)).min() > 0


def test_a_map_is_averaged_where_the_resolution_is_lower() -> None:
    s = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert at_resolution_of(torch.zeros(1, 9, 2, 2), s).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert at_resolution_of(torch.zeros(1, 9, 4, 4), s) is s
    one_pixel = s[..., :1, :1]
    assert at_resolution_of(torch.zeros(1, 9, 2, 2), one_pixel) is one_pixel


@pytest.mark.parametrize("classes", [1, 2, 1000])
@pytest.mark.parametrize("conditioning", ["bias", "map"])
def test_any_number_of_classes(classes: int, conditioning: str) -> None:
    config = tiny_config(conditioning=conditioning)
    model = build_model(config, ImageSpec(1, 4, 4, 2, num_classes=classes))
    assert model.log_prob(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([classes - 1])).isfinite().all()


# --- Label dropout ----------------------------------------------------------------------------------------------------


def withheld(model: DensityModel, seed: int, monkeypatch: pytest.MonkeyPatch, count: int = 2000) -> torch.Tensor:
    """(count,): which labels of a training batch the network does not see."""
    seen: list[Any] = []
    monkeypatch.setattr(model, "log_prob_given", lambda x, label_B, *_z: seen.append(label_B) or torch.zeros(len(x)))
    torch.manual_seed(seed)
    model.loss(torch.zeros(count, *model.form.shape, dtype=torch.uint8), torch.ones(count, dtype=torch.int64))
    assert set(seen[0].unique().tolist()) <= {NO_LABEL, 1}
    return seen[0] == NO_LABEL


@pytest.mark.parametrize("family", ["gated", "pixelvae"])
def test_labels_are_withheld_in_training_only(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound has a loss of its own."""
    model = tiny_model(family, shape=(1, 2, 2), conditioning="bias", label_dropout=0.25)
    assert not withheld(model, 0, monkeypatch).any()
    model.train()
    first = withheld(model, 0, monkeypatch)
    assert 0.2 < first.float().mean() < 0.3
    assert torch.equal(withheld(model, 0, monkeypatch), first)
    assert not torch.equal(withheld(model, 1, monkeypatch), first)


def test_no_label_is_withheld_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not withheld(tiny_model(shape=(1, 2, 2), conditioning="map").train(), 0, monkeypatch).any()
