"""Schedules are functions of the step; the average of the weights holds nothing of the first ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixeltune.training.optim import build_average, build_optimizer, learning_rate, load_optimizer
from tests.support.tiny_trainings import tiny


@pytest.mark.parametrize("decay", [0.5, 0.99, 0.9995])
def test_average_is_the_bias_corrected_one(decay: float) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    average = build_average(model, decay)
    plain = torch.zeros_like(model.weight)
    for step in range(1, 30):
        with torch.no_grad():
            model.weight.copy_(torch.randn_like(model.weight))
        average.update_parameters(model)
        plain = decay * plain + (1 - decay) * model.weight.detach()
        corrected = plain / (1 - decay**step)
        assert torch.allclose(average.module.weight, corrected, rtol=1e-9, atol=1e-12)


def test_average_follows_batch_norm_statistics() -> None:
    model = nn.BatchNorm1d(3)
    average = build_average(model, 0.9)
    model(torch.randn(8, 3))
    average.update_parameters(model)
    assert torch.equal(average.module.running_mean, model.running_mean)


def test_schedules() -> None:
    def rates(**changes: object) -> list[float]:
        config = tiny(train__images=320, optim__lr=0.1, **changes)
        return [learning_rate(config.optim, config.train, step) for step in range(10)]

    assert rates() == [0.1] * 10
    assert rates(optim__schedule="exponential", optim__decay=0.5) == pytest.approx([0.1 * 0.5**n for n in range(10)])
    cosine = rates(optim__schedule="cosine")
    assert cosine[0] == pytest.approx(0.1)
    assert cosine[5] == pytest.approx(0.05)
    assert 0 < cosine[9] < 0.01
    assert cosine == sorted(cosine, reverse=True)
    warm = rates(optim__schedule="cosine", optim__warmup=0.4)
    assert warm[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert warm[4:] == sorted(warm[4:], reverse=True)
    assert warm[-1] > 0


def test_weight_decay_is_decoupled() -> None:
    model = nn.Linear(2, 2)
    assert isinstance(build_optimizer(tiny().optim, model), torch.optim.Adam)
    assert not isinstance(build_optimizer(tiny().optim, model), torch.optim.AdamW)
    assert isinstance(build_optimizer(tiny(optim__weight_decay=0.1).optim, model), torch.optim.AdamW)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("saved_by", ["fused", "foreach"])
def test_a_state_of_either_implementation_goes_on(saved_by: str, weight_decay: float) -> None:
    """Checkpoints from before the fused kernel go on with it, as the other implementation would, to rounding."""

    def build(implementation: str) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2).double()
        optimizer = build_optimizer(tiny(optim__weight_decay=weight_decay).optim, model)
        optimizer.param_groups[0].update({"fused": None, "foreach": None} | {implementation: True})
        return model, optimizer

    def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for index in range(3):
            optimizer.zero_grad()
            model(torch.full((4, 3), index + 1.0, dtype=torch.float64)).square().sum().backward()
            optimizer.step()

    model, saved = build(saved_by)
    take_steps(model, saved)
    resumed, optimizer = build("fused")
    resumed.load_state_dict(model.state_dict())
    load_optimizer(optimizer, saved.state_dict())
    assert optimizer.param_groups[0]["fused"]
    take_steps(resumed, optimizer)

    plain, foreach = build("foreach")
    take_steps(plain, foreach)
    take_steps(plain, foreach)
    torch.testing.assert_close(resumed.weight, plain.weight)
