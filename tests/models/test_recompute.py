"""Blocks that compute their layers again give the same gradients, for less memory."""

from __future__ import annotations

import pytest
import torch
from kinds import every_network
from tiny import random_levels, tiny_model

from pixeltune.models import DensityModel
from pixeltune.models.recompute import recompute_blocks
from pixeltune.sampling import sample


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
    recompute_blocks(model.network)
    again_B, again = losses_and_gradients(model)
    assert torch.equal(nats_B, again_B)
    assert all(torch.equal(one, other) for one, other in zip(gradients, again, strict=True))


@every_network
def test_a_deep_network_keeps_about_half(family: str, colour_order: str) -> None:
    """But for the simple variant, whose convolutions are its blocks: ReLU and dropout lie between them."""
    model = network_of(family, colour_order, layers=12, channels=24, head_channels=0, dropout=0.5)
    before = saved_bytes(model)
    recompute_blocks(model.network)
    assert (1.2 if family == "pixelcnn/simple" else 1.8) * saved_bytes(model) < before


@pytest.mark.parametrize("family", ["gated", "pixelcnn", "pixelcnnpp"])
def test_only_training_computes_again(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network_of(family, "likelihood").eval()
    images = sample(model, 2, seed=3, method="cached")
    recompute_blocks(model.network)
    monkeypatch.setattr("pixeltune.models.recompute.checkpoint", None)
    model.loss(random_levels(model, 2)).mean().backward()
    assert torch.equal(sample(model, 2, seed=3, method="cached"), images)
    with torch.no_grad():
        model.train().loss(random_levels(model, 2))
    with pytest.raises(TypeError):
        model.loss(random_levels(model, 2))
