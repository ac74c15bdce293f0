"""The recipes of docs/recipes: each builds, says what was published, and trains as the published optimiser steps."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pixeltune.config import OptimConfig, TrialConfig
from pixeltune.data import SOURCES, outline_of
from pixeltune.models import build_model
from pixeltune.training.optim import build_optimizer, learning_rate

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.toml"))
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")

BATCH, DIMS = 128, 3 * 32 * 32

every_recipe = pytest.mark.parametrize("name", RECIPES)


def _load_benchmark() -> ModuleType:
    path = ROOT / "benchmarks" / "recipe_flops.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


recipe_flops = _load_benchmark()


def recipe(name: str) -> TrialConfig:
    return TrialConfig.from_toml(FOLDER / f"{name}.toml")


def num_parameters(name: str) -> int:
    """Built without memory, and faster than on the meta device, where drawing weights imports a compiler."""
    config = recipe(name)
    with FakeTensorMode():
        return build_model(config, outline_of(config.data).form).num_parameters()


@every_recipe
def test_a_recipe_is_a_model_of_its_data(name: str) -> None:
    config = recipe(name)
    config.likelihood.require_form(outline_of(config.data).form)
    assert num_parameters(name) > 0
    assert config.data.path is None, "a recipe must not name a folder of one machine"


@every_recipe
def test_a_recipe_leaves_nothing_to_a_default_that_may_change(name: str) -> None:
    config = recipe(name)
    published = SOURCES[config.data.name].published
    assert published is not None
    assert (config.data.num_valid is None) == (published.num_valid is not None)
    assert config.train.report_every is not None
    assert config.train.precision == "float32"


@every_recipe
def test_the_page_has_a_row_and_a_cost_for_each_recipe(name: str) -> None:
    lines = [line for line in PAGE.splitlines() if f"(recipes/{name}.toml)" in line]
    assert len(lines) == 2, "one row for what was published, one for the cost"


def test_the_page_names_no_recipe_that_is_not_there() -> None:
    assert sorted(set(re.findall(r"\(recipes/(\w+)\.toml\)", PAGE))) == RECIPES


@pytest.mark.slow
@every_recipe
def test_the_costs_on_the_page_are_what_the_benchmark_prints(name: str) -> None:
    assert recipe_flops.cost_of(FOLDER / f"{name}.toml").row in PAGE.splitlines()


@pytest.mark.parametrize("name", ["pixelcnn_mnist_dynamic", "gated_mnist_static"])
def test_the_flops_of_small_networks_on_the_page_are_what_the_benchmark_prints(name: str) -> None:
    counted, _, _, _ = recipe_flops.cost_of(FOLDER / f"{name}.toml").row.rsplit("|", 3)  # the hours depend on torch
    assert any(line.startswith(counted) for line in PAGE.splitlines())


def test_flops_are_those_of_the_convolutions_by_hand(tmp_path: Path) -> None:
    text = (FOLDER / "pixelcnn_mnist_dynamic.toml").read_text(encoding="utf-8")
    small = re.sub(r"(?m)^layers = \d+", "layers = 1", text)
    one = recipe_flops.cost_of(_written(tmp_path / "one.toml", small))
    two = recipe_flops.cost_of(_written(tmp_path / "two.toml", small.replace("layers = 1", "layers = 2")))
    # A block has two 1×1 convolutions between 32 and 16 features, and a 3×3 one: 3 pixels above and 2 in the own row.
    weights = 2 * 32 * 16 + 16 * 16 * (3 + 2)
    assert two.flops - one.flops == 3 * 2 * weights * 28 * 28  # forward, and twice that backward


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "parameters"), [("pixelcnnpp_cifar10", 53_659_080), ("pixelcnnpp_cifar10_192", 77_244_104)]
)
def test_pixelcnnpp_is_the_published_one(name: str, parameters: int) -> None:
    flat = recipe(name).flat()
    assert num_parameters(name) == parameters
    assert flat["model.dropout"] == 0.5
    assert flat["likelihood.mixtures"] == 10
    assert flat["train.batch_size"] == BATCH
    assert (flat["optim.beta1"], flat["optim.beta2"], flat["optim.weight_decay"]) == (0.95, 0.9995, 0.0)
    assert flat["optim.ema"] == 0.9995
    assert flat["optim.clip"] is None
    assert flat["optim.eps"] == pytest.approx(math.sqrt(1e-8) / BATCH, rel=1e-12)


@pytest.mark.parametrize("step", [0, 1, 389_999])
def test_pixelcnnpp_decays_its_rate_before_each_step(step: int) -> None:
    config = recipe("pixelcnnpp_cifar10")
    assert learning_rate(config.optim, config.train, step) == pytest.approx(1e-3 * 0.999995 ** (step + 1), rel=1e-9)


def test_the_others_of_pixelcnnpp_train_as_it_does() -> None:
    told = recipe("pixelcnnpp_cifar10")
    for name in RECIPES:
        if name.startswith("pixelcnnpp_") and name.rpartition("_")[2] not in ("flax", "pytorch"):
            config = recipe(name)
            assert (config.data, config.optim, config.train) == (told.data, told.optim, told.train), name


def test_eps_of_the_reimplementations_is_that_of_their_losses() -> None:
    assert recipe("pixelcnnpp_cifar10_flax").optim.eps == pytest.approx(1e-8 * DIMS * math.log(2), rel=1e-12)
    assert recipe("pixelcnnpp_cifar10_pytorch").optim.eps == pytest.approx(1e-8 / 64, rel=1e-12)


def trained(optim: OptimConfig, loss: Callable[[Tensor], Tensor], steps: int = 20) -> Tensor:
    """Weights after some steps of a small regression, in float64. loss: of the nats (B,) of a batch."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(5, 1).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    optimizer = build_optimizer(optim, model)
    for _ in range(steps):
        x_BF = torch.randn(BATCH, 5, generator=generator, dtype=torch.float64) * 1e-3
        y_B = torch.randn(BATCH, generator=generator, dtype=torch.float64) * 1e-3
        optimizer.zero_grad()
        loss((model(x_BF)[:, 0] - y_B).square()).backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


BITS_PER_DIM = 1 / (DIMS * math.log(2))


@pytest.mark.parametrize(
    ("scale", "scaled_loss"),
    [(BATCH, lambda nats_B: nats_B.sum()), (BITS_PER_DIM, lambda nats_B: nats_B.mean() * BITS_PER_DIM)],
    ids=["sum", "bits/dim"],
)
def test_adam_on_a_scaled_loss_is_adam_on_the_mean_with_scaled_eps(
    scale: float, scaled_loss: Callable[[Tensor], Tensor]
) -> None:
    # An ε as large as the gradients, so that it decides the steps.
    published: dict[str, Any] = {"lr": 1e-2, "beta1": 0.95, "beta2": 0.9995}
    theirs = trained(OptimConfig(**published, eps=1e-3), scaled_loss)
    ours = trained(OptimConfig(**published, eps=1e-3 / scale), lambda nats_B: nats_B.mean())
    unscaled = trained(OptimConfig(**published, eps=1e-3), lambda nats_B: nats_B.mean())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert (unscaled - theirs).abs().max() > 1e-3, "the test must be able to tell"


def test_eps_inside_the_root_is_met_in_both_limits_and_nearly_between() -> None:
    """One step of the recipe on mean gradients, against the reference's Adam on their sums."""
    optim = recipe("pixelcnnpp_cifar10").optim
    summed_G = torch.logspace(-8, 4, 121, dtype=torch.float64)
    model = nn.Linear(121, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    model.weight.grad = (summed_G / BATCH)[None]
    build_optimizer(optim, model).step()
    steps_G = -model.weight.detach()[0] / optim.lr
    reference_G = summed_G / (summed_G.square() + 1e-8).sqrt()
    ratio_G = steps_G / reference_G
    assert ratio_G[0] == pytest.approx(1, abs=1e-3)
    assert ratio_G[-1] == pytest.approx(1, abs=1e-6)
    assert ratio_G.max() <= 1 + 1e-9
    assert ratio_G.min() == pytest.approx(math.sqrt(0.5), abs=1e-3)
    assert summed_G[ratio_G.argmin()] == pytest.approx(1e-4, rel=1e-6)
