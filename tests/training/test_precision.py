"""bfloat16 and another layout only where they pay, and never in the number of record."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pixeltune.training import precision
from pixeltune.training.checkpoint import TrainState
from pixeltune.training.loop import fit
from pixeltune.training.precision import Numerics
from tests.support.tiny_trainings import tiny

DEFAULT = Numerics("float32", "channels_first")


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the network were large and the machine had bfloat16."""
    monkeypatch.setattr(precision, "_WORTH_PROBING", 0.0)
    monkeypatch.setattr(precision, "_has_fast_bfloat16", lambda _device: True)


def time_as(monkeypatch: pytest.MonkeyPatch, *, bfloat16: float = 1.0, channels_last: float = 1.0) -> None:
    """Probes that take 1 s by default, divided by these."""

    def probe(choice: Numerics, *_: Any) -> float:
        faster = (bfloat16 if choice.precision == "bfloat16" else 1) * (
            channels_last if choice.layout == "channels_last" else 1
        )
        return 1 / faster

    monkeypatch.setattr(precision, "_probe", probe)


@pytest.mark.usefixtures("probed")
def test_auto_takes_float32_without_hardware_for_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    time_as(monkeypatch, bfloat16=2, channels_last=2)
    monkeypatch.setattr(precision, "_has_fast_bfloat16", lambda _device: False)
    assert fit(tiny(), device="cpu").numerics == Numerics("float32", "channels_last")


@pytest.mark.usefixtures("probed")
@pytest.mark.parametrize(("speedup", "chosen"), [(2.0, "bfloat16"), (1.0, "float32"), (0.5, "float32")])
def test_auto_follows_the_probe(monkeypatch: pytest.MonkeyPatch, speedup: float, chosen: str) -> None:
    time_as(monkeypatch, bfloat16=speedup)
    assert fit(tiny(), device="cpu").numerics == Numerics(chosen, "channels_first")
    assert fit(tiny(train__precision="float32"), device="cpu").numerics == DEFAULT


@pytest.mark.usefixtures("probed")
@pytest.mark.parametrize(("speedup", "chosen"), [(2.0, "channels_last"), (1.05, "channels_first")])
def test_auto_follows_the_probe_of_the_layout(monkeypatch: pytest.MonkeyPatch, speedup: float, chosen: str) -> None:
    time_as(monkeypatch, channels_last=speedup)
    assert fit(tiny(), device="cpu").numerics.layout == chosen
    assert fit(tiny(train__layout="channels_first"), device="cpu").numerics == DEFAULT


def test_small_networks_are_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_has_fast_bfloat16", lambda _device: True)
    monkeypatch.setattr(precision, "_probe", lambda *_: pytest.fail("probed"))
    assert fit(tiny(), device="cpu").numerics == DEFAULT
    told = tiny(train__precision="bfloat16", train__layout="channels_last")
    assert fit(told, device="cpu").numerics == Numerics("bfloat16", "channels_last")


@pytest.mark.usefixtures("probed")
def test_the_probe_leaves_the_model_as_it_was() -> None:
    changes = {"model__family": "pixelcnn", "model__variant": "simple", "model__batch_norm": True}
    probed = fit(tiny(**changes), device="cpu").model
    plain = fit(tiny(train__precision="float32", train__layout="channels_first", **changes), device="cpu").model
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, probed.state_dict()[name]), name
    assert all(parameter.grad is None for parameter in probed.parameters())


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("family", ["gated", "pixelcnnpp", "pixelcnn"])
def test_a_layout_changes_numbers_by_their_rounding_alone(family: str) -> None:
    curves = [
        [report.valid_nats for report in fit(tiny(**layout_settings(family, layout)), device="cpu")]
        for layout in ("channels_first", "channels_last")
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-9)


def layout_settings(family: str, layout: str) -> dict[str, Any]:
    """With dropout, whose masks must not depend on the layout."""
    return {"model__family": family, "model__layers": 1, "model__dropout": 0.5, "train__layout": layout}


@pytest.mark.parametrize("family", ["gated", "pixelcnnpp", "pixelcnn"])
def test_features_are_laid_out_as_told_in_training_alone(family: str) -> None:
    training = fit(tiny(**layout_settings(family, "channels_last")), device="cpu")
    in_training: list[bool] = []
    for module in training.model.network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, _args, y: in_training.append(is_last(y) == module.training))
    next(training)
    assert in_training
    assert all(in_training)


def is_last(y: Tensor) -> bool:
    return y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()


@pytest.mark.usefixtures("probed")
def test_a_resumed_trial_keeps_what_was_chosen(monkeypatch: pytest.MonkeyPatch, state_path: str) -> None:
    time_as(monkeypatch, bfloat16=2, channels_last=2)
    training = fit(tiny(), device="cpu")
    next(training)
    training.state.save(state_path)
    monkeypatch.setattr(precision, "_probe", lambda *_: pytest.fail("probed again"))
    resumed = fit(tiny(), state=TrainState.load(state_path), device="cpu")
    assert resumed.numerics == training.numerics == Numerics("bfloat16", "channels_last")
    assert next(resumed).valid_nats == next(training).valid_nats


def test_bfloat16_training_comes_near_float32() -> None:
    values = [
        list(fit(tiny(train__precision=kind, train__images=640, train__report_every=640), device="cpu"))[-1]
        for kind in ("float32", "bfloat16")
    ]
    assert values[1].valid_bits_per_dim == pytest.approx(values[0].valid_bits_per_dim, abs=0.02)
    assert values[1].valid_bits_per_dim != values[0].valid_bits_per_dim
