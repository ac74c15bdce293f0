"""Blocks that compute their layers again, or are compiled, give the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from pixeltune.models import DensityModel
from pixeltune.models.blocks import LayerBlock, compile_blocks, recompute_blocks
from pixeltune.sampling import sample
from tests.support.model_kinds import every_network
from tests.support.tiny_models import random_levels, tiny_model


def network_of(family: str, colour_order: str, **model: object) -> DensityModel:
    told = {"colour_order": colour_order} if family.partition("/")[0] != "pixelcnnpp" else {}
    return tiny_model(family, "logistic_mixture", shape=(3, 8, 8), levels=4, **told, **model).train()


def losses_and_gradients(model: DensityModel) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(5)
    nats_B = model.loss(random_levels(model, 3))
    gradients = torch.autograd.grad(nats_B.mean(), list(model.parameters()), materialize_grads=True)
    return nats_B.detach(), list(gradients)


def saved_bytes(model: DensityModel) -> int:
    """Of all that the graph of the loss keeps for its gradient, weights apart; each storage once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, tuple[torch.Tensor, int]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.loss(random_levels(model, 3))
    return sum(size for _tensor, size in saved.values())


@every_network
def test_losses_and_gradients_are_the_same_dropout_included(family: str, colour_order: str) -> None:
    model = network_of(family, colour_order, dropout=0.5)
    nats_B, gradients = losses_and_gradients(model)
    recompute_blocks(model)
    again_B, again = losses_and_gradients(model)
    assert torch.equal(nats_B, again_B)
    assert all(torch.equal(one, other) for one, other in zip(gradients, again, strict=True))


@every_network
def test_a_deep_network_keeps_about_half(family: str, colour_order: str) -> None:
    """But for the simple variant, whose convolutions are its blocks: ReLU and dropout lie between them."""
    model = network_of(family, colour_order, layers=12, channels=24, head_channels=0, dropout=0.5)
    before = saved_bytes(model)
    recompute_blocks(model)
    assert (1.2 if family == "pixelcnn/simple" else 1.8) * saved_bytes(model) < before


@pytest.mark.parametrize("family", ["gated", "pixelcnn", "pixelcnnpp"])
def test_only_training_computes_again(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network_of(family, "likelihood").eval()
    images = sample(model, 2, seed=3, method="cached")
    recompute_blocks(model)
    monkeypatch.setattr("pixeltune.models.blocks.checkpoint", None)
    model.loss(random_levels(model, 2)).mean().backward()
    assert torch.equal(sample(model, 2, seed=3, method="cached"), images)
    with torch.no_grad():
        model.train().loss(random_levels(model, 2))
    with pytest.raises(TypeError):
        model.loss(random_levels(model, 2))


class Counted:
    """Stands in for torch.compile: runs what it is given, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, run: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def counted(*inputs: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return run(*inputs)

        return counted


@every_network
def test_training_alone_runs_compiled_blocks(family: str, colour_order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, counted = network_of(family, colour_order), Counted()
    monkeypatch.setattr(torch, "compile", counted)
    compile_blocks(model)
    blocks = sum(module.compiled is not None for module in model.modules() if isinstance(module, LayerBlock))
    model.eval().loss(random_levels(model, 2))
    with torch.no_grad():
        model.train().loss(random_levels(model, 2))
    assert counted.calls == 0
    model.loss(random_levels(model, 2)).mean().backward()
    assert counted.calls >= blocks > 2, "each block, and the likelihood"
    once = counted.calls
    recompute_blocks(model)
    model.loss(random_levels(model, 2)).mean().backward()
    assert counted.calls > 2 * once, "forward, and again for the gradient"


@pytest.mark.slow
@pytest.mark.parametrize("recomputes", [False, True])
def test_compiled_blocks_have_the_gradients_of_the_others(recomputes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated as for any compiler, of which none then writes code, for that takes minutes.

    Without dropout, whose draws differ.
    """
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    model = network_of("pixelcnnpp", "likelihood")
    nats_B, gradients = losses_and_gradients(model)
    if recomputes:
        recompute_blocks(model)
    compile_blocks(model)
    torch._dynamo.utils.counters.clear()
    again_B, again = losses_and_gradients(model)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 1
    assert not torch._dynamo.utils.counters["graph_break"]
    torch.testing.assert_close(again_B, nats_B, rtol=1e-5, atol=0)
    for one, other in zip(gradients, again, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5)
