"""The three methods draw the same images, and the stepper's θ is the network's, position by position."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pixeltune.errors import ConfigError
from pixeltune.models import NO_LABEL, DensityModel, build_model
from pixeltune.sampling import METHODS, ModelStepper, RowSampler, SampleRequest, cached, naive, sample
from pixeltune.sampling.fixed_point import iterates
from pixeltune.sampling.stepping import Stepper
from tests.support.model_combinations import NETWORKS, Combination, covering, product
from tests.support.model_kinds import COUPLING_FAMILIES, NETWORK_KINDS, every_kind, every_network
from tests.support.pairwise import every_pair
from tests.support.tiny_models import tiny_model

TOLERANCE = 1e-10
STRUCTURES: dict[str, tuple[dict[str, Any], ...]] = {
    "pixelcnn": ({"layers": 1}, {"first_kernel_size": 3, "kernel_size": 5, "head_channels": 0}),
    "pixelcnn/simple": ({}, {"batch_norm": True, "layers": 3, "kernel_size": 7}),
    "gated": ({"layers": 1}, {"kernel_size": 5}, {"kernel_size": 7, "layers": 3, "head_channels": 0}),
    "pixelcnnpp": (
        {"stages": 1, "nonlinearity": "relu"},
        {"stages": 2, "layers": 1, "nonlinearity": "elu"},
        {"stages": 3, "layers": 1},
    ),
    "pixelvae": ({}, {"latent_conditioning": "map"}),
}
"""Depths, kernels and resolutions that the stepper has to tell apart; any other kind is tried as it comes."""


def structures(family: str, **settings: Any) -> list[dict[str, Any]]:
    return [settings | structure for structure in STRUCTURES.get(family, ({},))]


def lively_model(family: str, likelihood: str = "categorical", **changes: Any) -> DensityModel:
    """Return a model in float64, livened."""
    levels = 2 if likelihood == "bernoulli" else 9
    plain = {"shape": (3, 4, 8), "levels": levels, "seed": 1, "channels": 6, "head_channels": 6}
    return livened(tiny_model(family, likelihood, **(plain | changes)))


def livened(model: DensityModel) -> DensityModel:
    """The model, its weights made large enough, in every batch norm too, for a wrong feature to show."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for buffer in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.5
    return model


def features(model: DensityModel, label_B: Tensor) -> Tensor | None:
    latents = [model.draw_latent(torch.Generator().manual_seed(seed)) for seed in range(len(label_B))]
    like_BCHW = torch.zeros(len(label_B), *model.form.shape).double()
    return model.features(like_BCHW, label_B, torch.cat(latents).double())


def stepped_parameters(model: DensityModel, x_BCHW: Tensor, s: Tensor | None) -> Tensor:
    """θ of a known image, each of it read before what it predicts is given."""
    stepper, theta = ModelStepper(model, len(x_BCHW), s), None
    for row in range(stepper.height):
        stepper.enter(row)
        stepper.begin()
        for col in range(stepper.width):
            here = (..., slice(row, None, stepper.height), slice(col, None, stepper.width))
            known = torch.zeros_like(x_BCHW[here])
            for call in range(stepper.calls):
                now = stepper.parameters(col)
                if theta is None:
                    height, width = stepper.height * now.shape[-2], stepper.width * now.shape[-1]
                    theta = now.new_full((*now.shape[:-2], height, width), torch.nan)
                if stepper.calls > 1:
                    theta[:, call][here] = now[:, call]
                    known[:, call] = x_BCHW[here][:, call]
                else:
                    theta[here], known = now, x_BCHW[here]
                stepper.put(col, known)
    assert theta is not None
    return theta


def assert_same_theta(model: DensityModel) -> None:
    x_BCHW = torch.randint(model.form.levels, (2, *model.form.shape), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        s = features(model, torch.tensor([2, NO_LABEL]))
        expected = model.parameters_given(model.scale(x_BCHW), s)
        stepped = stepped_parameters(model, x_BCHW, s)
    # A θ that no pixel moves would hide an error.
    assert expected.std(dim=(-2, -1)).max() > 1e-3
    assert (stepped - expected).abs().max() <= TOLERANCE * max(1.0, float(expected.abs().max()))


@every_pair(
    {
        "family,colour_order": NETWORK_KINDS,
        "conditioning": ["none", "bias", "map"],
        "shape,split": [((3, 4, 8), 1), ((2, 8, 16), 2)],
    }
)
def test_stepped_theta_is_the_networks(
    family: str, colour_order: str, conditioning: str, shape: tuple[int, int, int], split: int
) -> None:
    for settings in structures(family, colour_order=colour_order, conditioning=conditioning, split=split):
        assert_same_theta(lively_model(family, shape=shape, **settings))


without_labels = pytest.mark.filterwarnings("ignore:images are drawn without a label")


@without_labels
@pytest.mark.parametrize("combination", covering(2), ids=str)
def test_all_methods_draw_the_same_images_for_any_two_settings_together(combination: Combination) -> None:
    assert_same_images(combination)


@without_labels
@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_all_methods_draw_the_same_images_of_every_combination(network: str) -> None:
    """2,439 models in all."""
    for combination in product(network):
        if not combination.reasons():
            assert_same_images(combination)


def assert_same_images(combination: Combination) -> None:
    model = livened(build_model(combination.config(), combination.form).double().eval())
    labels = None if combination.conditioning == "none" else [2, NO_LABEL]
    images = {method: sample(model, 2, labels=labels, seed=4, method=method) for method in METHODS}
    assert images["naive"].float().std() > 0, str(combination)
    for method, drawn in images.items():
        assert torch.equal(drawn, images["naive"]), f"{combination}: {method}"


@pytest.mark.parametrize("family", COUPLING_FAMILIES)
def test_coupled_tiles_are_stepped_through_together(family: str) -> None:
    for settings in structures(family, colour_order="likelihood", split=2, split_coupling="mixture"):
        assert_same_theta(lively_model(family, "logistic_mixture", shape=(3, 8, 16), **settings))


def test_cached_is_the_default() -> None:
    model, methods = lively_model("gated"), dict(METHODS)
    assert torch.equal(sample(model, 2), sample(model, 2, method="cached"))
    assert list(methods) == ["naive", "cached", "fixed_point"]


@every_network
def test_float32_draws_nearly_the_same_images(family: str, colour_order: str) -> None:
    """A rounding edge may flip a level, and then all that follows it; not many do in four images of 32 pixels."""
    model = lively_model(family, colour_order=colour_order).float()
    exact, stepped = (sample(model, 4, seed=2, method=method) for method in ("naive", "cached"))
    assert (exact == stepped).flatten(1).all(1).sum() >= 3


@every_network
def test_a_network_runs_once_to_be_cached(family: str, colour_order: str) -> None:
    """And never on pixels: what it is run on is a batch of no images."""
    model, batches = lively_model(family, colour_order=colour_order), []
    model.network.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    sample(model, 2, method="cached")
    assert batches == [0]


@every_network
def test_no_number_is_read_back_while_a_row_is_drawn(family: str, colour_order: str) -> None:
    """What a GPU's graph could not capture: reads by the host, shapes that depend on data, copies between devices."""

    called = set[str]()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    model = lively_model(family, "logistic_mixture", colour_order=colour_order, conditioning="map")
    noise = model.noise(torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    with torch.inference_mode():
        rows = RowSampler(model, SampleRequest(noise, features(model, torch.tensor([0, 1]))))
        rows.draw(0)
        with Watch():
            rows.draw(0)
    assert "addmm" in called
    assert not called & {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero"}


@every_network
def test_memory_does_not_grow_with_the_height(family: str, colour_order: str) -> None:
    nbytes, label_B = [], torch.tensor([0, 1])
    for height in (4, 16):
        model = lively_model(family, shape=(3, height, 8), colour_order=colour_order)
        with torch.inference_mode():
            nbytes.append(ModelStepper(model, 2, features(model, label_B)).nbytes)
    assert 0 < nbytes[0] == nbytes[1]


@every_kind
def test_iterations_settle_a_call_of_the_order_each(family: str, likelihood: str, colour_order: str) -> None:
    model = lively_model(family, likelihood, shape=(3, 4, 4), colour_order=colour_order)
    generator, order = torch.Generator().manual_seed(3), model.order()
    with torch.inference_mode():
        noise, s = torch.cat([model.noise(generator) for _ in range(3)]), features(model, torch.tensor([0, 1, 2]))
        drawing = SampleRequest(noise, s)
        final = naive(model, drawing)
        seen = [x_BCHW.clone() for x_BCHW in iterates(model, drawing)]
    assert len(seen) <= order.max() + 2
    assert torch.equal(seen[-1], final)
    for passes, x_BCHW in enumerate(seen, start=1):
        assert torch.equal(x_BCHW[:, order < passes], final[:, order < passes])


# --- Networks that cannot be stepped through --------------------------------------------------------------------------


class Leaky(nn.Module):
    """Sees its own pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, kernel_size=1)

    def forward(self, x: Tensor, _s: Tensor | None = None) -> Tensor:
        return self.conv(x)


class Pooled(Leaky):
    """Mixes all pixels."""

    def forward(self, x: Tensor, _s: Tensor | None = None) -> Tensor:
        return self.conv(x) + x.mean()


class Below(Leaky):
    """Sees the row below."""

    def forward(self, x: Tensor, _s: Tensor | None = None) -> Tensor:
        return self.conv(nn.functional.pad(x, (0, 0, -1, 1)))


class Shrunk(Leaky):
    """Returns fewer columns than it is given."""

    def forward(self, x: Tensor, _s: Tensor | None = None) -> Tensor:
        return self.conv(nn.functional.pad(x, (0, -1, 1, -1)))


class Shifted(Leaky):
    """Picks rows by a list: each but the first is the one above."""

    def forward(self, x: Tensor, _s: Tensor | None = None) -> Tensor:
        return self.conv(x)[:, :, [0, 0, 1, 2]]


class InPlace(Leaky):
    """Changes a tensor that it goes on using."""

    def forward(self, x: Tensor, _s: Tensor | None = None) -> Tensor:
        h = self.conv(nn.functional.pad(x, (0, 0, 1, -1)))
        h.add_(h)
        return h


class Rebound(InPlace):
    """The same with an operator."""

    def forward(self, x: Tensor, _s: Tensor | None = None) -> Tensor:
        h = self.conv(nn.functional.pad(x, (0, 0, 1, -1)))
        h *= 2
        return h


class Weighted(Leaky):
    """A plain tensor as wide as there are features, but along the columns."""

    def forward(self, x: Tensor, _s: Tensor | None = None) -> Tensor:
        h = torch.cat([self.conv(nn.functional.pad(x, (0, 0, 1, -1)))] * 2, dim=1)
        return h * torch.arange(4.0)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Shifted, "cannot step through `getitem`"),
        (InPlace, "cannot step through `add`"),
        (Rebound, "cannot step through `mul`"),
        (Weighted, "cannot step through `mul`"),
        (Leaky, "needs windows on earlier pixels"),
        (Pooled, "cannot step through `mean`"),
        (Below, "needs windows on earlier pixels"),
        (Shrunk, "cannot step through `conv2d`"),
    ],
)
def test_what_cannot_be_stepped_through_is_refused(network: type[nn.Module], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        Stepper(network(), torch.zeros(1, 1, 4, 4))
    assert 'method="naive"' in str(error.value)


class Modulated(nn.Module):
    """A label scales features of half the resolution, known before or after them in the product."""

    def __init__(self, *, label_first: bool) -> None:
        super().__init__()
        self.label_first = label_first
        self.down = nn.Conv2d(2, 6, kernel_size=2, stride=2)
        self.above = nn.Conv2d(6, 6, kernel_size=(1, 3), padding=(0, 1))
        self.up = nn.ConvTranspose2d(6, 5, kernel_size=2, stride=2)
        self.told = nn.Conv2d(3, 6, kernel_size=1)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        gate = self.told(s).sigmoid()
        u = self.down(nn.functional.pad(x, (0, 0, 2, -2)))
        return self.up(self.above(gate * u if self.label_first else u * gate))


@pytest.mark.parametrize("label_first", [True, False])
def test_a_label_that_scales_features_of_another_resolution_is_refused(label_first: bool) -> None:
    network = Modulated(label_first=label_first)
    with pytest.raises(ConfigError, match="cannot step through `mul`"):
        Stepper(network, torch.zeros(2, 2, 4, 8), torch.zeros(2, 3, 1, 1))


def test_cached_sampling_needs_no_gradient_switched_off() -> None:
    model = lively_model("gated")
    noise = model.noise(torch.Generator().manual_seed(0))
    assert torch.equal(cached(model.double(), SampleRequest(noise)), naive(model.double(), SampleRequest(noise)))


def test_dropout_in_training_is_refused() -> None:
    model = lively_model("gated", dropout=0.5).train()
    with pytest.raises(ConfigError, match="cannot step through"):
        cached(model, SampleRequest(model.noise(torch.Generator())))
